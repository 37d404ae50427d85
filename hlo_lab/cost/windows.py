"""The ``window={...}`` and ``dim_labels=...`` attributes of convolutions and reduce-windows."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

from hlo_lab.ir.shapes import Shape

MAX_TAPS = 1 << 20  # a kernel wider than this is counted without its border


@dataclass(frozen=True)
class WindowDimension:
    """One dimension of a window; names as in xla_data.proto."""

    size: int = 1
    stride: int = 1
    padding_low: int = 0
    padding_high: int = 0
    base_dilation: int = 1
    window_dilation: int = 1


_INTEGER_FIELDS = {
    "size": "size",
    "stride": "stride",
    "lhs_dilate": "base_dilation",
    "rhs_dilate": "window_dilation",
}


@functools.lru_cache(maxsize=4096)
def parse_window(text: str) -> tuple[WindowDimension, ...]:
    """Read ``{size=3x3 stride=2x2 pad=0_1x0_1}``. Raises ``ValueError``."""
    columns: dict[str, list[str]] = {}
    for part in text.strip("{} ").split():
        key, _, value = part.partition("=")
        columns[key] = value.split("x")
    rank = len(columns.get("size", ()))
    out = []
    for number in range(rank):
        values = {
            name: int(columns[key][number])
            for key, name in _INTEGER_FIELDS.items()
            if number < len(columns.get(key, ()))
        }
        if number < len(columns.get("pad", ())):
            low, _, high = columns["pad"][number].partition("_")
            values.update(padding_low=int(low), padding_high=int(high))
        out.append(WindowDimension(**values))
    return tuple(out)


@dataclass(frozen=True)
class ConvolutionDims:
    """Where batch, feature and spatial dimensions stand in input, kernel and output."""

    input_batch: int
    input_feature: int
    input_spatial: tuple[int, ...]
    kernel_spatial: tuple[int, ...]
    output_feature: int
    output_spatial: tuple[int, ...]


@functools.lru_cache(maxsize=1024)
def parse_dim_labels(text: str) -> ConvolutionDims:
    """Read ``b01f_01io->b01f``. Raises ``ValueError``."""
    operands, arrow, output = text.partition("->")
    source, underscore, kernel = operands.partition("_")
    if not arrow or not underscore:
        raise ValueError(f"dim_labels {text!r}")
    spatial = "".join(sorted(char for char in source if char.isdigit()))
    return ConvolutionDims(
        input_batch=source.index("b"),
        input_feature=source.index("f"),
        input_spatial=tuple(source.index(char) for char in spatial),
        kernel_spatial=tuple(kernel.index(char) for char in spatial),
        output_feature=output.index("f"),
        output_spatial=tuple(output.index(char) for char in spatial),
    )


def convolution_flops(
    source: Shape,
    kernel: Shape,
    result: Shape,
    window: tuple[WindowDimension, ...],
    dims: ConvolutionDims,
    feature_groups: int = 1,
    batch_groups: int = 1,
) -> float:
    """Two flops per multiply-add at positions that are inside the input.

    Follows ``HloCostAnalysis::GetConvolutionFlops``: taps on padding and on the holes of
    a dilated input are not counted.
    """
    positions = 1
    for number, dimension in enumerate(window):
        positions *= valid_positions(
            dimension,
            source.dims[dims.input_spatial[number]],
            kernel.dims[dims.kernel_spatial[number]],
            result.dims[dims.output_spatial[number]],
        )
    features = source.dims[dims.input_feature] // max(feature_groups, 1)
    batch = source.dims[dims.input_batch] // max(batch_groups, 1)
    return 2.0 * features * result.dims[dims.output_feature] * batch * positions


def valid_positions(window: WindowDimension, source: int, kernel: int, result: int) -> int:
    """(kernel tap, output position) pairs of one dimension that read a real input element.

    For tap ``k`` the input index of output ``o`` is ``o*stride - low + k*dilation``, which
    must be a multiple of ``base_dilation`` within the input: counted in closed form, as an
    arithmetic progression, so a wide window costs no more than its number of taps.
    """
    stride, base = max(window.stride, 1), max(window.base_dilation, 1)
    diagonal = (
        source == result == kernel
        and source == base
        and window.window_dilation == 1
        and max(1, source - 1) == stride
        and window.padding_low == window.padding_high == 0
    )
    if diagonal:
        return source
    if kernel > MAX_TAPS:
        return kernel * min(source, result)
    if stride == 1 and base == 1:
        # overlap of [0, result) with the input shifted by the tap, summed over taps
        return sum(
            max(min(source + shift, result) - max(shift, 0), 0)
            for shift in (
                window.padding_low - tap * window.window_dilation for tap in range(kernel)
            )
        )
    count = 0
    last = (source - 1) * base
    for tap in range(kernel):
        offset = tap * window.window_dilation - window.padding_low
        # outputs o with 0 <= o*stride + offset <= last
        low = max(0, -(offset // stride)) if offset < 0 else 0
        high = min(result - 1, (last - offset) // stride)
        if high < low:
            continue
        count += _multiples(low, high, stride, offset, base)
    return count


def _multiples(low: int, high: int, stride: int, offset: int, base: int) -> int:
    """How many ``o`` in [low, high] make ``o*stride + offset`` a multiple of ``base``."""
    common = math.gcd(stride, base)
    if offset % common:
        return 0
    period = base // common
    first = (-offset // common) * pow(stride // common, -1, period) % period
    first += -(-(low - first) // period) * period  # the first solution at or above low
    return (high - first) // period + 1 if first <= high else 0
