"""Reader for HLO protos: HloModuleProto, and the HloProto or HloSnapshot around one.

The fast pass takes names, ids and edges out of all instructions at once, and the kind of
each; a kind's shape, metadata, literal and attributes stay bytes, decoded on demand to
what the text reader gives. No jaxlib.

Header attributes that XLA keeps outside the proto (``num_partitions``,
``replica_count``, ``allow_spmd_sharding_propagation_to_...``) are not there to be read.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import numpy as np
from google.protobuf.message import DecodeError

from hlo_lab.errors import ReadError
from hlo_lab.ir import schema
from hlo_lab.ir.asynchronous import fold_async
from hlo_lab.ir.edits import gather_rows
from hlo_lab.ir.module import ROLES, Ints, Module
from hlo_lab.ir.proto_attributes import decode_attributes
from hlo_lab.ir.proto_header import decode_frames, decode_header
from hlo_lab.ir.proto_kinds import Kinds
from hlo_lab.ir.proto_opcodes import without_usual_order
from hlo_lab.ir.proto_values import decode_literal, decode_metadata, decode_shape
from hlo_lab.ir.proto_wire import ModuleBytes, find_module
from hlo_lab.ir.reading import NAME, as_ints, guarded, pause_gc
from hlo_lab.ir.table import LazyMap, LazyTable

T = TypeVar("T")
_NAMES = re.compile(rf"(?:{NAME}\n)*+", re.A)
_OPCODES = re.compile(r"(?:[a-z][\w\-]*\n)*+", re.A)
# opcodes with two calls: whether text has them the other way round, and their roles there
_PAIRS = (
    ("while", True, ("condition", "body")),
    ("select-and-scatter", False, ("select", "scatter")),
)
_TO_APPLY = frozenset(
    [
        "call",
        "map",
        "reduce",
        "reduce-window",
        "collective-reduce",
        "all-reduce",
        "all-reduce-start",
        "reduce-scatter",
        "scatter",
        "sort",
        "topk",
        "scan",
    ]
)


def read_proto(data: bytes, path: str | Path | None = None) -> Module:
    """Read the module in a serialized HloModuleProto, HloProto or HloSnapshot.

    Raises:
        ReadError: not such a proto, cut, or its ids do not add up.
    """
    try:
        with pause_gc():
            return _Reader(find_module(data, path), path).module()
    except ReadError:
        if b"/host:metadata" in data:
            what = "this is a profile (XSpace), not a module: give the HLO itself"
            raise ReadError(what, path) from None
        raise


class _Reader:
    def __init__(self, module: ModuleBytes, path: str | Path | None):
        self.path = path
        self.message, self.batches = module
        self.warnings = [text for text in (schema.backend_warning(),) if text]
        self.computation_ids: list[int] = []
        self.computation_names: list[str] = []
        self.threads: dict[int, str] = {}
        self.start = [0]
        self.root_ids: list[int] = []
        self.names: list[str] = []
        self.kinds = Kinds()

    def fail(self, message: str) -> NoReturn:
        raise ReadError(message, self.path)

    def module(self) -> Module:
        self._columns()
        self._edges()
        module = self._assemble()
        module = fold_async(module)
        for _ in module.shapes:  # few are distinct: refuse a damaged one now
            pass
        return module

    # ---- the fast pass

    def _columns(self) -> None:
        """Fill the columns, a batch of computations at a time."""
        try:
            parts = [self._batch(batch) for batch in self.batches]
        except DecodeError:
            self.fail("a computation is damaged")
        for what, used, valid in (
            ("instruction", self.names, _NAMES),
            ("computation", self.computation_names, _NAMES),
            ("opcode", list(self.kinds.opcodes), _OPCODES),
        ):
            if valid.fullmatch("\n".join(used) + "\n") is None:
                bad = next((name for name in used if not valid.fullmatch(f"{name}\n")), "")
                self.fail(f"a damaged {what} name: {bad[:40]!r}")
        kind, ids, *ends = (np.concatenate(column) for column in zip(*parts, strict=True))
        has_id = as_ints(self.kinds.has_id)[kind]
        self.kind, self.ids = kind, np.zeros(len(kind), np.int64)
        starts = [_starts(as_ints(column)[kind]) for column in self.kinds.edges]
        complete = len(self.names) == len(kind) and len(ids) == has_id.sum()
        if not complete or any(
            len(flat) != start[-1] for flat, start in zip(ends, starts, strict=True)
        ):
            self.fail("an instruction without a name, or with two ids")
        self.ids[has_id > 0] = ids
        self.operands, self.controls, self.callees = zip(starts, ends, strict=True)

    def _batch(self, data: bytes | memoryview) -> tuple[Ints, ...]:
        """Kinds, ids, operand ids, control predecessor ids and callee ids, end to end."""
        keys = schema.fast("KeysBatch").FromString(data).SerializeToString()
        rows: list[bytes] = []
        for computation in schema.fast("BytesBatch").FromString(keys).computations:
            name = computation.name
            if not computation.instructions:
                self.fail(f"computation {name[:60]!r} is empty")
            if computation.execution_thread not in ("", "main"):
                self.threads[len(self.computation_names)] = computation.execution_thread
            self.computation_ids.append(computation.id)
            self.computation_names.append(name)
            self.root_ids.append(computation.root_id)
            rows += computation.instructions
            self.start.append(self.start[-1] + len(computation.instructions))
        del keys, computation  # two trees at once would double the peak
        kinds = self.kinds.of(rows)
        del rows
        columns = schema.fast("ColumnsBatch").FromString(data).computations.instructions
        self.names += columns.name
        return kinds, *map(_ints, (
            columns.id, columns.operand_ids, columns.control_predecessor_ids,
            columns.called_computation_ids,
        ))  # fmt: skip

    # ---- order and edges

    def _edges(self) -> None:
        count = len(self.ids)
        self._number_ids()
        if (np.diff(self.sorted_ids) == 0).any():
            self.fail("two instructions have the same id")
        if self.message.HasField("schedule"):
            self._schedule()
        self.computation_of = np.repeat(np.arange(len(self.start) - 1), np.diff(self.start))
        self.operand_start, self.operand = self._targets(self.operands, "operand")
        self.control_start, self.control = self._targets(self.controls, "control predecessor")
        consumer = np.repeat(np.arange(count), np.diff(self.operand_start))
        late = self.operand >= consumer
        late |= self.computation_of[self.operand] != self.computation_of[consumer]
        if late.any():
            at = int(late.argmax())
            user, used = self.names[consumer[at]], self.names[self.operand[at]]
            self.fail(f"{user[:60]!r} uses {used[:60]!r}, which does not come before it")
        self.roots = self._rows_of(np.array(self.root_ids, np.int64))
        for number, root in enumerate(self.roots.tolist()):
            if not self.start[number] <= root < self.start[number + 1]:
                self.fail(f"the root of {self.computation_names[number][:60]!r} is not in it")

    def _number_ids(self) -> None:
        self.by_id = np.argsort(self.ids, kind="stable")
        self.sorted_ids = self.ids[self.by_id]

    def _rows_of(self, ids: Ints) -> Ints:
        """Instruction index of each id, -1 where there is none."""
        place = np.searchsorted(self.sorted_ids, ids)
        place[place == len(self.sorted_ids)] = 0
        return np.where(self.sorted_ids[place] == ids, self.by_id[place], -1)

    def _schedule(self) -> None:
        """Put the instructions of each scheduled computation in the order of its schedule."""
        sequences = self.message.schedule.sequences
        order = np.arange(len(self.ids))
        for number, computation in enumerate(self.computation_ids):
            if computation in sequences:
                rows = slice(self.start[number], self.start[number + 1])
                scheduled = self._rows_of(_ints(sequences[computation].instruction_ids))
                if not np.array_equal(np.sort(scheduled), order[rows]):
                    name = self.computation_names[number]
                    self.fail(f"the schedule of {name[:60]!r} does not list its instructions")
                order[rows] = scheduled
        self.names = [self.names[row] for row in order.tolist()]
        self.ids, self.kind = self.ids[order], self.kind[order]
        self.operands, self.controls, self.callees = (
            gather_rows(start, flat, order)[:2]
            for start, flat in (self.operands, self.controls, self.callees)
        )
        self._number_ids()

    def _targets(self, edges: tuple[Ints, Ints], what: str) -> tuple[Ints, Ints]:
        start, flat = edges
        target = self._rows_of(flat)
        if (target < 0).any():
            edge = int((target < 0).argmax())
            user = self.names[int(np.searchsorted(start, edge, "right")) - 1]
            self.fail(f"{user[:60]!r} has an unknown {what} (id {flat[edge]})")
        return start, target

    def _called(self, opcodes: list[str], opcode: Ints) -> tuple[Ints, Ints, Ints]:
        """(start, role, computation) of the calls, in the order in which text prints them."""
        ids = np.array(self.computation_ids, np.int64)
        by_id = np.argsort(ids)
        if (np.diff(ids[by_id]) == 0).any():
            self.fail("two computations have the same id")
        if len(set(self.computation_names)) != len(ids):
            self.fail("two computations have the same name")
        start, called = self.callees
        sizes = np.diff(start)
        caller = np.repeat(np.arange(len(sizes)), sizes)
        role = np.array([_role(name) for name in opcodes], np.int64)[opcode[caller]]
        for name, swapped, roles in _PAIRS:
            if name in opcodes:
                first = start[:-1][(sizes == 2) & (opcode == opcodes.index(name))]
                role[first], role[first + 1] = (ROLES.index(each) for each in roles)
                if swapped:
                    called[first], called[first + 1] = called[first + 1], called[first]
        place = np.minimum(np.searchsorted(ids[by_id], called), len(ids) - 1)
        callee = by_id[place]
        for wrong, what in (
            (ids[callee] != called, "an unknown computation (id {})"),
            (callee >= self.computation_of[caller], "a computation that is not before it"),
        ):
            if wrong.any():
                edge = int(wrong.argmax())
                name = self.names[caller[edge]]
                self.fail(f"{name[:60]!r} calls {what.format(called[edge])}")
        return start, role, callee

    # ---- the end

    def _assemble(self) -> Module:
        kinds, kind = self.kinds, self.kind
        opcodes = list(kinds.opcodes)
        opcode = as_ints(kinds.opcode)[kind]
        is_parameter = opcode == kinds.opcodes.get("parameter", -1)
        parameter_number = np.where(is_parameter, as_ints(kinds.parameter_number)[kind], -1)
        if (parameter_number[is_parameter] < 0).any():
            self.fail("a parameter has a negative number")
        constants = np.nonzero(opcode == kinds.opcodes.get("constant", -1))[0].tolist()
        callee_start, callee_role, callee = self._called(opcodes, opcode)
        entry = [
            index
            for index, number in enumerate(self.computation_ids)
            if number == self.message.entry_computation_id
        ]
        if not entry:
            self.fail("its entry computation is not in the file")
        payloads = list(self.message.payloads)
        attribute = self._attributes(opcode)
        return Module(
            name=self.message.name,
            header=guarded(_caught(decode_header), "module header", self.path)(self.message),
            computation_names=self.computation_names,
            computation_start=np.array(self.start, np.int64),
            computation_root=self.roots,
            entry=entry[0],
            instruction_names=self.names,
            opcodes=opcodes,
            opcode=opcode,
            shapes=LazyTable(
                list(kinds.shapes),
                guarded(_caught(lambda raw: decode_shape(raw).checked()), "shape", self.path),
            ),
            shape=as_ints(kinds.shape)[kind],
            operand_start=self.operand_start,
            operand=self.operand,
            control_start=self.control_start,
            control=self.control,
            callee_start=callee_start,
            callee=callee,
            callee_role=callee_role,
            parameter_number=parameter_number,
            attributes=LazyTable(
                list(kinds.attributes),
                guarded(
                    _caught(lambda raw: decode_attributes(raw[0], raw[1], payloads)),
                    "attribute list",
                    self.path,
                ),
            ),
            attribute=attribute,
            metadatas=LazyTable(
                list(kinds.metadatas), guarded(_caught(decode_metadata), "metadata", self.path)
            ),
            metadata=as_ints(kinds.metadata)[kind],
            literals=LazyMap({row: kinds.literals[kind[row]] for row in constants}, decode_literal),
            frames=decode_frames(self.message),
            warnings=self.warnings,
            execution_threads=self.threads,
        )

    def _attributes(self, opcode: Ints) -> Ints:
        """int64[N]: each instruction's attribute list, comparisons' by what they compare.

        XLA writes the order of every comparison to protos; text has it where it is not
        the one that follows from the element type of the operands.
        """
        kinds = self.kinds
        attribute: Ints = as_ints(kinds.attribute)[self.kind]
        rows = np.nonzero(opcode == kinds.opcodes.get("compare", -1))[0]
        rows = rows[np.diff(self.operand_start)[rows] > 0]
        shape = as_ints(kinds.shape)[self.kind[self.operand[self.operand_start[rows]]]]
        lists, shapes = list(kinds.attributes), list(kinds.shapes)
        distinct, inverse = np.unique(attribute[rows] * len(shapes) + shape, return_inverse=True)
        numbers = [
            kinds.attributes["compare", without_usual_order(lists[number][1], shapes[of])]
            for number, of in (divmod(pair, len(shapes)) for pair in distinct.tolist())
        ]
        attribute[rows] = np.array(numbers, np.int64)[inverse]
        return attribute


def _role(opcode: str) -> int:
    """How an opcode calls, where all its calls are alike."""
    if opcode == "conditional":
        return ROLES.index("branch_computations")
    if opcode == "custom-call":
        return ROLES.index("called_computations")
    return ROLES.index("to_apply" if opcode in _TO_APPLY else "calls")


def _ints(values: Sequence[int]) -> Ints:
    return np.fromiter(values, np.int64, len(values))


def _starts(counts: Ints) -> Ints:
    return np.concatenate(([0], np.cumsum(counts))).astype(np.int64)


def _caught(decode: Callable[[Any], T]) -> Callable[[Any], T]:
    """protobuf's own error as the ValueError that damaged text gives."""

    def checked(raw: Any) -> T:
        try:
            return decode(raw)
        except DecodeError as error:
            raise ValueError(str(error)) from None

    return checked
