"""Budgets: what they mean, and what is no budget."""

from __future__ import annotations

import pytest

from hlo_lab.diff.budgets import Budget, evaluate, parse
from hlo_lab.diff.deltas import METRICS
from hlo_lab.diff.result import Verdict
from hlo_lab.errors import UseError

DELTAS = {metric: {"before": 0.0, "after": 0.0} for metric in METRICS} | {
    "flops": {"before": 1000.0, "after": 1010.0},
    "peak_bytes": {"before": 0.0, "after": 3.0},
    "fusions": {"before": 9.0, "after": 4.0},
}


def test_percent_and_amounts_with_units() -> None:
    assert parse("flops>1%, peak_bytes>10MiB,estimated_s>1.5ms,fusions>5,bytes>1e3") == [
        Budget("flops", ">1%", 0.01, relative=True),
        Budget("peak_bytes", ">10MiB", 10 * 2**20),
        Budget("estimated_s", ">1.5ms", 1.5 * 1e-3),
        Budget("fusions", ">5", 5),
        Budget("bytes", ">1e3", 1000),
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("speed>1%", "no metric 'speed'; there are instructions, computations"),
        ("flops<1%", "write METRIC>LIMIT"),
        ("peak_bytes>3ms", "no unit 'ms' for peak_bytes; there are %, B, kB"),
        (" , ", "no budget in it"),
        ("worse", "or a verdict (equivalent, changed"),
    ],
)
def test_what_is_no_budget(text: str, said: str) -> None:
    with pytest.raises(UseError) as error:
        parse(text)
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("text", "actual", "broken"),
    [
        ("flops>1%", 0.01, False),  # the limit itself holds
        ("flops>0.9%", 0.01, True),
        ("flops>9", 10, True),
        ("peak_bytes>50%", 3, True),  # growth from nothing
        ("peak_bytes>3", 3, False),
        ("fusions>0", -5, False),
        ("bytes>0%", 0, False),
    ],
)
def test_evaluation(text: str, actual: float, broken: bool) -> None:
    [result] = evaluate(parse(text), DELTAS)
    assert result.actual == pytest.approx(actual)
    assert result.broken is broken


@pytest.mark.parametrize(
    ("text", "verdict", "broken"),
    [
        ("changed", Verdict.EQUIVALENT, False),
        ("changed", Verdict.REMOVED, True),
        ("equivalent", Verdict.IDENTICAL, False),
        ("equivalent", Verdict.EQUIVALENT, True),
        ("removed", Verdict.CHANGED, False),
        ("added", Verdict.REMOVED, True),
        ("added", Verdict.ADDED, True),
        ("removed", Verdict.ADDED, False),
    ],
)
def test_verdicts(text: str, verdict: Verdict, broken: bool) -> None:
    [result] = evaluate(parse(text), DELTAS, verdict)
    assert (result.metric, result.broken) == ("verdict", broken)


def test_a_program_that_is_gone_breaks_every_budget_and_a_new_one_none() -> None:
    for verdict, broken in ((Verdict.REMOVED, True), (Verdict.ADDED, False)):
        results = evaluate(parse("fusions>0,peak_bytes>50%"), DELTAS, verdict)
        assert [(r.actual, r.broken) for r in results] == [(str(verdict), broken)] * 2
