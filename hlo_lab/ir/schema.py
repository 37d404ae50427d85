"""HLO's protobuf message classes, in pools of their own.

``hlo_descriptors.binpb`` beside this file is a FileDescriptorSet taken out of jaxlib by
``tools/extract_descriptors.py``. Private pools keep clear of TensorFlow, which registers
the same names in the default one.

Two more schemas read the same bytes faster. In *columns* an instruction holds only what
every instruction has, with submessages left as bytes. In *rests* those same fields share
a oneof, so that clearing it leaves exactly the fields that make an instruction's
attributes.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.internal import api_implementation

_FILE = Path(__file__).with_name("hlo_descriptors.binpb")
_Field = descriptor_pb2.FieldDescriptorProto
# name, number, type: the same wire format as HloInstructionProto's
_COLUMNS = (
    ("name", 1, _Field.TYPE_STRING),
    ("opcode", 2, _Field.TYPE_STRING),
    ("shape", 3, _Field.TYPE_BYTES),
    ("metadata", 7, _Field.TYPE_BYTES),
    ("literal", 8, _Field.TYPE_BYTES),
    ("parameter_number", 9, _Field.TYPE_INT64),
    ("id", 35, _Field.TYPE_INT64),
    ("operand_ids", 36, _Field.TYPE_BYTES),  # packed varints
    ("control_predecessor_ids", 37, _Field.TYPE_BYTES),
    ("called_computation_ids", 38, _Field.TYPE_BYTES),
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

    ``Columns``, ``Rests`` and ``RestBytes`` read a HloComputationProto; ``ColumnsBatch``
    and so on a HloModuleProto's computations.
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

    def message(name: str, *fields: tuple[str, int, int], repeated: str = "", of: str = "") -> Any:
        out = file.message_type.add(name=name)
        for field_name, number, kind in fields:
            label = _Field.LABEL_REPEATED if field_name == repeated else _Field.LABEL_OPTIONAL
            field = out.field.add(name=field_name, number=number, type=kind, label=label)
            if kind == _Field.TYPE_MESSAGE:
                field.type_name = f".fast.{of}"
        return out

    message("Instruction", *_COLUMNS)
    rest = message("Rest", *_COLUMNS)
    rest.oneof_decl.add(name="column")
    for field in rest.field:
        field.oneof_index = 0
    instructions = ("instructions", 2, _Field.TYPE_MESSAGE)
    message(
        "Columns",
        ("name", 1, _Field.TYPE_STRING),
        instructions,
        ("id", 5, _Field.TYPE_INT64),
        ("root_id", 6, _Field.TYPE_INT64),
        ("execution_thread", 8, _Field.TYPE_STRING),
        repeated="instructions",
        of="Instruction",
    )
    message("Rests", instructions, repeated="instructions", of="Rest")
    message("RestBytes", ("instructions", 2, _Field.TYPE_BYTES), repeated="instructions")
    for name in ("Columns", "Rests", "RestBytes"):
        computations = ("computations", 3, _Field.TYPE_MESSAGE)
        message(f"{name}Batch", computations, repeated="computations", of=name)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return pool
