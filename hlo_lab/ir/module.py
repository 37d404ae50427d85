"""An HLO module as tables of arrays, with light views over them.

One table holds the instructions of all computations, computation after computation,
each in schedule order where the module is scheduled and in XLA's own print order
(operands before users) elsewhere; so index order is a topological order within a
computation. Edges are compressed rows: the operands of instruction ``i`` are
``operand[operand_start[i]:operand_start[i + 1]]``, as indices into the same table.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from hlo_lab.errors import NotFoundError
from hlo_lab.ir.shapes import Shape
from hlo_lab.ir.source import Frame, Metadata, StackFrames
from hlo_lab.ir.table import LazyTable

if TYPE_CHECKING:
    import networkx as nx

Ints = npt.NDArray[np.int64]

# How a computation is called. XLA stores roles by position; text stores them by name.
ROLES = (
    "calls",  # fusion, async-start and friends
    "to_apply",  # call, reduce, map, sort, scatter, all-reduce, ...
    "body",
    "condition",
    "branch_computations",
    "called_computations",  # custom-call
    "select",
    "scatter",
)

_MAX_FUSION_NESTING = 8  # XLA nests fusions two deep; a file of one's own may nest in a ring


@dataclass(eq=False)
class Module:
    """A module's tables. Immutable by convention: an edit builds a new one.

    Attributes:
        name: the module's name.
        header: the module's own attributes (``is_scheduled``, ``input_output_alias``,
            ``num_partitions`` ...), name to value as XLA prints it, in print order.
        computation_names: one name per computation; callees come before callers.
        computation_start: int64[C + 1], rows of computation ``c`` in the instruction table.
        computation_root: int64[C], instruction index of each root.
        entry: index of the entry computation.
        instruction_names: one name per instruction; unique within its computation.
        opcodes: the distinct opcodes; ``opcode`` int64[N] indexes it.
        shapes: the distinct shapes; ``shape`` int64[N] indexes it.
        operand_start, operand: int64[N + 1] and int64[E], operands in position order.
        control_start, control: the same for control predecessors.
        callee_start, callee, callee_role: called computations, with an index into ``ROLES``.
        parameter_number: int64[N], -1 for anything but a parameter.
        attributes: the distinct attribute lists (without metadata, callees and control
            predecessors), name to value as XLA prints it; ``attribute`` int64[N].
        metadatas: the distinct metadata; ``metadata`` int64[N].
        literals: text of each constant by instruction index, as XLA prints it;
            ``{...}`` where the printer left it out.
        frames: the tables behind ``stack_frame_id``.
        execution_threads: thread of each computation that runs outside the main one.
        warnings: what the reader had to forgive (a cut file, say), for the user to see.
    """

    name: str
    header: dict[str, str]
    computation_names: list[str]
    computation_start: Ints
    computation_root: Ints
    entry: int
    instruction_names: list[str]
    opcodes: list[str]
    opcode: Ints
    shapes: LazyTable[Shape]
    shape: Ints
    operand_start: Ints
    operand: Ints
    control_start: Ints
    control: Ints
    callee_start: Ints
    callee: Ints
    callee_role: Ints
    parameter_number: Ints
    attributes: LazyTable[dict[str, str]]
    attribute: Ints
    metadatas: LazyTable[Metadata]
    metadata: Ints
    literals: Mapping[int, str]
    frames: StackFrames
    warnings: list[str] = field(default_factory=list)
    execution_threads: dict[int, str] = field(default_factory=dict)

    # ---- sizes and look-ups

    def __len__(self) -> int:
        """Number of instructions in all computations."""
        return len(self.instruction_names)

    def __repr__(self) -> str:
        count = len(self.computation_names)
        return f"<Module {self.name}: {len(self)} instructions in {count} computations>"

    @property
    def is_scheduled(self) -> bool:
        return self.header.get("is_scheduled") == "true"

    @cached_property
    def computation_of(self) -> Ints:
        """int64[N]: the computation that each instruction belongs to."""
        sizes = np.diff(self.computation_start)
        return np.repeat(np.arange(len(self.computation_names)), sizes)

    @cached_property
    def users_csr(self) -> tuple[Ints, Ints]:
        """(start int64[N + 1], user int64[E]): operand edges turned round, users in order."""
        count = np.bincount(self.operand, minlength=len(self))
        start = np.concatenate(([0], np.cumsum(count))).astype(np.int64)
        consumer = np.repeat(np.arange(len(self)), np.diff(self.operand_start))
        return start, consumer[np.argsort(self.operand, kind="stable")]

    @cached_property
    def callers_csr(self) -> tuple[Ints, Ints]:
        """(start int64[C + 1], instruction int64[..]): who calls each computation."""
        count = np.bincount(self.callee, minlength=len(self.computation_names))
        start = np.concatenate(([0], np.cumsum(count))).astype(np.int64)
        caller = np.repeat(np.arange(len(self)), np.diff(self.callee_start))
        return start, caller[np.argsort(self.callee, kind="stable")]

    @cached_property
    def _by_name(self) -> dict[str, int]:
        # the entry's own names win where an old printer repeated a name
        out = dict(zip(reversed(self.instruction_names), range(len(self) - 1, -1, -1), strict=True))
        first, last = self.computation_start[self.entry], self.computation_start[self.entry + 1]
        out.update((self.instruction_names[i], i) for i in range(first, last))
        return out

    def instruction(self, name: str | int) -> Instruction:
        """The instruction of that name (a leading ``%`` is ignored) or index.

        Raises:
            NotFoundError: no such instruction.
        """
        if not isinstance(name, str):
            return Instruction(self, int(name))
        index = self._by_name.get(name.removeprefix("%"))
        if index is None:
            raise NotFoundError(f"no instruction {name!r} in module {self.name}")
        return Instruction(self, index)

    def computation(self, name: str | int) -> Computation:
        """The computation of that name or index. Raises ``NotFoundError``."""
        if not isinstance(name, str):
            return Computation(self, int(name))
        try:
            return Computation(self, self.computation_names.index(name.removeprefix("%")))
        except ValueError:
            raise NotFoundError(f"no computation {name!r} in module {self.name}") from None

    @property
    def entry_computation(self) -> Computation:
        return Computation(self, self.entry)

    @property
    def computations(self) -> Iterator[Computation]:
        return (Computation(self, index) for index in range(len(self.computation_names)))

    @property
    def instructions(self) -> Iterator[Instruction]:
        return (Instruction(self, index) for index in range(len(self)))

    # ---- arrays by meaning

    def opcode_mask(self, *opcodes: str) -> npt.NDArray[np.bool_]:
        """bool[N]: which instructions have one of these opcodes."""
        wanted = [number for number, name in enumerate(self.opcodes) if name in opcodes]
        return np.isin(self.opcode, wanted)

    def with_opcode(self, *opcodes: str) -> Iterator[Instruction]:
        return (Instruction(self, int(i)) for i in np.nonzero(self.opcode_mask(*opcodes))[0])

    def shape_values(self, of: str) -> Ints:
        """int64[N]: an integer property of each instruction's shape, such as ``bytes``."""
        return np.array([getattr(shape, of) for shape in self.shapes], np.int64)[self.shape]

    def source_stack(self, index: int) -> tuple[Frame, ...]:
        """The user's source lines of an instruction, innermost first; empty when unknown.

        A fusion without a stack of its own takes its root's; where the root has none
        either (a bare ``convert``), the most frequent one of its computation.
        """
        at = index
        for _ in range(_MAX_FUSION_NESTING):
            stack = self._stack_of(int(self.metadata[at]))
            called = self._fused(at)
            if stack or called is None:
                break
            at = int(self.computation_root[called])
        fused = self._fused(index)
        return stack if stack or fused is None else self._frequent_stack(fused)

    def _stack_of(self, metadata: int) -> tuple[Frame, ...]:
        meta: Metadata = self.metadatas[metadata]
        stack = self.frames.stack(meta.stack_frame_id)
        if stack or not meta.source_file:
            return stack
        return (Frame(meta.source_file, meta.source_line),)

    def _fused(self, index: int) -> int | None:
        """The computation of a fusion; None for anything else."""
        first, last = self.callee_start[index], self.callee_start[index + 1]
        if self.opcodes[self.opcode[index]] != "fusion" or first == last:
            return None
        return int(self.callee[first])

    @cached_property
    def _frequent_stacks(self) -> dict[int, tuple[Frame, ...]]:
        return {}

    def _frequent_stack(self, computation: int) -> tuple[Frame, ...]:
        """The most frequent stack of a computation, of equals the one nearest to its end."""
        found = self._frequent_stacks.get(computation)
        if found is None:
            first, last = self.computation_start[computation : computation + 2].tolist()
            times = Counter(reversed(self.metadata[first:last].tolist()))
            counts: Counter[tuple[Frame, ...]] = Counter()
            for metadata, many in times.items():
                counts[self._stack_of(metadata)] += many
            del counts[()]
            found = next((stack for stack, _ in counts.most_common(1)), ())
            self._frequent_stacks[computation] = found
        return found

    def graph(self, computation: str | int | None = None) -> nx.DiGraph[int]:
        """A computation (the entry by default) as a networkx graph; see ``ir.graph``."""
        from hlo_lab.ir.graph import computation_graph

        return computation_graph(self, self.entry if computation is None else computation)

    # ---- equality

    def difference(self, other: Module) -> str | None:
        """The first difference from ``other`` in one line, or None when they are equal.

        Equal means: same computations, instructions, edges, shapes, attributes,
        constants and source stacks, in the same order, under the same names. A constant
        that one side left out as ``{...}`` equals any constant of its shape.
        """
        from hlo_lab.ir.equality import first_difference

        return first_difference(self, other)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Module) and self.difference(other) is None

    __hash__ = None  # type: ignore[assignment]


