"""ONH001: rows taken by index, as a product with a one-hot array."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar

from hlo_lab.passkit.base import RewriteExample, RewritePass
from hlo_lab.passkit.builder import Builder
from hlo_lab.passkit.rewriter import Op, Rewriter, Value

_PROGRAM = """
import jax
import jax.numpy as jnp

def f(table, ids):
    return BODY

def example_args():
    return jax.ShapeDtypeStruct((64, 16), jnp.float32), jax.ShapeDtypeStruct((4, 8), jnp.int32)
"""
_HIGHEST = ["#stablehlo<precision HIGHEST>"] * 2  # rows are to stay what they are
_LIST = re.compile(r"(\w+) = \[([\d, ]+)\]")
_INDEX = re.compile(r"index_vector_dim = (\d+)")


def _program(body: str) -> str:
    return _PROGRAM.replace("BODY", body)


@dataclass(frozen=True)
class GatherToOneHotPass(RewritePass):
    """Rows taken by index, as a product with a one-hot array.

    What it rewrites
        ``table[ids]`` and ``jnp.take(table, ids, axis=0)`` of floats, from tables of at most
        ``most_rows``; and ``table.at[ids].add(rows)``, its transpose, to a product and a sum.

    Why it matters
        Matrix units make a small product faster than a gather reads single rows, and a scatter
        that adds goes row by row. A table that is split over devices by rows needs no gather of
        it either. This is the way back of ``one-hot-to-gather``.

    Example
        ``positions[ids]`` with a table of 64 rows.

    When it does not pay
        Large tables: the product reads all of it, and multiplies nearly all by zero.

    What changes in the numbers
        Rows are multiplied by one at the highest precision; what is infinite or NaN in any row
        is NaN in all results. Sums of a scatter are made in another order.
    """

    code: ClassVar[str] = "ONH001"
    name: ClassVar[str] = "gather-to-one-hot"
    examples: ClassVar[tuple[RewriteExample, ...]] = (
        RewriteExample(
            "rows by index", _program("table[ids]"), has=("dot_general",), lacks=("gather",)
        ),
        RewriteExample(
            "indices that are clamped",
            _program("jnp.take(table, ids + 61, axis=0, mode='clip')"),
            lacks=("gather",),
        ),
        RewriteExample(
            "rows that are added, some of them beyond the end",
            _program("table.at[ids + 60].add(jnp.ones((4, 8, 16)))"),
            has=("dot_general",),
            lacks=("scatter",),
        ),
        RewriteExample("rows that are set", _program("table.at[ids].set(1.0)"), changes=0),
        RewriteExample("integers", _program("ids[ids[0] % 4]"), changes=0),
        RewriteExample("columns", _program("table[:, ids[0]]"), changes=0),
    )

    most_rows: int = 1024

    def rewrite(self, module: Rewriter) -> None:
        """Replace each gather and scatter of whole rows."""
        for op in module.ops("gather", "scatter"):
            table, indices = op.operands[:2]
            if not table.is_float or table.shape[0] > self.most_rows or not _takes_rows(op):
                continue
            build = module.before(op)
            ids = build.reshape(indices, indices.shape[:-1])
            if op.name == "gather":
                module.replace(op, _rows(build, table, ids))
            elif _adds(op):
                module.replace(op, _added(build, table, ids, op.operands[2]))


def _one_hot(build: Builder, ids: Value, table: Value) -> Value:
    """Nothing in the row of an index that is out of bounds."""
    shape = (*ids.shape, table.shape[0])
    wide = build.broadcast(ids, shape, range(ids.rank))
    classes = build.iota(shape, ids.rank, ids.dtype)
    return build.convert(build.compare("EQ", wide, classes), table.dtype)


def _rows(build: Builder, table: Value, ids: Value) -> Value:
    last = build.full_like(ids, table.shape[0] - 1)
    inside = build.elementwise("maximum", ids, build.full_like(ids, 0))
    inside = build.elementwise("minimum", inside, last)
    one_hot, contract = _one_hot(build, inside, table), ((ids.rank,), (0,))
    return build.dot_general(one_hot, table, contract=contract, precision=_HIGHEST)


def _added(build: Builder, table: Value, ids: Value, rows: Value) -> Value:
    along = tuple(range(ids.rank))
    one_hot = _one_hot(build, ids, table)
    total = build.dot_general(one_hot, rows, contract=(along, along), precision=_HIGHEST)
    return build.elementwise("add", table, total)


def _takes_rows(op: Op) -> bool:
    """Whether each index, of one number, names a whole row of the first operand."""
    table, indices = op.operands[:2]
    rank = indices.rank - 1
    windows = list(range(rank, rank + table.rank - 1))
    if op.name == "gather":
        expected = {"offset_dims": windows, "collapsed_slice_dims": [0], "start_index_map": [0]}
        whole = tuple(op.attribute("slice_sizes")) == (1, *table.shape[1:])
        numbers = str(op.raw.attributes["dimension_numbers"])
    else:
        expected = {
            "update_window_dims": windows,
            "inserted_window_dims": [0],
            "scatter_dims_to_operand_dims": [0],
        }
        whole = op.operands[2].shape == (*indices.shape[:-1], *table.shape[1:])
        numbers = str(op.raw.attributes["scatter_dimension_numbers"])
    found = {name: [int(each) for each in text.split(",")] for name, text in _LIST.findall(numbers)}
    last = _INDEX.search(numbers)
    is_last = (int(last[1]) if last else 0) == rank
    return whole and is_last and indices.shape[-1:] == (1,) and found == expected


def _adds(op: Op) -> bool:
    inner = [each.name for each in op.inner]
    return len(op.operands) == 3 and inner[:-1] == ["add"]
