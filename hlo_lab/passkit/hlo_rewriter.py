"""An HLO module under rewriting: its instructions as light views, and the edits.

Instructions are called what XLA calls them (``add``, ``dot``, ``get-tuple-element``), element
types as well (``f32``, ``pred``). An instruction is its own and only result: patterns capture
it, and others take it.

Edits are noted down as they come and made all at once by ``finish``, so that views stay good.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

from hlo_lab.ir.assembly import Row, assemble
from hlo_lab.ir.module import Module
from hlo_lab.ir.shapes import Shape
from hlo_lab.ir.source import Frame
from hlo_lab.ir.verifier import verify

if TYPE_CHECKING:
    from hlo_lab.passkit.hlo_builder import HloBuilder
    from hlo_lab.passkit.place import Place
    from hlo_lab.passkit.stablehlo_patterns import Pattern

_SEE_THROUGH = ("bitcast", "broadcast", "copy", "reshape", "transpose")
_FLOAT = re.compile(r"b?f\d|c\d")
_MAX_LITERAL = 4096  # characters of a constant that are looked through for one number


@dataclass(frozen=True, eq=False)
class HloOp:
    """An instruction."""

    number: int
    rewriter: HloRewriter

    def __eq__(self, other: object) -> bool:
        return isinstance(other, HloOp) and other.number == self.number

    def __hash__(self) -> int:
        return self.number

    # ---- what it is

    @property
    def name(self) -> str:
        """Its opcode."""
        return self.rewriter.row(self.number).opcode

    @property
    def label(self) -> str:
        """What the module calls it, such as ``add.3``."""
        return self.rewriter.row(self.number).name

    @property
    def type(self) -> Shape:
        """Its shape with element type and layout, or that of a tuple."""
        return self.rewriter.row(self.number).shape

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes of its dimensions; none of a tuple."""
        return self.type.dims

    @property
    def rank(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def dtype(self) -> str:
        return self.type.dtype

    @property
    def is_float(self) -> bool:
        return _FLOAT.match(self.dtype) is not None

    def attribute(self, name: str) -> str | None:
        """As XLA prints it, such as ``{1}`` of ``dimensions``; None if absent."""
        return self.attributes.get(name)

    @property
    def attributes(self) -> Mapping[str, str]:
        return self.rewriter.row(self.number).attributes

    @property
    def literal(self) -> str | None:
        """A constant's value as XLA prints it; None for others."""
        return self.rewriter.row(self.number).literal

    @property
    def splat(self) -> float | int | bool | None:
        """The number that it is full of; None where it is no such constant."""
        op = self
        while op.name in _SEE_THROUGH:
            op = op.operands[0]
        return None if op.literal is None else _one_number(op.literal, op.dtype)

    @property
    def place(self) -> str:
        """What JAX calls it, such as ``jit(step)/dot_general``; empty where it has no name."""
        return self.rewriter.row(self.number).metadata.op_name

    @property
    def source(self) -> tuple[Frame, ...]:
        """The user's source lines, innermost first; empty when unknown."""
        return self.rewriter.source(self.number)

    # ---- what is around it

    @property
    def op(self) -> HloOp:
        """Itself, as what gives the value."""
        return self

    @property
    def result(self) -> HloOp:
        return self

    @property
    def results(self) -> list[HloOp]:
        return [self]

    @property
    def operands(self) -> list[HloOp]:
        return [HloOp(each, self.rewriter) for each in self.rewriter.operands_of(self.number)]

    @property
    def users(self) -> list[HloOp]:
        """The instructions that take it, each once, in the module's order."""
        return [HloOp(each, self.rewriter) for each in self.rewriter.users_of(self.number)]

    @property
    def is_root(self) -> bool:
        """Whether it is what its computation gives."""
        return self.rewriter.is_root(self.number)

    @property
    def computation(self) -> str:
        """The name of the computation that it is in."""
        return self.rewriter.computation_of(self.number)

    def is_a(self, *names: str) -> bool:
        """Whether it is one of these operations."""
        return self.name in names


@dataclass(frozen=True)
class HloMatch:
    """``match["x"]`` is what was captured; ``root`` what the pattern begins with."""

    root: HloOp
    values: Mapping[str, HloOp]

    def __getitem__(self, name: str) -> HloOp:
        return self.values[name]


class HloRewriter:
    """What a pass on HLO rewrites.

    Attributes:
        module: the module as it was.
        changes: how often something was replaced.
        place: which instructions ``ops`` and ``matches`` give; None for all.
    """

    def __init__(self, module: Module, place: Place | None = None):
        self.module = module
        self.changes = 0
        self.place = place
        self._rows: dict[int, Row] = {}  # new ones, and those of the module that differ now
        self._operands: dict[int, list[int]] = {}
        self._users: dict[int, dict[int, None]] = {}
        self._roots: dict[int, int] = {}  # by computation
        self._orders: dict[int, list[int]] = {}
        self._names: dict[int, set[str]] = {}
        self._dead: set[int] = set()
        self._owners: list[int] = []  # computations of new ones

    # ---- looking

    def ops(self, *names: str) -> Iterator[HloOp]:
        """The instructions of these names, or all, in the module's order, of all computations.

        Those that a rewrite left behind meanwhile are left out, and those that it made.
        """
        for number in range(len(self.module)):
            if number not in self._dead and (self._here is None or number in self._here):
                op = HloOp(number, self)
                if not names or op.name in names:
                    yield op

    def matches(self, pattern: Pattern) -> Iterator[HloMatch]:
        """Where a pattern matches, in the module's order; see ``stablehlo_patterns``."""
        for op in self.ops(*pattern.names):
            match = pattern.match_op(cast(Any, op))
            if match is not None:
                values = cast(Mapping[str, HloOp], match.values)
                yield HloMatch(op, values)

    def order(self, computation: str) -> list[HloOp]:
        """The instructions of a computation, in the order of the schedule where it has one."""
        return [
            HloOp(number, self)
            for number in self._order(self._number_of(computation))
            if number not in self._dead
        ]

    @property
    def computations(self) -> list[str]:
        """Names; callees come before callers, and the entry is the last."""
        return list(self.module.computation_names)

    def control_predecessors(self, op: HloOp) -> list[HloOp]:
        """What has to run before it without giving it anything."""
        if op.number >= len(self.module):
            return []
        before = self.module.instruction(op.number).control_predecessors
        return [HloOp(each.index, self) for each in before]

    # ---- changing

    def before(self, op: HloOp) -> HloBuilder:
        """Builds in front of an instruction, with its name in JAX and its source line."""
        from hlo_lab.passkit.hlo_builder import HloBuilder

        return HloBuilder(self, op, op)

    def after(self, op: HloOp) -> HloBuilder:
        """Builds behind an instruction, with its name in JAX and its source line."""
        from hlo_lab.passkit.hlo_builder import HloBuilder

        order = self._order(self._owner(op.number))
        rest = order[order.index(op.number) + 1 :]
        return HloBuilder(self, op, HloOp(rest[0], self) if rest else None)

    def replace(self, old: HloOp, new: HloOp) -> None:
        """Let everything that takes ``old``, but for ``new``, take ``new``.

        What is then unused goes.

        Raises:
            ValueError: shape or element type differ.
        """
        if old.type.without_layout() != new.type.without_layout():
            raise ValueError(f"{old.type} cannot be replaced by {new.type}")
        for user in list(self._users_of(old.number)):
            if user != new.number:
                taken = self._taken(user)
                taken[:] = [new.number if each == old.number else each for each in taken]
                self._users_of(new.number)[user] = None
                del self._users_of(old.number)[user]
        if old.is_root:
            self._roots[self._owner(old.number)] = new.number
        self.changes += 1
        self._drop(old.number)

    def set_operand(self, op: HloOp, number: int, value: HloOp) -> None:
        """Let one operand be another value of its shape. Counts as a change."""
        previous = op.operands[number]
        if previous.type.without_layout() != value.type.without_layout():
            raise ValueError(f"{previous.type} cannot be replaced by {value.type}")
        taken = self._taken(op.number)
        taken[number] = value.number
        self._users_of(value.number)[op.number] = None
        if previous.number not in taken:
            del self._users_of(previous.number)[op.number]
        self.changes += 1
        self._drop(previous.number)

    def set_attribute(self, op: HloOp, name: str, text: str | None) -> None:
        """Set an attribute to what XLA prints of it; None removes it. Counts as a change."""
        attributes = {key: value for key, value in op.attributes.items() if key != name}
        if text is not None:
            attributes[name] = text
        self._rows[op.number] = replace(self.row(op.number), attributes=attributes)
        self.changes += 1

    def set_order(self, computation: str, order: Sequence[HloOp]) -> None:
        """Another order of a computation, which is the schedule where it has one.

        Counts as a change unless it is the order that it has.

        Raises:
            ValueError: not the instructions of the computation, or one before its operand.
        """
        number = self._number_of(computation)
        old, new = self._order(number), [op.number for op in order]
        if sorted(old) != sorted(new):
            raise ValueError(f"the order must list each instruction of {computation} once")
        at = {each: position for position, each in enumerate(new)}
        for op in order:
            late = [one for one in op.operands if at[one.number] > at[op.number]]
            if late:
                raise ValueError(f"{op.label} would come before {late[0].label}, which it takes")
        self._orders[number] = new
        self.changes += old != new

    def finish(self) -> Module:
        """The module with all that was changed. Called once the pass is done.

        Raises:
            ReadError: it is not valid.
            ValueError: an instruction would take one that comes after it.
        """
        if not self.changes:
            return self.module
        orders = [self._order(number) for number in range(len(self.module.computation_names))]
        live = [[each for each in order if each not in self._dead] for order in orders]
        called = self._called(live)
        module = assemble(
            self.module,
            [order if number in called else [] for number, order in enumerate(live)],
            rows=self._rows,
            operands=self._operands,
            roots=self._roots,
        )
        verify(module)
        return module

    # ---- for views and builders

    def row(self, number: int) -> Row:
        """What is known of an instruction."""
        found = self._rows.get(number)
        if found is None:
            one = self.module.instruction(number)
            found = Row(one.name, one.opcode, one.shape, one.attributes, one.metadata, one.literal)
        return found

    def add(
        self,
        like: HloOp,
        before: HloOp | None,
        opcode: str,
        shape: Shape,
        operands: Sequence[HloOp],
        attributes: Mapping[str, str],
        literal: str | None = None,
    ) -> HloOp:
        """A new instruction in front of another one, or at the end; see ``HloBuilder.op``.

        Args:
            like: whose computation, name in JAX and source line it gets.
        """
        owner = self._owner(like.number)
        number = len(self.module) + len(self._owners)
        self._owners.append(owner)
        metadata = self.row(like.number).metadata
        name = self._free_name(owner, opcode)
        self._rows[number] = Row(name, opcode, shape, dict(attributes), metadata, literal)
        order = self._order(owner)
        order.insert(len(order) if before is None else order.index(before.number), number)
        self._operands[number] = [each.number for each in operands]
        self._users[number] = {}
        for each in operands:
            self._users_of(each.number)[number] = None
        return HloOp(number, self)

    def operands_of(self, number: int) -> list[int]:
        found = self._operands.get(number)
        return list(found) if found is not None else self._originally(number)

    def users_of(self, number: int) -> list[int]:
        return [each for each in self._users_of(number) if each not in self._dead]

    def is_root(self, number: int) -> bool:
        return self._root(self._owner(number)) == number

    def computation_of(self, number: int) -> str:
        return self.module.computation_names[self._owner(number)]

    def source(self, number: int) -> tuple[Frame, ...]:
        if number < len(self.module):
            return self.module.source_stack(number)
        metadata = self.row(number).metadata
        return self.module.frames.stack(metadata.stack_frame_id)

    # ---- own

    @cached_property
    def _here(self) -> set[int] | None:
        if self.place is None:
            return None
        return self.place.choose(
            range(len(self.module)),
            lambda number: self.row(number).metadata.op_name,
            self.source,
        )

    def _number_of(self, computation: str) -> int:
        return self.module.computation(computation).index

    def _owner(self, number: int) -> int:
        if number >= len(self.module):
            return self._owners[number - len(self.module)]
        return int(self.module.computation_of[number])

    def _root(self, computation: int) -> int:
        return self._roots.get(computation, int(self.module.computation_root[computation]))

    def _order(self, computation: int) -> list[int]:
        if computation not in self._orders:
            self._orders[computation] = list(self.module.computation(computation).rows)
        return self._orders[computation]

    def _originally(self, number: int) -> list[int]:
        first, last = self.module.operand_start[number : number + 2]
        return cast(list[int], self.module.operand[first:last].tolist())

    def _taken(self, number: int) -> list[int]:
        if number not in self._operands:
            self._operands[number] = self._originally(number)
        return self._operands[number]

    def _users_of(self, number: int) -> dict[int, None]:
        if number not in self._users:
            start, user = self.module.users_csr
            found = user[start[number] : start[number + 1]].tolist()
            self._users[number] = dict.fromkeys(found)
        return self._users[number]

    def _free_name(self, computation: int, opcode: str) -> str:
        if computation not in self._names:
            rows = self.module.computation(computation).rows
            self._names[computation] = {self.module.instruction_names[row] for row in rows}
        taken = self._names[computation]
        count = 1
        while (name := f"{opcode}.new.{count}") in taken:
            count += 1
        taken.add(name)
        return name

    def _drop(self, number: int) -> None:
        pending = [number]
        while pending:
            each = pending.pop()
            if each in self._dead or self.users_of(each) or self.is_root(each):
                continue
            if self.row(each).opcode == "parameter":
                continue
            self._dead.add(each)
            pending += self.operands_of(each)

    def _called(self, live: Sequence[Sequence[int]]) -> set[int]:
        """Computations that are still reached from the entry."""
        found: set[int] = set()
        pending = [self.module.entry]
        start, callee = self.module.callee_start, self.module.callee
        while pending:
            computation = pending.pop()
            if computation not in found:
                found.add(computation)
                rows = (each for each in live[computation] if each < len(self.module))
                pending += [
                    int(each) for row in rows for each in callee[start[row] : start[row + 1]]
                ]
        return found


def _one_number(literal: str, dtype: str) -> float | int | bool | None:
    """The number that a constant is full of; None where it has several, or is complex."""
    if len(literal) > _MAX_LITERAL:
        return None
    numbers = set(re.findall(r"[^\s{},]+", literal))
    if len(numbers) != 1:
        return None
    text: str = numbers.pop()
    if text in ("true", "false"):
        return text == "true"
    try:
        return float(text) if _FLOAT.match(dtype) else int(text)
    except ValueError:
        return None