class Instruction:
    """A light view of one row of the instruction table."""

    __slots__ = ("index", "module")

    def __init__(self, module: Module, index: int):
        self.module = module
        self.index = index

    def __repr__(self) -> str:
        return f"%{self.name} = {self.shape} {self.opcode}(...)"

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Instruction)
            and other.index == self.index
            and other.module is self.module
        )

    def __hash__(self) -> int:
        return hash((id(self.module), self.index))

    @property
    def name(self) -> str:
        return self.module.instruction_names[self.index]

    @property
    def opcode(self) -> str:
        opcode: str = self.module.opcodes[self.module.opcode[self.index]]
        return opcode

    @property
    def shape(self) -> Shape:
        shape: Shape = self.module.shapes[self.module.shape[self.index]]
        return shape

    @property
    def computation(self) -> Computation:
        return Computation(self.module, int(self.module.computation_of[self.index]))

    @property
    def is_root(self) -> bool:
        return int(self.module.computation_root[self.computation.index]) == self.index

    @property
    def operands(self) -> list[Instruction]:
        """In position order; ``multiply(x, x)`` gives x twice."""
        return _views(self.module, self.module.operand_start, self.module.operand, self.index)

    @property
    def users(self) -> list[Instruction]:
        """Each once, in index order."""
        start, user = self.module.users_csr
        unique = dict.fromkeys(user[start[self.index] : start[self.index + 1]].tolist())
        return [Instruction(self.module, i) for i in unique]

    @property
    def control_predecessors(self) -> list[Instruction]:
        return _views(self.module, self.module.control_start, self.module.control, self.index)

    @property
    def callees(self) -> list[tuple[str, Computation]]:
        """(role, computation) pairs; roles are those of ``ROLES``."""
        module = self.module
        rows = range(module.callee_start[self.index], module.callee_start[self.index + 1])
        return [
            (ROLES[module.callee_role[row]], Computation(module, int(module.callee[row])))
            for row in rows
        ]

    def callee(self, role: str) -> Computation | None:
        """The first computation called in that role."""
        return next((comp for name, comp in self.callees if name == role), None)

    @property
    def attributes(self) -> dict[str, str]:
        """Name to value as XLA prints it; callees, control and metadata stand elsewhere."""
        attributes: dict[str, str] = self.module.attributes[self.module.attribute[self.index]]
        return attributes

    @property
    def metadata(self) -> Metadata:
        metadata: Metadata = self.module.metadatas[self.module.metadata[self.index]]
        return metadata

    @property
    def op_name(self) -> str:
        return self.metadata.op_name

    @property
    def source(self) -> tuple[Frame, ...]:
        """The user's source lines, innermost first; empty when unknown."""
        return self.module.source_stack(self.index)

    @property
    def parameter_number(self) -> int | None:
        number = int(self.module.parameter_number[self.index])
        return None if number < 0 else number

    @property
    def literal(self) -> str | None:
        """A constant's value as XLA prints it; None for other opcodes."""
        return self.module.literals.get(self.index)

    @property
    def backend_config(self) -> Any:
        """The decoded JSON of ``backend_config``, its text if it is not JSON, or None."""
        text = self.attributes.get("backend_config")
        if text is None:
            return None
        import json

        try:
            return json.loads(text)
        except ValueError:
            return text


