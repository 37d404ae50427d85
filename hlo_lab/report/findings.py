"""How a finding is put into words, the same in every format."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from hlo_lab.ir.source import user_frame
from hlo_lab.passkit.finding import Estimate, Finding, Verification, VerificationStatus
from hlo_lab.report.names import clean, short_frame
from hlo_lab.report.units import format_bytes, format_count, format_seconds


def saving(estimate: Estimate) -> str:
    """``saves 3.0 us and 1.2 MiB on cpu``, ``frees 1.2 MiB, costs 3.0 us``; empty for nothing."""
    amounts = (
        (estimate.seconds, format_seconds),
        (estimate.bytes, format_bytes),
    )
    gains = [show(amount) for amount, show in amounts if amount is not None and amount >= 0]
    costs = [show(-amount) for amount, show in amounts if amount is not None and amount < 0]
    # what costs time can only give memory
    verb = "frees" if (estimate.seconds or 0) < 0 else "saves"
    parts = [f"{verb} {' and '.join(gains)}"] if gains else []
    parts += [f"costs {' and '.join(costs)}"] if costs else []
    if not parts:
        return ""
    machine = f" on {clean(estimate.machine)}" if estimate.machine else ""
    return ", ".join(parts) + machine


def verified(verification: Verification) -> str:
    """``confirmed by recompiling: peak_bytes 2.0 MiB -> 1.0 MiB``; empty when not tried."""
    if verification.status is VerificationStatus.NOT_TRIED:
        return ""
    text = f"{verification.status} by recompiling"
    if verification.before is None or verification.after is None:
        return text
    show = format_bytes if "bytes" in verification.metric else format_count
    before, after = show(verification.before), show(verification.after)
    return f"{text}: {clean(verification.metric)} {before} -> {after}"


def with_advice(findings: Sequence[Finding]) -> Iterator[tuple[Finding, str]]:
    """Each finding with the advice to print: a code's advice stands once until it changes."""
    given: dict[str, str] = {}
    before: Finding | None = None
    for finding in findings:
        advice = finding.advice
        if advice and given.get(finding.code) == advice:
            again = before is not None and before.code == finding.code
            advice = "as above" if again else f"as for {finding.code} above"
        elif advice:
            given[finding.code] = advice
        yield finding, advice
        before = finding


def places(finding: Finding) -> list[str]:
    """The user's own source line first, then the innermost where that is another."""
    stack = finding.where.source
    own = user_frame(stack)
    frames = [own] if own is None or own == stack[0] else [own, stack[0]]
    return [short_frame(frame) for frame in frames if frame is not None]
