"""Shapes, metadata and literals out of their protos, as the text reader gives them."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from functools import cache, lru_cache
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError

from hlo_lab.ir import schema
from hlo_lab.ir.attributes import BracketState
from hlo_lab.ir.shapes import MAX_TUPLE_DEPTH, Shape
from hlo_lab.ir.source import Metadata, quoted

_UNBOUNDED = -(1 << 63)  # a dimension without a bound, or a combined tile dimension
_SHORT = {"OPAQUE_TYPE": "opaque"}
MAX_RANK = 1000


def primitive_name(number: int) -> str:
    """XLA's lower-case name of a PrimitiveType; ``type_99`` for one newer than the schema."""
    value = _primitive_types().get(number)
    if value is None:
        return f"type_{number}"
    return _SHORT.get(value, value.lower())


@cache
def _primitive_types() -> dict[int, str]:
    enum = schema.full("ShapeProto").DESCRIPTOR.fields_by_name["element_type"].enum_type
    return {value.number: value.name for value in enum.values}


# ---- shapes


@lru_cache(maxsize=10_000)
def decode_shape(raw: bytes, depth: int = 0) -> Shape:
    """A serialized ShapeProto as a Shape; see :func:`shape_of`."""
    return shape_of(schema.full("ShapeProto").FromString(raw), depth)


def embedded_text(config: bytes) -> str:
    """A backend config as text has it: a dictionary as it is, anything else in quotes."""
    text = config.decode("utf-8", "replace")
    try:  # one pair of braces, and what is in it balanced
        plain = text[:1] == "{" and BracketState.closing(text, 0) == len(text) - 1
    except ValueError:
        plain = False
    return text if plain else quoted(config)


def shape_of(proto: Any, depth: int = 0) -> Shape:
    """A ShapeProto as a Shape. Raises ``ValueError`` when it nests or has too many dimensions."""
    if depth > MAX_TUPLE_DEPTH:
        raise ValueError(f"shape nested deeper than {MAX_TUPLE_DEPTH}")
    dtype = primitive_name(proto.element_type)
    if dtype in ("tuple", "buffer"):
        elements = tuple(
            decode_shape(element.SerializeToString(), depth + 1) for element in proto.tuple_shapes
        )
        return Shape(dtype, elements=elements)
    if len(proto.dimensions) > MAX_RANK:
        raise ValueError(f"a shape of rank {len(proto.dimensions)}")
    dims = tuple(proto.dimensions)
    dynamic = tuple(proto.is_dynamic_dimension)
    if not any(dynamic) and min(dims, default=0) >= 0:
        dynamic = ()
    else:
        padded = (*dynamic, *(False,) * len(dims))
        dynamic = tuple(flag or dim < 0 for flag, dim in zip(padded, dims, strict=False))
        dims = tuple(max(dim, 0) for dim in dims)
    layout = layout_text(proto.layout, depth) if proto.HasField("layout") else ""
    return Shape(dtype, dims, layout, dynamic=dynamic)


def layout_text(layout: Any, depth: int = 0) -> str:
    """What XLA prints between the braces of a layout (xla/layout.cc, Layout::Print)."""
    after = ""
    if layout.dim_level_types:
        letters = "DCSL"
        after += "D(" + ",".join(
            _letter(letters, level)
            + ("" if _at(layout.dim_unique, i, True) else "+")
            + ("" if _at(layout.dim_ordered, i, True) else "~")
            for i, level in enumerate(layout.dim_level_types)
        ) + ")"  # fmt: skip
    if layout.tiles:
        after += "T" + "".join(
            "(" + ",".join("*" if d == _UNBOUNDED else str(d) for d in tile.dimensions) + ")"
            for tile in layout.tiles
        )
    if layout.tail_padding_alignment_in_elements > 1:
        after += f"L({layout.tail_padding_alignment_in_elements})"
    if layout.index_primitive_type:
        after += f"#({primitive_name(layout.index_primitive_type)})"
    if layout.pointer_primitive_type:
        after += f"*({primitive_name(layout.pointer_primitive_type)})"
    if layout.element_size_in_bits:
        after += f"E({layout.element_size_in_bits})"
    if layout.memory_space:
        after += f"S({layout.memory_space})"
    if layout.split_configs:
        after += "SC" + "".join(
            f"({split.dimension}:{','.join(map(str, split.split_indices))})"
            for split in layout.split_configs
        )
    if layout.HasField("physical_shape"):
        after += f"P({shape_of(layout.physical_shape, depth + 1)})"
    if layout.dynamic_shape_metadata_prefix_bytes > 0:
        after += f"M({layout.dynamic_shape_metadata_prefix_bytes})"
    order = ",".join(map(str, layout.minor_to_major))
    return f"{order}:{after}" if after else order


