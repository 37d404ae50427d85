"""REC001: what a loop keeps for the backward pass, computed again there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from hlo_lab.passkit.base import RewriteExample, RewritePass
from hlo_lab.passkit.loops import CountedLoop
from hlo_lab.passkit.residuals import Recomputation, stacks_of
from hlo_lab.passkit.rewriter import Op, Rewriter

_PROGRAM = """
import jax
import jax.numpy as jnp

def f(x, ws):
    def layer(x, w):
        BODY
    return jax.grad(lambda ws: jnp.sum(jax.lax.scan(layer, x, ws)[0] ** 2))(ws)

def example_args():
    return (jax.ShapeDtypeStruct((128, 256), jnp.float32),
            jax.ShapeDtypeStruct((16, 256, 256), jnp.float32))
"""
_DEAR = frozenset((
    "cholesky", "chlo.top_k", "custom_call", "fft", "reduce_window", "rng_bit_generator", "scatter",
    "select_and_scatter", "sort", "triangular_solve", "while",
))  # fmt: skip
_PRODUCTS = frozenset(("convolution", "dot_general", "gather"))


def _program(body: str) -> str:
    return _PROGRAM.replace("BODY", body)


@dataclass(frozen=True)
class RecomputePass(RewritePass):
    """What a loop keeps for the backward pass, computed again there.

    What it rewrites
        Arrays of ``min_bytes`` or more that a scan stacks up for the scan of its backward pass:
        rows are computed again where they are read, from the scan's inputs and from what is
        stacked anyway. Products are kept, or with ``products`` made again too, so that only the
        scan's carry is kept. Each array is a change.

    Why it matters
        What is stacked for the backward pass mostly decides the largest batch or model that
        fits; and what is not written need not be read.

    Example
        ``x = x + jax.nn.gelu(x @ w)`` in a scan over layers stacks the parts of gelu's
        derivative; they are cheap to make from ``x @ w``. As ``jax.checkpoint`` with
        ``policy=jax.checkpoint_policies.dots_saveable``, or without one for ``products``.

    When it does not pay
        Where memory is not short and the program is bound by compute. Without ``products``
        nothing changes where only derivatives are stacked, and no product that they come from.

    What changes in the numbers
        Nothing but rounding.
    """

    code: ClassVar[str] = "REC001"
    name: ClassVar[str] = "recompute"
    examples: ClassVar[tuple[RewriteExample, ...]] = (
        RewriteExample(
            "what is computed from an activation that is stacked too",
            _program("y = jnp.exp(x @ w) * 1e-9; return x + jnp.sin(y) * y, None"),
            changes=3,
        ),
        RewriteExample("the product itself", _program("return jnp.sin(x @ w), None"), changes=0),
        RewriteExample(
            "no backward pass",
            _program("return x, None").replace("jax.grad", ""),
            changes=0,
        ),
    )

    products: bool = False
    min_bytes: int = 1 << 20

    def rewrite(self, module: Rewriter) -> None:
        """Go through the loops; of a place, those that are there and what is made there."""
        here = {op.raw for op in module.ops()}
        for op in Op(module.raw.operation, module).walk():
            loop = CountedLoop.of(op) if op.name == "while" else None
            if loop is None:
                continue
            asked = [
                stack
                for stack in stacks_of(loop)
                if stack.bytes >= self.min_bytes
                and (op.raw in here or ((made := stack.value.op) is not None and made.raw in here))
            ]
            Recomputation(loop, asked, self._allows).apply(module)

    def _allows(self, op: Op) -> bool:
        return op.name not in _DEAR and (self.products or op.name not in _PRODUCTS)
