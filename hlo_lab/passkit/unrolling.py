"""Unrolling a loop as ``jax.lax.scan(unroll=...)`` does: arrays are read and written in blocks."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

from hlo_lab.passkit import mlir
from hlo_lab.passkit.loops import CountedLoop
from hlo_lab.passkit.rewriter import Op, Rewriter, Value


def unroll(module: Rewriter, loop: CountedLoop, factor: int) -> None:
    """Let each iteration do what ``factor`` did; what does not divide goes before the loop.

    The iterations in front make the counter start later, so that neither the limit nor any
    index that is computed from the counter is another. Counts as one change.
    """
    changes, body = module.changes, loop.body
    operations = [each.operation for each in body.operations]
    *operations, ends = operations
    arguments, returned = list(body.arguments), list(ends.operands)
    accesses = [found for raw in operations if (found := _access(loop, Op(raw, module)))]

    def again(values: list[Any], before: Any) -> tuple[list[Any], dict[Any, Any]]:
        known = dict(zip(arguments, values, strict=True))
        mlir.clone(operations, known, before)
        return [known.get(value, value) for value in returned], known

    values = list(loop.op.raw.operands)
    for _ in range(loop.trips % factor):
        values, _ = again(values, loop.op.raw)
    for number, value in enumerate(values):
        loop.op.raw.operands[number] = value
    values, copies = returned, []
    for _ in range(factor - 1):
        values, known = again(values, ends)
        copies.append(known)
    for number, value in enumerate(values):
        ends.operands[number] = value
    for access in accesses:
        first = access.op.result.raw
        results = [Value(raw, module) for raw in (first, *(known[first] for known in copies))]
        access.merge(module, [result.op for result in results if result.op is not None])
    module.changes = changes + 1


@dataclass(frozen=True)
class _Access:
    """A slice of one along ``dimension``, read or written, that moves by ``step`` (1 or -1)."""

    op: Op
    dimension: int
    step: int

    def merge(self, module: Rewriter, ops: list[Op]) -> None:
        """Read or write a block instead of the slices of an unrolled iteration, if possible."""
        if self.op.name == "dynamic_slice":
            self._read(module, ops)
        else:
            self._write(module, ops)

    def _read(self, module: Rewriter, ops: list[Op]) -> None:
        source, *starts = ops[0].operands
        if any(op.operands[0] != source for op in ops):
            return  # it changes from one iteration to the next
        build, at, count = module.before(ops[0]), self.dimension, len(ops)
        if self.step < 0:
            back = build.constant(count - 1, (), starts[at].dtype)
            starts[at] = build.elementwise("subtract", starts[at], back)
        sizes = list(ops[0].result.shape)
        sizes[at] = count
        types = [(sizes, source.dtype)]
        block = build.op("dynamic_slice", [source, *starts], types, slice_sizes=sizes).result
        # or XLA makes a slice of the array, and an index for it, of each slice of the block
        block = build.op("optimization_barrier", [block], types).result
        for number, op in enumerate(ops):
            place = number if self.step > 0 else count - 1 - number
            module.replace(op, module.before(op).slice_along(block, at, place, place + 1))

    def _write(self, module: Rewriter, ops: list[Op]) -> None:
        for one, following in itertools.pairwise(ops):
            if following.operands[0] != one.result or len(one.result.users) != 1:
                return
        build = module.before(ops[-1])
        ordered = ops[:: self.step]
        block = build.concatenate([op.operands[1] for op in ordered], self.dimension)
        array, starts = ops[0].operands[0], ordered[0].operands[2:]
        module.replace(ops[-1], build.dynamic_update_slice(array, block, starts))


def _access(loop: CountedLoop, op: Op) -> _Access | None:
    """None for what is no such access, or may be clamped into its array."""
    if op.name not in ("dynamic_slice", "dynamic_update_slice"):
        return None
    is_read = op.name == "dynamic_slice"
    array, size = op.operands[0], (op.result if is_read else op.operands[1]).shape
    found = [loop.index(each) for each in op.operands[1 if is_read else 2 :]]
    moving = [at for at, each in enumerate(found) if each is None or each.step]
    if len(moving) != 1:
        return None
    (at,) = moving
    index = found[at]
    if index is None or index.step not in (1, -1) or size[at] != 1:
        return None
    inside = index.least(loop.trips) >= 0 and index.most(loop.trips) < array.shape[at]
    return _Access(op, at, index.step) if inside else None