class Computation:
    """A light view of one computation."""

    __slots__ = ("index", "module")

    def __init__(self, module: Module, index: int):
        self.module = module
        self.index = index

    def __repr__(self) -> str:
        return f"<Computation {self.name}: {len(self)} instructions>"

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Computation)
            and other.index == self.index
            and other.module is self.module
        )

    def __hash__(self) -> int:
        return hash((id(self.module), self.index, "computation"))

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def name(self) -> str:
        return self.module.computation_names[self.index]

    @property
    def rows(self) -> range:
        """Indices of its instructions in the module's table."""
        start = self.module.computation_start
        return range(int(start[self.index]), int(start[self.index + 1]))

    @property
    def instructions(self) -> Iterator[Instruction]:
        return (Instruction(self.module, index) for index in self.rows)

    @property
    def root(self) -> Instruction:
        return Instruction(self.module, int(self.module.computation_root[self.index]))

    @property
    def parameters(self) -> list[Instruction]:
        """In parameter-number order."""
        numbers = self.module.parameter_number
        found = [index for index in self.rows if numbers[index] >= 0]
        return [Instruction(self.module, i) for i in sorted(found, key=lambda i: int(numbers[i]))]

    @property
    def callers(self) -> list[Instruction]:
        start, caller = self.module.callers_csr
        rows = caller[start[self.index] : start[self.index + 1]].tolist()
        return [Instruction(self.module, i) for i in dict.fromkeys(rows)]


def _views(module: Module, start: Ints, target: Ints, index: int) -> list[Instruction]:
    rows: Sequence[int] = target[start[index] : start[index + 1]].tolist()
    return [Instruction(module, row) for row in rows]


def compressed_rows(entries: Sequence[tuple[int, ...]], count: int) -> tuple[Ints, list[Ints]]:
    """Edges as rows, from (instruction, member) or (instruction, member, member) entries.

    Returns start int64[count + 1], and the first and last member int64[len(entries)], in
    instruction order.
    """
    if not entries:
        return np.zeros(count + 1, np.int64), [np.zeros(0, np.int64)] * 2
    table = np.array(entries, np.int64)
    table = table[np.argsort(table[:, 0], kind="stable")]
    start = np.concatenate(([0], np.cumsum(np.bincount(table[:, 0], minlength=count))))
    return start.astype(np.int64), [table[:, min(1, table.shape[1] - 1)], table[:, -1]]
