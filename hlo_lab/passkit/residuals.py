"""What a loop stacks for a later loop, and computing it again there instead.

``jax.grad`` of a scan is two loops: the first stacks what the second reads, a row in each
iteration. What a row was computed from is often there anyway.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from hlo_lab.passkit import mlir
from hlo_lab.passkit.loops import Affine, CountedLoop, ends_of
from hlo_lab.passkit.mlir_module import forget, is_pure, walk
from hlo_lab.passkit.rewriter import Op, Rewriter, Value

Allows = Callable[[Op], bool]


@dataclass(frozen=True)
class Read:
    """A row of a stack, read in the body of another loop."""

    op: Op
    loop: CountedLoop
    index: Affine


@dataclass(frozen=True)
class Stack:
    """An array that a loop writes a row of in each iteration.

    Attributes:
        number: which of the loop's values it is.
        write: the ``dynamic_update_slice``.
        reads: rows that other loops read; None where something else uses it too.
    """

    loop: CountedLoop
    number: int
    write: Op
    reads: tuple[Read, ...] | None

    @property
    def row(self) -> Value:
        """What is written, with a leading dimension of one."""
        return self.write.operands[1]

    @property
    def value(self) -> Value:
        """What is written, as the loop computes it."""
        op = self.row.op
        shaped = op is not None and op.name in ("broadcast_in_dim", "reshape")
        inner = op.operands[0] if op is not None and shaped else self.row
        return inner if inner.shape == self.row.shape[1:] else self.row

    @property
    def bytes(self) -> int:
        return self.write.result.bytes


def stacks_of(loop: CountedLoop) -> list[Stack]:
    """What a loop stacks, a row in each iteration, all rows of it."""
    found = []
    returned = ends_of(loop.body).operands
    for number, argument in enumerate(loop.body.arguments):
        array, new = (Value(raw, loop.op.rewriter) for raw in (argument, returned[number]))
        write = new.op
        if write is None or write.name != "dynamic_update_slice" or write.operands[0] != array:
            continue
        if len(array.users) != 1 or len(new.users) != 1:
            continue
        rows = write.operands[1].shape
        index = _row_index(loop, array, write.operands[2:], rows)
        if index == Affine(0, 1) and array.shape[0] == loop.trips:
            found.append(Stack(loop, number, write, _reads(loop.op.results[number])))
    return found


def _row_index(
    loop: CountedLoop, array: Value, starts: Sequence[Value], shape: tuple[int, ...]
) -> Affine | None:
    """Which row of an array is meant in each iteration; None for anything but whole rows."""
    if not shape or shape[0] != 1 or shape[1:] != array.shape[1:]:
        return None
    first, *rest = (loop.index(each) for each in starts)
    return first if all(each == Affine(0, 0) for each in rest) else None


def _reads(stack: Value) -> tuple[Read, ...] | None:
    found: list[Read] = []
    for user in stack.users:
        loop = CountedLoop.of(user) if user.name == "while" else None
        if loop is None:
            return None
        for number, operand in enumerate(user.operands):
            if operand == stack:
                inside = _reads_inside(loop, number)
                if inside is None:
                    return None
                found += inside
    return tuple(found) if found else None


def _reads_inside(loop: CountedLoop, number: int) -> list[Read] | None:
    argument = Value(loop.body.arguments[number], loop.op.rewriter)
    ends = ends_of(loop.body)
    if ends.operands[number] != argument.raw or loop.op.results[number].users:
        return None
    found = []
    for user in argument.users:
        if user.raw == ends:
            continue
        if user.name != "dynamic_slice" or user.raw.block != loop.body:
            return None
        index = _row_index(loop, argument, user.operands[1:], user.result.shape)
        inside = index is not None and index.least(loop.trips) >= 0
        if index is None or not inside or index.most(loop.trips) >= argument.shape[0]:
            return None
        found.append(Read(user, loop, index))
    return found


class Recomputation:
    """Rows of stacks computed again where they are read, from stacks that are kept.

    Attributes:
        dropped: the stacks that nothing reads afterwards, of those that were asked for.
    """

    def __init__(self, loop: CountedLoop, asked: Sequence[Stack], allows: Allows):
        self._loop = loop
        self._allows = allows
        self._arguments = list(loop.body.arguments)
        self._returned = list(ends_of(loop.body).operands)
        stacks = stacks_of(loop)
        # what is computed from another comes after it
        order = {each.operation: at for at, each in enumerate(loop.body.operations)}
        self.dropped = sorted(
            (each for each in asked if each.reads),
            key=lambda each: -1 if each.value.op is None else order.get(each.value.op.raw, -1),
        )
        while True:
            numbers = {each.number for each in self.dropped}
            self._kept = {each.value.raw: each for each in stacks if each.number not in numbers}
            self._possible: dict[Any, bool] = {}
            # keeping one makes those possible that are computed from it
            wrong = next((each for each in self.dropped if not self._can(each.value)), None)
            if wrong is None:
                break
            self.dropped.remove(wrong)

    def apply(self, module: Rewriter) -> None:
        """Each stack that is dropped counts as a change."""
        made: dict[tuple[Any, Affine], tuple[Any, dict[Any, Value]]] = {}
        reads = [(stack, read) for stack in self.dropped for read in stack.reads or ()]
        for _, read in reads:
            key = (read.loop.op.raw, read.index)
            first = made.get(key, (read.op.raw, {}))[0]
            earlier = read.op.raw.is_before_in_block(first)
            made[key] = (read.op.raw if earlier else first, {})
        changes = module.changes
        # all is computed before anything is replaced: a row may be read for another one
        rows = []
        for stack, read in reads:
            point, known = made[read.loop.op.raw, read.index]
            place = _Place(module, Op(point, module), known)
            rows.append((read.op, self._again(place, stack.row)))
        for op, row in rows:
            module.replace(op, row)
        ends = Op(ends_of(self._loop.body), module)
        for stack in self.dropped:
            argument = Value(self._arguments[stack.number], module)
            module.set_operand(ends, stack.number, argument)
            forget(self._loop.op.raw, stack.number)
        module.changes = changes + len(self.dropped)

    # ---- whether it can be done

    def _can(self, value: Value) -> bool:
        if value.raw not in self._possible:
            self._possible[value.raw] = self._look(value)
        return self._possible[value.raw]

    def _look(self, value: Value) -> bool:
        if value.raw in self._kept or not self._is_inside(value):
            return True
        op = value.op
        if op is None:
            return self._is_invariant(value) or self._loop.index(value) is not None
        if not (is_pure(op.raw) and self._allows(op) and _is_closed(op)):
            return False
        return all(self._can(each) for each in op.operands)

    def _is_inside(self, value: Value) -> bool:
        if value.op is None:
            return value.raw in self._arguments
        return bool(value.op.raw.block == self._loop.body)

    def _is_invariant(self, value: Value) -> bool:
        return bool(self._returned[self._arguments.index(value.raw)] == value.raw)

    # ---- doing it

    def _again(self, place: _Place, value: Value) -> Value:
        if value.raw not in place.known:
            place.known[value.raw] = self._make(place, value)
        return place.known[value.raw]

    def _make(self, place: _Place, value: Value) -> Value:
        if not self._is_inside(value):
            return value
        if (stack := self._kept.get(value.raw)) is not None:
            return place.row(self._loop.op.results[stack.number], value.shape)
        if value.op is None:
            number = self._arguments.index(value.raw)
            if self._is_invariant(value):
                return self._loop.op.operands[number]
            index = self._loop.index(value)
            assert index is not None
            return place.count(index, value.dtype)
        known = {each.raw: self._again(place, each).raw for each in value.op.operands}
        mlir.clone([value.op.raw], known, place.read.raw)
        return Value(known[value.raw], value.rewriter)


@dataclass(frozen=True)
class _Place:
    """In front of a read of a row, in another loop; ``known`` has what is there already."""

    module: Rewriter
    read: Op
    known: dict[Any, Value]

    def row(self, stack: Value, shape: tuple[int, ...]) -> Value:
        build, (_, *starts) = self.module.before(self.read), self.read.operands
        starts = [starts[0], *(build.constant(0, (), starts[0].dtype) for _ in stack.shape[1:])]
        sizes = [1, *stack.shape[1:]]
        types = [(sizes, stack.dtype)]
        read = build.op("dynamic_slice", [stack, *starts], types, slice_sizes=sizes)
        return build.reshape(read.result, shape)

    def count(self, index: Affine, dtype: str) -> Value:
        """What counted in the first loop when the row was written."""
        build = self.module.before(self.read)
        value = build.convert(self.read.operands[1], dtype)
        if index.step != 1:
            value = build.elementwise("multiply", value, build.constant(index.step, (), dtype))
        if index.start:
            value = build.elementwise("add", value, build.constant(index.start, (), dtype))
        return value


def _is_closed(op: Op) -> bool:
    """Whether its regions take nothing from outside of them."""
    inside = list(walk(op.raw))
    given = {value for raw in inside for value in raw.results}
    given |= {value.raw for each in (op, *op.walk()) for value in each.arguments}
    return all(value in given for raw in inside for value in raw.operands)
