"""REU001: what a branch computes although it is computed outside as well."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from hlo_lab.passkit.base import RewriteExample, RewritePass
from hlo_lab.passkit.mlir_module import is_pure, walk
from hlo_lab.passkit.rewriter import Op, Rewriter

_PROGRAM = """
import jax
import jax.numpy as jnp

def f(x, w):
    BODY

def example_args():
    return (jax.ShapeDtypeStruct((64, 64), jnp.float32),) * 2
"""
_COSTLY = ("cholesky", "convolution", "dot_general", "fft", "triangular_solve")


def _program(body: str) -> str:
    return _PROGRAM.replace("BODY", body)


@dataclass(frozen=True)
class ReuseSubgraphPass(RewritePass):
    """A product that a branch computes again, taken from outside.

    What it rewrites
        Products, convolutions and factorisations in a branch, of the same values and with the
        same attributes as one in a block around it: they become that one, which is computed
        before the branch. For loops there is ``hoist-invariant``.

    Why it matters
        Compilers join what is equal within one computation, and a branch is one of its own.

    Example
        ``lax.cond(p, lambda: jnp.tanh(x @ w), lambda: jnp.sin(x @ w)), (x @ w).sum()``.

    When it does not pay
        Where the outer one was fused with what reads it, and is now written to memory.

    What changes in the numbers
        Rounding, where a kernel kept more digits than the type has.
    """

    code: ClassVar[str] = "REU001"
    name: ClassVar[str] = "reuse-subgraph"
    examples: ClassVar[tuple[RewriteExample, ...]] = (
        RewriteExample(
            "in both branches and beside them",
            _program(
                "return jax.lax.cond(x[0, 0] > 0, lambda: jnp.tanh(x @ w), lambda: x @ w), "
                "(x @ w).sum()"
            ),
            changes=2,
        ),
        RewriteExample(
            "of other values",
            _program("return jax.lax.cond(x[0, 0] > 0, lambda: w @ x, lambda: x), (x @ w).sum()"),
            changes=0,
        ),
    )

    def rewrite(self, module: Rewriter) -> None:
        """Replace inner ones by an outer one, which moves in front of what is around them."""
        outer: dict[Any, list[Op]] = {}
        for raw in walk(module.raw.operation):
            if (op := Op(raw, module)).name in _COSTLY and is_pure(raw):
                outer.setdefault(_key(op), []).append(op)
        for op in module.ops(*_COSTLY):
            for other in outer.get(_key(op), []):
                around = _around(op, other)
                if around is not None and module.hoist(other.result, around, []):
                    module.replace(op, other.result)
                    break


def _key(op: Op) -> Any:
    names = sorted(name for name in op.raw.attributes if not name.startswith("hlo_lab."))
    attributes = tuple((name, str(op.raw.attributes[name])) for name in names)
    return op.name, str(op.result.raw.type), attributes, tuple(op.raw.operands)


def _around(op: Op, other: Op) -> Op | None:
    """The operation around ``op`` that stands beside ``other``; None where there is none."""
    raw = op.raw.parent
    while raw is not None:
        raw = raw.operation
        if raw.block is not None and raw.block == other.raw.block:
            return Op(raw, op.rewriter)
        raw = raw.parent
    return None
