"""Which of two compiled modules takes less time, and how far that is to be believed.

The one place where a verdict on time is made, from three kinds of figures: times measured in
turn; the cycles that XLA:TPU expects, with the project's own estimate for the kernels that it
gives none for (gathers, scatters, large sorts, copies); and that estimate alone.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from hlo_lab.cost.compiler import compiler_cost
from hlo_lab.cost.critical_path import critical_path
from hlo_lab.cost.model import ModuleCost
from hlo_lab.cost.overlap import pairs
from hlo_lab.ir.module import Module


class Direction(enum.StrEnum):
    FASTER = "faster"
    SLOWER = "slower"
    SAME = "same"
    UNDECIDED = "undecided"


class Basis(enum.StrEnum):
    """What seconds rest on."""

    MEASURED = "measured"
    COMPILER = "compiler"  # its cycles, and the model where it gives none
    MODEL = "model"


@dataclass(frozen=True)
class Times:
    """Seconds of a call of a module.

    Attributes:
        model: by the project's own estimate, asynchronous pairs beside the kernels.
        compiler: the same by the compiler's cycles where it gives them; None where it gives
            none, or where they are not to be believed (see ``cost.compiler``).
        coverage: share of the kernels' seconds in ``compiler`` that is the compiler's, 0 to 1.
        lower_bound: a loop runs nobody knows how often.
    """

    model: float
    compiler: float | None = None
    coverage: float = 0.0
    lower_bound: bool = False

    @classmethod
    def of(cls, module: Module, cost: ModuleCost) -> Times:
        own = critical_path(module, cost, pairs(module, cost)).seconds
        least = cost.lower_bound
        theirs = compiler_cost(module, cost, cost.machine) if cost.machine.kind == "tpu" else None
        if theirs is None or not theirs.has_seconds:
            return cls(own, lower_bound=least)
        filled = replace(cost, seconds=theirs.filled(cost))
        path = critical_path(module, filled, pairs(module, filled))
        share = theirs.total_seconds / filled.total_seconds if filled.total_seconds else 0.0
        return cls(own, path.seconds, share, least)


@dataclass(frozen=True)
class TimeChange:
    """Seconds of a call before and after a change of the program.

    Attributes:
        low, high: where after / before is: with a chance of 95 % where it was measured, else
            by the estimates that there are.
        coverage: share of the seconds that is the compiler's, the less of both sides, 0 to 1.
        doubt: why no direction can be told whatever the figures say; empty for none.
    """

    basis: Basis
    before: float
    after: float
    low: float
    high: float
    coverage: float = 0.0
    doubt: str = ""

    @property
    def ratio(self) -> float:
        """after / before."""
        return _ratio(self.before, self.after)

    @property
    def saved(self) -> float:
        """Seconds per call; negative where it takes longer."""
        return self.before - self.after

    def direction(self, noise: float, least: float = 0.0) -> Direction:
        """Whether it is faster.

        Args:
            noise: share of the time before that says nothing.
            least: seconds that have to be saved, beyond the noise, to be faster.
        """
        if self.doubt:
            return Direction.UNDECIDED
        # estimates that do not contradict; of a measurement all of the interval, for the same too
        margin = -noise if self.basis is Basis.MEASURED else noise
        saved = self.saved >= max(least, noise * self.before) and self.ratio < 1
        if saved and self.high <= 1 + margin:
            return Direction.FASTER
        if self.ratio > 1 + noise and self.low >= 1 - margin:
            return Direction.SLOWER
        if self.basis is Basis.MEASURED:
            band = max(noise, least / self.before if self.before else 0.0)
            is_same = self.low >= 1 - band and self.high <= 1 + band
        else:
            is_same = self.low >= 1 - noise or self.high <= 1 + noise
        return Direction.SAME if is_same else Direction.UNDECIDED

    @property
    def disagreement(self) -> str:
        """Why ``direction`` is undecided, in words."""
        if self.doubt:
            return self.doubt
        low, high = f"{self.low:.3g}", f"{self.high:.3g}"
        if self.basis is Basis.MEASURED:
            return f"measured, it takes between {low} and {high} times as long, too noisy to tell"
        return f"the compiler's cycles and our model disagree: {low} and {high} times as long"


def time_change(
    before: Times, after: Times, measured: Mapping[str, Any] | None = None
) -> TimeChange:
    """Compare two modules.

    Args:
        measured: what ``measure.paired.as_dict`` gives, where both were run.
    """
    if measured is not None:
        sides = (measured["before_s"], measured["after_s"])
        return TimeChange(Basis.MEASURED, *sides, measured["low"], measured["high"])
    doubt = ""
    if before.lower_bound != after.lower_bound:
        doubt = "on one side alone a loop runs an unknown number of times"
    own = _ratio(before.model, after.model)
    if before.compiler is None or after.compiler is None:
        return TimeChange(Basis.MODEL, before.model, after.model, own, own, doubt=doubt)
    theirs = _ratio(before.compiler, after.compiler)
    low, high = sorted((own, theirs))
    share = min(before.coverage, after.coverage)
    return TimeChange(Basis.COMPILER, before.compiler, after.compiler, low, high, share, doubt)


def _ratio(before: float, after: float) -> float:
    if before:
        return after / before
    return float("inf") if after else 1.0