def _letter(letters: str, number: int) -> str:
    return letters[number] if 0 <= number < len(letters) else "?"


def _at(values: Sequence[bool], index: int, default: bool) -> bool:
    return values[index] if index < len(values) else default


# ---- metadata


def decode_metadata(raw: bytes) -> Metadata:
    proto = schema.full("OpMetadata").FromString(raw)
    extra = []
    for name in ("source_end_line", "source_column", "source_end_column"):
        if value := getattr(proto, name):
            extra.append((name, str(value)))
    if proto.profile_type:
        extra.append(("profile_type", "{" + ",".join(map(str, proto.profile_type)) + "}"))
    for name in ("deduplicated_name", "scheduling_name"):
        if value := getattr(proto, name):
            extra.append((name, quoted(value)))
    return Metadata(
        op_name=proto.op_name,
        op_type=proto.op_type,
        source_file=proto.source_file,
        source_line=proto.source_line,
        stack_frame_id=proto.stack_frame_id,
        extra=tuple(extra),
    )


# ---- literals


def decode_literal(raw: bytes) -> str:
    """A constant's text from LiteralProto bytes; ``{...}`` when the proto left it out."""
    if not raw:
        return "{...}"
    try:
        return literal_text(schema.full("LiteralProto").FromString(raw))
    except (ValueError, IndexError, DecodeError):
        return "{...}"  # its shape and data disagree: as good as left out


_FLOAT_DIGITS = {"f64": 17, "c128": 17, "f32": 9, "c64": 9, "f16": 5, "bf16": 4}
_FIELDS = {
    "pred": "preds", "s1": "s1s", "s2": "s2s", "s4": "s4s", "s8": "s8s", "s16": "s16s",
    "s32": "s32s", "s64": "s64s", "u1": "u1s", "u2": "u2s", "u4": "u4s", "u8": "u8s",
    "u16": "u16s", "u32": "u32s", "u64": "u64s", "f16": "f16s", "bf16": "bf16s",
    "f32": "f32s", "f64": "f64s", "c64": "c64s", "c128": "c128s",
}  # fmt: skip
_INT_BITS = {"s1": 1, "u1": 1, "s2": 2, "u2": 2, "s4": 4, "u4": 4}


def literal_text(proto: Any) -> str:
    """A LiteralProto on one line as XLA prints it in a constant, never shortened.

    Raises:
        ValueError: the shape and the data disagree, or a type without a printed form here.
    """
    shape = shape_of(proto.shape)
    if shape.is_tuple:
        return "( " + ", ".join(literal_text(part) for part in proto.tuple_literals) + " )"
    if shape.dtype == "token":
        return ""
    values = _values(proto, shape.dtype)
    dims = [
        size if i < len(shape.dims) else 0 for i, size in enumerate(proto.dynamic_sizes)
    ] or list(shape.dims)
    count = 1
    for dim in dims:
        count *= dim
    if len(values) != count:
        raise ValueError(f"a literal of {len(values)} elements for {shape}")
    minor_to_major = shape.minor_to_major if shape.layout else tuple(reversed(range(len(dims))))
    printed = np.array([*map(_printer(shape), values)], dtype=object)
    if len(dims) > 1 and sorted(minor_to_major) == list(range(len(dims))):
        major = list(reversed(minor_to_major))
        stored = printed.reshape([dims[d] for d in major])
        printed = stored.transpose(np.argsort(major))
    return _nested(printed.reshape(dims), len(dims))


def _nested(values: Any, rank: int) -> str:
    if values.ndim == 0:
        return str(values[()])
    if values.ndim == 1:
        text = ", ".join(values)
        return "{" + text + "}" if rank == 1 else "{ " + text + " }"
    return "{ " + ", ".join(_nested(part, rank) for part in values) + " }"


