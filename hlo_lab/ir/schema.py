"""HLO's protobuf message classes, in pools of their own.

``hlo_descriptors.binpb`` beside this file is a FileDescriptorSet taken out of jaxlib by
``tools/extract_descriptors.py``. Private pools keep clear of TensorFlow, which registers
the same names in the default one.

Leaner schemas read the same bytes fast, with C loops in place of Python's. They use that
a field may be declared as another type of the same wire format, that fields which are
not declared are written back as they came, and that a singular message gathers what all
its occurrences hold:

* *Key* is an instruction without what differs from one of a kind to the next. Its name
  shares a oneof with the opcode, which follows and so drops it; ids are booleans, so
  that only their number is left. Equal keys have all else in common.
* *Columns* is one message for all instructions of all computations: their names and ids
  as repeated fields.
* *Instruction* is what all instructions have, with submessages left as bytes; in *Rest*
  those same fields share a oneof, so that clearing it leaves exactly the fields that
  make an instruction's attributes.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.internal import api_implementation

_FILE = Path(__file__).with_name("hlo_descriptors.binpb")
_Field = descriptor_pb2.FieldDescriptorProto
_Fields = tuple[tuple[str, int, int], ...]
# name, number, type: the same wire format as HloInstructionProto's
_PLAIN: _Fields = (
    ("opcode", 2, _Field.TYPE_STRING),
    ("shape", 3, _Field.TYPE_BYTES),
    ("metadata", 7, _Field.TYPE_BYTES),
    ("literal", 8, _Field.TYPE_BYTES),
    ("parameter_number", 9, _Field.TYPE_INT64),
)
REST_COLUMNS = "column"  # the oneof of *Rest*
_NAME, _ID = ("name", 1), ("id", 35)
_EDGES = (
    ("operand_ids", 36),
    ("control_predecessor_ids", 37),
    ("called_computation_ids", 38),
)


def backend_warning() -> str | None:
    """What to tell the user when protobuf's fast implementation is not in use."""
    kind = api_implementation.Type()
    if kind == "upb":
        return None
    return (
        f"protobuf runs its {kind!r} implementation, about 100 times slower than upb: "
        "reinstall protobuf from a wheel, or unset PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION"
    )


@cache
def full(name: str) -> Any:
    """The message class ``xla.<name>`` of the full schema, such as ``HloInstructionProto``."""
    return message_factory.GetMessageClass(_full_pool().FindMessageTypeByName(f"xla.{name}"))


@cache
def fast(name: str) -> Any:
    """A message class of the fast schemas.

    ``Instructions``, ``Rests``, ``Bytes``, ``Keys`` and ``Columns`` read a
    HloComputationProto; ``BytesBatch``, ``KeysBatch`` and ``ColumnsBatch`` a
    HloModuleProto's computations.
    """
    return message_factory.GetMessageClass(_fast_pool().FindMessageTypeByName(f"fast.{name}"))


@cache
def _full_pool() -> Any:
    pool = descriptor_pool.DescriptorPool()
    files = descriptor_pb2.FileDescriptorSet.FromString(_FILE.read_bytes())
    for file in files.file:
        for message in file.message_type:
            if message.name == "HloModuleProto":  # computations are read apart
                for field in message.field:
                    if field.name == "computations":
                        field.type = _Field.TYPE_BYTES
                        field.ClearField("type_name")
        pool.Add(file)
    return pool


@cache
def _fast_pool() -> Any:
    file = descriptor_pb2.FileDescriptorProto(name="fast.proto", package="fast", syntax="proto3")

    def message(name: str, fields: _Fields, repeated: Iterable[str] = (), of: str = "") -> Any:
        out = file.message_type.add(name=name)
        for field_name, number, kind in fields:
            label = _Field.LABEL_REPEATED if field_name in repeated else _Field.LABEL_OPTIONAL
            field = out.field.add(name=field_name, number=number, type=kind, label=label)
            if kind == _Field.TYPE_MESSAGE:
                field.type_name = f".fast.{of}"
        return out

    def oneof(out: Any, name: str, *fields: str) -> None:
        for field in out.field:
            if field.name in fields:
                field.oneof_index = len(out.oneof_decl)
        out.oneof_decl.add(name=name)

    edges = tuple(name for name, _ in _EDGES)
    flags = ((*_ID, _Field.TYPE_BOOL), *((*edge, _Field.TYPE_BOOL) for edge in _EDGES))
    numbers = ((*_ID, _Field.TYPE_INT64), *((*edge, _Field.TYPE_INT64) for edge in _EDGES))
    packed = ((*_ID, _Field.TYPE_INT64), *((*edge, _Field.TYPE_BYTES) for edge in _EDGES))
    name = (*_NAME, _Field.TYPE_STRING)
    key = message(
        "Key", ((*_NAME, _Field.TYPE_BYTES), ("opcode", 2, _Field.TYPE_BYTES), *flags), edges
    )
    oneof(key, "last", "name", "opcode")
    oneof(key, "known", "id")  # of its own: to tell 0 from none
    oneof(message("Instruction", (name, *_PLAIN, *flags), edges), "known", "id")
    rest = message("Rest", (*_PLAIN, *packed))
    oneof(rest, REST_COLUMNS, *(field.name for field in rest.field))
    message("Column", (name, *numbers), ("name", "id", *edges))

    def both(kind: str, instructions: Any, of: str, repeated: bool = True) -> None:
        fields = (
            ("name", 1, _Field.TYPE_STRING),
            ("instructions", 2, instructions),
            ("id", 5, _Field.TYPE_INT64),
            ("root_id", 6, _Field.TYPE_INT64),
            ("execution_thread", 8, _Field.TYPE_STRING),
        )
        only = fields if instructions == _Field.TYPE_BYTES else fields[1:2]
        message(kind, only, ("instructions",) if repeated else (), of)
        computations = (("computations", 3, _Field.TYPE_MESSAGE),)
        message(f"{kind}Batch", computations, ("computations",) if repeated else (), kind)

    both("Bytes", _Field.TYPE_BYTES, "")
    both("Keys", _Field.TYPE_MESSAGE, "Key")
    both("Instructions", _Field.TYPE_MESSAGE, "Instruction")
    both("Rests", _Field.TYPE_MESSAGE, "Rest")
    both("Columns", _Field.TYPE_MESSAGE, "Column", repeated=False)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return pool
