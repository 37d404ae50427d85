"""One program compiled for several targets, side by side."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hlo_lab.api.memory import available_bytes
from hlo_lab.api.source import TIME_LIMIT, Loaded, Options, compile_cached, last_module
from hlo_lab.errors import ExecutionError, HloLabError, UseError

if TYPE_CHECKING:
    from hlo_lab.api.analyze import Analysis
    from hlo_lab.lowering import Bundle
    from hlo_lab.report.document import Report

SCHEMA = "hlo-lab/compare"
SCHEMA_VERSION = 1
COMPILE_BYTES = 4 << 30  # of host memory that one compilation is given; a large one takes 3
FITS, OUT_OF_MEMORY, UNUSABLE, FAILED = "compiled", "out_of_memory", "unusable", "failed"
EXIT_CODES = {FITS: 0, OUT_OF_MEMORY: 1, UNUSABLE: 2, FAILED: 3}


@dataclass(eq=False)
class Side:
    """One target of a comparison.

    Attributes:
        target: as it was named.
        analysis: what the program costs there; None where nothing was compiled.
        error: why not.
    """

    target: str
    analysis: Analysis | None = None
    error: HloLabError | None = None

    @property
    def status(self) -> str:
        """``compiled``, ``out_of_memory`` (it misses the device's memory), ``unusable`` (this
        target or program cannot be compiled here) or ``failed`` (the compiler or the program).
        """
        if self.analysis is not None:
            return OUT_OF_MEMORY if self.missing_bytes else FITS
        return FAILED if isinstance(self.error, ExecutionError) else UNUSABLE

    @property
    def peak_bytes(self) -> int | None:
        """The compiler's figure where it has one, else the project's own."""
        if self.analysis is None:
            return None
        refused, own = self.analysis.out_of_memory, self.analysis.compiler_memory
        if refused is not None:
            return refused.needed_bytes
        return self.analysis.memory.peak_bytes if own is None else own["peak_bytes"]

    @property
    def capacity_bytes(self) -> int | None:
        """Memory of one device; what the compiler has left of it where it says so."""
        if self.analysis is None:
            return None
        refused = self.analysis.out_of_memory
        if refused is not None and refused.available_bytes is not None:
            return refused.available_bytes
        return self.analysis.machine.memory_bytes

    @property
    def missing_bytes(self) -> int:
        """By how much the program does not fit; 0 when it does. At least 1 where it is refused."""
        if self.analysis is None:
            return 0
        missing = (self.peak_bytes or 0) - (self.capacity_bytes or 0)
        return max(missing, int(self.analysis.out_of_memory is not None))

    @property
    def unfused(self) -> int | None:
        """Kernels that are one operation alone, and neither product, library call nor transfer."""
        if self.analysis is None:
            return None
        module, cost = self.analysis.module, self.analysis.cost
        others = ("fusion", "dot", "convolution", "custom-call", "send", "recv")
        joined = [name for name in module.opcodes if name in others or name.startswith(_TRANSFERS)]
        return int(np.count_nonzero(cost.top_level & ~module.opcode_mask(*joined)))

    def bounds(self) -> dict[str, float]:
        """Share of the estimated time by what limits it: compute, memory, network, overhead."""
        if self.analysis is None:
            return {}
        cost = self.analysis.cost
        spent = np.where(cost.top_level, cost.seconds * cost.executions, 0.0)
        total = float(spent.sum())
        sums = np.bincount(cost.bound_index, spent, minlength=len(_BOUNDS))
        shares = {name: float(sums[at]) / total if total else 0.0 for at, name in _BOUNDS.items()}
        return {name: shares[name] for name in ("compute", "memory", "network", "overhead")}

    @property
    def compile_seconds(self) -> float | None:
        """What the compiler took when the program was compiled, which may be long ago."""
        manifest = self._manifest.get("seconds")
        value = manifest.get("compile") if isinstance(manifest, dict) else None
        return float(value) if isinstance(value, int | float) else None

    @property
    def devices(self) -> int | None:
        value = self._manifest.get("devices")
        return value if isinstance(value, int) else None

    @property
    def _manifest(self) -> dict[str, Any]:
        bundle = None if self.analysis is None else self.analysis.loaded.bundle
        return {} if bundle is None else bundle.manifest


_TRANSFERS = (
    "all-", "collective-", "reduce-scatter", "ragged-all-to-all", "copy-start", "slice-start",
    "dynamic-slice-start", "dynamic-update-slice-start", "infeed", "outfeed",
)  # fmt: skip
_BOUNDS = {0: "overhead", 1: "compute", 2: "memory", 3: "network"}


@dataclass(eq=False)
class TargetComparison:
    """What ``compare`` found: a side per target, in the order given."""

    program: str
    sides: list[Side]
    notes: list[str] = field(default_factory=list)

    @property
    def exit_code(self) -> int:
        """0 when all compiled and fit; else the worst of 1 (does not fit), 2 and 3 (failed)."""
        return max(EXIT_CODES[side.status] for side in self.sides)

    def to_dict(self) -> dict[str, Any]:
        """The document of ``--format json``; ``docs/json.md`` says what each field means."""
        from hlo_lab.api.compare_report import document

        return document(self)

    def to_report(self) -> Report:
        """The document of ``--format text`` and ``md``."""
        from hlo_lab.api.compare_report import report

        return report(self)


def compare(
    program: str | Path,
    targets: Sequence[str],
    *,
    args: str | None = None,
    mesh: str | None = None,
    xla_flags: Sequence[str] = (),
    python: str | None = None,
    time_limit: float = TIME_LIMIT,
    progress: Callable[[str], None] = lambda text: None,
) -> TargetComparison:
    """Compile a program for each target, several at a time as memory allows, and compare.

    What was compiled before comes from the cache. A target that fails does not stop the
    others: its side says why.

    Args:
        program: ``file.py:name``, ``package.module:name`` or a StableHLO file.
        targets: ``tpu:v5e:2x2``, ``gpu:h100:8``, ``cpu`` and so on.
        args, mesh, xla_flags, python, time_limit, progress: as for ``load``.

    Raises:
        UseError: no target, or one that there is not.
        HloLabError: the program can be compiled for none of them, for the same reason.
    """
    from hlo_lab.lowering import Target

    if not targets:
        raise UseError("name targets to compare, such as --target tpu:v5e:2x2 --target gpu:h100")
    for target in targets:
        Target.parse(target)
    chosen = list(dict.fromkeys(targets))
    options = [Options(target, args, mesh, tuple(xla_flags), python) for target in chosen]
    sides = []
    for target, done in zip(
        chosen, _compile_all(str(program), options, time_limit, progress), strict=True
    ):
        if isinstance(done, HloLabError):
            sides.append(Side(target, error=done))
            continue
        progress(f"estimating {program} for {target}")
        sides.append(_side(str(program), target, done))
    _raise_the_common_error(sides)
    found = [(side.target, side.analysis) for side in sides if side.analysis is not None]
    notes = [
        f"{name}: {note}"
        for name, analysis in found
        for note in (*analysis.requested, *analysis.compiler.notes)
    ]
    return TargetComparison(str(program), sides, notes)


def _side(program: str, target: str, bundle: Bundle) -> Side:
    from hlo_lab.api.analyze import Analysis
    from hlo_lab.cost.machines import for_target
    from hlo_lab.passkit.context import Context

    try:
        module, stage = last_module(bundle)
        machine = for_target(bundle.target)
        context = Context(module, machine, bundle=bundle)
        loaded = Loaded(module, program, "program", bundle.target, bundle, stage=stage)
        return Side(
            target, Analysis(loaded, machine, context.cost, context.memory, [], [], passes=[])
        )
    except HloLabError as error:
        return Side(target, error=error)


def _raise_the_common_error(sides: Sequence[Side]) -> None:
    """A program that is not there is one error, not one for each target."""
    said = {str(side.error) for side in sides}
    if len(said) == 1 and sides[0].error is not None:
        raise sides[0].error


class _StoppedError(Exception):
    """Ends a compilation in another thread."""


def _compile_all(
    program: str,
    options: Sequence[Options],
    time_limit: float,
    progress: Callable[[str], None],
) -> list[Bundle | HloLabError]:
    """A bundle, or why there is none, for each of ``options``."""
    stop = threading.Event()
    running: dict[str, str] = {}

    def one(option: Options) -> Bundle | HloLabError:
        def follow(text: str) -> None:
            if stop.is_set():
                raise _StoppedError
            running[option.target] = text
            progress("; ".join(running.values()))

        try:
            return compile_cached(program, option, time_limit, follow)
        except HloLabError as error:
            return error
        finally:
            running.pop(option.target, None)

    with ThreadPoolExecutor(max_workers=at_once(len(options))) as pool:
        futures: list[Future[Bundle | HloLabError]] = [pool.submit(one, each) for each in options]
        try:
            return [future.result() for future in futures]
        except BaseException:
            stop.set()  # each compilation asks several times a second
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def at_once(wanted: int) -> int:
    """How many compilations to run at a time: bounded by processors and by free memory."""
    by_memory = (available_bytes() or COMPILE_BYTES) // COMPILE_BYTES
    return max(1, min(wanted, os.cpu_count() or 1, by_memory))
