"""Work of custom calls to libraries whose meaning is known.

XLA's ``HloCostAnalysis`` marks every custom call as unknown; these are counted here:
cuBLAS and cuBLASLt products, cuDNN convolutions, oneDNN products, LAPACK and cuSOLVER
factorisations, and Pallas kernels that declare a ``cost_estimate``.
"""

from __future__ import annotations

import math

from hlo_lab.cost.tables import Op, words
from hlo_lab.cost.windows import convolution_flops, parse_dim_labels, parse_window
from hlo_lab.ir.backend import decode
from hlo_lab.ir.shapes import Shape

# Calls that move or annotate data, and count no flops knowingly.
_NO_FLOPS = words("""
    TopK MoveToHost MoveToDevice GatherScatterIndicesBitpacked SliceToDynamic PadToStatic
    ResizeNearest X64Combine X64SplitLow X64SplitHigh PartialReduce xla_python_cpu_callback
    xla_ffi_python_cpu_callback xla_python_gpu_callback xla_ffi_python_gpu_callback
    AsyncCollectiveStart AsyncCollectiveDone
""")
# These are resolved by the compiler: no kernel runs.
FREE = words("""
    Sharding SPMDFullToShardShape SPMDShardToFullShape annotate_device_placement
    AllocateBuffer Pin Unpin LayoutConstraint AssumeGatherIndicesInBound ConcatBitcast
""")
# Leading terms of the LAPACK working notes' operation counts, n the last dimension.
_FACTORISATIONS = {"potrf": 1 / 3, "getrf": 2 / 3, "syevd": 9.0, "gesdd": 22.0, "geev": 25.0}


def target(attributes: dict[str, str]) -> str:
    """The custom call's target without quotes; empty when there is none."""
    return attributes.get("custom_call_target", "").strip('"')


def cost_estimate(attributes: dict[str, str]) -> dict[str, float] | None:
    """What a Pallas kernel declares: flops, transcendentals and bytes_accessed."""
    if "cost_estimate" not in attributes.get("backend_config", ""):
        return None
    found = decode(attributes)
    for key in ("custom_call_config", "cost_estimate"):
        found = found.get(key, found)
        if not isinstance(found, dict):
            return None
    try:
        keys = ("flops", "transcendentals", "bytes_accessed")
        return {key: float(found.get(key, 0)) for key in keys}
    except (TypeError, ValueError):
        return None


def is_known(attributes: dict[str, str]) -> bool:
    """Whether the flops of this call are counted, or knowingly none."""
    name = target(attributes)
    return (
        name in _NO_FLOPS
        or name in FREE
        or name.startswith(("__cublas$", "__cudnn$conv", "__onednn$"))
        or _factorisation(name) is not None
        or cost_estimate(attributes) is not None
    )


def custom_call_flops(op: Op) -> tuple[float, float]:
    """(flops, transcendentals); (0, 0) for a target that is not known."""
    declared = cost_estimate(op.attributes)
    if declared is not None:
        return declared["flops"], declared["transcendentals"]
    name = target(op.attributes)
    if name.startswith("__cublas$"):
        return _cublas(op), 0.0
    if name.startswith("__cudnn$conv"):
        return _cudnn(op, name), 0.0
    if name.startswith("__onednn$matmul"):
        return _onednn(op), 0.0
    factor = _factorisation(name)
    if factor is not None:
        matrix = _largest(op)
        return factor * matrix.element_count * min(matrix.dims[-2:]), 0.0
    return 0.0, 0.0


def _factorisation(name: str) -> float | None:
    if name.startswith(("lapack_", "cusolver_", "hipsolver_")):
        for key, factor in _FACTORISATIONS.items():
            if key in name:
                return factor
        if "geqrf" in name or "orgqr" in name or "ungqr" in name:
            return 4 / 3
    return None


def _largest(op: Op) -> Shape:
    matrices = [shape for shape in op.operands if shape.rank >= 2]
    if not matrices:
        raise ValueError("a factorisation without a matrix operand")
    return max(matrices, key=lambda shape: shape.element_count)


def _cublas(op: Op) -> float:
    config = decode(op.attributes)
    gemm = config.get("gemm_backend_config", config.get("grouped_gemm_backend_config", config))
    numbers = gemm.get("dot_dimension_numbers") or {}
    contracting = [int(dim) for dim in numbers.get("lhs_contracting_dimensions", [1])]
    width = math.prod(op.operand(0).dims[dim] for dim in contracting)
    return 2.0 * op.first_array.element_count * width


def _cudnn(op: Op, name: str) -> float:
    lhs, rhs, result = op.operand(0), op.operand(1), op.first_array
    if "BackwardInput" in name:
        lhs, result = result, lhs
    elif "BackwardFilter" in name:
        rhs, result = result, rhs
    return convolution_flops(
        lhs,
        rhs,
        result,
        parse_window(op.attributes.get("window", "")),
        parse_dim_labels(op.attributes["dim_labels"]),
        int(op.attributes.get("feature_group_count", 1)),
        int(op.attributes.get("batch_group_count", 1)),
    )


def _onednn(op: Op) -> float:
    config = decode(op.attributes).get("onednn_matmul_config", {})
    lhs = op.operand(0)
    width = lhs.dims[-2 if config.get("transpose_a") else -1]
    return 2.0 * op.first_array.element_count * width
