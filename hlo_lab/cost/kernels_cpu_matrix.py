"""Units of work of products and convolutions on XLA:CPU."""

from __future__ import annotations

import math

from hlo_lab.cost.kernels_cpu_move import PAGE, PAGES, Place
from hlo_lab.cost.tables import Op, integers
from hlo_lab.cost.windows import convolution_flops, parse_dim_labels, parse_window
from hlo_lab.ir.shapes import BITS, Shape

_LANES = 16  # f32 of a vector register, to which micro-kernels pad rows and features
_FEW = 32  # output features
_NARROW = 8  # rows of a matrix, below which a product with a vector is a plain loop
_ROWS = 4  # rows of a micro-kernel's tile, of which a last one may be partly used


def dot(op: Op, where: Place) -> dict[str, float]:
    """A product ``[batch, m, k] x [batch, k, n]``: flops and packing, or a stream of a matrix."""
    left, right = op.operand(0), op.operand(1)
    contracted = integers(op.attributes.get("lhs_contracting_dims", ""))
    batched = integers(op.attributes.get("lhs_batch_dims", ""))
    k = math.prod(left.dims[dim] for dim in contracted)
    batch = math.prod(left.dims[dim] for dim in batched)
    m = left.element_count / max(k * batch, 1)
    n = right.element_count / max(k * batch, 1)
    dtype = left.dtype
    width = max(BITS.get(dtype, 32), 8) / 32
    flops = 2.0 * batch * m * n * k
    if min(m, n) <= 1 and not where.library:
        matrix, dims = (left, "lhs_contracting_dims") if m > n else (right, "rhs_contracting_dims")
        along = _is_minor(matrix, integers(op.attributes.get(dims, "")))
        kind = "narrow" if max(m, n) < _NARROW else "element" if along else "column"
        return {f"vector.{kind}": flops / 2 * width, "vector.batch": float(batch)}
    if dtype[0] in "su" or dtype == "pred":
        return {"dot.integer_flop" if width >= 1 else "dot.byte_flop": flops}
    name = "dot." if where.library else "dot.plain_"
    left_name = "left" if _is_minor(left, contracted) else "left_turned"
    contracted = integers(op.attributes.get("rhs_contracting_dims", ""))
    right_name = "right_turned" if _is_minor(right, contracted) else "right"
    units = {
        f"{name}flop": flops * width,
        f"{name}batch": batch,
        f"{name}output": batch * m * n * width,
        f"{name}{left_name}": batch * m * k * width,
        f"{name}{right_name}": batch * k * n * width,
    }
    if where.library:
        padded = _up(m, _ROWS) * _up(n, _LANES) * k
        units["dot.padded_flop"] = (2.0 * batch * padded - flops) * width
    elif left_name == "left_turned":
        units["dot.plain_turned"] = batch
    if not where.library and n < _NARROW:
        units["dot.plain_narrow"] = flops * width
    return units


def _is_minor(shape: Shape, dims: list[int]) -> bool:
    return bool(shape.rank) and shape.minor_to_major[0] in dims


def _is_canonical(labels: str) -> bool:
    """Batch first, features last, as Eigen takes them; XLA loops over anything else."""
    source, _, rest = labels.partition("_")
    kernel, _, result = rest.partition("->")
    ends = source[0] + source[-1], kernel[-2:], result[0] + result[-1]
    return ends == ("bf", "io", "bf")


def _up(value: float, step: int) -> float:
    return math.ceil(value / step) * step


def convolution(op: Op, where: Place) -> dict[str, float]:
    """Flops over features padded to a vector; the patches that a loop or Eigen copies."""
    source, kernel, result = op.operand(0), op.operand(1), op.first_array
    window = parse_window(op.attributes.get("window", ""))
    dims = parse_dim_labels(op.attributes["dim_labels"])
    groups = int(op.attributes.get("feature_group_count", 1))
    batches = int(op.attributes.get("batch_group_count", 1))
    flops = convolution_flops(source, kernel, result, window, dims, groups, batches)
    inputs = max(source.dims[dims.input_feature] // groups, 1)
    outputs = max(result.dims[dims.output_feature] // groups, 1)
    positions = result.element_count / max(result.dims[dims.output_feature], 1)
    taps = math.prod(dimension.size for dimension in window)
    if len(window) > 2 or batches > 1 or not _is_canonical(op.attributes["dim_labels"]):
        units = {"convolution.naive_flop": flops}
        # each tap of each position walks through the kernel, a page further at each step
        if max(kernel.bytes, source.bytes) > 2 * PAGES * PAGE:
            units["convolution.naive_far"] = flops
        return units
    if not where.library:
        return {
            "convolution.plain_flop": flops,
            "convolution.plain_window": positions * taps,
            "convolution.plain_patch": positions * taps * inputs,
        }
    padding = _up(inputs, _LANES) * _up(outputs, _LANES) / (inputs * outputs) if groups > 1 else 1
    odd = inputs % 2 == 1 and inputs > 1 and outputs <= _FEW
    return {
        "convolution.flop": flops * padding,
        # odd numbers of features, as of colours, are not vectors where outputs are few, too
        "convolution.odd": positions * taps * outputs if odd else 0.0,
        "convolution.patch": positions * taps * inputs * groups,
        "convolution.output": float(result.element_count),
        "convolution.row": positions * taps,
        "dot.right": float(kernel.element_count),
    }
