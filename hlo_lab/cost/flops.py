"""Floating-point operations and transcendental calls of one instruction.

The definitions are those of XLA's ``HloCostAnalysis`` (xla/service/hlo_cost_analysis.cc), so
that figures can be checked against the compiler's own: a multiply-add counts two, an
elementwise operation one per result element whatever its type, a transcendental function
counts apart from flops, and data movement counts nothing. Unlike XLA, custom calls to
known libraries are counted (:mod:`hlo_lab.cost.custom_calls`).
"""

from __future__ import annotations

import math
from collections.abc import Callable

from hlo_lab.cost.custom_calls import custom_call_flops
from hlo_lab.cost.tables import Op, integers, words
from hlo_lab.cost.windows import convolution_flops, parse_dim_labels, parse_window
from hlo_lab.ir.shapes import Shape

TRANSCENDENTAL = words("""
    acos acosh asin asinh atanh cosh sinh erf exponential log logistic power sqrt cbrt rsqrt
    tanh sine cosine exponential-minus-one log-plus-one atan2 tan rng
""")
ELEMENTWISE = words("""
    abs add and bitcast-convert ceil clamp compare complex convert count-leading-zeros
    divide floor imag is-finite maximum minimum multiply negate not or popcnt real
    reduce-precision remainder round-nearest-afz round-nearest-even select shift-left
    shift-right-arithmetic shift-right-logical sign stochastic-convert subtract xor
""")

# flops and transcendentals of one execution
Count = tuple[float, float]


def dot_flops(lhs: Shape, result: Shape, contracting: list[int]) -> float:
    """2 x result elements x product of the contracting dimensions of ``lhs``."""
    return 2.0 * result.element_count * math.prod(lhs.dims[dim] for dim in contracting)


def _dot(op: Op) -> Count:
    contracting = integers(op.attributes.get("lhs_contracting_dims", ""))
    return dot_flops(op.operand(0), op.first_array, contracting), 0.0


def _ragged_dot(op: Op) -> Count:
    groups = integers(op.attributes.get("rhs_group_dims", ""))
    result = op.first_array
    # each row belongs to one group: the group dimension of the result, if any, is no work
    count = result.element_count
    if groups and result.rank > op.operand(0).rank:
        count //= max(result.dims[0], 1)
    contracting = integers(op.attributes.get("lhs_contracting_dims", ""))
    return 2.0 * count * math.prod(op.operand(0).dims[dim] for dim in contracting), 0.0


def _convolution(op: Op) -> Count:
    flops = convolution_flops(
        op.operand(0),
        op.operand(1),
        op.first_array,
        parse_window(op.attributes.get("window", "")),
        parse_dim_labels(op.attributes["dim_labels"]),
        int(op.attributes.get("feature_group_count", 1)),
        int(op.attributes.get("batch_group_count", 1)),
    )
    return flops, 0.0


def _times(count: float, applied: Count) -> Count:
    return max(count, 0.0) * applied[0], max(count, 0.0) * applied[1]


def _applied(op: Op, number: int = 0) -> Count:
    return op.applied[number] if number < len(op.applied) else (0.0, 0.0)


def _reduce(op: Op) -> Count:
    return _times(op.operand(0).element_count - op.first_array.element_count, _applied(op))


def _map(op: Op) -> Count:
    return _times(op.first_array.element_count, _applied(op))


def _scatter(op: Op) -> Count:
    # operands: n arrays, the indices, n updates
    updates = op.operands[len(op.operands) // 2 + 1]
    return _times(updates.element_count, _applied(op))


def _reduce_window(op: Op) -> Count:
    window = parse_window(op.attributes.get("window", ""))
    results = op.first_array.element_count
    taps = math.prod(dimension.size for dimension in window)
    count = (taps - 1) * results
    wide = [dimension for dimension in window if dimension.size != 1]
    padded = [d for d in window if d.padding_low or d.padding_high]
    if len(wide) == 1 and len(padded) == 1 and not op.shape.is_tuple:
        # a reduce that is broadcast back over its dimension; XLA counts it as one
        for number, d in enumerate(window):
            spans = d.size == 2 * d.padding_low + 1 and d.padding_low == d.padding_high > 0
            if spans and d.padding_low == op.shape.dims[number] - 1:
                span = op.shape.dims[number]
                count = results // span + span - 1
    return _times(count, _applied(op))


def _select_and_scatter(op: Op) -> Count:
    window = parse_window(op.attributes.get("window", ""))
    source = op.operand(1).element_count
    taps = math.prod(dimension.size for dimension in window)
    selects = _times(source * (taps - 1), _applied(op, 0))
    scatters = _times(source, _applied(op, 1))
    return selects[0] + scatters[0], selects[1] + scatters[1]


def _sort(op: Op) -> Count:
    count = op.operand(0).element_count
    return float(count * (count - 1).bit_length()) if count > 1 else 0.0, 0.0


def _fft(op: Op) -> Count:
    logs = 1
    for length in integers(op.attributes.get("fft_length", "")):
        logs *= max(length, 1).bit_length() - 1
    # four multiply-adds per complex product
    return 8.0 * logs * op.operand(0).element_count, 0.0


def _triangular_solve(op: Op) -> Count:
    return 2.0 * op.operand(0).dims[-1] * op.operand(1).element_count, 0.0


def _cholesky(op: Op) -> Count:
    return float(op.operand(0).dims[-1] * op.operand(0).element_count // 3), 0.0


def _all_reduce(op: Op) -> Count:
    # one combination per result element, as XLA counts it: two participants assumed
    return float(op.shape.element_count), 0.0


def _rng_bit_generator(op: Op) -> Count:
    return 0.0, float(op.shape.element_count)


HANDLERS: dict[str, Callable[[Op], Count]] = {
    "dot": _dot,
    "scaled-dot": _dot,
    "ragged-dot": _ragged_dot,
    "convolution": _convolution,
    "reduce": _reduce,
    "map": _map,
    "scatter": _scatter,
    "reduce-window": _reduce_window,
    "select-and-scatter": _select_and_scatter,
    "sort": _sort,
    "fft": _fft,
    "triangular-solve": _triangular_solve,
    "cholesky": _cholesky,
    "all-reduce": _all_reduce,
    "all-reduce-start": _all_reduce,
    "rng-bit-generator": _rng_bit_generator,
    "custom-call": custom_call_flops,
}
# Their flops run on matrix units.
MATRIX = frozenset(("dot", "scaled-dot", "ragged-dot", "convolution", "custom-call"))