def _values(proto: Any, dtype: str) -> Any:
    field = _FIELDS.get(dtype, f"{dtype}s")
    if field not in proto.DESCRIPTOR.fields_by_name:
        raise ValueError(f"no literals of type {dtype}")
    data = getattr(proto, field)
    if dtype in ("c64", "c128"):
        flat = list(data)
        return list(zip(flat[::2], flat[1::2], strict=True))
    if not isinstance(data, bytes):
        return data
    if dtype in ("f16", "s16", "u16"):
        return np.frombuffer(data, {"f16": "<f2", "s16": "<i2", "u16": "<u2"}[dtype]).tolist()
    if dtype == "bf16":
        return (np.frombuffer(data, "<u2").astype(np.uint32) << 16).view(np.float32).tolist()
    if dtype == "s8":
        return np.frombuffer(data, np.int8).tolist()
    if dtype == "u8":
        return list(data)
    if dtype in _INT_BITS:  # one to a byte, its high bits clear
        bits = _INT_BITS[dtype]
        half = 1 << (bits - 1) if dtype[0] == "s" else 1 << bits
        return [value - (1 << bits) if value >= half else value for value in data]
    if dtype in _MINI or dtype == "f8e8m0fnu":
        return [_mini_float(byte, dtype) for byte in data]
    raise ValueError(f"no printed form for literals of type {dtype}")


# exponent bits, mantissa bits, bias, and what the all-ones patterns mean
_MINI = {
    "f8e5m2": (5, 2, 15, "ieee"), "f8e4m3": (4, 3, 7, "ieee"), "f8e3m4": (3, 4, 3, "ieee"),
    "f8e4m3fn": (4, 3, 7, "fn"), "f8e4m3fnuz": (4, 3, 8, "fnuz"),
    "f8e5m2fnuz": (5, 2, 16, "fnuz"), "f8e4m3b11fnuz": (4, 3, 11, "fnuz"),
    "f4e2m1fn": (2, 1, 1, "none"), "f6e3m2fn": (3, 2, 3, "none"), "f6e2m3fn": (2, 3, 1, "none"),
}  # fmt: skip


def _mini_float(byte: int, dtype: str) -> float:
    if dtype == "f8e8m0fnu":
        return float("nan") if byte == 255 else 2.0 ** (byte - 127)
    exponent_bits, mantissa_bits, bias, special = _MINI[dtype]
    sign = -1.0 if byte >> (exponent_bits + mantissa_bits) & 1 else 1.0
    exponent = (byte >> mantissa_bits) & ((1 << exponent_bits) - 1)
    mantissa = byte & ((1 << mantissa_bits) - 1)
    if special == "fnuz" and byte == 128:
        return float("nan")
    if exponent == (1 << exponent_bits) - 1:
        if special == "ieee":
            return sign * float("inf") if mantissa == 0 else float("nan")
        if special == "fn" and mantissa == (1 << mantissa_bits) - 1:
            return float("nan")
    if exponent == 0:
        return sign * mantissa * 2.0 ** (1 - bias - mantissa_bits)
    return sign * (1 + mantissa / (1 << mantissa_bits)) * 2.0 ** (exponent - bias)


def _printer(shape: Shape) -> Callable[[Any], str]:
    dtype = shape.dtype
    if dtype == "pred":
        return (lambda v: "true" if v else "false") if not shape.dims else (lambda v: str(int(v)))
    if dtype in ("c64", "c128"):
        digits = _FLOAT_DIGITS[dtype]
        return lambda v: f"({_float(v[0], digits)}, {_float(v[1], digits)})"
    if dtype.startswith(("f", "bf")):
        digits = _FLOAT_DIGITS.get(dtype, 0) or _mini_digits(dtype)
        return lambda v: _float(v, digits)
    return str


def _mini_digits(dtype: str) -> int:
    """std::numeric_limits::max_digits10: 1 + ceil((mantissa bits + 1) * log10(2))."""
    mantissa = _MINI[dtype][1] if dtype in _MINI else 0
    return 2 + (mantissa + 1) * 30103 // 100000


def _float(value: float, digits: int) -> str:
    """absl's and TSL's rule: the short form where it reads back to the same number."""
    if value != value:
        return "-nan" if struct.pack("<d", value)[7] & 128 else "nan"
    if digits == 9:
        short = f"{value:.6g}"
        return short if np.float32(short) == np.float32(value) else f"{value:.9g}"
    if digits == 17:
        short = f"{value:.15g}"
        return short if float(short) == value else f"{value:.17g}"
    return f"{value:.{digits}g}"
