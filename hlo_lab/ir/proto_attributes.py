"""An instruction's attributes out of its proto: the same dict as the text reader gives.

Source: PrintExtraAttributesImpl of each class in xla/hlo/ir/hlo_instructions.cc, and
HloInstruction::PrintExtraAttributes for what all share.
"""

from __future__ import annotations

from typing import Any

from hlo_lab.ir import schema
from hlo_lab.ir.proto_header import frontend_text, original_array
from hlo_lab.ir.proto_opcodes import OF_OPCODE, Attributes, enum_text
from hlo_lab.ir.proto_sharding import braces, replica_groups_text, sharding_text
from hlo_lab.ir.proto_values import embedded_text
from hlo_lab.ir.source import quoted

_DIMENSIONS = frozenset(
    [
        "reverse",
        "concatenate",
        "reduce",
        "transpose",
        "broadcast",
        "map",
        "sort",
        "all-gather",
        "all-gather-start",
        "all-to-all",
        "reduce-scatter",
        "get-dimension-size",
        "set-dimension-size",
        "shuffle",
        "scan",
    ]
)
_COLLECTIVES = frozenset(
    [
        "all-gather",
        "all-gather-start",
        "all-reduce",
        "all-reduce-start",
        "all-to-all",
        "ragged-all-to-all",
        "reduce-scatter",
        "collective-broadcast",
        "collective-reduce",
        "collective-permute",
        "collective-permute-start",
    ]
)
_HOST = frozenset(("send", "send-done", "recv", "recv-done"))


def decode_attributes(name: str, raw: bytes, payloads: list[bytes]) -> Attributes:
    """Name to value as XLA prints it. ``raw`` holds the instruction's other fields.

    Raises:
        ValueError, DecodeError: damaged bytes.
    """
    message = schema.full("HloInstructionProto").FromString(raw)
    out: Attributes = {}
    decoder = OF_OPCODE.get(name)
    if decoder is not None:
        decoder(message, out)
    if name in _DIMENSIONS:
        out["dimensions"] = braces(message.dimensions)
    if name in _COLLECTIVES:
        _collective(message, out, name)
    if name in _HOST:
        if message.channel_id:
            out["channel_id"] = str(message.channel_id)
        if message.is_host_transfer:
            out["is_host_transfer"] = "true"
    _common(message, out, payloads)
    return out


# ---- what all instructions share


def _common(message: Any, out: Attributes, payloads: list[bytes]) -> None:
    if message.HasField("sharding"):
        out["sharding"] = sharding_text(message.sharding)
    if message.frontend_attributes.map:
        out["frontend_attributes"] = frontend_text(message.frontend_attributes)
    if message.is_composite:
        out["is_composite"] = "true"
    if message.output_operand_aliasing:
        out["output_to_operand_aliasing"] = braces(
            (
                f"{braces(alias.output_shape_index, ', ')}: "
                f"({alias.operand_index}, {braces(alias.operand_shape_index, ', ')})"
                for alias in message.output_operand_aliasing
            ),
            ", ",
        )
    if message.statistics_viz.statistics:
        out["statistics"] = _statistics(message.statistics_viz)
    if message.HasField("original_value"):
        out["origin"] = _origin(message.original_value)
    if message.HasField("result_accuracy"):
        _result_accuracy(message.result_accuracy, out)
    config = message.backend_config
    if message.HasField("backend_config_payload"):
        payload = message.backend_config_payload
        known = 0 <= payload.id < len(payloads)
        config = payload.value or (payloads[payload.id] if known else b"")
    if config:
        out["backend_config"] = embedded_text(config)


def _statistics(message: Any) -> str:
    parts = [f"visualizing_index={message.stat_index_to_visualize}"]
    parts += [f"{item.stat_name}={item.stat_val:.6g}" for item in message.statistics]
    return braces(parts)


def _origin(message: Any) -> str:
    """The original value as nested tuples of ``{"name" {index}}``."""
    if message.is_synthetic_call:
        return "[synthetic_call]"
    root: dict[int, Any] = {}
    leaf = None
    for element in message.elements:
        array = element.original_array
        text = original_array(array) if array.instruction_name else "{}"
        path = list(element.shape_index)
        if len(path) > 64 or any(not 0 <= part < 1 << 16 for part in path):
            raise ValueError("an origin with a damaged index")
        if not path:
            leaf = text
            continue
        node = root
        for part in path[:-1]:
            node = node.setdefault(part, {})
            if not isinstance(node, dict):
                raise ValueError("an origin with a damaged index")
        node[path[-1]] = text
    parts = [leaf if leaf is not None else _origin_tuple(root)]
    if message.HasField("call_hierarchy"):
        parts.append(f"[{quoted(message.call_hierarchy)}]")
    return braces(parts)


def _origin_tuple(node: dict[int, Any]) -> str:
    parts = [node.get(number, "{}") for number in range(max(node, default=-1) + 1)]
    return f"({', '.join(_origin_tuple(p) if isinstance(p, dict) else p for p in parts)})"


def _result_accuracy(message: Any, out: Attributes) -> None:
    if message.HasField("tolerance"):
        tolerance = message.tolerance
        out["result_accuracy"] = (
            f"{{tolerance={{atol={tolerance.atol:.6g},rtol={tolerance.rtol:.6g},"
            f"ulps={tolerance.ulps}}}}}"
        )
    elif message.mode:
        out["result_accuracy"] = f"{{mode={enum_text(message, 'mode').lower()}}}"


# ---- collectives


def _collective(message: Any, out: Attributes, name: str) -> None:
    if message.channel_id:
        out["channel_id"] = str(message.channel_id)
    if name.startswith("collective-permute"):
        pairs = (f"{{{pair.source},{pair.target}}}" for pair in message.source_target_pairs)
        out["source_target_pairs"] = braces(pairs)
        if message.dynamic_slice_sizes:
            out["slice_sizes"] = braces([braces(message.dynamic_slice_sizes)])
        return
    out["replica_groups"] = replica_groups_text(message)
    if message.constrain_layout:
        out["constrain_layout"] = "true"
    if message.use_global_device_ids:
        out["use_global_device_ids"] = "true"
    if message.has_dynamic_root:  # XLA before mid-2026 prints nothing for false
        out["has_dynamic_root"] = "true"
    if name == "all-to-all" and not message.dimensions:
        out.pop("dimensions", None)
