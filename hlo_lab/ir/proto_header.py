"""Module header and stack frame tables out of a HloModuleProto."""

from __future__ import annotations

from typing import Any

from hlo_lab.ir.proto_sharding import braces, sharding_text
from hlo_lab.ir.proto_values import decode_shape, embedded_text
from hlo_lab.ir.source import StackFrames, quoted

_LOG_MODES = {1: "default", 2: "fusion_debugger"}  # those that text has a word for
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
    if message.backend_config:
        out["backend_config"] = embedded_text(message.backend_config)
    entries = [entry for entry in message.debug_attributes if entry.debug_attributes]
    if entries:
        entries.sort(key=lambda entry: _array_key(entry.original_array))
        lines = ",\n  ".join(map(_debug_text, entries))
        out["debug_attributes"] = f"{{\n  {lines}\n}}"
    return out


def _array_key(array: Any) -> tuple[str, list[int]]:
    return array.instruction_name, list(array.shape_index)


def _debug_text(entry: Any) -> str:
    """What to log of one original value, per callback."""
    logs = []
    for log in entry.debug_attributes:
        parts = [f"log_mode={_LOG_MODES[log.log_mode]}"] if log.log_mode in _LOG_MODES else []
        parts += [f"callback_id={log.callback_id}"] if log.callback_id else []
        parts += ["partitioned=true"] if log.partitioned else []
        parts += [f"op_id={log.op_id}"] if log.op_id else []
        logs.append(braces(parts))
    return f"{original_array(entry.original_array)}:({','.join(logs)})"


def original_array(array: Any) -> str:
    """An array of the program before optimisation: its instruction and index there."""
    index = f" {braces(array.shape_index)}" if array.shape_index else ""
    return f'{{"{array.instruction_name}"{index}}}'


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
