"""What a module costs, who holds its memory, and what the passes found."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hlo_lab.api.analyze_measured import measured_source, with_remarks
from hlo_lab.api.memory import compiled_memory
from hlo_lab.api.source import TIME_LIMIT, Loaded, OutOfMemory, load
from hlo_lab.cost.collectives import is_collective
from hlo_lab.errors import PassError, ReadError, UseError
from hlo_lab.ir.module import Module
from hlo_lab.passkit.finding import Finding, Severity, VerificationStatus

if TYPE_CHECKING:
    from hlo_lab.api.verify import Verified
    from hlo_lab.cost.assigned import AssignedMemory
    from hlo_lab.cost.compiler import CompilerCost
    from hlo_lab.cost.critical_path import CriticalPath
    from hlo_lab.cost.machines import Machine
    from hlo_lab.cost.memory import MemoryProfile
    from hlo_lab.cost.model import ModuleCost
    from hlo_lab.cost.overlap import Pair, Traffic
    from hlo_lab.cost.recompute import Recomputed
    from hlo_lab.cost.tables import Floats
    from hlo_lab.measure.compare import Comparison
    from hlo_lab.report.document import Report

SCHEMA = "hlo-lab/analyze"
SCHEMA_VERSION = 2
TOP = 10  # rows of each table
LIMIT = 10  # findings in a report


@dataclass(eq=False)
class Analysis:
    """One analysed module.

    Attributes:
        loaded: the module and where it comes from.
        cost, memory: per instruction, and the peak with its holders.
        findings: worst first.
        failures: a pass that raised, with the file and line.
        passes: names of the passes that ran, failed ones included.
        codes: the codes of every analysis pass there is, by which ``fails_on`` checks its argument.
        top: rows of ``to_dict``'s and ``to_report``'s tables.
        limit: findings that ``to_report`` shows; ``to_dict`` has all.
        measured: the module's measured times beside its estimates; None where it was not run.
        verified: what came of trying the advice; None where nobody asked for it.
        show_refuted: whether ``to_report`` shows advice that compiling again refuted.
    """

    loaded: Loaded
    machine: Machine
    cost: ModuleCost
    memory: MemoryProfile
    findings: list[Finding]
    failures: list[PassError]
    passes: list[str]
    codes: frozenset[str] = frozenset()
    top: int = TOP
    limit: int = LIMIT
    measured: Comparison | None = None
    verified: Verified | None = None
    show_refuted: bool = False

    @property
    def shown(self) -> list[Finding]:
        """The findings for a reader: without those that were refuted, unless asked for."""
        return self.findings if self.show_refuted else self.holding

    @property
    def holding(self) -> list[Finding]:
        """The findings that were not refuted."""
        refuted = VerificationStatus.REFUTED
        return [each for each in self.findings if each.verification.status is not refuted]

    @property
    def module(self) -> Module:
        return self.loaded.module

    @property
    def devices(self) -> int:
        """How many devices share the module, of one of which all figures then are.

        1 where it is not partitioned yet: it has neither a schedule nor collectives.
        """
        module = self.module
        if not module.is_scheduled and not any(map(is_collective, module.opcodes)):
            return 1
        counts = (module.header.get(key, "1") for key in ("num_partitions", "replica_count"))
        return max(math.prod(int(text) for text in counts if text.isdecimal()), 1)

    def summary(self) -> dict[str, Any]:
        """Counts, flops, bytes and seconds per call of the entry on one of ``devices``;
        peak memory in bytes, also of one.
        """
        from hlo_lab.api.analyze_json import compiler, traffic

        module, memory = self.module, self.memory
        return {
            "devices": self.devices,
            "lower_bound": self.cost.lower_bound,
            "instructions": len(module),
            "computations": len(module.computation_names),
            "fusions": int(np.count_nonzero(module.opcode_mask("fusion"))),
            "flops": self.cost.total_flops,
            "bytes": self.cost.total_bytes,
            "peak_bytes": memory.peak_bytes,
            "estimated_s": self.cost.total_seconds,
            "overlapped_s": self.overlapped_seconds,
            "overlapped_by_bound": self.critical_path.by_bound,
            "recomputed": {
                "flops": self.recomputed.flops,
                "bytes": self.recomputed.bytes,
                "estimated_s": self.recomputed.seconds,
            },
            "padding_bytes": memory.padding_bytes,
            "vmem": {"value_bytes": memory.near_bytes, "kernel_bytes": self.compiler.vector_bytes},
            "ptx_bytes": self.ptx_bytes,
            "compiler": compiler(self.compiler),
            "collectives": traffic(self.collectives),
            "async_copies": traffic(self.copies),
        }

    @cached_property
    def recomputed(self) -> Recomputed:
        """The part of the work that is done again to save memory."""
        from hlo_lab.cost.recompute import recomputed

        return recomputed(self.module, self.cost)

    @property
    def out_of_memory(self) -> OutOfMemory | None:
        """By how much the program misses the device's memory; None when it compiled."""
        return self.loaded.out_of_memory

    @cached_property
    def ptx_bytes(self) -> int | None:
        """Text of all kernels in NVIDIA's PTX; None without a bundle for a GPU."""
        bundle = self.loaded.bundle
        if bundle is None or "analysis" not in bundle.stages:
            return None
        size = bundle.analysis.get("ptx_bytes")
        return size if isinstance(size, int) else None

    @cached_property
    def spent(self) -> Floats:
        """float64[N]: estimated seconds per call; NaN for what runs as no kernel."""
        cost = self.cost
        return np.where(cost.top_level, cost.seconds * cost.executions, np.nan)

    @cached_property
    def compiler(self) -> CompilerCost:
        """What the compiler wrote about each kernel."""
        from hlo_lab.cost.compiler import compiler_cost

        return compiler_cost(self.module, self.cost, self.machine)

    @cached_property
    def pairs(self) -> list[Pair]:
        """Asynchronous pairs, and what runs between their halves."""
        from hlo_lab.cost.overlap import pairs

        return pairs(self.module, self.cost)

    @cached_property
    def critical_path(self) -> CriticalPath:
        """The estimate of a call's time, with asynchronous pairs beside the kernels."""
        from hlo_lab.cost.critical_path import critical_path

        return critical_path(self.module, self.cost, self.pairs)

    @property
    def overlapped_seconds(self) -> float:
        """Seconds of the critical path; ``cost.total_seconds`` is its upper bound."""
        return self.critical_path.seconds

    @cached_property
    def collectives(self) -> Traffic:
        from hlo_lab.cost.overlap import collective_traffic

        return collective_traffic(self.module, self.cost, self.pairs)

    @cached_property
    def copies(self) -> Traffic:
        """Asynchronous copies and slices between memories."""
        from hlo_lab.cost.overlap import copy_traffic

        return copy_traffic(self.module, self.cost, self.pairs)

    @property
    def assigned(self) -> AssignedMemory | None:
        """The compiler's own buffers; None without a bundle that has them."""
        return self._assignment[0]

    @property
    def notes(self) -> list[str]:
        """How the program was compiled, and what the figures leave out."""
        read = self._assignment[1]
        own = [*self.module.warnings, *self.memory.notes, *self.cost.notes]
        return [*self.requested, *self._too_large, *own, *self.compiler.notes, *read]

    @property
    def missing_bytes(self) -> int:
        """By how much the peak exceeds the device's memory where the compiler took the program;
        the peak is the compiler's where it has one. 0 when it fits, or is not scheduled yet.
        """
        capacity, own = self.machine.memory_bytes, self.compiler_memory
        if self.out_of_memory is not None or (own is None and not self.memory.scheduled):
            return 0
        peak = self.memory.peak_bytes if own is None else own["peak_bytes"]
        return max(int(peak - capacity), 0)

    @property
    def does_not_fit(self) -> bool:
        """Whether the compiler refused it, or its peak is more than an accelerator has.

        A CPU may share its memory, or swap: there it is a warning.
        """
        return self.out_of_memory is not None or (
            self.missing_bytes > 0 and self.machine.kind != "cpu"
        )

    @property
    def _too_large(self) -> list[str]:
        from hlo_lab.report.units import format_bytes

        if not self.missing_bytes:
            return []
        return [
            f"does not fit: the peak is {format_bytes(self.missing_bytes)} more than the "
            f"{format_bytes(self.machine.memory_bytes)} of {self.machine.title}"
        ]

    @property
    def requested(self) -> list[str]:
        """How the request was understood, such as one device of several, by the manifest."""
        bundle = self.loaded.bundle
        found = [] if bundle is None else bundle.manifest.get("notes")
        return [str(note) for note in found] if isinstance(found, list) else []

    @cached_property
    def _assignment(self) -> tuple[AssignedMemory | None, list[str]]:
        """``assigned``, and why there is none where the bundle's report cannot be used."""
        from hlo_lab.cost.assigned import assigned_memory
        from hlo_lab.cost.assignment import read_assignment

        bundle = self.loaded.bundle
        if bundle is None or "buffers" not in bundle.stages:
            return None, []
        try:
            return assigned_memory(self.module, read_assignment(bundle.path_of("buffers"))), []
        except ReadError as error:
            return None, [f"{error}; who holds memory is estimated"]

    @cached_property
    def compiler_memory(self) -> dict[str, int] | None:
        """The compiled program's own figures in bytes; None without a bundle that has them.

        ``peak_bytes`` is arguments + outputs - aliased + temporaries, which is what the
        runtime allocates for a call.
        """
        return compiled_memory(self.loaded.bundle)

    def to_dict(self) -> dict[str, Any]:
        """The document of ``--format json``; ``docs/json.md`` says what each field means."""
        from hlo_lab.api.analyze_json import document

        return document(self)

    def to_report(self) -> Report:
        """The document of ``--format text`` and ``md``."""
        from hlo_lab.api.analyze_report import report

        return report(self)

    def fails_on(self, levels: str) -> list[Finding]:
        """The findings at or above a severity, or with one of the codes, that ``levels`` names.

        Refuted ones do not count.

        Args:
            levels: ``note``, ``warning``, ``error`` or codes such as ``FUS001``, with commas.

        Raises:
            UseError: neither a severity nor the code of a pass.
        """
        lowest, codes = parse_fail_on(levels, self.codes)
        return [
            finding
            for finding in self.holding
            if finding.code in codes or (lowest is not None and finding.severity >= lowest)
        ]


