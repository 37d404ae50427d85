"""Rewrite passes applied to a program: is it right, and is it faster?"""

from __future__ import annotations

import enum
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hlo_lab.api.rewrite_work import Work
from hlo_lab.api.source import (
    DEFAULT_TARGET,
    TIME_LIMIT,
    Options,
    compile_cached,
    last_module,
    open_bundle,
)
from hlo_lab.errors import InputError, UseError

if TYPE_CHECKING:
    from hlo_lab.api.diff import Comparison
    from hlo_lab.cost.judge import TimeChange, Times
    from hlo_lab.lowering.bundle import Bundle
    from hlo_lab.passkit.rewriting import PassSpec
    from hlo_lab.report.document import Report

SCHEMA = "hlo-lab/rewrite"
SCHEMA_VERSION = 2
DEFAULT_SECONDS = 3.0
NOTHING = 0.01  # of the time: less is no effect
LIMIT = 5  # changes of the diff in a report

Progress = Callable[[str], None]


class Verdict(enum.StrEnum):
    """What a rewrite is worth."""

    FASTER = "faster"
    SLOWER = "slower"
    NO_EFFECT = "no effect"
    UNDECIDED = "undecided"
    WRONG = "wrong"


class Basis(enum.StrEnum):
    """What a verdict rests on."""

    NUMBERS = "numbers"  # the results differ
    STRUCTURE = "structure"  # what runs is the same
    MEASURED = "measured"
    COMPILER = "compiler"  # its cycles, and our model where it gives none
    MODEL = "model"


@dataclass(frozen=True)
class Applied:
    """A pass with its options, and how often it replaced something."""

    code: str
    name: str
    options: Mapping[str, Any]
    changes: int


@dataclass(eq=False)
class Rewrite:
    """A program before and after passes.

    Attributes:
        program, target: what was rewritten and compiled.
        passes: what was applied, in order.
        ops: StableHLO operations by name ``before`` and ``after``, calls inlined.
        comparison: the optimised modules compared; its deltas are the figures.
        stablehlo: the rewritten module as text, with source locations.
        times: estimated seconds of a call, before and after.
        results: names of the program's results.
        run: what the numbers and times are, as ``measure.rewriting`` writes them, and the
            ``target`` that they are of; None where the programs were not run.
        notes: what the user should know before believing the rest.
    """

    program: str
    target: str
    passes: Sequence[Applied]
    ops: Mapping[str, Mapping[str, int]]
    comparison: Comparison
    stablehlo: str
    times: tuple[Times, Times]
    results: Sequence[str]
    run: Mapping[str, Any] | None
    notes: list[str] = field(default_factory=list)

    @property
    def changes(self) -> int:
        """How often the passes replaced something."""
        return sum(each.changes for each in self.passes)

    @property
    def agrees(self) -> bool | None:
        """Whether every result is what it was; None where nothing was run."""
        if self.run is None:
            return None
        return all(each["agrees"] for each in self.run["outputs"])

    @property
    def verdict(self) -> Verdict:
        return self._judged[0]

    @property
    def basis(self) -> Basis:
        """What the verdict rests on."""
        return self._judged[1]

    @property
    def exit_code(self) -> int:
        """1 where the numbers are wrong."""
        return int(self.verdict is Verdict.WRONG)

    @property
    def _judged(self) -> tuple[Verdict, Basis]:
        from hlo_lab.cost.judge import Direction
        from hlo_lab.diff import Verdict as Change

        if self.agrees is False:
            return Verdict.WRONG, Basis.NUMBERS
        memory = self.comparison.result.deltas["peak_bytes"]
        if not self.changes:
            return Verdict.NO_EFFECT, Basis.STRUCTURE
        same = self.comparison.verdict in (Change.IDENTICAL, Change.EQUIVALENT)
        if same and memory["before"] == memory["after"]:  # else another schedule
            return Verdict.NO_EFFECT, Basis.STRUCTURE
        change = self.change
        verdict = {
            Direction.FASTER: Verdict.FASTER,
            Direction.SLOWER: Verdict.SLOWER,
            Direction.SAME: Verdict.NO_EFFECT,
            Direction.UNDECIDED: Verdict.UNDECIDED,
        }[change.direction(NOTHING)]
        return verdict, Basis(change.basis)

    @property
    def change(self) -> TimeChange:
        """Seconds of a call before and after: measured, where they were, else estimated."""
        from hlo_lab.cost.judge import time_change

        return time_change(*self.times, None if self.run is None else self.run["time"])

    def to_dict(self) -> dict[str, Any]:
        """The document of ``--format json``; ``docs/json.md`` says what each field means."""
        return {
            "schema": SCHEMA,
            "schema_version": SCHEMA_VERSION,
            "program": self.program,
            "target": self.target,
            "passes": [{**vars(each), "options": dict(each.options)} for each in self.passes],
            "verdict": str(self.verdict),
            "basis": str(self.basis),
            "seconds": {
                "before": self.change.before,
                "after": self.change.after,
                "low": self.change.low,
                "high": self.change.high,
            },
            "ops": {side: dict(sorted(counts.items())) for side, counts in self.ops.items()},
            "numbers": self._numbers(),
            "time": None if self.run is None else self.run["time"],
            "diff": self.comparison.to_dict(),
            "notes": self.notes,
        }

    def _numbers(self) -> dict[str, Any] | None:
        if self.run is None:
            return None
        return {
            "agrees": self.agrees,
            "target": self.run["target"],
            "device": self.run["device"],
            "outputs": [
                {"path": path, **each}
                for path, each in zip(self.results, self.run["outputs"], strict=True)
            ],
            "first_difference": self.run["first_difference"],
        }

    def to_report(self) -> Report:
        """The document of ``--format text`` and ``md``."""
        from hlo_lab.api.rewrite_report import report

        return report(self)


