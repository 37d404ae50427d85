"""Reader for HLO protos: HloModuleProto, and the HloProto or HloSnapshot around one.

The fast pass takes names, edges and the bytes of shapes, metadata, literals and
attributes out of each instruction; those bytes are interned and decoded on demand to
what the text reader gives. No jaxlib.

Header attributes that XLA keeps outside the proto (``num_partitions``,
``replica_count``, ``allow_spmd_sharding_propagation_to_...``) are not there to be read.
"""

from __future__ import annotations

import re
from array import array
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from operator import attrgetter, methodcaller
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import numpy as np
from google.protobuf.message import DecodeError

from hlo_lab.errors import ReadError
from hlo_lab.ir import schema
from hlo_lab.ir.asynchronous import fold_async
from hlo_lab.ir.columns import NAME, as_ints, guarded, intern, pause_gc
from hlo_lab.ir.module import ROLES, Ints, Module, compressed_rows
from hlo_lab.ir.proto_attributes import decode_attributes
from hlo_lab.ir.proto_header import decode_frames, decode_header
from hlo_lab.ir.proto_values import decode_literal, decode_metadata, decode_shape
from hlo_lab.ir.table import LazyMap, LazyTable

_WIRE_SIZES = {0: 0, 1: 8, 2: 0, 5: 4}  # bytes after the tag, where fixed
_BATCH_BYTES = 4 << 20
_ROWS = 4096  # instructions turned into columns at once, so that memory stays low
T = TypeVar("T")
_NAMES = re.compile(rf"(?:{NAME}\n)*+", re.A)
_OPCODES = re.compile(r"(?:[a-z][\w\-]*\n)*+", re.A)
_IN_ALL = tuple(
    attrgetter(name)
    for name in (
        "id", "name", "opcode", "shape", "metadata", "operand_ids", "control_predecessor_ids",
    )
)  # fmt: skip
_CLEAR = methodcaller("ClearField", "column")
# the most frequent opcodes, which neither call nor hold a literal or a number
_PLAIN = frozenset(
    [
        "add",
        "subtract",
        "multiply",
        "divide",
        "negate",
        "maximum",
        "minimum",
        "exponential",
        "log",
        "tanh",
        "rsqrt",
        "sqrt",
        "power",
        "broadcast",
        "reshape",
        "transpose",
        "bitcast",
        "copy",
        "convert",
        "slice",
        "concatenate",
        "pad",
        "compare",
        "select",
        "dot",
        "get-tuple-element",
        "tuple",
        "iota",
        "dynamic-slice",
        "dynamic-update-slice",
        "convolution",
        "gather",
    ]
)
_ROLE = {name: number for number, name in enumerate(ROLES)}
_TO_APPLY = frozenset(
    [
        "call",
        "map",
        "reduce",
        "reduce-window",
        "all-reduce",
        "all-reduce-start",
        "reduce-scatter",
        "scatter",
        "sort",
        "topk",
        "scan",
    ]
)


def check_head(head: bytes, path: str | Path | None) -> None:
    """Refuse by its first bytes what cannot be a serialized message, before all of it is read.

    Raises:
        ReadError: not the fields of a message.
    """
    at = 0
    try:
        while at < len(head):
            tag, at = _read_varint(head, at)
            size, start = _read_varint(head, at)
            wire = tag & 7
            if tag < 8 or wire not in _WIRE_SIZES:
                raise ReadError("neither HLO text nor an HLO proto", path)
            at = start + size if wire == 2 else start if wire == 0 else at + _WIRE_SIZES[wire]
    except IndexError:
        return  # the last field goes on after the head


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    """A varint and where it ends. Raises ``IndexError`` at the end of the data."""
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128 or shift > 63:
            return value, at


def read_proto(data: bytes, path: str | Path | None = None) -> Module:
    """Read the module in a serialized HloModuleProto, HloProto or HloSnapshot.

    Raises:
        ReadError: not such a proto, cut, or its ids do not add up.
    """
    try:
        with pause_gc():
            return _Reader(_module_message(data, path), path).module()
    except ReadError:
        if b"/host:metadata" in data:
            what = "this is a profile (XSpace), not a module: give the HLO itself"
            raise ReadError(what, path) from None
        raise


