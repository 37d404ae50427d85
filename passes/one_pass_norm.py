"""NRM001: a variance by the mean of squares, in one pass over the values."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from hlo_lab.passkit.base import RewriteExample, RewritePass
from hlo_lab.passkit.rewriter import Op, Rewriter, Value
from hlo_lab.passkit.stablehlo_patterns import capture, op

_PROGRAM = """
import jax
import jax.numpy as jnp

def f(x, scale):
    mean = x.mean(-1, keepdims=True)
    variance = VARIANCE
    return (x - mean) * jax.lax.rsqrt(variance + 1e-5) * scale

def example_args():
    return jax.ShapeDtypeStruct((32, 256), jnp.float32), jax.ShapeDtypeStruct((256,), jnp.float32)
"""
_BATCH_NORM = """
import jax
import jax.numpy as jnp

def f(x, scale):
    SPREAD
    return (x - mean) * jax.lax.rsqrt(variance + 1e-5) * scale

def example_args():
    shape = jax.ShapeDtypeStruct((4, 8, 8, 8), jnp.float32)
    return shape, jax.ShapeDtypeStruct((8,), jnp.float32)
"""
_OFF = capture("off", op("subtract", capture("x"), capture("mean")))


def _adds(reduce: Op) -> bool:
    """Whether it is a sum from zero over one array."""
    return [each.name for each in reduce.inner] == ["add", "return"] and (
        reduce.operands[1].splat == 0
    )


_SUMS = tuple(
    op("reduce", square, where=_adds)
    for square in (op("chlo.square", _OFF), op("multiply", _OFF, capture("off")))
)


@dataclass(frozen=True)
class OnePassNormPass(RewritePass):
    """A variance by the mean of squares, in one pass over the values.

    What it rewrites
        The sum of ``(x - mean(x)) ** 2``, which a variance divides, to ``sum(x ** 2) -
        sum(x) * mean(x)``, not below zero, where all are over the same dimensions, one or several
        (``jnp.var`` too).

    Why it matters
        Both sums can be made while the values are read once; the other form has to wait for
        the mean, and reads them again.

    Example
        Layer norm as it is written in a book.

    When it does not pay
        Rows that stay in a cache or in fast memory between the passes.

    What changes in the numbers
        Where the mean is much larger than the spread, their squares cancel, and few digits of
        the variance are left: do not use it on values that are far from zero.
    """

    code: ClassVar[str] = "NRM001"
    name: ClassVar[str] = "one-pass-norm"
    relative_error: ClassVar[float | None] = 1e-3
    examples: ClassVar[tuple[RewriteExample, ...]] = (
        RewriteExample(
            "layer norm",
            _PROGRAM.replace("VARIANCE", "jnp.square(x - mean).mean(-1, keepdims=True)"),
            has=("maximum",),
        ),
        RewriteExample(
            "by the mean of squares already",
            _PROGRAM.replace("VARIANCE", "jnp.square(x).mean(-1, keepdims=True) - mean * mean"),
            changes=0,
        ),
        RewriteExample(
            "the spread of another dimension",
            _PROGRAM.replace("VARIANCE", "jnp.square(x - mean).mean(0, keepdims=True)"),
            changes=0,
        ),
        RewriteExample(
            "batch norm, in one line",
            _BATCH_NORM.replace("SPREAD", "mean, variance = x.mean((0, 1, 2)), x.var((0, 1, 2))"),
            has=("maximum",),
        ),
        RewriteExample(
            "batch norm by hand",
            _BATCH_NORM.replace(
                "SPREAD",
                "mean = x.mean((0, 1, 2)); variance = ((x - mean) ** 2).mean((0, 1, 2))",
            ),
            has=("maximum",),
        ),
        RewriteExample(
            "around the means of other channels",
            _BATCH_NORM.replace(
                "SPREAD",
                "mean = x.mean((0, 1, 2))[:, None]; variance = ((x - mean) ** 2).mean((0, 1, 2))",
            ),
            changes=0,
        ),
    )

    def rewrite(self, module: Rewriter) -> None:
        """Replace each sum of squared deviations."""
        for match in (each for pattern in _SUMS for each in module.matches(pattern)):
            x, squared = match["x"], match.root
            total = _total(match["mean"], x, tuple(squared.attribute("dimensions")))
            if total is None:
                continue
            build = module.before(squared)
            squares = build.copy(squared, build.elementwise("multiply", x, x), squared.operands[1])
            count = build.full_like(total, _count(x, tuple(squared.attribute("dimensions"))))
            mean = build.elementwise("divide", total, count)
            spread = build.elementwise(
                "subtract", squares, build.elementwise("multiply", total, mean)
            )
            least = build.full_like(spread, 0)
            module.replace(squared, build.elementwise("maximum", spread, least))


def _total(mean: Value, x: Value, dimensions: tuple[int, ...]) -> Value | None:
    """The sum of ``x`` of which ``mean``, as wide as ``x``, is the mean; None for any other."""
    value, is_divided = mean, False
    places = tuple(range(x.rank))  # dimensions of x that the value's are
    while (made := value.op) is not None:
        if made.name == "broadcast_in_dim":
            places = tuple(places[one] for one in made.attribute("broadcast_dimensions"))
        elif made.name == "divide" and made.operands[1].splat == _count(x, dimensions):
            if is_divided:
                return None
            is_divided = True
        else:
            break
        value = made.operands[0]
    is_total = (
        made is not None
        and made.name == "reduce"
        and made.operands[0] == x
        and _adds(made)
        and tuple(made.attribute("dimensions")) == dimensions
        and places == tuple(one for one in range(x.rank) if one not in dimensions)
    )
    return value if is_total and is_divided else None


def _count(x: Value, dimensions: tuple[int, ...]) -> int:
    return math.prod(x.shape[one] for one in dimensions)