def rewrite(
    passes: str | Sequence[str],
    program: str,
    *,
    target: str | None = None,
    at: str | None = None,
    args: str | None = None,
    mesh: str | None = None,
    xla_flags: Sequence[str] = (),
    python: str | None = None,
    inputs: str | Path | None = None,
    measure: bool = False,
    seconds: float = DEFAULT_SECONDS,
    cores: int = 1,
    passes_dirs: Sequence[str | Path] = (),
    time_limit: float = TIME_LIMIT,
    progress: Progress = lambda text: None,
) -> Rewrite:
    """Apply rewrite passes to a program, compile both, compare numbers and cost.

    Args:
        passes: ``NAME`` or ``NAME{option=value}``, one or several, applied in this order.
        program: ``path/file.py:name``, ``package.module:name``, a StableHLO file and others
            that are compiled, or a bundle, whose StableHLO is.
        target, args, mesh, xla_flags, python: as for ``load``. For an accelerator the
            numbers are those of as many CPU devices.
        at: ``FILE:LINE``, to rewrite nothing but what is from there.
        inputs: an ``.npz`` of arguments; others are the example's or random.
        measure: time both in turn, on this machine's CPU, for about ``seconds``.
        cores: CPU cores that they may use while they are timed; 0 for all.
        passes_dirs: folders of passes besides the bundled ones.
        time_limit: seconds that each compilation, with its run, may take.
        progress: told what is going on.

    Raises:
        UseError: no such pass or option, no operation at the place, or times asked for a device
            that is not here.
        InputError: a broken pass file, no such program, inputs that do not fit.
        PassError: a pass raised, or left a module that is not valid.
        ProgramError, CompilerError: a program or the compiler failed.
    """
    from hlo_lab.lowering.reference import ProgramReference
    from hlo_lab.lowering.target import Target
    from hlo_lab.passkit.discovery import discover
    from hlo_lab.passkit.place import Place
    from hlo_lab.passkit.rewriting import PassSpec
    from hlo_lab.passkit.selection import select_rewrites

    selections = [passes] if isinstance(passes, str) else list(passes)
    chosen = select_rewrites(selections, discover(passes_dirs))
    if not chosen:
        raise UseError("name a pass, such as: hlo-lab rewrite sort-to-top-k train.py:step")
    source, options = (
        program,
        Options(target or DEFAULT_TARGET, args, mesh, tuple(xla_flags), python),
    )
    if Path(program).is_dir() and not ProgramReference.is_program(program):
        source, options = _of_bundle(Path(program), target, options)
    wanted = Target.parse(options.target)
    options = replace(options, target=str(wanted))
    if measure and wanted.is_ahead_of_time:
        raise UseError(
            f"--measure runs programs, and no {wanted} is here: leave it out, or --target"
        )
    if seconds <= 0 or cores < 0:
        raise UseError("seconds are above 0, and cores 0 (all) or more")
    place = None if at is None else Place.parse(at)
    specs = [PassSpec.of(info, one, place) for info, one in chosen]
    work = Work(source, options, specs, inputs, time_limit, progress)
    before = compile_cached(source, options, time_limit, progress)
    with tempfile.TemporaryDirectory(prefix="hlo-lab-") as scratch:
        folder = Path(scratch)
        after, run, notes = work.apply(wanted, folder, seconds if measure else 0.0, cores)
        return _result(program, before, after, specs, run, notes, progress)


