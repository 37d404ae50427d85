"""Advice tried out: a finding's remedy applied at its place, and the program compiled again.

A program is compiled from the StableHLO of its bundle, which has its donation, shardings and
source lines, so that nothing is imported or traced again, and the bundle's own compilation is
what each one is compared with.
"""

from __future__ import annotations

import re
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hlo_lab.api.memory import available_bytes, compiled_memory
from hlo_lab.api.rewrite_work import Work
from hlo_lab.api.source import TIME_LIMIT, Options, OutOfMemory
from hlo_lab.cost.judge import Times, time_change
from hlo_lab.cost.model import cost
from hlo_lab.errors import ExecutionError, HloLabError
from hlo_lab.ir.source import user_frame
from hlo_lab.passkit.base import RewritingPass
from hlo_lab.passkit.finding import (
    BeforeAfter,
    Estimate,
    Finding,
    Verification,
    VerificationStatus,
)
from hlo_lab.passkit.place import Place
from hlo_lab.passkit.verdict import verdict

if TYPE_CHECKING:
    from hlo_lab.api.analyze import Analysis
    from hlo_lab.lowering.bundle import Bundle
    from hlo_lab.passkit.loading import PassInfo
    from hlo_lab.passkit.rewriting import PassSpec

MEASURED_SECONDS = 3.0  # of calls, for one remedy
COPIES = 3  # of arguments and results are held while numbers are compared
NO_TIME = "the budget was spent"
EVERYWHERE = "everywhere"
# by the address of a function in the process that lowered it
_CALLS_PYTHON = re.compile(r"@xla_(?:ffi_)?(?:partitioned_)?python_\w+_callback\b")


@dataclass(frozen=True)
class Effort:
    """What may be spent on verification.

    Attributes:
        budget: seconds in all; None for no bound.
        measure: run original and rewritten program in turn too, on the device at hand.
        python: the interpreter whose jax compiles; the one that runs by default.
        time_limit: seconds that one compilation, with its run, may take.
        progress: told what is going on.
    """

    budget: float | None = None
    measure: bool = False
    python: str | None = None
    time_limit: float = TIME_LIMIT
    progress: Callable[[str], None] = lambda text: None


@dataclass(frozen=True)
class Verified:
    """What came of verifying an analysis.

    Attributes:
        findings: all of them, in their order, those with a remedy with what came of it.
        spent: seconds.
        together: all confirmed remedies at once; None for fewer than two.
        obstacle: why nothing could be tried; empty otherwise.
    """

    findings: list[Finding]
    spent: float = 0.0
    together: Verification | None = None
    obstacle: str = ""

    @property
    def counts(self) -> Counter[VerificationStatus]:
        """Findings that have a remedy, by what came of it."""
        return Counter(each.verification.status for each in self.findings if each.remedy)


@dataclass(frozen=True)
class _Group:
    """Findings with the same remedy at the same place, which share a compilation."""

    remedy: tuple[str, ...]
    place: Place | None
    members: list[int]
    promised: Estimate


def verify_all(analysis: Analysis, catalogue: Mapping[str, PassInfo], effort: Effort) -> Verified:
    """Try the remedies of an analysis, those that promise most first.

    Nothing that a remedy or the compiler does wrong is raised: it is in the finding.
    """
    begun = time.monotonic()
    groups, obstacle = _groups(analysis, catalogue), _obstacle(analysis)
    if obstacle or not groups:
        return Verified(analysis.findings, obstacle=obstacle)
    findings = list(analysis.findings)
    confirmed: list[_Group] = []
    together = None
    with tempfile.TemporaryDirectory(prefix="hlo-lab-") as scratch:
        bench = _Bench(analysis, catalogue, effort, Path(scratch), begun)
        for number, group in enumerate(groups, 1):
            doing = f"verifying {number} of {len(groups)}: {_title(group)}"
            done = bench.attempt([group], doing)
            for member in group.members:
                findings[member] = replace(findings[member], verification=done)
            if done.status is VerificationStatus.CONFIRMED:
                confirmed.append(group)
        if len(confirmed) > 1 and bench.left > 0:
            doing = f"verifying the {len(confirmed)} that were confirmed together"
            together = bench.attempt(confirmed, doing)
    return Verified(findings, time.monotonic() - begun, together)


def place_of(finding: Finding) -> Place | None:
    """Where its remedy applies: its source line, else the name of its operation."""
    frame = user_frame(finding.where.source)
    if frame is not None:
        return Place(frame.file, frame.line)
    return Place(op_name=finding.where.op_name) if finding.where.op_name else None


def _title(group: _Group) -> str:
    names = " and ".join(name.partition("{")[0] for name in group.remedy)
    return f"{names} at {_short(group.place)}" if group.place is not None else names


def _short(place: Place | None) -> str:
    """``train.py:12``; the place as a reader needs it."""
    return str(place).rpartition("/")[2] if place is not None and place.file else str(place or "")


