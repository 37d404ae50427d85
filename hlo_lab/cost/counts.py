"""Flops, transcendentals and bytes of every instruction, machine-independent."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

import numpy as np

from hlo_lab.cost import bytes as traffic
from hlo_lab.cost import collectives, custom_calls, flops
from hlo_lab.cost.callgraph import CONTROL_FLOW
from hlo_lab.cost.fusion_bytes import FusionTraffic
from hlo_lab.cost.tables import Bools, Floats, Op, Sizes, attributes_at, shape_at, sizes
from hlo_lab.ir.module import ROLES, Ints, Module

MAX_WORK = 1e60  # calls that double at each level stay finite
_MALFORMED = (ValueError, KeyError, IndexError, TypeError)


@dataclass
class Counts:
    """Columns over all instructions, one execution each, callees of fusions folded in.

    Attributes:
        flops, transcendentals: float64[N].
        bytes: int64[N], read plus written.
        matrix_flops: float64[N], the part of ``flops`` done by dots and convolutions;
            matrix_dtype: their operand type, an index into ``dtypes`` (-1 without any).
        dtype: int64[N], the result's element type, an index into ``dtypes``.
        sent: float64[N], bytes each device sends; steps: int64[N], of a collective; a fusion
            has those of its body, unless it only carries on what another one started.
        unknown: custom-call targets whose flops are not known, with their number.
        malformed: instructions that lack an attribute or operand, counted as nothing.
    """

    flops: Floats
    transcendentals: Floats
    bytes: Ints
    matrix_flops: Floats
    matrix_dtype: Ints
    dtype: Ints
    dtypes: list[str]
    sent: Floats
    steps: Ints
    unknown: Counter[str]
    malformed: list[int]


def counts(module: Module, order: list[int]) -> Counts:
    """Count a module; ``order`` is ``callees_first(module)``.

    Elementwise opcodes are counted as arrays. The others go through a function once per
    distinct (opcode, shapes, attributes), so repeated layers cost a look-up.
    """
    size = sizes(module)
    dtypes, dtype = _dtypes(module)
    count = len(module)
    result = Counts(
        flops=np.zeros(count),
        transcendentals=np.zeros(count),
        bytes=traffic.instruction_bytes(module, size),
        matrix_flops=np.zeros(count),
        matrix_dtype=np.full(count, -1, np.int64),
        dtype=dtype[module.shape],
        dtypes=dtypes,
        sent=np.zeros(count),
        steps=np.zeros(count, np.int64),
        unknown=Counter(),
        malformed=[],
    )
    elements = size.elements[module.shape].astype(np.float64)
    plain = module.opcode_mask(*flops.ELEMENTWISE)
    result.flops[plain] = elements[plain]
    heavy = module.opcode_mask(*flops.TRANSCENDENTAL)
    result.transcendentals[heavy] = elements[heavy]
    _Folding(module, size, result).run(order)
    return result


def _dtypes(module: Module) -> tuple[list[str], Ints]:
    """Element types, and each distinct shape's: that of the first member of a tuple."""
    names: dict[str, int] = {}
    column = []
    for number in range(len(module.shapes)):
        leaf = next((leaf for _, leaf in shape_at(module, number).leaves()), None)
        column.append(names.setdefault(leaf.dtype if leaf else "token", len(names)))
    return list(names), np.array(column, np.int64)


