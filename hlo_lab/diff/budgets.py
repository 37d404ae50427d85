"""Budgets: how much each metric may grow, as in ``--fail-on 'flops>1%,peak_bytes>10MiB'``."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hlo_lab.diff.deltas import METRICS
from hlo_lab.diff.result import Verdict
from hlo_lab.errors import UseError

# From the strictest: ``--fail-on equivalent`` fails on anything but identical programs.
_FAILING = {
    "equivalent": (Verdict.EQUIVALENT, Verdict.CHANGED, Verdict.ADDED, Verdict.REMOVED),
    "changed": (Verdict.CHANGED, Verdict.ADDED, Verdict.REMOVED),
    "added": (Verdict.ADDED,),
    "removed": (Verdict.REMOVED,),
}
_UNITS: dict[str, dict[str, float]] = {
    "B": {
        "": 1, "B": 1, "kB": 1e3, "KB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12,
        "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40,
    },
    "s": {"": 1, "s": 1, "ms": 1e-3, "us": 1e-6, "ns": 1e-9},
    "": {"": 1, "k": 1e3, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12},
}  # fmt: skip
_BUDGET = re.compile(r"(\w+)\s*>\s*(\d+(?:\.\d*)?(?:[eE][-+]?\d+)?)\s*(%|[A-Za-z]*)")


@dataclass(frozen=True)
class Budget:
    """One limit. ``metric`` is a delta's name, or ``verdict``.

    ``limit`` is the growth allowed, a fraction of the value before when ``relative``, in
    the metric's own unit (bytes, seconds, a count) otherwise; ``text`` is what was asked.
    """

    metric: str
    text: str
    limit: float = 0.0
    relative: bool = False


@dataclass(frozen=True)
class BudgetResult:
    """Whether a budget held. ``actual`` is in the unit of ``limit``: a fraction or an amount."""

    metric: str
    limit: str
    actual: float | str
    broken: bool

    def to_dict(self) -> dict[str, Any]:
        return {
            "metric": self.metric,
            "limit": self.limit,
            "actual": self.actual,
            "broken": self.broken,
        }


def parse(text: str) -> list[Budget]:
    """Read ``metric>limit[,metric>limit...]``, or a verdict: ``changed``, ``equivalent``.

    A limit is a percentage of the value before (``flops>1%``) or an amount of growth
    (``peak_bytes>10MiB``, ``estimated_s>1ms``, ``fusions>5``). A verdict breaks on itself
    and on anything worse.

    Raises:
        UseError: an unknown metric or unit, another form, or nothing at all.
    """
    budgets = [_one(part.strip()) for part in text.split(",") if part.strip()]
    if not budgets:
        raise UseError(f"--fail-on {text!r}: no budget in it; write METRIC>LIMIT or a verdict")
    return budgets


def _one(text: str) -> Budget:
    if text in _FAILING:
        return Budget("verdict", text)
    match = _BUDGET.fullmatch(text)
    if match is None:
        raise UseError(
            f"--fail-on {text!r}: write METRIC>LIMIT, such as flops>1% or peak_bytes>10MiB, "
            f"or a verdict ({', '.join(_FAILING)})"
        )
    metric, number, unit = match.groups()
    if metric not in METRICS:
        raise UseError(f"--fail-on {text!r}: no metric {metric!r}; there are {', '.join(METRICS)}")
    if unit == "%":
        return Budget(metric, f">{number}%", float(number) / 100, relative=True)
    units = _UNITS[METRICS[metric]]
    if unit not in units:
        known = ", ".join(name for name in units if name)
        raise UseError(f"--fail-on {text!r}: no unit {unit!r} for {metric}; there are %, {known}")
    return Budget(metric, f">{number}{unit}", float(number) * units[unit])


def evaluate(
    budgets: Sequence[Budget],
    deltas: Mapping[str, Mapping[str, float]],
    verdict: Verdict | None = None,
) -> list[BudgetResult]:
    """Hold each budget against the deltas (and the verdict, where one is asked for).

    Growth from nothing breaks any percentage. Without a program after (``REMOVED``) every
    budget is broken, whatever it asks; without one before (``ADDED``) there is nothing to
    grow from, so that only verdicts can break. ``actual`` is then the verdict.
    """
    return [_evaluate(budget, deltas, verdict) for budget in budgets]


def _evaluate(
    budget: Budget, deltas: Mapping[str, Mapping[str, float]], verdict: Verdict | None
) -> BudgetResult:
    if verdict is Verdict.REMOVED:
        return BudgetResult(budget.metric, budget.text, str(verdict), True)
    if verdict is Verdict.ADDED and budget.metric != "verdict":
        return BudgetResult(budget.metric, budget.text, str(verdict), False)
    if budget.metric == "verdict":
        broken = verdict in _FAILING[budget.text]
        return BudgetResult("verdict", budget.text, str(verdict), broken)
    before, after = deltas[budget.metric]["before"], deltas[budget.metric]["after"]
    growth = after - before
    if not budget.relative:
        return BudgetResult(budget.metric, budget.text, growth, growth > budget.limit)
    if not before:
        # JSON has no infinity: the growth itself then stands for it
        return BudgetResult(budget.metric, budget.text, growth, growth > 0)
    share = growth / before
    return BudgetResult(budget.metric, budget.text, share, share > budget.limit)