def _obstacle(analysis: Analysis) -> str:
    bundle = analysis.loaded.bundle
    if bundle is None:
        return (
            f"{analysis.loaded.label}: advice is verified by compiling again from StableHLO, and "
            "HLO is analysed as it is: verify the program, its bundle or its StableHLO"
        )
    if "stablehlo" not in bundle.stages:
        return f"{analysis.loaded.label}: the bundle has no StableHLO to compile again"
    return ""


def _groups(analysis: Analysis, catalogue: Mapping[str, PassInfo]) -> list[_Group]:
    """The largest share of the time or of the peak first; what promises nothing last."""
    members: dict[tuple[tuple[str, ...], Place | None], list[int]] = {}
    for number, finding in enumerate(analysis.findings):
        if finding.remedy:
            place = None if _is_everywhere(finding.remedy, catalogue) else place_of(finding)
            members.setdefault((finding.remedy, place), []).append(number)
    groups = [
        _Group(remedy, place, numbers, _sum(analysis.findings[at].estimate for at in numbers))
        for (remedy, place), numbers in members.items()
    ]
    time_s, peak = analysis.overlapped_seconds or 1.0, analysis.memory.peak_bytes or 1

    def share(group: _Group) -> float:
        promised = group.promised
        return max((promised.seconds or 0.0) / time_s, (promised.bytes or 0) / peak)

    return sorted(groups, key=lambda group: -share(group))


def _is_everywhere(remedy: tuple[str, ...], catalogue: Mapping[str, PassInfo]) -> bool:
    """Whether each of its passes changes the whole program, so that findings share it."""
    known = [catalogue.get(name.partition("{")[0]) for name in remedy]
    return all(
        info is not None
        and issubclass(info.pass_class, RewritingPass)
        and info.pass_class.everywhere
        for info in known
    )


def _sum(estimates: Iterable[Estimate]) -> Estimate:
    every = list(estimates)
    seconds = [each.seconds for each in every if each.seconds is not None]
    sizes = [each.bytes for each in every if each.bytes is not None]
    return Estimate(sum(seconds) if seconds else None, sum(sizes) if sizes else None)


