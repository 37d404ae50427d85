"""UNR001: loops of short iterations, several iterations at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from hlo_lab.passkit.base import RewriteExample, RewritePass
from hlo_lab.passkit.loops import CountedLoop
from hlo_lab.passkit.rewriter import Rewriter
from hlo_lab.passkit.unrolling import unroll

_PROGRAM = """
import jax
import jax.numpy as jnp

def f(x, xs):
    return BODY

def example_args():
    return jax.ShapeDtypeStruct((8,), jnp.float32), jax.ShapeDtypeStruct((67, 8), jnp.float32)
"""


def _program(body: str) -> str:
    return _PROGRAM.replace("BODY", body)


@dataclass(frozen=True)
class UnrollLoopPass(RewritePass):
    """Loops of short iterations, several iterations at a time.

    What it rewrites
        Loops without a loop inside that a counter ends after a known number of iterations, at
        least twice ``factor``: each iteration does what ``factor`` did. Iterations that are left
        over, as the number does not divide, run before the loop.

    Why it matters
        What surrounds an iteration is paid ``factor`` times less, and the compiler fuses across
        iterations.

    Example
        ``jax.lax.scan(lambda h, x: (h * a + x, h), h, xs)``; as ``unroll=8`` does it.

    When it does not pay
        Iterations that take their time. The program is longer, and so is its compilation.

    What changes in the numbers
        Nothing but rounding, where the compiler contracts across iterations.
    """

    code: ClassVar[str] = "UNR001"
    name: ClassVar[str] = "unroll-loop"
    examples: ClassVar[tuple[RewriteExample, ...]] = (
        RewriteExample(
            "a scan whose length does not divide",
            _program("jax.lax.scan(lambda h, y: (0.9 * h + y, h), x, xs)"),
            has=("while",),
        ),
        RewriteExample(
            "a loop that begins and ends anywhere, and uses its counter",
            _program("jax.lax.fori_loop(3, 60, lambda i, h: 0.5 * h + i * xs[i], x)"),
        ),
        RewriteExample(
            "a reversed scan in a scan",
            _program(
                "jax.lax.scan(lambda h, y: (jax.lax.scan("
                "lambda g, z: (jnp.tanh(g + z), g), h, xs, reverse=True)[0], h), x, xs)"
            ),
        ),
        RewriteExample(
            "a loop that data ends",
            _program("jax.lax.while_loop(lambda h: h[0] < 100, lambda h: 2 * jnp.abs(h) + 1, x)"),
            changes=0,
        ),
        RewriteExample(
            "few iterations",
            _program("jax.lax.scan(lambda h, y: (h + y, None), x, xs[:9])"),
            changes=0,
        ),
    )

    factor: int = 8

    def __post_init__(self) -> None:
        if self.factor < 2:
            raise ValueError(f"factor is 2 or more, not {self.factor}")

    def rewrite(self, module: Rewriter) -> None:
        """Unroll each such loop."""
        for op in module.ops("while"):
            loop = CountedLoop.of(op)
            if loop is not None and loop.is_innermost and loop.trips >= 2 * self.factor:
                unroll(module, loop, self.factor)
