"""Running a rewritten program beside the original: the same numbers? how much faster?

``prepare`` and ``run`` are what ``lowering.worker`` calls (``worker.run.Continuation``);
what came of it goes to ``RESULT`` in the folder of the options. Where results differ, the
first operation that both programs have and that differs is looked for: by compiling them
again with values from inside as results, at most ``WIDTH`` at a time.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from hlo_lab.errors import HloLabError, ProgramError
from hlo_lab.lowering.worker.executable import Executable
from hlo_lab.lowering.worker.failure import first_line
from hlo_lab.lowering.worker.rewriting import Rewritten
from hlo_lab.measure.bisection import first_wrong
from hlo_lab.measure.inputs import is_key
from hlo_lab.measure.numbers import Agreement, compare_all
from hlo_lab.measure.paired import as_dict, time_pairs
from hlo_lab.measure.program import Program

RESULT = "rewrite.json"
WIDTH = 32  # values that are looked at in one compilation
Enter = Callable[[str], None]


@dataclass(frozen=True)
class Options:
    """What to do with the two programs.

    Attributes:
        folder: where the result goes.
        inputs: an ``.npz``, or None.
        seconds: about how long to time calls; 0 for not at all.
        cores: CPU cores to run on; 0 to leave that to the system.
    """

    folder: str
    inputs: str | None = None
    seconds: float = 0.0
    cores: int = 0

    def request(self) -> dict[str, Any]:
        """As a request of the worker."""
        return {"module": __name__, **asdict(self)}

    @classmethod
    def of(cls, request: dict[str, Any]) -> Options:
        return cls(**{name: request[name] for name in cls.__dataclass_fields__})


def prepare(request: dict[str, Any]) -> None:
    """Pin the process before JAX looks how many threads to make."""
    cores = Options.of(request).cores
    if cores and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-cores:])


def run(request: dict[str, Any], executable: Executable, enter: Enter) -> dict[str, Any]:
    """Compare numbers, and times where they are asked for.

    Raises:
        InputError: the file of inputs does not fit.
        ProgramError: a program failed while it ran.
    """
    from hlo_lab.measure.devices import describe

    options = Options.of(request)
    rewriting = executable.rewriting
    assert rewriting is not None
    try:
        result = _compare(rewriting, executable, options, enter)
    except HloLabError:
        raise
    except Exception as error:
        what = f"{type(error).__name__}: {first_line(str(error))}"
        raise ProgramError(f"the program failed while running: {what}") from error
    result["device"] = describe(executable.devices)
    Path(options.folder, RESULT).write_text(json.dumps(result))
    return {}


def _compare(
    rewriting: Rewritten, executable: Executable, options: Options, enter: Enter
) -> dict[str, Any]:
    enter("compile the original")
    folder = Path(options.folder, "original")
    folder.mkdir(parents=True)
    assert rewriting.compile_original is not None
    original = rewriting.compile_original(folder)
    enter("inputs")
    # by what the original does with them: a rewrite may hide that an index is out of bounds
    before = Program.of(original, Path(options.inputs) if options.inputs is not None else None)
    after = Program(executable, before.inputs, [])
    enter("compare")
    outputs = compare_programs(before, after, rewriting.tolerance)
    first = None
    wrong = [at for at, each in enumerate(outputs) if not each.agrees]
    if wrong:
        enter("look for the first operation that differs")
        first = first_difference(rewriting, before, wrong)
    paired = None
    if options.seconds and not wrong:
        enter("time")
        paired = time_pairs(before, after, options.seconds)
    return {
        "outputs": [each.to_dict() for each in outputs],
        "first_difference": first,
        "time": as_dict(paired),
        "notes": before.notes,
    }


def compare_programs(
    before: Program, after: Program, tolerance: float | None = None
) -> list[Agreement]:
    """Call both once, with the same inputs."""
    expected = [as_array(each) for each in before.call(before.fresh())]
    return compare_all(expected, [as_array(each) for each in after.call(after.fresh())], tolerance)


def first_difference(
    rewriting: Rewritten, before: Program, wrong: Sequence[int]
) -> dict[str, Any] | None:
    """The first value of main that the rewritten program has otherwise, and how it differs.

    Args:
        wrong: numbers of the results that differ.

    Returns:
        None where none of those results is a value that both programs have.
    """
    sources, results = rewriting.sources(), rewriting.results()
    start = next((results[at] for at in wrong if results[at] is not None), None)
    if start is None:
        return None
    known: dict[int, Agreement] = {}

    def differ(numbers: Sequence[int]) -> list[bool]:
        asked = [number for number in numbers if number not in known]
        for at in range(0, len(asked), WIDTH):
            some = asked[at : at + WIDTH]
            known.update(zip(some, _probe(rewriting, before, some), strict=True))
        return [not known[number].agrees for number in numbers]

    found = first_wrong(start, sources, differ)
    differ([found])
    return {**rewriting.place(found), **known[found].to_dict()}


def _probe(rewriting: Rewritten, before: Program, numbers: Sequence[int]) -> list[Agreement]:
    values = [
        _data(value)
        for value, argument in zip(before.inputs, before.executable.arguments, strict=True)
        if argument.parameter is not None
    ]
    sides = []
    for probe in rewriting.probes(numbers):
        arguments = tuple(replace(each, donated=False) for each in probe.arguments)
        results = Program(replace(probe, arguments=arguments), values, []).call(values)
        sides.append([as_array(each) for each in results])
    # several devices give several parts of each value
    parts = len(sides[0]) // len(numbers)
    agreements = compare_all(sides[0], sides[1], rewriting.tolerance)
    return [
        min(agreements[at * parts : (at + 1) * parts], key=lambda each: each.agrees)
        for at in range(len(numbers))
    ]


def _data(value: Any) -> Any:
    """Keys as the numbers behind them."""
    import jax

    return jax.random.key_data(value) if is_key(value.dtype) else value


def as_array(value: Any) -> Any:
    """An array of JAX's as one of numpy's; keys as the numbers behind them."""
    import numpy as np

    return np.asarray(_data(value))