class _Bench:
    """Compiles the program of an analysis with remedies, and judges what came out."""

    def __init__(
        self,
        analysis: Analysis,
        catalogue: Mapping[str, PassInfo],
        effort: Effort,
        scratch: Path,
        begun: float,
    ):
        assert analysis.loaded.bundle is not None
        self.analysis = analysis
        self.before: Bundle = analysis.loaded.bundle
        self.catalogue = catalogue
        self.effort = effort
        self.scratch = scratch
        self.begun = begun
        self.times = Times.of(analysis.module, analysis.cost)

    @property
    def left(self) -> float:
        """Seconds of the budget."""
        budget = self.effort.budget
        return float("inf") if budget is None else budget - (time.monotonic() - self.begun)

    def attempt(self, groups: Sequence[_Group], doing: str) -> Verification:
        """Apply remedies at their places, and compare; for findings that share this."""
        places = [_short(group.place) for group in groups]
        where = places[0] or EVERYWHERE if len(groups) == 1 else ""
        if self.left <= 0:
            return Verification(reason=NO_TIME)
        self.effort.progress(doing)
        folder = Path(tempfile.mkdtemp(dir=self.scratch))
        try:
            specs = [spec for group in groups for spec in self._specs(group)]
            promised = _sum(group.promised for group in groups)
            done = self._compare(specs, promised, folder, doing, alone=len(groups) == 1)
        except HloLabError as error:
            if self.left <= 0 and isinstance(error, ExecutionError):
                return Verification(reason=NO_TIME, place=where)
            status, reason = VerificationStatus.FAILED, _line(error)
            return Verification(status, place=where, reason=reason)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        return replace(done, place=where)

    def _specs(self, group: _Group) -> list[PassSpec]:
        from hlo_lab.passkit.rewriting import PassSpec
        from hlo_lab.passkit.selection import select_rewrites

        chosen = select_rewrites(group.remedy, self.catalogue)
        return [PassSpec.of(info, one, group.place) for info, one in chosen]

    def _compare(
        self,
        specs: Sequence[PassSpec],
        promised: Estimate,
        folder: Path,
        doing: str,
        *,
        alone: bool,
    ) -> Verification:
        work = self._work(specs, doing, must_change=alone)
        after, _ = work.compile(self.before.target, folder / "target")
        other = _other_compiler(self.before.manifest, after.manifest)
        if other:
            return Verification(VerificationStatus.FAILED, reason=other)
        fits = self._fits(after)
        if fits is not None:
            return fits
        machine = self.analysis.machine
        module = after.module()
        times = (self.times, Times.of(module, cost(module, machine)))
        peak = self._peak(after)
        done = verdict(promised, time_change(*times), peak, machine.memory_bytes)
        is_confirmed = done.status is VerificationStatus.CONFIRMED
        if not is_confirmed and not self.effort.measure:
            return done
        run, reason = self._run(specs, folder, doing, peak)
        if run is None:
            return replace(done, reason="; ".join(filter(None, (done.reason, reason))))
        if not all(each["agrees"] for each in run["outputs"]):
            return replace(
                done, status=VerificationStatus.REFUTED, agrees=False, reason=_first_wrong(run)
            )
        if run["time"] is not None:
            done = verdict(promised, time_change(*times, run["time"]), peak, machine.memory_bytes)
        return replace(done, agrees=True)

    def _work(
        self, specs: Sequence[PassSpec], doing: str, *, must_change: bool, flags: bool = True
    ) -> Work:
        given = self.before.manifest.get("xla_flags") if flags else None
        named = given if isinstance(given, dict) else {}
        return Work(
            program=str(self.before.path_of("stablehlo").resolve()),
            options=Options(
                xla_flags=tuple(f"{name}={value}" for name, value in named.items()),
                python=self.effort.python,
            ),
            specs=specs,
            inputs=None,
            time_limit=min(self.effort.time_limit, max(self.left, 1.0)),
            progress=lambda text: self.effort.progress(doing),
            must_change=must_change,
        )

    def _run(
        self, specs: Sequence[PassSpec], folder: Path, doing: str, peak: BeforeAfter | None
    ) -> tuple[dict[str, Any] | None, str]:
        """What running both programs on this machine's CPU gave, or why they were not run."""
        from hlo_lab.lowering.target import Target

        target = Target.parse(self.before.target)
        if _CALLS_PYTHON.search(self.before.text("stablehlo")):
            return None, _not_compared("it calls Python, which is not there")
        free = available_bytes()
        needed = COPIES * max(peak.before, peak.after) * (target.devices or 1) if peak else 0
        if free is not None and needed > free:
            return None, _not_compared("the program is too large for this machine")
        if self.left <= 0:
            return None, _not_compared(NO_TIME)
        count = target.devices or 1
        there = str(target)
        if target.is_ahead_of_time:
            there = f"cpu:{count}" if count > 1 else "cpu"
        work = self._work(
            specs, f"{doing}: comparing numbers", must_change=False, flags=there == str(target)
        )
        seconds = MEASURED_SECONDS if self.effort.measure else 0.0
        try:
            _, run = work.compile(there, folder / "run", seconds, 1 if seconds else 0)
        except HloLabError as error:
            why = NO_TIME if self.left <= 0 else f"on {there}, {_line(error)}"
            return None, _not_compared(why)
        return run, "" if run is not None else _not_compared("it does not fit")

    def _peak(self, after: Bundle) -> BeforeAfter | None:
        sides = [compiled_memory(each) for each in (self.before, after)]
        known = [float(side["peak_bytes"]) for side in sides if side is not None]
        return BeforeAfter(known[0], known[1]) if len(known) == 2 else None

    def _fits(self, after: Bundle) -> Verification | None:
        """The verdict where one of them does not fit the device; None where both do."""
        old, new = self.analysis.out_of_memory, OutOfMemory.of(after.manifest)
        if old is None and new is None:
            return None
        if new is None:
            return Verification(VerificationStatus.CONFIRMED, reason="with it the program fits")
        if old is None:
            reason = "with it the program does not fit the device's memory"
            return Verification(VerificationStatus.REFUTED, reason=reason)
        if old.needed_bytes is None or new.needed_bytes is None:
            reason = "the program fits neither with it nor without"
            return Verification(VerificationStatus.UNDECIDED, reason=reason)
        needed = BeforeAfter(old.needed_bytes, new.needed_bytes)
        less = needed.saved > 0
        status = VerificationStatus.CONFIRMED if less else VerificationStatus.REFUTED
        reason = "it needs less, and still does not fit" if less else "it needs as much memory"
        return Verification(status, peak_bytes=needed, reason=reason)


def _other_compiler(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """Why the two cannot be compared, or "": something else than the remedy differs."""
    old, new = before.get("versions"), after.get("versions")
    if not isinstance(old, dict) or not isinstance(new, dict):
        return ""
    for name in new.keys() - {"hlo-lab", "python"}:
        if old.get(name) != new[name]:
            return (
                f"the bundle was compiled with {name} {old.get(name)}, and this is "
                f"{new[name]}: dump it again"
            )
    return ""


def _not_compared(why: str) -> str:
    return f"numbers not compared ({why})"


def _line(error: Exception) -> str:
    """What it says, without where its log is."""
    return str(error).splitlines()[0].partition(" (log: ")[0]


def _first_wrong(run: Mapping[str, Any]) -> str:
    first = run["first_difference"]
    where = f", first of {first['op']} at {first['location']}" if first else ""
    return f"the results are not those of the original{where}"