def parse_fail_on(levels: str, known: frozenset[str]) -> tuple[Severity | None, set[str]]:
    """Read ``--fail-on``: the lowest severity named, and codes. Raises ``UseError``."""
    lowest: Severity | None = None
    codes: set[str] = set()
    for part in filter(None, (part.strip() for part in levels.split(","))):
        if part.upper() in known:
            codes.add(part.upper())
            continue
        try:
            severity = Severity.parse(part)
        except ValueError:
            raise UseError(
                f"--fail-on {part!r}: neither note, warning, error nor the code of an analysis "
                f"pass, which `hlo-lab passes list` shows"
            ) from None
        lowest = severity if lowest is None else min(lowest, severity)
    if lowest is None and not codes:
        raise UseError("--fail-on names nothing; give note, warning, error or the code of a pass")
    return lowest, codes


def analyze(
    source: str | Path | Module | Loaded,
    *,
    target: str | None = None,
    args: str | None = None,
    mesh: str | None = None,
    xla_flags: Sequence[str] = (),
    python: str | None = None,
    passes: Sequence[str] = (),
    passes_dirs: Sequence[str | Path] = (),
    fail_on: str | None = None,
    top: int = TOP,
    limit: int = LIMIT,
    measure: bool = False,
    verify: bool = False,
    budget: float | None = None,
    show_refuted: bool = False,
    time_limit: float = TIME_LIMIT,
    progress: Callable[[str], None] = lambda text: None,
) -> Analysis:
    """Cost a module, find its peak memory, run passes on it.

    Args:
        source: what ``load`` takes, or what it gave.
        target, args, mesh, xla_flags, python, time_limit, progress: as for ``load``.
        passes: names or codes, with options: ``fusion{min_bytes=1MiB}``; all by default.
        passes_dirs: further folders of passes.
        fail_on: checked before the work begins, so that a slip costs nothing.
        top: rows of the tables of holders and instructions.
        limit: findings in a report.
        measure: also run the program on the device at hand, and estimate for that; ``source``
            may be a record of ``measure`` instead.
        verify: apply the remedies of findings, each at its place, and compile again; with
            ``measure`` both programs are timed in turn too.
        budget: seconds that verification may take; None for no bound.
        show_refuted: whether a report shows advice that this refuted.

    Raises:
        InputError, UseError: the source, an option or a pass is wrong.
        ExecutionError: the program or the compiler failed. A pass that raises is no
            exception: it is in ``failures``.
    """
    from hlo_lab.cost.machines import for_target
    from hlo_lab.passkit.context import Context
    from hlo_lab.passkit.discovery import discover
    from hlo_lab.passkit.pipeline import run_passes
    from hlo_lab.passkit.selection import select_passes

    catalogue = discover(passes_dirs)
    chosen = select_passes(passes, catalogue)
    codes = frozenset(info.code for info in catalogue.values() if info.kind == "analysis")
    if fail_on is not None:
        parse_fail_on(fail_on, codes)
    given = {"--budget": budget is not None, "--show-refuted": show_refuted}
    for option in (name for name, is_given in given.items() if is_given and not verify):
        raise UseError(f"{option} needs --verify")
    if budget is not None and budget <= 0:
        raise UseError("--budget is the seconds, above 0, that --verify may take")
    options: dict[str, Any] = {
        "args": args,
        "mesh": mesh,
        "xla_flags": xla_flags,
        "python": python,
        "time_limit": time_limit,
        "progress": progress,
    }
    measured = None
    if measure:
        loaded, measured = measured_source(source, target, options)
    else:
        loaded = source if isinstance(source, Loaded) else load(source, target=target, **options)
    machine = (measured and measured.machine) or for_target(loaded.target)
    progress(f"estimating {loaded.label}")
    context = Context(loaded.module, machine, bundle=loaded.bundle)
    cost, memory = context.cost, context.memory
    progress(f"running {len(chosen)} passes on {loaded.label}")
    result = run_passes(chosen, loaded.module, context)
    analysis = Analysis(
        loaded=loaded,
        machine=machine,
        cost=cost,
        memory=memory,
        findings=result.findings if measured is None else with_remarks(result.findings, measured),
        failures=result.failures,
        passes=[one.name for one in chosen],
        codes=codes,
        top=top,
        limit=limit,
        measured=measured,
        show_refuted=show_refuted,
    )
    if verify:
        from hlo_lab.api.verify import Effort, verify_all

        effort = Effort(budget, measure, python, time_limit, progress)
        analysis.verified = verify_all(analysis, catalogue, effort)
        analysis.findings = analysis.verified.findings
    return analysis
