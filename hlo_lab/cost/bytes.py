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
from hlo_lab.cost.tables import Bools, Op, Sizes, integers, words
from hlo_lab.ir.module import Ints, Module

# Executed by no kernel, or by the computations they call.
FREE = words("""
    parameter constant tuple get-tuple-element bitcast after-all add-dependency domain opt-
    barrier optimization-barrier partition-id replica-id get-dimension-size set-dimension-
    size while conditional call async-start async-update async-done
""")
# The done half of a pair: its start half carries the cost.
DONE = words("""
    all-gather-done all-reduce-done collective-permute-done copy-done send-done recv-done
    slice-done dynamic-slice-done dynamic-update-slice-done
""")


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
    total[module.opcode_mask(*FREE, *DONE)] = 0
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
    if len(moved) == source.rank == op.shape.rank:
        # a transpose that the layouts already describe moves nothing
        wide = [moved[dim] for dim in op.shape.minor_to_major if op.shape.dims[dim] != 1]
        if wide == [dim for dim in source.minor_to_major if source.dims[dim] != 1]:
            return 0
    return source.bytes + op.shape.bytes


def _start(op: Op) -> int:
    """Operands read and the result written; the start's tuple repeats the operands."""
    read = sum(shape.bytes for shape in op.operands)
    if op.opcode == "all-reduce-start" or not op.shape.is_tuple or len(op.shape.elements) < 2:
        return read + op.shape.bytes
    written = op.shape.elements[0] if op.opcode == "copy-start" else op.shape.elements[1]
    return read + written.bytes


def _custom_call(op: Op) -> int:
    if custom_calls.target(op.attributes) in custom_calls.FREE:
        return 0
    declared = custom_calls.cost_estimate(op.attributes)
    if declared is not None and declared["bytes_accessed"] > 0:
        return int(declared["bytes_accessed"])
    return sum(shape.bytes for shape in op.operands) + op.shape.bytes


HANDLERS: dict[str, Callable[[Op], int]] = {
    "scatter": _scatter,
    "triangular-solve": _triangular_solve,
    "cholesky": _cholesky,
    "transpose": _transpose,
    "all-gather-start": _start,
    "all-reduce-start": _start,
    "collective-permute-start": _start,
    "copy-start": _start,
    "custom-call": _custom_call,
}


class FusionTraffic:
    """Bytes read through the parameters of each fused computation, and written by its root.

    ``HloCostAnalysis::FusionParameterReadBytes`` and ``FusionProcessOutputBytesAccessed``.

    Attributes:
        read: int64[N], bytes read through each parameter of a fused computation.
        written: int64[C], bytes written by each computation's root.
        constants: int64[C], bytes of its constants of more than one element.
    """

    def __init__(self, module: Module, size: Sizes, fused: Bools):
        self.module = module
        self.bytes = size.bytes[module.shape]
        inside = fused[module.computation_of]
        self.source = self._through_bitcasts(inside)
        self.read = np.zeros(len(module), np.int64)
        self._read_edges(inside)
        self.written = self._root_bytes(fused)
        large = inside & module.opcode_mask("constant") & (size.elements[module.shape] > 1)
        self.constants = np.bincount(
            module.computation_of[large],
            weights=self.bytes[large],
            minlength=len(module.computation_names),
        ).astype(np.int64)

    def fusion_bytes(self, at: int, body: int) -> int:
        """Bytes of fusion ``at``, whose fused computation is ``body``.

        Ask for the fusions inside ``body`` first: what they read through its parameters
        is added to those.
        """
        start = self.module.computation_start
        rows = slice(start[body], start[body + 1])
        if at in self.nested:
            number = self.module.parameter_number[rows].tolist()
            for position, parameter in self.nested[at]:
                if position in number:
                    self.read[parameter] += self.read[start[body] + number.index(position)]
        return int(self.read[rows].sum() + self.written[body] + self.constants[body])

    def _through_bitcasts(self, inside: Bools) -> Ints:
        """int64[N]: the instruction whose data each one shows, itself unless a bitcast."""
        module, source = self.module, np.arange(len(self.module))
        for at in np.nonzero(inside & module.opcode_mask("bitcast"))[0].tolist():
            first = module.operand_start[at]
            if first < module.operand_start[at + 1]:
                source[at] = source[module.operand[first]]
        return source

    def _read_edges(self, inside: Bools) -> None:
        module = self.module
        user = np.repeat(np.arange(len(module)), np.diff(module.operand_start))
        position = np.arange(len(user)) - module.operand_start[user]
        parameter = self.source[module.operand] if len(user) else module.operand
        bitcast = module.opcode_mask("bitcast")
        root = np.zeros(len(module), np.bool_)
        root[module.computation_root] = True
        edges = (module.parameter_number[parameter] >= 0) & inside[user]
        edges &= ~bitcast[user] | root[user]
        user, position, parameter = user[edges], position[edges], parameter[edges]

        def uses(*opcodes: str) -> Bools:
            mask: Bools = module.opcode_mask(*opcodes)[user]
            return mask

        first = position == 0
        part = uses("slice", "get-tuple-element") | (uses("dynamic-slice", "gather") & first)
        whole_each = uses("broadcast", "reshape")
        nothing = (uses("dynamic-update-slice") & first) | uses("fusion")
        scattered = uses("scatter") & first
        once = ~(part | whole_each | nothing | scattered)
        np.add.at(self.read, parameter[part], self.bytes[user[part]])
        np.add.at(self.read, parameter[whole_each], self.bytes[parameter[whole_each]])
        for at, target in zip(user[scattered].tolist(), parameter[scattered].tolist(), strict=True):
            self.read[target] += self.bytes[module.operand[module.operand_start[at + 1] - 1]]
        readers = np.unique(parameter[once])
        self.read[readers] += self.bytes[readers]
        # a parameter that is the root is copied
        copied = module.computation_root[module.parameter_number[module.computation_root] >= 0]
        self.read[copied] += self.bytes[copied]
        # fusion inside a fusion: (operand position, outer parameter) by inner fusion
        self.nested: dict[int, list[tuple[int, int]]] = {}
        inner = uses("fusion")
        for at, number, outer in zip(
            user[inner].tolist(), position[inner].tolist(), parameter[inner].tolist(), strict=True
        ):
            self.nested.setdefault(at, []).append((number, outer))

    def _root_bytes(self, fused: Bools) -> Ints:
        module = self.module
        computations = np.nonzero(fused)[0]
        roots = module.computation_root[computations]
        tuples = module.opcode_mask("tuple")[roots]
        written = np.zeros(len(module.computation_names), np.int64)
        np.add.at(written, computations[~tuples], self._leaf_bytes(roots[~tuples]))
        for computation, root in zip(computations[tuples], roots[tuples], strict=True):
            leaves = module.operand[module.operand_start[root] : module.operand_start[root + 1]]
            written[computation] = self._leaf_bytes(leaves).sum()
        return written

    def _leaf_bytes(self, leaves: Ints) -> Ints:
        """Bytes written for a root: the update alone where it is made in place."""
        module = self.module
        source = self.source[leaves]
        arity = module.operand_start[source + 1] - module.operand_start[source]
        update = module.opcode_mask("dynamic-update-slice")[source] & (arity >= 2)
        scatter = module.opcode_mask("scatter")[source] & (arity >= 3)
        out: Ints = self.bytes[leaves].copy()
        out[update] = self.bytes[module.operand[module.operand_start[source[update]] + 1]]
        last = module.operand_start[source[scatter] + 1] - 1
        out[scatter] = self.bytes[module.operand[last]]
        return out