def _module_message(data: bytes, path: str | Path | None) -> Any:
    """The HloModuleProto in ``data``, its computations still as bytes."""
    found = []
    for wrapper, inner in (
        ("HloModuleProto", ()),
        ("HloProto", ("hlo_module",)),
        ("HloSnapshot", ("hlo", "hlo_module")),
    ):
        try:
            message = schema.full(wrapper).FromString(data)
        except (DecodeError, RecursionError):
            continue
        for name in inner:
            message = getattr(message, name)
        if message.computations:
            found.append(message)
    if not found:
        raise ReadError("not an HLO proto, or cut short", path)
    # one wrapper's bytes may pass for another's; only a module names its entry computation
    return next((message for message in found if message.entry_computation_name), found[0])


class _Reader:
    def __init__(self, message: Any, path: str | Path | None):
        self.path = path
        self.message = message
        self.warnings = [text for text in (schema.backend_warning(),) if text]
        self.computation_ids: list[int] = []
        self.computation_names: list[str] = []
        self.threads: dict[int, str] = {}
        self.start = [0]
        self.root_ids: list[int] = []
        self.names: list[str] = []
        self.ids = array("q")
        self.opcodes: dict[str, int] = {}
        self.opcode = array("q")
        self.shapes: dict[bytes, int] = {}
        self.shape = array("q")
        self.metadatas: dict[bytes, int] = {}
        self.metadata = array("q")
        self.attributes: dict[tuple[str, bytes], int] = {}
        self.attribute = array("q")
        # per batch: (values, start) of the ids in each row
        self.operands: list[tuple[Ints, Ints]] = []
        self.controls: list[tuple[Ints, Ints]] = []
        self.callers: list[int] = []
        self.callees: list[bytes] = []  # of each caller
        self.literals: dict[int, bytes] = {}
        self.parameters: dict[int, int] = {}

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
        """Fill the columns, computation after computation, a batch of computations at a time."""
        sequences = self.message.schedule.sequences if self.message.HasField("schedule") else {}
        for batch in self._batches():
            rows: list[Any] = []
            rests: list[bytes] = []
            for computation, left in zip(*self._batch(batch), strict=True):
                instructions, kept = computation.instructions, left.instructions
                name = computation.name
                if not instructions:
                    self.fail(f"computation {name[:60]!r} is empty")
                if computation.id in sequences:
                    ids = sequences[computation.id].instruction_ids
                    order = self._scheduled(instructions, ids, name)
                    instructions = [instructions[i] for i in order]
                    kept = [kept[i] for i in order]
                if computation.execution_thread not in ("", "main"):
                    self.threads[len(self.computation_names)] = computation.execution_thread
                self.computation_ids.append(computation.id)
                self.computation_names.append(name)
                self.root_ids.append(computation.root_id)
                for low in range(0, len(instructions), _ROWS):
                    rows += instructions[low : low + _ROWS]
                    rests += kept[low : low + _ROWS]
                    if len(rows) > _ROWS:
                        self._append(rows, rests)
                        rows, rests = [], []
                self.start.append(len(self.names) + len(rows))
            if rows:
                self._append(rows, rests)
        for what, used, valid in (
            ("instruction", self.names, _NAMES),
            ("computation", self.computation_names, _NAMES),
            ("opcode", list(self.opcodes), _OPCODES),
        ):
            if valid.fullmatch("\n".join(used) + "\n") is None:
                bad = next((name for name in used if not valid.fullmatch(f"{name}\n")), "")
                self.fail(f"a damaged {what} name: {bad[:40]!r}")

    def _append(self, rows: list[Any], rests: list[bytes]) -> None:
        ids, names, opcodes, shapes, metadatas, operands, controls = (
            list(map(field, rows)) for field in _IN_ALL
        )
        first = len(self.names)
        self.names += names
        self.ids.extend(ids)
        self.opcode.extend(intern(self.opcodes, opcodes))
        self.shape.extend(intern(self.shapes, shapes))
        self.metadata.extend(intern(self.metadatas, metadatas))
        pairs = list(zip(opcodes, rests, strict=True))
        self.attribute.extend(intern(self.attributes, pairs))
        self.operands.append(_varints(operands))
        self.controls.append(_varints(controls))
        for row, opcode in enumerate(opcodes):
            if opcode in _PLAIN:
                continue
            item = rows[row]
            if opcode == "constant":
                self.literals[first + row] = item.literal
            elif opcode == "parameter":
                self.parameters[first + row] = item.parameter_number
            if called := item.called_computation_ids:
                self.callers.append(first + row)
                self.callees.append(called)

    def _batches(self) -> Iterator[bytes]:
        """The computations' bytes, framed as a module's, about ``_BATCH_BYTES`` at a time."""
        batch: list[bytes] = []
        size = 0
        for raw in self.message.computations:
            batch += (b"\x1a", _varint(len(raw)), raw)  # field 3 of HloModuleProto
            size += len(raw)
            if size > _BATCH_BYTES:
                yield b"".join(batch)
                batch, size = [], 0
        yield b"".join(batch)

    def _batch(self, data: bytes) -> tuple[Any, Any]:
        """Each computation's columns, and the bytes of its instructions' other fields."""
        try:
            rests = schema.fast("RestsBatch").FromString(data)
            for computation in rests.computations:
                deque(map(_CLEAR, computation.instructions), 0)  # a loop without bytecode
            left = rests.SerializeToString()
            rests = computation = None  # two trees at once would double the peak
            kept = schema.fast("RestBytesBatch").FromString(left).computations
            return schema.fast("ColumnsBatch").FromString(data).computations, kept
        except DecodeError:
            self.fail("a computation is damaged")

    def _scheduled(self, found: Sequence[Any], ids: Sequence[int], name: str) -> list[int]:
        """Where in ``found`` each instruction of the schedule stands."""
        place = {item.id: number for number, item in enumerate(found)}
        order = [place.get(number, -1) for number in ids]
        if len(order) != len(found) or len(set(order)) != len(order) or -1 in order:
            self.fail(f"the schedule of {name[:60]!r} does not list its instructions")
        return order

    # ---- edges

    def _edges(self) -> None:
        count = len(self.ids)
        ids = as_ints(self.ids)
        self.by_id = np.argsort(ids, kind="stable")
        self.sorted_ids = ids[self.by_id]
        if (np.diff(self.sorted_ids) == 0).any():
            self.fail("two instructions have the same id")
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

    def _rows_of(self, ids: Ints) -> Ints:
        """Instruction index of each id, -1 where there is none."""
        place = np.searchsorted(self.sorted_ids, ids)
        place[place == len(self.sorted_ids)] = 0
        return np.where(self.sorted_ids[place] == ids, self.by_id[place], -1)

    def _targets(self, batches: list[tuple[Ints, Ints]], what: str) -> tuple[Ints, Ints]:
        flat, start = _joined(batches)
        target = self._rows_of(flat)
        if (target < 0).any():
            edge = int((target < 0).argmax())
            user = self.names[int(np.searchsorted(start, edge, "right")) - 1]
            self.fail(f"{user[:60]!r} has an unknown {what} (id {flat[edge]})")
        return start, target

    def _callees(self, opcodes: list[str], opcode: Ints) -> tuple[Ints, Ints, Ints]:
        by_id = {number: index for index, number in enumerate(self.computation_ids)}
        if len(by_id) != len(self.computation_ids):
            self.fail("two computations have the same id")
        if len(set(self.computation_names)) != len(by_id):
            self.fail("two computations have the same name")
        entries = []
        ids, first = _varints(self.callees)
        flat = ids.tolist()
        for row, at in enumerate(self.callers):
            called = flat[first[row] : first[row + 1]]
            name = opcodes[opcode[at]]
            for role, number in _roles(name, called):
                if number not in by_id:
                    self.fail(f"{self.names[at][:60]!r} calls an unknown computation (id {number})")
                callee = by_id[number]
                if callee >= self.computation_of[at]:
                    self.fail(f"{self.names[at][:60]!r} calls a computation that is not before it")
                entries.append((at, role, callee))
        start, (roles, callees) = compressed_rows(entries, len(self.ids))
        return start, roles, callees

    # ---- the end

    def _assemble(self) -> Module:
        count = len(self.ids)
        opcodes = list(self.opcodes)
        opcode = as_ints(self.opcode)
        parameter_number = np.full(count, -1, np.int64)
        parameter_number[list(self.parameters)] = list(self.parameters.values())
        if min(self.parameters.values(), default=0) < 0:
            self.fail("a parameter has a negative number")
        callee_start, callee_role, callee = self._callees(opcodes, opcode)
        entry = [
            index
            for index, number in enumerate(self.computation_ids)
            if number == self.message.entry_computation_id
        ]
        if not entry:
            self.fail("its entry computation is not in the file")
        payloads = list(self.message.payloads)
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
                list(self.shapes),
                guarded(_caught(lambda raw: decode_shape(raw).checked()), "shape", self.path),
            ),
            shape=as_ints(self.shape),
            operand_start=self.operand_start,
            operand=self.operand,
            control_start=self.control_start,
            control=self.control,
            callee_start=callee_start,
            callee=callee,
            callee_role=callee_role,
            parameter_number=parameter_number,
            attributes=LazyTable(
                list(self.attributes),
                guarded(
                    _caught(lambda raw: decode_attributes(raw[0], raw[1], payloads)),
                    "attribute list",
                    self.path,
                ),
            ),
            attribute=as_ints(self.attribute),
            metadatas=LazyTable(
                list(self.metadatas), guarded(_caught(decode_metadata), "metadata", self.path)
            ),
            metadata=as_ints(self.metadata),
            literals=LazyMap(self.literals, decode_literal),
            frames=decode_frames(self.message),
            warnings=self.warnings,
            execution_threads=self.threads,
        )


