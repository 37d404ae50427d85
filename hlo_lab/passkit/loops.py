"""Loops of a known number of iterations, for rewrites."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hlo_lab.passkit.rewriter import Op, Value


@dataclass(frozen=True)
class CountedLoop:
    """A ``while`` that a counter alone ends: ``for i in range(start, limit, step)``.

    Attributes:
        op: the loop.
        counter: which of its values counts.
    """

    op: Op
    counter: int
    start: int
    limit: int
    step: int

    @classmethod
    def of(cls, op: Op) -> CountedLoop | None:
        """None where its limits are no constants, or something else may end it."""
        condition, body = (region.blocks[0] for region in op.raw.regions)
        test = Value(ends_of(condition).operands[0], op.rewriter).op
        if test is None or test.name != "compare":
            return None
        if test.attribute("comparison_direction") != "LT":
            return None
        arguments = list(condition.arguments)
        left, right = test.operands
        if left.raw not in arguments:
            return None
        counter = arguments.index(left.raw)
        step = _step(Value(ends_of(body).operands[counter], op.rewriter), body.arguments[counter])
        start, limit = op.operands[counter].splat, right.splat
        if not (isinstance(start, int) and isinstance(limit, int) and step and step > 0):
            return None
        return cls(op, counter, start, limit, step)

    @property
    def trips(self) -> int:
        """How often its body runs."""
        return max(0, -(-(self.limit - self.start) // self.step))

    @property
    def is_innermost(self) -> bool:
        return not any(each.name == "while" for each in self.op.walk())

    @property
    def body(self) -> Any:
        """The block that runs each time."""
        return self.op.raw.regions[1].blocks[0]

    def index(self, value: Value) -> Affine | None:
        """A scalar of the body as a function of the iteration; None where it is none."""
        if isinstance(number := value.splat, int):
            return Affine(number, 0)
        arguments = list(self.body.arguments)
        if value.raw in arguments:
            at = arguments.index(value.raw)
            begin = self.op.operands[at].splat
            step = _step(Value(ends_of(self.body).operands[at], self.op.rewriter), value.raw)
            known = isinstance(begin, int) and step is not None
            return Affine(int(begin or 0), step or 0) if known else None
        op = value.op
        if op is None or op.name not in ("add", "convert", "select", "subtract"):
            return None
        if op.name == "select":
            return self._wrapped(op)
        if op.name == "convert":
            source = op.operands[0]
            return self.index(source) if source.dtype == value.dtype else None
        left, right = (self.index(each) for each in op.operands)
        if left is None or right is None:
            return None
        sign = 1 if op.name == "add" else -1
        return Affine(left.start + sign * right.start, left.step + sign * right.step)

    def _wrapped(self, select: Op) -> Affine | None:
        """An index that would count from the end if it were negative, as JAX makes them."""
        condition, _, plain = select.operands
        test, found = condition.op, self.index(plain)
        if test is None or test.name != "compare" or found is None:
            return None
        below = test.attribute("comparison_direction") == "LT" and test.operands[1].splat == 0
        tested = self.index(test.operands[0])
        return found if below and tested == found and found.least(self.trips) >= 0 else None


@dataclass(frozen=True)
class Affine:
    """``start + step * t`` in iteration ``t``, which counts from 0."""

    start: int
    step: int

    def least(self, trips: int) -> int:
        return min(self.start, self.start + self.step * (trips - 1))

    def most(self, trips: int) -> int:
        return max(self.start, self.start + self.step * (trips - 1))


def ends_of(block: Any) -> Any:
    """The operation at the end of a block, which takes what the block gives."""
    *_, last = block.operations
    return last.operation


def _step(value: Value, counter: Any) -> int | None:
    """By how much a value is more than the counter; None for another."""
    op = value.op
    if op is None or op.name != "add":
        return None
    for one, other in (op.operands, op.operands[::-1]):
        step = other.splat
        if one.raw == counter and isinstance(step, int):
            return step
    return None