def _of_bundle(folder: Path, target: str | None, options: Options) -> tuple[str, Options]:
    """A bundle's StableHLO as the program, and its own target and flags to compile it with."""
    bundle = open_bundle(folder, target)
    if options.args is not None or options.mesh is not None:
        raise UseError(
            f"{folder}: a bundle has its own arguments and mesh: leave out --args and --mesh, or "
            f"name the program that it was made of"
        )
    if "stablehlo" not in bundle.stages:
        raise InputError(f"{folder}: the bundle has no StableHLO to compile: name the program")
    given = bundle.manifest.get("xla_flags")
    own = [f"{name}={value}" for name, value in (given if isinstance(given, dict) else {}).items()]
    flags = (*own, *options.xla_flags)
    program = str(bundle.path_of("stablehlo"))
    return program, replace(options, target=bundle.target, xla_flags=flags)


def _result(
    program: str,
    before: Bundle,
    after: Bundle,
    specs: Sequence[PassSpec],
    run: dict[str, Any] | None,
    notes: list[str],
    progress: Progress,
) -> Rewrite:
    from hlo_lab.api.diff import diff

    progress("comparing")
    done = after.manifest["rewritten"]
    passes = [
        Applied(each["code"], each["name"], spec.options, each["changes"])
        for each, spec in zip(done["passes"], specs, strict=True)
    ]
    comparison = diff(before.path, after.path, limit=LIMIT)
    names = " and ".join(dict.fromkeys(each.name for each in passes))
    comparison = replace(comparison, before=program, after=f"{program} after {names}")
    idle = [each.name for each in passes if not each.changes]
    if idle:
        where = f" at {specs[0].place}" if specs[0].place is not None else ""
        notes.append(f"nothing to rewrite for {', '.join(dict.fromkeys(idle))}{where}")
    notes += list(run["notes"]) if run is not None else []
    paths = [each["path"] or "result" for each in after.manifest["results"]]
    count = len(run["outputs"]) if run is not None else len(paths)
    if len(paths) != count:
        paths = [f"[{number}]" for number in range(count)]
    return Rewrite(
        program=program,
        target=after.target,
        passes=passes,
        ops=done["ops"],
        comparison=comparison,
        stablehlo=after.text("stablehlo"),
        times=(_times(before), _times(after)),
        results=paths,
        run=run,
        notes=notes,
    )


def _times(bundle: Bundle) -> Times:
    from hlo_lab.cost.judge import Times
    from hlo_lab.cost.machines import for_target
    from hlo_lab.cost.model import cost

    module, _ = last_module(bundle)
    return Times.of(module, cost(module, for_target(bundle.target)))
