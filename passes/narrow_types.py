"""NAR001: 64-bit arrays in 32 bits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from hlo_lab.passkit.base import RewriteExample, RewritePass
from hlo_lab.passkit.narrowing import narrow
from hlo_lab.passkit.rewriter import Op, Rewriter

_PROGRAM = """
import jax
import jax.numpy as jnp

def f(x):
    with jax.enable_x64(True):
        return BODY

def example_args():
    return (jax.ShapeDtypeStruct((16, 64), jnp.float32),)
"""
_FLOATS = {"f64": "f32", "complex<f64>": "complex<f32>"}
_INTEGERS = {"i64": "i32"}


def _program(body: str) -> str:
    return _PROGRAM.replace("BODY", body)


@dataclass(frozen=True)
class NarrowTypesPass(RewritePass):
    """64-bit arrays in 32 bits.

    What it rewrites
        float64 and complex128 (``floats``) and int64 (``integers``), inside of the program,
        with conversions where arguments and results have those types. Shifts, casts of bits,
        random bits, custom calls and what they give stay.

    Why it matters
        They take twice the memory and bandwidth; a TPU has no 64-bit units, and makes them of
        pairs.

    Example
        With ``jax_enable_x64``: ``jnp.arange(n) % 7``, or ``x * np.linspace(0, 1, n)``.

    When it does not pay
        On CPU where the time goes elsewhere.

    What changes in the numbers
        Floats are rounded to 24 bits, so results are off by a thousandth at most where nothing
        cancels. Integers beyond 2**31 wrap around.
    """

    code: ClassVar[str] = "NAR001"
    name: ClassVar[str] = "narrow-types"
    relative_error: ClassVar[float | None] = 1e-3
    examples: ClassVar[tuple[RewriteExample, ...]] = (
        RewriteExample(
            "a grid in f64",
            _program("(x * jnp.linspace(0, 1, 64)).astype(jnp.float32)"),
        ),
        RewriteExample(
            "a loop, and a maximum that begins with the least integer",
            _program(
                "jax.lax.fori_loop(0, 5, lambda i, h: jnp.sin(h) + i, x.astype(jnp.float64)), "
                "jnp.max(jnp.arange(64) % 7)"
            ),
        ),
        RewriteExample(
            "bits that are shifted",
            _program("(jnp.arange(64) * 5 >> 3) + 1"),
            has=("shift_right_arithmetic",),
        ),
        RewriteExample("nothing wide", _program("jnp.sin(x)"), changes=0),
    )

    floats: bool = True
    integers: bool = True

    def rewrite(self, module: Rewriter) -> None:
        """Narrow what has such a type, and all that is computed from it."""
        types = (_FLOATS if self.floats else {}) | (_INTEGERS if self.integers else {})
        begins = [op for op in module.ops() if _gives(op, types)]
        narrow(module, begins, types)


def _gives(op: Op, types: dict[str, str]) -> bool:
    return any(not value.is_token and value.dtype in types for value in op.results)
