"""DEP001: a schedule that goes depth first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from hlo_lab.passkit.base import HloRewritePass, RewriteExample, Stage
from hlo_lab.passkit.hlo_rewriter import HloOp, HloRewriter

_PROGRAM = """
import jax
import jax.numpy as jnp

def f(xs):
    total = 0.0
    for x in xs:
        total = total + jnp.sum(jnp.sort(x @ x, 0), 1)
    return total

def example_args():
    return ([jax.ShapeDtypeStruct((64, 64), jnp.float32)] * COUNT,)
"""


@dataclass(frozen=True)
class DepthFirstPass(HloRewritePass):
    """A schedule that finishes one branch before it begins the next.

    What it rewrites
        The order in which XLA runs the entry's instructions: each value just before the first
        one that takes it, from the results backwards.

    Why it matters
        Compilers order for parallel work or for memory; breadth first, many branches are
        begun and all their values are alive at once.

    Example
        A sum over many independent branches.

    When it does not pay
        Where the compiler's own order keeps less alive, and where branches run at once.

    What changes in the numbers
        Nothing.
    """

    code: ClassVar[str] = "DEP001"
    name: ClassVar[str] = "depth-first"
    stage: ClassVar[str] = Stage.POST_SCHEDULER
    examples: ClassVar[tuple[RewriteExample, ...]] = (
        RewriteExample("eight branches", _PROGRAM.replace("COUNT", "8")),
        RewriteExample("one branch", _PROGRAM.replace("COUNT", "1"), changes=0),
    )

    def rewrite(self, module: HloRewriter) -> None:
        """Order the entry, which is the last of the computations."""
        entry = module.computations[-1]
        module.set_order(entry, depth_first(module, module.order(entry)))


def depth_first(module: HloRewriter, order: list[HloOp]) -> list[HloOp]:
    """Instructions in the order in which a walk from each root backwards leaves them."""
    done: dict[HloOp, None] = {}
    first = [op for op in order if op.name == "parameter"]
    for root in [*first, *(op for op in order if not op.users)]:
        pending = [(root, False)]
        while pending:
            op, is_ready = pending.pop()
            if op in done:
                continue
            if is_ready:
                done[op] = None
                continue
            pending.append((op, True))
            needed = [*op.operands, *module.control_predecessors(op)]
            pending += [(each, False) for each in reversed(needed)]
    return list(done)
