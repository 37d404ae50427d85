"""CVT001: conversions moved out of loops, and behind lookups."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from hlo_lab.passkit.base import RewriteExample, RewritePass
from hlo_lab.passkit.rewriter import Op, Rewriter

_PROGRAM = """
import jax
import jax.numpy as jnp

def f(w, x, i):
    return BODY

def example_args():
    return (
        jax.ShapeDtypeStruct((64, 64), jnp.float32),
        jax.ShapeDtypeStruct((4, 64), jnp.bfloat16),
        jax.ShapeDtypeStruct((4,), jnp.int32),
    )
"""
_ATTRIBUTES = ("dimension_numbers", "slice_sizes", "indices_are_sorted")  # of a gather


def _program(body: str) -> str:
    return _PROGRAM.replace("BODY", body)


@dataclass(frozen=True)
class MoveConvertsPass(RewritePass):
    """Conversions moved out of loops, and behind lookups.

    What it rewrites
        A conversion of what a loop carries along unchanged, to one in front of the loop; a
        lookup of rows in a converted table, to a conversion of the rows.

    Why it matters
        A conversion of its own is a pass over memory: in a loop one in each iteration, before
        a lookup one over the whole table.

    Example
        ``jax.lax.scan(lambda c, _: (c @ w.astype(jnp.bfloat16), None), x, None, length=8)``.

    When it does not pay
        The converted value takes memory throughout the loop. XLA moves many conversions out of
        loops itself, and fuses those before a lookup where it can.

    What changes in the numbers
        Nothing.
    """

    code: ClassVar[str] = "CVT001"
    name: ClassVar[str] = "move-converts"
    examples: ClassVar[tuple[RewriteExample, ...]] = (
        RewriteExample(
            "weights cast in a loop",
            _program("jax.lax.fori_loop(0, 4, lambda _, c: c @ w.astype(jnp.bfloat16), x)"),
        ),
        RewriteExample(
            "in a loop of a loop",
            _program(
                "jax.lax.fori_loop(0, 2, lambda _, c: jax.lax.fori_loop(\n"
                "        0, 2, lambda _, d: d @ w.astype(jnp.bfloat16), c), x)"
            ),
            changes=2,
        ),
        RewriteExample(
            "what the loop changes",
            _program("jax.lax.fori_loop(0, 4, lambda _, c: c + c.astype(jnp.bfloat16), w)"),
            changes=0,
        ),
        RewriteExample("a table", _program("w.astype(jnp.bfloat16)[i]")),
        RewriteExample(
            "a table that is also multiplied",
            _program("x @ (t := w.astype(jnp.bfloat16)) + t[i]"),
            changes=0,
        ),
    )

    def rewrite(self, module: Rewriter) -> None:
        """Look at the conversions themselves: it is their line that a finding names."""
        for convert in module.ops("convert"):
            _behind(module, convert)
        for convert in module.ops("convert"):
            outer: Op | None = convert
            while outer is not None:
                outer = _outward(module, outer)


def _outward(module: Rewriter, convert: Op) -> Op | None:
    """The conversion in front of the loop around it; None where it has to stay."""
    loop = Op(convert.raw.block.owner.operation, module)
    if loop.name != "while":
        return None
    count, value = len(loop.operands), convert.operands[0]
    body, given = loop.arguments[count:], loop.inner[-1].operands
    if value not in body or given[body.index(value)] != value:
        return None
    source = loop.operands[body.index(value)]
    new = module.before(loop).convert(source, convert.result.dtype)
    module.replace(convert, new)
    return new.op


def _behind(module: Rewriter, convert: Op) -> None:
    table, source = convert.result, convert.operands[0]
    if len(table.users) != 1 or table.users[0].name != "gather":
        return
    lookup = table.users[0]
    if lookup.operands[0] != table or lookup.result.size >= table.size:
        return
    attributes = lookup.raw.attributes
    build = module.before(lookup)
    rows = build.op(
        "gather",
        [source, lookup.operands[1]],
        [(lookup.result.shape, source.dtype)],
        **{name: attributes[name] for name in _ATTRIBUTES if name in attributes},
    )
    module.replace(lookup, build.convert(rows.result, table.dtype))
