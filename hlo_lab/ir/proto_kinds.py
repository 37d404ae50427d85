"""The distinct kinds of a proto's instructions: all of them but names, ids and edges.

Modules repeat themselves, so an instruction is kept as the number of its kind, and opcode,
shape, metadata and attributes are taken out once for each kind.
"""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Sequence
from itertools import islice
from operator import attrgetter, methodcaller

import numpy as np

from hlo_lab.ir import schema
from hlo_lab.ir.module import Ints
from hlo_lab.ir.reading import numbering

_CACHED_KEYS = 200_000  # kinds recognised when they come again; bounds memory
_CLEAR = methodcaller("ClearField", schema.REST_COLUMNS)
_IN_ALL = tuple(map(attrgetter, ("opcode", "shape", "metadata", "parameter_number")))
_EDGES = tuple(
    map(attrgetter, ("operand_ids", "control_predecessor_ids", "called_computation_ids"))
)


class Kinds:
    """A table of kinds, which grows by the instructions shown to it.

    Attributes:
        opcodes, shapes, metadatas, attributes: number of each distinct value: opcodes as
            text, shapes and metadata as proto bytes, an attribute list as its opcode and
            the bytes of its fields.
        opcode, shape, metadata, attribute: array("q") [K], those numbers by kind.
        parameter_number: array("q") [K]; 0 for all but parameters.
        has_id: array("q") [K], 1 where the instruction's id is written (0 need not be).
        edges: array("q") [K] each: how many operands, control predecessors and callees.
        literals: proto bytes of each constant's value, by kind.
    """

    def __init__(self) -> None:
        self.opcodes: dict[str, int] = numbering()
        self.shapes: dict[bytes, int] = numbering()
        self.metadatas: dict[bytes, int] = numbering()
        self.attributes: dict[tuple[str, bytes], int] = numbering()
        self.opcode = array("q")
        self.shape = array("q")
        self.metadata = array("q")
        self.attribute = array("q")
        self.parameter_number = array("q")
        self.has_id = array("q")
        self.edges = (array("q"), array("q"), array("q"))
        self.literals: dict[int, bytes] = {}
        self._numbers: dict[bytes, int] = numbering()

    def of(self, keys: Sequence[bytes]) -> Ints:
        """int64[len(keys)]: the kind of each instruction, from the bytes of its *Key*.

        Raises:
            DecodeError: damaged bytes.
        """
        if len(self._numbers) > _CACHED_KEYS:
            self._numbers.clear()  # they go on counting
        known = len(self._numbers)
        kinds = np.fromiter(map(self._numbers.__getitem__, keys), np.int64, len(keys))
        new = list(islice(self._numbers, known, None))
        if new:
            self._add(new)
        return kinds

    def _add(self, keys: list[bytes]) -> None:
        data = schema.fast("Bytes")(instructions=keys).SerializeToString()
        items = list(schema.fast("Instructions").FromString(data).instructions)
        opcodes, shapes, metadatas, parameters = (list(map(field, items)) for field in _IN_ALL)
        for number, opcode in enumerate(opcodes, len(self.opcode)):
            if opcode == "constant":
                self.literals[number] = items[number - len(self.opcode)].literal
        self.opcode.extend(map(self.opcodes.__getitem__, opcodes))
        self.shape.extend(map(self.shapes.__getitem__, shapes))
        self.metadata.extend(map(self.metadatas.__getitem__, metadatas))
        self.parameter_number.extend(parameters)
        self.has_id.extend(item.HasField("id") for item in items)
        for column, field in zip(self.edges, _EDGES, strict=True):
            column.extend(map(len, map(field, items)))
        del items  # two trees at once would double the peak
        pairs = zip(opcodes, _rests(data), strict=True)
        self.attribute.extend(map(self.attributes.__getitem__, pairs))


def _rests(data: bytes) -> Sequence[bytes]:
    """The bytes of each instruction's fields that make its attributes."""
    rests = schema.fast("Rests").FromString(data)
    deque(map(_CLEAR, rests.instructions), 0)  # a loop without bytecode
    left: Sequence[bytes] = schema.fast("Bytes").FromString(rests.SerializeToString()).instructions
    return left
