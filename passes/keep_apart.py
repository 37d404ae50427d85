"""KEE001: operations that nothing is fused with that takes them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from hlo_lab.passkit.base import HloRewritePass, RewriteExample, Stage
from hlo_lab.passkit.hlo_rewriter import HloRewriter

_PROGRAM = """
import jax
import jax.numpy as jnp

def f(x):
    return jax.nn.softmax(x) * 2

def example_args():
    return (jax.ShapeDtypeStruct((64, 128), jnp.float32),)
"""


@dataclass(frozen=True)
class KeepApartPass(HloRewritePass):
    """Operations that are not fused with what takes them, to see what fusing them is worth.

    What it rewrites
        Puts a barrier behind each operation named in ``ops`` (``reduce``, ``dot+reduce``) of at
        least ``min_elements`` elements. No fusion reaches across it.

    Why it matters
        What a fusion saves is seen without it.

    Example
        ``keep-apart{ops=reduce}`` on a softmax: maximum and sum go through memory.

    When it does not pay
        Mostly, and it is not meant to. The CPU's compiler drops barriers before it fuses.

    What changes in the numbers
        Rounding, where fused kernels keep more digits than the type has.
    """

    code: ClassVar[str] = "KEE001"
    name: ClassVar[str] = "keep-apart"
    stage: ClassVar[str] = Stage.HLO
    examples: ClassVar[tuple[RewriteExample, ...]] = (
        RewriteExample("a softmax", _PROGRAM, changes=2, has=("opt-barrier",)),
        RewriteExample("no sum", _PROGRAM.replace("nn.softmax(x)", "numpy.tanh(x)"), changes=0),
    )

    ops: str = "reduce"
    min_elements: int = 1

    def rewrite(self, module: HloRewriter) -> None:
        """Put a barrier behind each."""
        for op in module.ops(*self.ops.split("+")):
            if op.users and op.size >= self.min_elements:
                module.replace(op, module.after(op).barrier(op))
