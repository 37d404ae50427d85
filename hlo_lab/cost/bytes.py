"""Bytes that one execution of an instruction reads and writes.

As XLA's ``HloCostAnalysis`` (xla/service/hlo_cost_analysis.cc) counts them: operands read
once plus the result, but only the slice for slices, gathers, scatters and in-place
updates. Four deliberate differences: index tables of tuples count nothing, and tuple
results count their members; the start half of an asynchronous pair carries its bytes, the
done half none; inside a fusion a slice is seen through bitcasts; and a parameter that a
fusion gathers from, or scatters into in place, counts the rows touched instead of the table.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from hlo_lab.cost import custom_calls
from hlo_lab.cost.tables import Op, Sizes, integers, words
from hlo_lab.ir.module import Ints, Module

# Executed by no kernel, or by the computations they call.
FREE = words("""
    parameter constant tuple get-tuple-element bitcast after-all add-dependency domain
    opt-barrier optimization-barrier partition-id replica-id get-dimension-size
    set-dimension-size while conditional call async-start async-update async-done
""")


def free_opcodes(module: Module) -> list[str]:
    """Those of the module's opcodes that run as no kernel.

    The done half of an asynchronous pair is one: its start half carries the cost.
    """
    return [name for name in module.opcodes if name in FREE or name.endswith("-done")]


def instruction_bytes(module: Module, size: Sizes) -> Ints:
    """int64[N]: bytes of every instruction, fusions not yet looked into."""
    count = len(module)
    result = size.bytes[module.shape]
    if not len(module.operand):
        read = np.zeros(count, np.int64)
    else:
        sums = np.concatenate(([0], np.cumsum(result[module.operand])))
        read = sums[module.operand_start[1:]] - sums[module.operand_start[:-1]]
    total = result + read
    total[module.opcode_mask(*free_opcodes(module))] = 0
    _slices(module, result, total)
    return total


def _slices(module: Module, result: Ints, total: Ints) -> None:
    """Opcodes that touch a part of their first operand."""

    def rows(opcode: str, operands: int) -> Ints:
        arity = np.diff(module.operand_start)
        found: Ints = np.nonzero(module.opcode_mask(opcode) & (arity >= operands))[0]
        return found

    def operand(at: Ints, number: int) -> Ints:
        taken: Ints = result[module.operand[module.operand_start[at] + number]]
        return taken

    at = rows("slice", 1)
    total[at] = 2 * result[at]
    at = rows("dynamic-slice", 2)
    total[at] = 2 * result[at] + operand(at, 1)
    at = rows("gather", 2)
    total[at] = 2 * result[at] + operand(at, 1)
    at = rows("dynamic-update-slice", 3)
    total[at] = 2 * operand(at, 1) + operand(at, 2)


def _scatter(op: Op) -> int:
    arrays = len(op.operands) // 2
    updates = sum(shape.bytes for shape in op.operands[arrays + 1 :])
    return 3 * updates + op.operand(arrays).bytes


def _triangular_solve(op: Op) -> int:
    return op.shape.bytes + op.operand(0).bytes // 2 + op.operand(1).bytes


def _cholesky(op: Op) -> int:
    return op.operand(0).bytes


def _transpose(op: Op) -> int:
    source = op.operand(0)
    moved = integers(op.attributes.get("dimensions", ""))
    if not len(moved) == source.rank == op.shape.rank:
        return source.bytes + op.shape.bytes
    # a transpose that the layouts already describe moves nothing
    order = [moved[dim] for dim in op.shape.minor_to_major]
    return 0 if order == list(source.minor_to_major) else source.bytes + op.shape.bytes


def start_bytes(op: Op) -> int:
    """The start half of a pair: operands read and the result written.

    Its tuple repeats the operands beside the result; a slice reads what it writes.
    """
    read = sum(shape.bytes for shape in op.operands)
    if op.opcode == "all-reduce-start" or not op.shape.is_tuple or len(op.shape.elements) < 2:
        return read + op.shape.bytes
    written = op.shape.elements[0] if op.opcode == "copy-start" else op.shape.elements[1]
    return 2 * written.bytes if "slice-start" in op.opcode else read + written.bytes


def _custom_call(op: Op) -> int:
    if custom_calls.target(op.attributes) in custom_calls.FREE:
        return 0
    declared = custom_calls.cost_estimate(op.attributes)
    if declared is not None and declared["bytes_accessed"] > 0:
        return int(declared["bytes_accessed"])
    return sum(shape.bytes for shape in op.operands) + op.shape.bytes


def handler(opcode: str) -> Callable[[Op], int] | None:
    """What counts the bytes of an opcode; None where operands plus result is right."""
    if opcode.endswith("-start") and opcode not in FREE:
        return start_bytes
    return HANDLERS.get(opcode)


HANDLERS: dict[str, Callable[[Op], int]] = {
    "scatter": _scatter,
    "triangular-solve": _triangular_solve,
    "cholesky": _cholesky,
    "transpose": _transpose,
    "custom-call": _custom_call,
}
