"""How a finding is put into words, the same in every format."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from hlo_lab.ir.source import user_frame
from hlo_lab.passkit.finding import Estimate, Finding, Verification, VerificationStatus
from hlo_lab.report.names import clean, short_frame
from hlo_lab.report.units import format_bytes, format_seconds, format_share


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


_MOST = 0.9
_MANY = 9.95  # times; without decimals from there
_BASES = {
    "measured": " measured",
    "compiler": " by the compiler's cycles",
    "model": " by our model",
}


def verified(finding: Finding) -> str:
    """``confirmed by `drop-pairs`: 2.0 ms -> 1.0 ms per call by our model, ...``.

    The passes are those that were applied, which may be less than what was advised. Empty when
    not tried, unless there is a reason to say.
    """
    found = finding.verification
    status, reason = found.status, clean(found.reason)
    if status is VerificationStatus.NOT_TRIED:
        return f"not verified: {reason}" if reason else ""
    tried = " and ".join(f"`{clean(name)}`" for name in finding.remedy)
    if status is VerificationStatus.FAILED:
        return f"could not be verified by {tried}: {reason}"
    head, parts = f"{status} by {tried}", [reason] if reason else []
    if status is VerificationStatus.CONFIRMED and not found.agrees:
        # before the figures: it is less sure
        head, parts = ", ".join([f"{head} in time and memory alone", *parts]), []
    parts += [*figures(found), *_compared(found)]
    parts += ["rewritten everywhere"] if found.place == "everywhere" else []
    return head + (f": {', '.join(parts)}" if parts else "")


def figures(verification: Verification) -> list[str]:
    """Seconds and peak memory before and after."""
    parts = []
    if verification.seconds is not None:
        both = verification.seconds
        times = f"{format_seconds(both.before)} -> {format_seconds(both.after)} per call"
        parts.append(times + _BASES.get(verification.basis, "") + _covered(verification))
    if verification.peak_bytes is not None:
        both = verification.peak_bytes
        if both.before == both.after:
            parts.append(f"peak {format_bytes(both.before)} as before")
        else:
            parts.append(f"peak {format_bytes(both.before)} -> {format_bytes(both.after)}")
    return parts


def _covered(verification: Verification) -> str:
    if verification.basis != "compiler" or verification.coverage > _MOST:
        return ""
    return f" (which are {format_share(verification.coverage)} of it, our model the rest)"


def _compared(verification: Verification) -> list[str]:
    parts = []
    if verification.ratio:
        share = 1 / verification.ratio
        times = f"{share:#.2g}" if share < _MANY else f"{share:,.0f}"
        parts.append(f"saved {times}x of what was promised")
    return parts + (["numbers agree"] if verification.agrees else [])


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
