"""Whether advice held: what a finding promised against what compiling again came to."""

from __future__ import annotations

from hlo_lab.cost.judge import Direction, TimeChange
from hlo_lab.passkit.finding import BeforeAfter, Estimate, Verification, VerificationStatus

NOISE = 0.001  # share of the time, or of the peak, that a compiler's mood may move
LEAST = 0.1  # of what was promised has to be there
LEAST_PRICED = 0.5  # of the memory, where the promise of it names a price in time
WORSE = 0.05  # share by which the other figure may grow
LITTLE = 0.001  # of the device's memory: a peak may grow by so much
UNPROMISED = 0.01  # share that has to be saved where nothing was promised


_CONFIRMED, _REFUTED = VerificationStatus.CONFIRMED, VerificationStatus.REFUTED
_SLOWER = "slower"


def verdict(
    promised: Estimate, time: TimeChange, peak: BeforeAfter | None, capacity: float = 0.0
) -> Verification:
    """Judge by what was promised: time, memory, or the larger share of the two.

    Where that is not kept and the other falls by ``UNPROMISED``, it is confirmed and said; but
    memory that was promised at a price in time has to come, most of it.

    Args:
        promised: of all findings that are verified together.
        time: of a call.
        peak: None where the compiler says nothing of memory.
        capacity: bytes that the device has.
    """
    seconds, size = max(promised.seconds or 0.0, 0.0), max(promised.bytes or 0, 0)
    of_time = seconds / time.before if time.before else 0.0
    of_peak = size / peak.before if peak is not None and peak.before else 0.0
    grows = peak is not None and -peak.saved > max(WORSE * peak.before, LITTLE * capacity)
    if of_peak > of_time and peak is not None:
        status, reason, ratio = _by_memory(promised, time, peak, size)
        least = max(seconds, UNPROMISED / LEAST * time.before)
        if (
            status is _REFUTED
            and not _price(promised)
            and _by_time(time, least, grows=grows)[0] is _CONFIRMED
        ):
            status, ratio = _CONFIRMED, seconds / time.saved if seconds else None
    elif seconds:
        status, reason, ratio = _by_time(time, seconds, grows=grows)
        falls = peak is not None and peak.saved >= UNPROMISED * peak.before
        if status is _REFUTED and reason != _SLOWER and falls:
            status, ratio = _CONFIRMED, size / peak.saved if size and peak is not None else None
    else:
        status, reason, ratio = _by_either(time, peak, grows=grows)
    return Verification(
        status=status,
        seconds=BeforeAfter(time.before, time.after),
        basis=time.basis,
        coverage=time.coverage,
        peak_bytes=peak,
        ratio=ratio,
        reason=reason,
    )


_Judged = tuple[VerificationStatus, str, float | None]


def _price(promised: Estimate) -> float:
    """Seconds that the advice is said to cost."""
    return max(-(promised.seconds or 0.0), 0.0)


def _by_time(time: TimeChange, promised: float, *, grows: bool) -> _Judged:
    direction = time.direction(NOISE, LEAST * promised)
    ratio = promised / time.saved if time.saved > 0 else None
    if direction is Direction.UNDECIDED:
        return VerificationStatus.UNDECIDED, time.disagreement, ratio
    if direction is Direction.FASTER:
        if grows:
            return VerificationStatus.UNDECIDED, "faster, but the peak of memory grows", ratio
        return VerificationStatus.CONFIRMED, "", ratio
    if direction is Direction.SLOWER:
        return VerificationStatus.REFUTED, _SLOWER, None
    if promised < NOISE * time.before:
        reason = f"it promises less than {NOISE:.1%} of the time, which is too little to tell"
        return VerificationStatus.UNDECIDED, reason, ratio
    little = time.saved > NOISE * time.before
    reason = "it saves less than a tenth of the estimate" if little else "it saves no time"
    return VerificationStatus.REFUTED, reason, ratio if little else None


def _by_memory(promised: Estimate, time: TimeChange, peak: BeforeAfter, size: int) -> _Judged:
    ratio = size / peak.saved if peak.saved > 0 else None
    if peak.saved < max(LEAST * size, NOISE * peak.before):
        if size < NOISE * peak.before:
            reason = f"it promises less than {NOISE:.1%} of the peak, which is too little to tell"
            return VerificationStatus.UNDECIDED, reason, ratio
        return VerificationStatus.REFUTED, "the peak of memory does not fall", None
    price = _price(promised)
    if price and peak.saved < LEAST_PRICED * size:
        return VerificationStatus.UNDECIDED, "it frees less than half of what was promised", ratio
    share = price / time.before if time.before else 0.0
    if time.direction(WORSE + 2 * share) is Direction.SLOWER:
        return VerificationStatus.UNDECIDED, "it frees memory, but takes longer", ratio
    return VerificationStatus.CONFIRMED, "", ratio


def _by_either(time: TimeChange, peak: BeforeAfter | None, *, grows: bool) -> _Judged:
    """Nothing was promised: anything that is better without its price is good."""
    direction = time.direction(UNPROMISED)
    if direction is Direction.UNDECIDED:
        return VerificationStatus.UNDECIDED, time.disagreement, None
    if direction is Direction.SLOWER:
        return VerificationStatus.REFUTED, _SLOWER, None
    falls = peak is not None and peak.saved > UNPROMISED * peak.before
    if direction is Direction.FASTER and grows:
        return VerificationStatus.UNDECIDED, "faster, but the peak of memory grows", None
    if direction is Direction.FASTER or falls:
        return VerificationStatus.CONFIRMED, "", None
    return VerificationStatus.REFUTED, "it saves neither time nor memory", None
