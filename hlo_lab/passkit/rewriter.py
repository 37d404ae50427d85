"""A StableHLO module under rewriting: its operations and values as light views, and the edits.

Operations are called what StableHLO calls them, without the dialect (``add``,
``dot_general``), those of other dialects with it (``chlo.top_k``). Element types are MLIR's
(``f32``, ``bf16``, ``i32``, ``i1``).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hlo_lab.passkit import mlir
from hlo_lab.passkit.mlir_module import DIALECT, identity, is_pure, take_marks, taken, walk

if TYPE_CHECKING:
    from hlo_lab.passkit.builder import Builder
    from hlo_lab.passkit.place import Place
    from hlo_lab.passkit.stablehlo_patterns import Match, Pattern

_SEE_THROUGH = ("broadcast_in_dim", "convert", "reshape", "transpose")


@dataclass(frozen=True)
class Value:
    """A tensor in the program: an argument, or the result of an operation."""

    raw: Any
    rewriter: Rewriter

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes of its dimensions; negative where they are not known."""
        return tuple(self.raw.type.shape)

    @property
    def rank(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def dtype(self) -> str:
        return str(self.raw.type.element_type)

    @property
    def bytes(self) -> int:
        """What it takes, without padding."""
        return -(-self.size * mlir.bits(self.dtype) // 8)

    @property
    def is_float(self) -> bool:
        return self.dtype.startswith(("f", "bf"))

    @property
    def is_token(self) -> bool:
        """Whether it only says what comes after what; then it has neither shape nor dtype."""
        return str(self.raw.type) == "!stablehlo.token"

    @property
    def op(self) -> Op | None:
        """What gives it; None of an argument."""
        owner = self.raw.owner
        if not hasattr(owner, "operation"):
            return None
        return Op(owner.operation, self.rewriter)

    @property
    def users(self) -> list[Op]:
        """The operations that take it, each once, without those that a rewrite left behind."""
        found = dict.fromkeys(use.owner.operation for use in self.raw.uses)
        return [Op(each, self.rewriter) for each in found if not self.rewriter.is_dead(each)]

    @property
    def splat(self) -> float | int | bool | None:
        """The number that it is full of; None where it is no such constant."""
        op = self.op
        while op is not None and op.name in _SEE_THROUGH:
            op = op.operands[0].op
        if op is None or op.name != "constant":
            return None
        return mlir.splat_of(op.raw.attributes["value"])

    def is_a(self, *names: str) -> bool:
        """Whether an operation of one of these names gives it."""
        op = self.op
        return op is not None and op.name in names


@dataclass(frozen=True)
class Op:
    """An operation."""

    raw: Any
    rewriter: Rewriter

    @property
    def name(self) -> str:
        return str(self.raw.name).removeprefix(DIALECT)

    @property
    def operands(self) -> list[Value]:
        return [Value(each, self.rewriter) for each in self.raw.operands]

    @property
    def results(self) -> list[Value]:
        return [Value(each, self.rewriter) for each in self.raw.results]

    @property
    def result(self) -> Value:
        """Its only result, or its first one."""
        return Value(self.raw.results[0], self.rewriter)

    def attribute(self, name: str) -> Any:
        """Number, text or tuple; MLIR's own attribute where it is none of them; None if absent."""
        if name not in self.raw.attributes:
            return None
        return mlir.plain(self.raw.attributes[name])

    @property
    def dot(self) -> mlir.DotDimensions:
        """The dimensions of a ``dot_general``."""
        return mlir.DotDimensions.of(self.raw)

    @property
    def precision(self) -> Any:
        """The precision of its operands, as ``Builder.dot_general`` takes it; None for none."""
        if "precision_config" not in self.raw.attributes:
            return None
        return self.raw.attributes["precision_config"]

    @property
    def inner(self) -> list[Op]:
        """The operations of its regions, one after another."""
        return [
            Op(each.operation, self.rewriter)
            for region in self.raw.regions
            for block in region.blocks
            for each in block.operations
        ]

    def walk(self) -> Iterator[Op]:
        """Everything that is inside of it, however deep, in program order."""
        return (Op(each, self.rewriter) for each in walk(self.raw))

    @property
    def arguments(self) -> list[Value]:
        """The arguments of its regions, one region after another."""
        return [
            Value(each, self.rewriter)
            for region in self.raw.regions
            for block in region.blocks
            for each in block.arguments
        ]

    @property
    def place(self) -> str:
        """What JAX calls it, such as ``jit(step)/dot_general``; empty where it has no name."""
        return mlir.name_and_place(self.raw.location)[0]

    def is_before(self, other: Op) -> bool:
        """Whether it stands before another one of the same block; False in different ones."""
        if self.raw.block != other.raw.block:
            return False
        return bool(self.raw.is_before_in_block(other.raw))


class Rewriter:
    """What a pass rewrites.

    Attributes:
        raw: the MLIR module; calls in it are inlined.
        changes: how often something was replaced.
        place: which operations ``ops`` and ``matches`` give; None for all.
    """

    def __init__(self, raw: Any, place: Place | None = None):
        self.raw = raw
        self.changes = 0
        self.place = place
        self._here: set[Any] | None = None
        if place is not None:
            self._here = {identity(each) for each in place.select(walk(raw.operation))}
        self._dead: set[Any] = set()

    # ---- looking

    def ops(self, *names: str) -> Iterator[Op]:
        """The operations of these names, or all, in program order; loops' bodies included.

        They are listed at the start; those that a rewrite left behind meanwhile are left out.
        Of a rewriter with a place, those that were there from the start.
        """
        for raw in list(walk(self.raw.operation)):
            if not self.is_dead(raw) and (self._here is None or identity(raw) in self._here):
                op = Op(raw, self)
                if not names or op.name in names:
                    yield op

    def matches(self, pattern: Pattern) -> Iterator[Match]:
        """Where a pattern matches, in program order; see ``stablehlo_patterns``."""
        for op in self.ops(*pattern.names):
            match = pattern.match_op(op)
            if match is not None:
                yield match

    def is_dead(self, raw: Any) -> bool:
        """Whether a rewrite left an operation behind, or what it is inside of."""
        while raw is not None and self._dead:
            if identity(raw) in self._dead:
                return True
            raw = raw.parent
            raw = None if raw is None else raw.operation
        return False

    # ---- changing

    def before(self, op: Op) -> Builder:
        """Builds in front of an operation, with its name and source line."""
        from hlo_lab.passkit.builder import Builder

        return Builder(self, op.raw, op.raw.location)

    def replace(self, old: Op | Value, *new: Value) -> None:
        """Let everything that takes what ``old`` gives take ``new``, and drop what is unused.

        Args:
            old: a value, or an operation: then ``new`` is one value for each of its results.

        Raises:
            ValueError: shape or element type differ, or their number does.
        """
        values = [old] if isinstance(old, Value) else old.results
        if len(values) != len(new):
            raise ValueError(f"{len(values)} results cannot be replaced by {len(new)}")
        for value, other in zip(values, new, strict=True):
            if value.raw.type != other.raw.type:
                raise ValueError(f"{value.raw.type} cannot be replaced by {other.raw.type}")
        for value, other in zip(values, new, strict=True):
            take_marks(value.raw, other.raw)
            value.raw.replace_all_uses_with(other.raw)
        self.changes += 1
        for value in values:
            if (op := value.op) is not None:
                self._drop(op)

    def remove(self, op: Op) -> None:
        """Drop an operation whatever else sees that it runs. Counts as a change.

        Raises:
            ValueError: something takes what it gives.
        """
        if any(result.users for result in op.results):
            raise ValueError(f"{op.name} has users: replace what it gives first")
        self._dead.add(identity(op.raw))
        self.changes += 1
        for value in op.operands:
            if value.op is not None:
                self._drop(value.op)

    def set_operand(self, op: Op, number: int, value: Value) -> None:
        """Let one operand be another value of its type. Counts as a change."""
        previous = op.operands[number]
        op.raw.operands[number] = value.raw
        self.changes += 1
        if (left := previous.op) is not None:
            self._drop(left)

    def hoist(self, value: Value, before: Op, without: Collection[Op]) -> bool:
        """Move what a value is computed from in front of an operation; whether it is there.

        Not where it depends on one of ``without``, or on what may not be moved.
        """
        moved: list[Any] = []
        pending = [] if value.op is None else [value.op.raw]
        barriers = {before.raw, *(op.raw for op in without)}
        while pending:
            raw = pending.pop()
            outside = raw.block != before.raw.block
            if outside or (raw not in barriers and raw.is_before_in_block(before.raw)):
                continue
            if raw in barriers or not is_pure(raw):
                return False
            moved.append(raw)
            owners = (each.owner for each in taken(raw))
            pending += [owner.operation for owner in owners if hasattr(owner, "operation")]
        ordered = sorted(dict.fromkeys(moved), key=functools.cmp_to_key(_by_place))
        for raw in ordered:
            raw.move_before(before.raw)
        return True

    def finish(self) -> None:
        """Remove what was left behind. Called once the pass is done.

        Users come after what they use, so they go last to first.
        """
        for raw in reversed(
            [raw for raw in walk(self.raw.operation) if identity(raw) in self._dead]
        ):
            raw.erase()
        self._dead.clear()

    def _drop(self, op: Op) -> None:
        pending = [op]
        while pending:
            each = pending.pop()
            if identity(each.raw) in self._dead or not is_pure(each.raw):
                continue
            if any(result.users for result in each.results):
                continue
            self._dead.add(identity(each.raw))
            pending += [value.op for value in each.operands if value.op is not None]
            pending += [
                value.op
                for inner in walk(each.raw)
                for value in Op(inner, self).operands
                if value.op is not None and not self.is_dead(value.op.raw)
            ]


def _by_place(one: Any, other: Any) -> int:
    return -1 if one.is_before_in_block(other) else 1
