"""Whether advice held, by what it promised."""

from __future__ import annotations

import pytest

from hlo_lab.cost.judge import Times, time_change
from hlo_lab.passkit.finding import BeforeAfter, Estimate, VerificationStatus
from hlo_lab.passkit.verdict import verdict

CONFIRMED, REFUTED = VerificationStatus.CONFIRMED, VerificationStatus.REFUTED
UNDECIDED = VerificationStatus.UNDECIDED
SAME = BeforeAfter(1000, 1000)


@pytest.mark.parametrize(
    ("promised", "after", "peak", "expected", "reason"),
    [
        (Estimate(0.3), Times(0.7), SAME, CONFIRMED, ""),
        (Estimate(0.3), Times(0.9), None, CONFIRMED, ""),
        (Estimate(0.3), Times(0.98), SAME, REFUTED, "less than a tenth"),
        (Estimate(0.3), Times(1.0), SAME, REFUTED, "saves no time"),
        (Estimate(0.3), Times(1.3), SAME, REFUTED, "slower"),
        (Estimate(0.3), Times(0.7), BeforeAfter(1000, 1200), UNDECIDED, "the peak of memory grows"),
        (Estimate(0.0005), Times(1.0), SAME, UNDECIDED, "too little to tell"),
        # the larger promise counts
        (Estimate(0.1, 500), Times(1.0), BeforeAfter(1000, 500), CONFIRMED, ""),
        (Estimate(0.1, 500), Times(1.0), SAME, REFUTED, "the peak of memory does not fall"),
        # unless the other alone is kept
        (Estimate(0.1, 500), Times(0.9), SAME, CONFIRMED, "the peak of memory does not fall"),
        (Estimate(0.01, 500), Times(0.995), SAME, REFUTED, "the peak of memory does not fall"),
        (Estimate(0.5, 100), Times(1.0), BeforeAfter(1000, 900), CONFIRMED, "saves no time"),
        (Estimate(0.5, 100), Times(1.2), BeforeAfter(1000, 900), REFUTED, "slower"),
        (Estimate(0.3, 10), Times(0.7), SAME, CONFIRMED, ""),
        (Estimate(None, 500), Times(1.2), BeforeAfter(1000, 500), UNDECIDED, "takes longer"),
        (Estimate(None, 500), Times(1.01), BeforeAfter(1000, 990), REFUTED, "does not fall"),
        (Estimate(None, 500), Times(0.9), SAME, CONFIRMED, "the peak of memory does not fall"),
        (Estimate(0.3), Times(1.0), BeforeAfter(1000, 900), CONFIRMED, "saves no time"),
        (Estimate(0.3), Times(1.1), BeforeAfter(1000, 900), REFUTED, "slower"),
        (Estimate(None, 0), Times(1.0), SAME, REFUTED, "neither"),
        # a price that was named
        (Estimate(-0.1, 500), Times(1.15), BeforeAfter(1000, 500), CONFIRMED, ""),
        # which only memory makes good, most of it
        (Estimate(-0.1, 500), Times(0.9), SAME, REFUTED, "the peak of memory does not fall"),
        (Estimate(-0.1, 500), Times(0.9), BeforeAfter(1000, 800), UNDECIDED, "less than half"),
        (Estimate(0.1, 500), Times(1.0), BeforeAfter(1000, 800), CONFIRMED, ""),
        # nothing promised
        (Estimate(), Times(0.9), SAME, CONFIRMED, ""),
        (Estimate(), Times(1.0), BeforeAfter(1000, 900), CONFIRMED, ""),
        (Estimate(), Times(0.9), BeforeAfter(1000, 1100), UNDECIDED, "grows"),
        (Estimate(), Times(0.995), SAME, REFUTED, "neither time nor memory"),
        (Estimate(), Times(1.1), SAME, REFUTED, "slower"),
    ],
)
def test_by_what_was_promised(
    promised: Estimate,
    after: Times,
    peak: BeforeAfter | None,
    expected: VerificationStatus,
    reason: str,
) -> None:
    found = verdict(promised, time_change(Times(1.0), after), peak)
    assert (found.status, reason in found.reason) == (expected, True), found.reason
    assert bool(found.reason) is bool(reason)
    assert found.seconds == BeforeAfter(1.0, after.model)


def test_the_ratio_is_of_what_counts() -> None:
    change = time_change(Times(1.0), Times(0.8))
    assert verdict(Estimate(0.3), change, SAME).ratio == pytest.approx(1.5)
    memory = verdict(Estimate(0.1, 500), change, BeforeAfter(1000, 750))
    assert memory.ratio == pytest.approx(2.0)
    assert verdict(Estimate(0.3), time_change(Times(1.0), Times(1.1)), SAME).ratio is None


def test_estimates_that_contradict_each_other_decide_nothing() -> None:
    change = time_change(Times(1.0, 1.0), Times(1.2, 0.7, 0.5))
    found = verdict(Estimate(0.3), change, SAME)
    assert found.status is UNDECIDED and "disagree" in found.reason
    assert (found.basis, found.coverage) == ("compiler", 0.0)


def test_a_peak_that_grows_by_next_to_nothing_is_no_price() -> None:
    change, peak = time_change(Times(1.0), Times(0.5)), BeforeAfter(1000, 2000)
    assert verdict(Estimate(0.3), change, peak, capacity=1e9).status is CONFIRMED
    assert verdict(Estimate(), change, peak, capacity=1e9).status is CONFIRMED
    assert verdict(Estimate(0.3), change, peak, capacity=1e5).status is UNDECIDED
