"""Matrix products in whatever form a compiler left them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from hlo_lab.cost.machines import Machine
from hlo_lab.cost.tables import attributes_at, integers
from hlo_lab.cost.windows import WindowDimension, parse_dim_labels, parse_window
from hlo_lab.ir.module import Module
from hlo_lab.passkit.context import Context
from hlo_lab.passkit.patterns import HANDING_ON, Flow
from hlo_lab.passkit.tracing import definition, kernel, readers

_MALFORMED = (ValueError, KeyError, IndexError)
_GROUPS = frozenset(("feature_group_count", "batch_group_count"))
_SAME_VALUE = HANDING_ON | frozenset(("copy", "convert", "reshape", "copy-start"))


@dataclass(frozen=True)
class Product:
    """``left`` [batch, rows, depth] times ``right`` [batch, depth, columns] at ``at``."""

    at: int
    left: int
    right: int
    batch: int
    rows: int
    depth: int
    columns: int

    @property
    def flops(self) -> float:
        return 2.0 * self.batch * self.rows * self.depth * self.columns

    @property
    def turned(self) -> Product:
        """The same product transposed: rows and columns, left and right change places."""
        return replace(self, left=self.right, right=self.left, rows=self.columns, columns=self.rows)


def products(module: Module, flow: Flow) -> Iterator[Product]:
    """Every dot and every convolution that is one, fused or not.

    XLA:TPU writes dots as convolutions, and those of a vector with a matrix as a multiplication
    and a reduction, which keep the name of the dot. XLA:GPU splits the depth of some over a batch
    of products that it sums; those are given as the one that they are.
    """
    for at in np.nonzero(module.opcode_mask("dot"))[0].tolist():
        found = _dot(module, flow, at)
        if found is not None:
            yield found
    for at in np.nonzero(module.opcode_mask("convolution"))[0].tolist():
        found = _convolution(module, flow, at)
        if found is not None:
            yield found
    for at in np.nonzero(module.opcode_mask("reduce"))[0].tolist():
        found = _reduce(flow, at)
        if found is not None:
            yield found


def narrow_products(
    module: Module, context: Context, most_rows: int
) -> Iterator[tuple[Product, int]]:
    """Products of at most ``most_rows`` rows with a larger matrix, and the kernel of each.

    ``left`` has the rows; products of a batch of matrices are left out.
    """
    for product in products(module, context.flow):
        for each in (product, product.turned):
            if each.rows > most_rows or min(each.columns, each.depth) <= most_rows:
                continue
            at = kernel(context.flow, each.at)
            if each.batch == 1 and context.cost.top_level[at]:
                yield each, at
            break


def rows_text(product: Product) -> str:
    """``a vector with the same 1024x512 matrix``."""
    rows = "a vector" if product.rows == 1 else f"{product.rows} rows"
    return f"{rows} with the same {product.depth}x{product.columns} matrix"


def batched_seconds(product: Product, times: float, machine: Machine) -> float:
    """What ``times`` such products with one right operand take as one, by the roofline.

    Elements count 4 bytes, operations at the peak for what f32 operands become by default.
    """
    flow_bytes = (
        4.0
        * product.batch
        * (
            product.depth * product.columns
            + times * product.rows * (product.depth + product.columns)
        )
    )
    compute = (
        product.flops * times / machine.matrix_peak("bf16" if machine.kind == "tpu" else "f32")
    )
    return max(flow_bytes / machine.memory_bandwidth, compute) + machine.launch_overhead


def _dot(module: Module, flow: Flow, at: int) -> Product | None:
    operands = flow.operands(at)
    attributes = attributes_at(module, int(module.attribute[at]))
    if len(operands) < 2:
        return None
    left, right = flow.shape(operands[0]), flow.shape(operands[1])
    try:
        depth = math.prod(
            left.dims[i] for i in integers(attributes.get("lhs_contracting_dims", ""))
        )
        batches = [left.dims[i] for i in integers(attributes.get("lhs_batch_dims", ""))]
    except _MALFORMED:
        return None
    batch = math.prod(batches)
    one = max(depth * batch, 1)
    parts = batches[0] if batch > 1 and _is_summed(flow, at) else 1
    return Product(
        at=at,
        left=operands[0],
        right=operands[1],
        batch=batch // parts,
        rows=left.element_count // one,
        depth=depth * parts,
        columns=right.element_count // one,
    )


def _is_summed(flow: Flow, at: int) -> bool:
    """Whether what a batch of products gives is summed over its first dimension.

    By the name of the sum, which is that of the product, XLA:GPU split the depth.
    """
    module, name = flow.module, flow.op_name(at)
    sums = readers(flow, at, _SAME_VALUE)
    return bool(sums and name) and all(
        flow.opcode(one) == "reduce"
        and flow.op_name(one) == name
        and module.attributes[module.attribute[one]].get("dimensions") == "{0}"
        for one in sums
    )


def _convolution(module: Module, flow: Flow, at: int) -> Product | None:
    """A convolution each of whose spatial dimensions is one of a product.

    XLA:TPU writes products of arrays with more than two dimensions so.
    """
    operands = flow.operands(at)
    attributes = attributes_at(module, int(module.attribute[at]))
    if len(operands) < 2 or not _GROUPS.isdisjoint(attributes):
        return None
    try:
        dims = parse_dim_labels(attributes["dim_labels"])
        window = parse_window(attributes.get("window", ""))
        given, kernel_, result = (flow.shape(each).dims for each in (*operands[:2], at))
        sizes = {"batch": 1, "rows": given[dims.input_batch]}
        sizes |= {"depth": given[dims.input_feature], "columns": result[dims.output_feature]}
        spatial = zip(dims.input_spatial, dims.kernel_spatial, dims.output_spatial, strict=True)
        for dimension, (one, other, made) in zip(window, spatial, strict=True):
            role = _role(dimension, given[one], kernel_[other], result[made])
            if role is None:
                return None
            sizes[role] *= max(given[one], kernel_[other])
    except _MALFORMED:
        return None
    return Product(at, operands[0], operands[1], **sizes)


def _role(window: WindowDimension, given: int, kernel: int, result: int) -> str | None:
    """What a spatial dimension of a convolution is for a product; None for a true convolution."""
    if result == given == kernel and window.base_dilation > 1:
        return "batch"  # slid over holes so wide that each matrix meets its own partner
    if (window.stride, window.base_dilation, window.window_dilation) != (1, 1, 1):
        return None
    padding = (window.padding_low, window.padding_high)
    if kernel == 1 and result == given and padding == (0, 0):
        return "rows"
    if kernel == given and result == 1 and padding == (0, 0):
        return "depth"
    if given == 1 and result == kernel and padding == (kernel - 1, kernel - 1):
        return "columns"
    return None


def _reduce(flow: Flow, at: int) -> Product | None:
    """A vector times a matrix, as XLA:TPU writes it."""
    if not flow.op_name(at).endswith("dot_general"):
        return None
    operands = flow.operands(at)
    times, _ = definition(flow, operands[0], (), _SAME_VALUE)
    factors = flow.operands(times)
    if flow.opcode(times) != "multiply" or len(factors) != 2:
        return None
    spread = [_spread(flow, one) for one in factors]
    if (spread[0] is None) == (spread[1] is None):
        return None
    vector, matrix = spread[0], factors[1]
    if vector is None:
        vector, matrix = spread[1], factors[0]
    depth, size = flow.shape(vector or 0).element_count, flow.shape(matrix).element_count
    if vector is None or not depth or size != depth * flow.shape(at).element_count:
        return None
    return Product(at, vector, matrix, 1, 1, depth, size // depth)


def _spread(flow: Flow, at: int) -> int | None:
    """The smaller array that a broadcast repeats."""
    made, _ = definition(flow, at, (), _SAME_VALUE)
    if flow.opcode(made) != "broadcast" or not flow.operands(made):
        return None
    return flow.operands(made)[0]