def _roles(opcode: str, called: list[int]) -> list[tuple[int, int]]:
    """(role, computation id) pairs in the order in which text prints them."""
    if opcode == "while" and len(called) == 2:
        return [(_ROLE["condition"], called[1]), (_ROLE["body"], called[0])]
    if opcode == "select-and-scatter" and len(called) == 2:
        return [(_ROLE["select"], called[0]), (_ROLE["scatter"], called[1])]
    if opcode == "conditional":
        role = _ROLE["branch_computations"]
    elif opcode == "custom-call":
        role = _ROLE["called_computations"]
    else:
        role = _ROLE["to_apply" if opcode in _TO_APPLY else "calls"]
    return [(role, number) for number in called]


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def _caught(decode: Callable[[Any], T]) -> Callable[[Any], T]:
    """protobuf's own error as the ValueError that damaged text gives."""

    def checked(raw: Any) -> T:
        try:
            return decode(raw)
        except DecodeError as error:
            raise ValueError(str(error)) from None

    return checked


def _joined(batches: list[tuple[Ints, Ints]]) -> tuple[Ints, Ints]:
    """Compressed rows of all batches as one."""
    sizes = [np.diff(start) for _, start in batches]
    start = np.concatenate(([0], np.cumsum(np.concatenate(sizes)))).astype(np.int64)
    return np.concatenate([values for values, _ in batches]), start


def _varints(raws: Sequence[bytes]) -> tuple[Ints, Ints]:
    """(values int64[E], start int64[len(raws) + 1]) of packed varints, all at once."""
    data = np.frombuffer(b"".join(raws), np.uint8)
    last = data < 128  # the last byte of each varint
    ends = np.nonzero(last)[0]
    sizes = np.diff(ends, prepend=-1)
    values = np.zeros(len(ends), np.uint64)
    for byte in range(int(min(sizes.max(initial=0), 10))):
        has = sizes > byte
        bits = (data[ends[has] - sizes[has] + 1 + byte] & 127).astype(np.uint64)
        values[has] |= bits << np.uint64(7 * byte)
    lengths = np.fromiter(map(len, raws), np.int64, len(raws))
    counts = np.concatenate(([0], np.cumsum(last)))
    return values.view(np.int64), counts[np.concatenate(([0], np.cumsum(lengths)))].astype(np.int64)
