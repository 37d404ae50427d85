"""Module header and stack frame tables out of a HloModuleProto."""

from __future__ import annotations

from typing import Any

from hlo_lab.ir.proto_sharding import braces, sharding_text
from hlo_lab.ir.proto_values import decode_shape
from hlo_lab.ir.source import StackFrames, quoted

_ALIAS_KINDS = {0: "undefined-alias", 1: "may-alias", 2: "must-alias"}


def decode_header(message: Any) -> dict[str, str]:
    """Header attributes as text prints them, as far as the proto has them."""
    out: dict[str, str] = {}
    if message.HasField("schedule"):
        out["is_scheduled"] = "true"
    if message.input_output_alias.entries:
        out["input_output_alias"] = "{ " + ", ".join(
            f"{_index(entry.output_shape_index)}: ({entry.parameter_number}, "
            f"{_index(entry.parameter_shape_index)}, {_ALIAS_KINDS.get(entry.kind, entry.kind)})"
            for entry in message.input_output_alias.entries
        ) + " }"  # fmt: skip
    if message.buffer_donor.entries:
        out["buffer_donor"] = "{ " + ", ".join(
            f"({entry.parameter_number}, {_index(entry.parameter_shape_index)})"
            for entry in message.buffer_donor.entries
        ) + " }"  # fmt: skip
    if message.HasField("host_program_shape"):
        shape = message.host_program_shape
        parameters = ", ".join(_shape_text(part) for part in shape.parameters)
        out["entry_computation_layout"] = f"{{({parameters})->{_shape_text(shape.result)}}}"
    if message.frontend_attributes.map:
        out["frontend_attributes"] = frontend_text(message.frontend_attributes)
    if message.HasField("spmd_output_sharding"):
        out["spmd_output_sharding"] = sharding_text(message.spmd_output_sharding)
    if message.spmd_parameters_shardings:
        parts = [sharding_text(part) for part in message.spmd_parameters_shardings]
        out["spmd_parameters_shardings"] = braces(parts)
    return out


def _shape_text(proto: Any) -> str:
    return str(decode_shape(proto.SerializeToString()))


def _index(index: Any) -> str:
    return "{" + ", ".join(map(str, index)) + "}"


def frontend_text(attributes: Any) -> str:
    """Frontend attributes; a value that is a dictionary itself stands without quotes."""
    pairs = []
    for key in sorted(attributes.map):
        value = attributes.map[key]
        pairs.append(f"{key}={value}" if value[:1] == "{" else f"{key}={quoted(value)}")
    return "{" + ",".join(pairs) + "}"


def decode_frames(message: Any) -> StackFrames:
    index = message.stack_frame_index
    return StackFrames(
        files=list(index.file_names),
        functions=list(index.function_names),
        locations=[
            (
                place.file_name_id, place.function_name_id, place.line,
                place.end_line, place.column, place.end_column,
            )
            for place in index.file_locations
        ],
        frames=[(frame.file_location_id, frame.parent_frame_id) for frame in index.stack_frames],
    )  # fmt: skip
