"""PRM001: what is known of indices said to the compiler: in range, in order."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from hlo_lab.passkit.base import RewriteExample, RewritePass
from hlo_lab.passkit.mlir import attribute_of
from hlo_lab.passkit.rewriter import Op, Rewriter, Value

_PROGRAM = """
import jax
import jax.numpy as jnp

def f(table, ids, rows):
    return BODY

def example_args():
    return (
        jax.ShapeDtypeStruct((64, 16), jnp.float32),
        jax.ShapeDtypeStruct((32,), jnp.int32),
        jax.ShapeDtypeStruct((32, 16), jnp.float32),
    )
"""
_DEPTH = 32  # operations that a walk goes up
_SAME = ("broadcast_in_dim", "reshape", "convert")
_PARTS = ("dynamic_slice", "gather", "reverse", "slice", "transpose")
_COMBINED: dict[str, Callable[[int, int], int]] = {
    "add": operator.add,
    "maximum": max,
    "minimum": min,
    "multiply": operator.mul,
}
_ANY = (-(1 << 63), 1 << 63)
_START_MAP = re.compile(r"start_index_map = \[([\d, ]*)\]")
_Range = tuple[int, int]  # least and largest


def _program(body: str) -> str:
    return _PROGRAM.replace("BODY", body)


@dataclass(frozen=True)
class PromiseIndicesPass(RewritePass):
    """Indices that are in range, or in order, said to be.

    What it rewrites
        ``jnp.take`` and ``jnp.take_along_axis`` whose indices are in range by how they are made
        (positions from ``argsort``, ``top_k``, ``arange``, clipped ones): the test of the range
        and the fill value go. With ``in_bounds``, all of them. Scatters whose indices are in
        order (an arange, sorted, in the order of their argsort) are marked so.

    Why it matters
        The test may be one more pass over what was taken, and a compiler may sort the indices
        of a scatter that is not marked, updates and all.

    Example
        ``jnp.take(x, jnp.argsort(keys), axis=0)``.

    When it does not pay
        CPU and GPU compilers fuse the test into the gather, and sort no indices.

    What changes in the numbers
        Nothing. With ``in_bounds``, indices that are out of range take the nearest row instead
        of NaN; negative ones must not be among sorted ones.
    """

    code: ClassVar[str] = "PRM001"
    name: ClassVar[str] = "promise-indices"
    examples: ClassVar[tuple[RewriteExample, ...]] = (
        RewriteExample(
            "rows in an order of their own",
            _program("jnp.take(rows, jnp.argsort(ids), axis=0)"),
            has=("gather",),
            lacks=("and",),
        ),
        RewriteExample(
            "rows by clipped indices",
            _program("jnp.take(table, jnp.clip(ids, 0, 63), axis=0)"),
            lacks=("and",),
        ),
        RewriteExample("any indices", _program("jnp.take(table, ids, axis=0)"), changes=0),
        RewriteExample(
            "updates at every second row", _program("table.at[jnp.arange(32) * 2].add(rows)")
        ),
        RewriteExample(
            "updates in the order of the indices",
            _program("table.at[(k := jnp.clip(ids, 0, 63))[(o := jnp.argsort(k))]].add(rows[o])"),
        ),
        RewriteExample("updates anywhere", _program("table.at[ids].add(rows)"), changes=0),
    )

    in_bounds: bool = False  # take it from the caller that no index is out of range

    def rewrite(self, module: Rewriter) -> None:
        """Drop the tests, then mark the scatters."""
        for select in module.ops("select"):
            gather = _tested(select)
            if gather is not None and (self.in_bounds or _is_inside(gather)):
                module.replace(select, gather.result)
        for scatter in module.ops("scatter"):
            count = len(scatter.results)
            indices = scatter.operands[count]
            known = scatter.attribute("indices_are_sorted")
            if not known and self._in_order(indices):
                scatter.raw.attributes["indices_are_sorted"] = attribute_of(True)
                module.changes += 1

    def _in_order(self, value: Value, depth: int = 0) -> bool:
        """Whether indices, one after the other, never fall."""
        value = _stripped(value)
        op = value.op
        if op is None or depth > _DEPTH or value.size != max(value.shape, default=0):
            return False
        if op.name == "iota":
            return bool(op.result.shape[op.attribute("iota_dimension")] == value.size)
        if op.name == "sort":
            return value == op.results[0] and _ascends(op)
        if op.name == "gather":
            return _is_by_key(op)
        if op.name in ("add", "multiply"):
            left, right = op.operands
            inner, number = (left, right.splat) if left.splat is None else (right, left.splat)
            grows = number is not None and (op.name == "add" or number >= 0)
            return bool(grows) and self._in_order(inner, depth + 1)
        if op.name in ("maximum", "minimum"):
            varying = [each for each in op.operands if each.splat is None]
            return len(varying) == 1 and self._in_order(varying[0], depth + 1)
        if op.name == "clamp":
            return self._in_order(op.operands[1], depth + 1)
        plain = _unwrapped(op)
        positive = plain is not None and (self.in_bounds or _range(plain)[0] >= 0)
        return plain is not None and positive and self._in_order(plain, depth + 1)


def _tested(select: Op) -> Op | None:
    """The gather whose result a select keeps where its own indices were in range."""
    mask, taken, fill = select.operands
    gather, test = taken.op, mask.op
    while test is not None and test.name in _SAME:
        test = test.operands[0].op
    if gather is None or gather.name != "gather" or fill.splat is None:
        return None
    if test is not None and test.name == "reduce" and test.inner[0].name == "and":
        test = test.operands[0].op
    if test is None or test.name != "and":
        return None
    sides = [side.op for side in test.operands]
    for side in sides:
        if side is None or side.name != "compare" or side.operands[0] != gather.operands[1]:
            return None
    directions = {side.attribute("comparison_direction") for side in sides if side is not None}
    return gather if directions == {"GE", "LE"} else None


def _is_inside(gather: Op) -> bool:
    """Whether every index of a gather is in range, by how they are made."""
    table, indices = gather.operands
    sizes = gather.attribute("slice_sizes")
    match = _START_MAP.search(str(gather.raw.attributes["dimension_numbers"]))
    mapped = [int(number) for number in match[1].split(",")] if match else []
    last = min((table.shape[at] - sizes[at] for at in mapped), default=-1)
    least, largest = _range(indices)
    return least >= 0 and largest <= last


def _range(value: Value, depth: int = 0) -> _Range:
    """Bounds of integers, from how they are made."""
    value = _stripped(value)
    op, number = value.op, value.splat
    if isinstance(number, int):
        return number, number
    if op is None or depth > _DEPTH:
        return _ANY
    if op.name == "iota":
        return 0, value.shape[op.attribute("iota_dimension")] - 1
    if op.name == "chlo.top_k" and value != op.results[0]:
        return 0, op.operands[0].shape[-1] - 1
    if op.name == "sort":
        return _range(op.operands[op.results.index(value)], depth + 1)
    if op.name in _PARTS:
        return _range(op.operands[0], depth + 1)
    if op.name in _COMBINED:
        (low, high), (least, largest) = (_range(each, depth + 1) for each in op.operands)
        combine = _COMBINED[op.name]
        if op.name == "multiply" and min(low, least) < 0:
            return _ANY
        return combine(low, least), combine(high, largest)
    if op.name == "clamp":
        return _range(op.operands[0], depth + 1)[0], _range(op.operands[2], depth + 1)[1]
    plain = _unwrapped(op)
    bounds = _ANY if plain is None else _range(plain, depth + 1)
    return bounds if bounds[0] >= 0 else _ANY


def _stripped(value: Value) -> Value:
    """A value of which this is another form with the same elements."""
    while (op := value.op) is not None and op.name in _SAME:
        if op.operands[0].size != value.size:
            break
        value = op.operands[0]
    return value


def _unwrapped(op: Op) -> Value | None:
    """The index of which negative ones count from the end, as JAX has it."""
    if op.name != "select":
        return None
    test, index = op.operands[0].op, op.operands[2]
    if test is None or test.name != "compare" or test.operands[0] != index:
        return None
    negative = test.attribute("comparison_direction") == "LT" and test.operands[1].splat == 0
    return index if negative else None


def _is_by_key(gather: Op) -> bool:
    """Whether a gather takes values in the order of their argsort."""
    keys, order = _stripped(gather.operands[0]), _stripped(gather.operands[1])
    if order.op is not None and (plain := _unwrapped(order.op)) is not None:
        order = _stripped(plain)
    sort = order.op
    if sort is None or sort.name != "sort" or order == sort.results[0] or not _ascends(sort):
        return False
    places = sort.operands[sort.results.index(order)]
    return _stripped(sort.operands[0]) == keys and places.is_a("iota")


def _ascends(sort: Op) -> bool:
    """Whether a sort of integers by its first operand has the smallest first."""
    compare = sort.inner[-1].operands[0].op
    if compare is None or compare.name != "compare" or sort.operands[0].is_float:
        return False
    rising = compare.attribute("comparison_direction") == "LT"
    return rising and compare.operands == sort.arguments[:2]
