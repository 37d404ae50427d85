"""Patterns over StableHLO, for rewrites: shapes of expressions with captured values.

    SILU = op("multiply", capture("x"), op("logistic", capture("x")))

    for match in module.matches(SILU):
        match.root, match["x"]

A name that is captured twice has to be the same value both times. ``add``, ``multiply`` and
others that commute match in both orders.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from hlo_lab.passkit.rewriter import Op, Value

COMMUTATIVE = frozenset(("add", "multiply", "maximum", "minimum", "and", "or", "xor"))
Found = Mapping[str, Value]


@dataclass(frozen=True)
class Match:
    """``match["x"]`` is what was captured; ``root`` the operation that the pattern begins with."""

    root: Op
    values: Found

    def __getitem__(self, name: str) -> Value:
        return self.values[name]

    def op(self, name: str) -> Op:
        """The operation that gives a captured value."""
        found = self.values[name].op
        assert found is not None
        return found


class Pattern:
    """What ``capture``, ``splat`` and ``op`` make."""

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the operations that it may begin with; empty for any."""
        return ()

    def match(self, value: Value, found: Found) -> Iterator[Found]:
        """Each way in which it matches, with what is captured then."""
        raise NotImplementedError

    def match_op(self, op: Op) -> Match | None:
        """The first way in which it matches what an operation gives."""
        if not op.results:
            return None
        found = next(self.match(op.result, {}), None)
        return None if found is None else Match(op, found)


@dataclass(frozen=True)
class _Capture(Pattern):
    name: str
    where: Callable[[Value], bool] | None
    inner: Pattern | None = None

    @property
    def names(self) -> tuple[str, ...]:
        return () if self.inner is None else self.inner.names

    def match(self, value: Value, found: Found) -> Iterator[Found]:
        if found.get(self.name, value) != value:
            return
        if self.where is not None and not self.where(value):
            return
        ways = [found] if self.inner is None else self.inner.match(value, found)
        for way in ways:
            yield {**way, self.name: value}


@dataclass(frozen=True)
class _Splat(Pattern):
    number: float

    def match(self, value: Value, found: Found) -> Iterator[Found]:
        if value.splat == self.number:
            yield found


@dataclass(frozen=True)
class _Op(Pattern):
    alternatives: tuple[str, ...]
    operands: tuple[Pattern, ...]
    where: Callable[[Op], bool] | None
    used_once: bool

    @property
    def names(self) -> tuple[str, ...]:
        return self.alternatives

    def match(self, value: Value, found: Found) -> Iterator[Found]:
        op = value.op
        if op is None or op.name not in self.alternatives:
            return
        if self.used_once and len(value.users) != 1:
            return
        if self.where is not None and not self.where(op):
            return
        values = op.operands
        if len(values) < len(self.operands):
            return
        yield from self._each(values, found, 0)
        if op.name in COMMUTATIVE and len(self.operands) == 2:
            yield from self._each(values[::-1], found, 0)

    def _each(self, values: list[Value], found: Found, at: int) -> Iterator[Found]:
        if at == len(self.operands):
            yield found
            return
        for way in self.operands[at].match(values[at], found):
            yield from self._each(values, way, at + 1)


def capture(
    name: str, pattern: Pattern | None = None, where: Callable[[Value], bool] | None = None
) -> Pattern:
    """Any value, or one that a pattern matches and ``where`` accepts, under a name."""
    return _Capture(name, where, pattern)


def anything() -> Pattern:
    """Any value."""
    return _Any()


@dataclass(frozen=True)
class _Any(Pattern):
    def match(self, value: Value, found: Found) -> Iterator[Found]:
        yield found


def splat(number: float) -> Pattern:
    """A constant full of one number, however it was broadcast."""
    return _Splat(number)


def op(
    name: str | tuple[str, ...],
    *operands: Pattern,
    where: Callable[[Op], bool] | None = None,
    used_once: bool = False,
) -> Pattern:
    """What an operation of this name, or one of several, gives.

    Args:
        operands: patterns of its first operands; those that are not named are whatever they are.
        where: looks at the operation, such as at its attributes.
        used_once: only where one operation takes the result, so that a rewrite leaves nothing
            of it behind.
    """
    names = (name,) if isinstance(name, str) else name
    return _Op(names, operands, where, used_once)
