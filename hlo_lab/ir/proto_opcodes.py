"""Attributes that single opcodes have, out of their protos, by opcode.

Source: PrintExtraAttributesImpl of each class in xla/hlo/ir/hlo_instructions.cc.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from google.protobuf.message import DecodeError

from hlo_lab.ir import schema
from hlo_lab.ir.proto_sharding import braces, sharding_text
from hlo_lab.ir.proto_values import decode_shape, shape_of
from hlo_lab.ir.source import quoted

Attributes = dict[str, str]


def enum_text(message: Any, field: str, value: int | None = None) -> str:
    descriptor = message.DESCRIPTOR.fields_by_name[field].enum_type
    number = getattr(message, field) if value is None else value
    found = descriptor.values_by_number.get(number)
    return str(number) if found is None else str(found.name)


def _window(message: Any, out: Attributes) -> None:
    """xla/window_util.cc, ToString: each part printed only where it is not the default."""
    dims = message.window.dimensions
    if not dims:
        return
    parts = ["size=" + "x".join(str(dim.size) for dim in dims)]

    def add(label: str, differs: Callable[[Any], bool], text: Callable[[Any], str]) -> None:
        if any(differs(dim) for dim in dims):
            parts.append(f"{label}=" + "x".join(text(dim) for dim in dims))

    add("stride", lambda d: d.stride != 1, lambda d: str(d.stride))
    add(
        "pad",
        lambda d: d.padding_low != 0 or d.padding_high != 0,
        lambda d: f"{d.padding_low}_{d.padding_high}",
    )
    add("lhs_dilate", lambda d: d.base_dilation != 1, lambda d: str(d.base_dilation))
    add("rhs_dilate", lambda d: d.window_dilation != 1, lambda d: str(d.window_dilation))
    add("rhs_reversal", lambda d: d.window_reversal, lambda d: str(int(d.window_reversal)))
    out["window"] = "{" + " ".join(parts) + "}"


def _dim_labels(message: Any) -> str:
    n = message.convolution_dimension_numbers

    def labels(first: tuple[str, int], second: tuple[str, int], spatial: Any) -> str:
        size = max(first[1], second[1], *spatial, 0) + 1
        if size > 1000 or min(first[1], second[1], *spatial, 0) < 0:
            raise ValueError("damaged convolution dimensions")
        out = ["?"] * size
        out[first[1]], out[second[1]] = first[0], second[0]
        for number, dim in enumerate(spatial):
            out[dim] = str(number)
        return "".join(out)

    lhs = labels(
        ("b", n.input_batch_dimension), ("f", n.input_feature_dimension), n.input_spatial_dimensions
    )
    rhs = labels(
        ("i", n.kernel_input_feature_dimension),
        ("o", n.kernel_output_feature_dimension),
        n.kernel_spatial_dimensions,
    )
    out = labels(
        ("b", n.output_batch_dimension),
        ("f", n.output_feature_dimension),
        n.output_spatial_dimensions,
    )
    return f"{lhs}_{rhs}->{out}"


def _convolution_fields(message: Any, out: Attributes) -> None:
    _window(message, out)
    if message.HasField("convolution_dimension_numbers"):
        out["dim_labels"] = _dim_labels(message)
    if message.feature_group_count not in (0, 1):
        out["feature_group_count"] = str(message.feature_group_count)
    if message.batch_group_count not in (0, 1):
        out["batch_group_count"] = str(message.batch_group_count)
    _precision(message, out)


def _convolution(message: Any, out: Attributes) -> None:
    _convolution_fields(message, out)
    if message.conv_kind:
        kind = enum_text(message, "conv_kind").removeprefix("CONVOLUTION_KIND_").lower()
        out["convolution_kind"] = kind
    _packing(message, out)


def _precision(message: Any, out: Attributes) -> None:
    config = message.precision_config
    if any(config.operand_precision):
        out["operand_precision"] = braces(
            enum_text(config, "operand_precision", value).lower()
            for value in config.operand_precision
        )
    if config.algorithm:
        out["algorithm"] = enum_text(config, "algorithm").removeprefix("ALG_").lower()


def _dot_dimensions(numbers: Any, out: Attributes) -> None:
    if numbers.lhs_batch_dimensions:
        out["lhs_batch_dims"] = braces(numbers.lhs_batch_dimensions)
    out["lhs_contracting_dims"] = braces(numbers.lhs_contracting_dimensions)
    if numbers.rhs_batch_dimensions:
        out["rhs_batch_dims"] = braces(numbers.rhs_batch_dimensions)
    out["rhs_contracting_dims"] = braces(numbers.rhs_contracting_dimensions)


def _dot(message: Any, out: Attributes) -> None:
    _dot_dimensions(message.dot_dimension_numbers, out)
    _precision(message, out)
    _packing(message, out)


def _packing(message: Any, out: Attributes) -> None:
    """How the sides of a product are stored: which operands hold their indices and scales."""

    def sparse(side: Any) -> str:
        return (
            f"sparsity={side.num_non_zero}x{side.block_size} dimension={side.dimension} "
            f"stride={side.stride} idx={side.idx}"
        )

    def scaled(side: Any) -> str:
        parts = [f"scale_idx={side.scale_idx}"]
        if side.HasField("zero_idx"):
            parts.append(f"zero_idx={side.zero_idx}")
        for name in ("strides", "steps"):
            if getattr(side, name):
                parts.append(f"{name}=" + "x".join(map(str, getattr(side, name))))
        return " ".join(parts)

    for name, text in (("sparsity_config", sparse), ("block_scaling_config", scaled)):
        config = getattr(message, name)
        sides = [(side, getattr(config, side)) for side in ("lhs", "rhs") if config.HasField(side)]
        if sides:
            out[name] = braces((f"{side}={{{text(value)}}}" for side, value in sides), " ")


def _ragged_dot(message: Any, out: Attributes) -> None:
    numbers = message.ragged_dot_dimension_numbers
    _dot_dimensions(numbers.dot_dimension_numbers, out)
    out["lhs_ragged_dims"] = braces(numbers.lhs_ragged_dimensions)
    if numbers.rhs_group_dimensions:
        out["rhs_group_dims"] = braces(numbers.rhs_group_dimensions)
    _precision(message, out)


def _gather(message: Any, out: Attributes) -> None:
    n = message.gather_dimension_numbers
    out["offset_dims"] = braces(n.offset_dims)
    out["collapsed_slice_dims"] = braces(n.collapsed_slice_dims)
    out["start_index_map"] = braces(n.start_index_map)
    if n.operand_batching_dims:
        out["operand_batching_dims"] = braces(n.operand_batching_dims)
    if n.start_indices_batching_dims:
        out["start_indices_batching_dims"] = braces(n.start_indices_batching_dims)
    out["index_vector_dim"] = str(n.index_vector_dim)
    out["slice_sizes"] = braces(message.gather_slice_sizes)
    if message.indices_are_sorted:
        out["indices_are_sorted"] = "true"


def _scatter(message: Any, out: Attributes) -> None:
    n = message.scatter_dimension_numbers
    out["update_window_dims"] = braces(n.update_window_dims)
    out["inserted_window_dims"] = braces(n.inserted_window_dims)
    out["scatter_dims_to_operand_dims"] = braces(n.scatter_dims_to_operand_dims)
    if n.input_batching_dims:
        out["input_batching_dims"] = braces(n.input_batching_dims)
    if n.scatter_indices_batching_dims:
        out["scatter_indices_batching_dims"] = braces(n.scatter_indices_batching_dims)
    out["index_vector_dim"] = str(n.index_vector_dim)
    if message.indices_are_sorted:
        out["indices_are_sorted"] = "true"
    if message.unique_indices:
        out["unique_indices"] = "true"


def _custom_call(message: Any, out: Attributes) -> None:
    _convolution_fields(message, out)
    if message.padding_type:
        out["padding_type"] = enum_text(message, "padding_type").lower()
    out["custom_call_target"] = quoted(message.custom_call_target)
    if message.constrain_layout:
        shapes = (str(shape_of(shape)) for shape in message.operand_shapes_with_layout)
        out["operand_layout_constraints"] = braces(shapes, ", ")
    if message.custom_call_has_side_effect:
        out["custom_call_has_side_effect"] = "true"
    if message.custom_call_schedule:
        out["schedule"] = enum_text(message, "custom_call_schedule")
    if message.custom_call_api_version > 1:
        out["api_version"] = enum_text(message, "custom_call_api_version")


def _triangular_solve(message: Any, out: Attributes) -> None:
    options = message.triangular_solve_options
    for name in ("left_side", "lower", "unit_diagonal"):
        if getattr(options, name):
            out[name] = "true"
    out["transpose_a"] = enum_text(options, "transpose_a")


def _compare(message: Any, out: Attributes) -> None:
    out["direction"] = message.comparison_direction
    if message.comparison_type == "TOTALORDER":  # all others follow from the element type
        out["type"] = message.comparison_type
    if message.comparison_order:  # the reader drops what follows from the element type
        out["order"] = message.comparison_order


def without_usual_order(raw: bytes, operand: bytes) -> bytes:
    """A comparison's fields less the order, where that follows from the operand's type.

    Source: DefaultOrdering in xla/comparison_util.h. Damaged fields stay as they are.
    """
    try:
        message = schema.full("HloInstructionProto").FromString(raw)
        dtype = decode_shape(operand).dtype
    except (DecodeError, ValueError):
        return raw  # refused where they are read
    usual = "PARTIAL" if dtype[:1] in ("f", "b", "c") else "TOTAL"
    if message.comparison_order != usual:
        return raw
    message.ClearField("comparison_order")
    return bytes(message.SerializeToString())


def _slice(message: Any, out: Attributes) -> None:
    dims = message.slice_dimensions
    strided = any(dim.stride != 1 for dim in dims)
    out["slice"] = braces(
        (f"[{dim.start}:{dim.limit}" + (f":{dim.stride}" if strided else "") + "]" for dim in dims),
        ", ",
    )


def _pad(message: Any, out: Attributes) -> None:
    dims = message.padding_config.dimensions
    interior = any(dim.interior_padding for dim in dims)
    out["padding"] = "x".join(
        f"{dim.edge_padding_low}_{dim.edge_padding_high}"
        + (f"_{dim.interior_padding}" if interior else "")
        for dim in dims
    )


def _fft(message: Any, out: Attributes) -> None:
    out["fft_type"] = enum_text(message, "fft_type")
    out["fft_length"] = braces(message.fft_length)


def _batch_norm(message: Any, out: Attributes) -> None:
    out["epsilon"] = f"{message.epsilon:.6g}"
    out["feature_index"] = str(message.feature_index)


def _parameter(message: Any, out: Attributes) -> None:
    leaves = message.parameter_replication.replicated_at_leaf_buffers
    if leaves:
        out["parameter_replication"] = braces("true" if leaf else "false" for leaf in leaves)


def _async(message: Any, out: Attributes) -> None:
    if message.async_execution_thread not in ("", "main"):
        out["async_execution_thread"] = quoted(message.async_execution_thread)


def _copy_start(message: Any, out: Attributes) -> None:
    if message.HasField("cross_program_prefetch_index"):
        out["cross_program_prefetch_index"] = str(message.cross_program_prefetch_index)


def _top_k(message: Any, out: Attributes) -> None:
    out["k"] = str(message.k)
    out["largest"] = "true" if message.largest else "false"
    if message.is_stable:
        out["is_stable"] = "true"


def _sort(message: Any, out: Attributes) -> None:
    if message.is_stable:
        out["is_stable"] = "true"


def _outfeed(message: Any, out: Attributes) -> None:
    out["outfeed_shape"] = str(shape_of(message.outfeed_shape))
    if message.outfeed_config:
        out["outfeed_config"] = quoted(message.outfeed_config)


def _infeed(message: Any, out: Attributes) -> None:
    if message.infeed_config:
        out["infeed_config"] = quoted(message.infeed_config)


def _domain(message: Any, out: Attributes) -> None:
    # the proto's entry is the user's side, which text calls exit
    entry = sharding_text(message.domain_exit_sharding)
    exit_ = sharding_text(message.domain_entry_sharding)
    out["domain"] = f'{{kind="sharding", entry={entry}, exit={exit_}}}'


def _reshape(message: Any, out: Attributes) -> None:
    if message.dimensions and message.dimensions[0] != -1:
        out["inferred_dimension"] = str(message.dimensions[0])


def _iota(message: Any, out: Attributes) -> None:
    out["iota_dimension"] = str(message.dimensions[0] if message.dimensions else 0)


def _fusion(message: Any, out: Attributes) -> None:
    out["kind"] = message.fusion_kind


def _reduce_precision(message: Any, out: Attributes) -> None:
    out["exponent_bits"] = str(message.exponent_bits)
    out["mantissa_bits"] = str(message.mantissa_bits)


def _scan(message: Any, out: Attributes) -> None:
    out["is_reverse"] = "true" if message.is_reverse else "false"
    out["num_carries"] = str(message.num_carries)
    if message.is_associative:
        out["is_associative"] = "true" if message.is_associative == 1 else "false"


def _shuffle(message: Any, out: Attributes) -> None:
    if message.shuffle_mode.HasField("rotate"):
        out["mode"] = "rotate"
        out["shifts"] = braces(message.shuffle_mode.rotate.shifts)


def _set(name: str, text: Callable[[Any], str]) -> Callable[[Any, Attributes], None]:
    def decode(message: Any, out: Attributes) -> None:
        out[name] = text(message)

    return decode


OF_OPCODE: dict[str, Callable[[Any, Attributes], None]] = {
    "async-start": _async, "async-update": _async, "async-done": _async,
    "batch-norm-grad": _batch_norm, "batch-norm-inference": _batch_norm,
    "batch-norm-training": _batch_norm, "compare": _compare, "convolution": _convolution,
    "copy-start": _copy_start, "custom-call": _custom_call, "domain": _domain, "dot": _dot,
    "scaled-dot": _dot,
    "fft": _fft, "fusion": _fusion, "gather": _gather, "infeed": _infeed, "iota": _iota,
    "outfeed": _outfeed, "pad": _pad, "parameter": _parameter, "ragged-dot": _ragged_dot,
    "reduce-precision": _reduce_precision, "reduce-window": _window, "reshape": _reshape,
    "scan": _scan, "scatter": _scatter, "select-and-scatter": _window, "shuffle": _shuffle,
    "slice": _slice, "sort": _sort, "topk": _top_k, "triangular-solve": _triangular_solve,
    "cholesky": lambda m, out: out.update({"lower": "true"} if m.cholesky_options.lower else {}),
    "dynamic-slice": _set("dynamic_slice_sizes", lambda m: braces(m.dynamic_slice_sizes)),
    "get-tuple-element": _set("index", lambda m: str(m.tuple_index)),
    "rng": _set("distribution", lambda m: enum_text(m, "distribution").lower()),
    "rng-bit-generator": _set("algorithm", lambda m: enum_text(m, "rng_algorithm").lower()),
    "rng-get-and-update-state": _set("delta", lambda m: str(m.delta)),
}  # fmt: skip
