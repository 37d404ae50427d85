"""CVT001: conversions moved out of loops, and behind lookups."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from hlo_lab.passkit.base import RewriteExample, RewritePass
from hlo_lab.passkit.rewriter import Op, Rewriter, Value

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
        """Inner loops come after the loops around them, so they are moved out first."""
        for loop in reversed(list(module.ops("while"))):
            _out_of(module, loop)
        for lookup in module.ops("gather"):
            _behind(module, lookup)


def _out_of(module: Rewriter, loop: Op) -> None:
    count = len(loop.operands)
    body = loop.arguments[count:]
    given = loop.inner[-1].operands
    for number in range(count):
        if given[number] != body[number]:
            continue
        for user in body[number].users:
            if user.name == "convert" and user.raw.block == body[number].raw.owner:
                build = module.before(loop)
                module.replace(user, build.convert(loop.operands[number], user.result.dtype))


def _behind(module: Rewriter, lookup: Op) -> None:
    table, indices = lookup.operands
    convert = table.op
    if convert is None or convert.name != "convert" or len(table.users) > 1:
        return
    source: Value = convert.operands[0]
    if lookup.result.size >= table.size:
        return
    build = module.before(lookup)
    attributes = lookup.raw.attributes
    rows = build.op(
        "gather",
        [source, indices],
        [(lookup.result.shape, source.dtype)],
        **{name: attributes[name] for name in _ATTRIBUTES if name in attributes},
    )
    module.replace(lookup, build.convert(rows.result, table.dtype))