class _Folding:
    """Visits what needs a function or a callee's sums, callees first."""

    def __init__(self, module: Module, size: Sizes, result: Counts):
        self.module, self.size, self.result = module, size, result
        self.memo: dict[tuple[object, ...], tuple[float, float, int | None]] = {}
        self.fused = _fused(module)
        self.traffic = FusionTraffic(module, size, self.fused)
        totals = len(module.computation_names)
        self.total_flops, self.total_transcendentals = np.zeros(totals), np.zeros(totals)
        self.total_matrix = np.zeros(totals)
        self.matrix_dtype = np.full(totals, -1, np.int64)
        self.total_sent, self.total_steps = np.zeros(totals), np.zeros(totals, np.int64)
        self.starts = module.operand_start.tolist()
        # what loops, calls and branches call, by the computation they stand in
        self.called: dict[int, list[int]] = {}

    def run(self, order: list[int]) -> None:
        module = self.module
        special = module.opcode_mask(
            *(
                name
                for name in module.opcodes
                if name == "fusion"
                or name in flops.HANDLERS
                or traffic.handler(name)
                or collectives.is_collective(name)
            )
        )
        rows = np.nonzero(special)[0]
        bounds = np.searchsorted(rows, module.computation_start)
        visits = rows.tolist()
        starts = module.computation_start.tolist()
        applied = self._applied_computations(order)
        for computation in order:
            for at in visits[bounds[computation] : bounds[computation + 1]]:
                self._visit(at)
            if computation in applied:
                self._sum(computation, starts[computation], starts[computation + 1])

    def _applied_computations(self, order: list[int]) -> set[int]:
        """Those whose sums a caller asks for, and what they call in turn."""
        module = self.module
        caller = module.callee_start.searchsorted(range(len(module.callee)), "right") - 1
        flow = module.opcode_mask(*CONTROL_FLOW)[caller]
        applied = set(module.callee[~flow].tolist())
        inner = module.computation_of[caller[flow]].tolist()
        for computation, callee in zip(inner, module.callee[flow].tolist(), strict=True):
            self.called.setdefault(computation, []).append(callee)
        for computation in reversed(order):
            if computation in applied:
                applied.update(self.called.get(computation, ()))
        return applied

    def _sum(self, computation: int, first: int, last: int) -> None:
        """Total of a computation that is applied; a loop in it counts once, as in XLA."""
        module, result = self.module, self.result
        self.total_flops[computation] = result.flops[first:last].sum()
        self.total_transcendentals[computation] = result.transcendentals[first:last].sum()
        matrix = result.matrix_flops[first:last]
        self.total_matrix[computation] = matrix.sum()
        if self.total_matrix[computation]:
            dtype = result.matrix_dtype[first + int(matrix.argmax())]
            self.matrix_dtype[computation] = dtype
        if result.steps[first:last].any():
            chain = collectives.fused_chain(module, computation)
            if chain is None or chain[1] == "start":
                self.total_sent[computation] = result.sent[first:last].sum()
                self.total_steps[computation] = result.steps[first:last].sum()
        for callee in self.called.get(computation, ()):
            self.total_flops[computation] += self.total_flops[callee]
            self.total_transcendentals[computation] += self.total_transcendentals[callee]
            self.total_matrix[computation] += self.total_matrix[callee]
            if self.matrix_dtype[computation] < 0:
                self.matrix_dtype[computation] = self.matrix_dtype[callee]
        for total in (self.total_flops, self.total_transcendentals, self.total_matrix):
            total[computation] = min(total[computation], MAX_WORK)

    def _visit(self, at: int) -> None:
        module, result = self.module, self.result
        opcode = module.opcodes[module.opcode[at]]
        if opcode == "fusion":
            self._fusion(at)
            return
        callees = module.callee[module.callee_start[at] : module.callee_start[at + 1]].tolist()
        operands = module.operand[self.starts[at] : self.starts[at + 1]]
        applied = [
            (float(self.total_flops[callee]), float(self.total_transcendentals[callee]))
            for callee in callees
        ]
        key = (
            opcode, module.shape[at], module.attribute[at],
            module.shape[operands].tobytes(), tuple(applied),
        )  # fmt: skip
        value = self.memo.get(key)
        if value is None:
            value = self.memo[key] = self._count(at, opcode, operands, applied)
        result.flops[at], result.transcendentals[at] = value[0], value[1]
        if value[2] is not None:
            result.bytes[at] = value[2]
        if value[0] and opcode in flops.MATRIX and len(operands):
            result.matrix_flops[at] = value[0]
            result.matrix_dtype[at] = result.dtype[operands[0]]
        if collectives.is_collective(opcode):
            self._collective(at, opcode, operands)
        if opcode == "custom-call":
            attributes = attributes_at(module, int(module.attribute[at]))
            if not custom_calls.is_known(attributes):
                result.unknown[custom_calls.target(attributes)] += 1

    def _count(
        self, at: int, opcode: str, operands: Ints, applied: list[tuple[float, float]]
    ) -> tuple[float, float, int | None]:
        module = self.module
        op = Op(
            opcode,
            shape_at(module, int(module.shape[at])),
            [shape_at(module, int(number)) for number in module.shape[operands]],
            attributes_at(module, int(module.attribute[at])),
            applied,
        )
        try:
            handler = flops.HANDLERS.get(opcode)
            work = handler(op) if handler else (0.0, 0.0)
            measure = traffic.handler(opcode)
            moved = measure(op) if measure else None
        except _MALFORMED:
            self.result.malformed.append(at)
            return 0.0, 0.0, None
        if not all(math.isfinite(number) and number >= 0 for number in work):
            self.result.malformed.append(at)
            return 0.0, 0.0, moved
        return work[0], work[1], moved

    def _fusion(self, at: int) -> None:
        module, result = self.module, self.result
        first = module.callee_start[at]
        if first == module.callee_start[at + 1]:
            result.malformed.append(at)
            return
        body = int(module.callee[first])
        result.flops[at] = self.total_flops[body]
        result.transcendentals[at] = self.total_transcendentals[body]
        result.matrix_flops[at] = self.total_matrix[body]
        result.matrix_dtype[at] = self.matrix_dtype[body]
        result.sent[at], result.steps[at] = self.total_sent[body], self.total_steps[body]
        result.bytes[at] = self.traffic.fusion_bytes(at, body)

    def _collective(self, at: int, opcode: str, operands: Ints) -> None:
        module = self.module
        attributes = attributes_at(module, int(module.attribute[at]))
        devices = collectives.group_size(module, attributes)
        given = float(self.size.bytes[module.shape[operands]].sum())
        self.result.sent[at], self.result.steps[at] = collectives.sent(opcode, given, devices)


def _fused(module: Module) -> Bools:
    """bool[C]: the bodies of fusions."""
    caller = module.callee_start.searchsorted(range(len(module.callee)), "right") - 1
    rows = module.opcode_mask("fusion")[caller] & (module.callee_role == ROLES.index("calls"))
    fused = np.zeros(len(module.computation_names), np.bool_)
    fused[module.callee[rows]] = True
    return fused
