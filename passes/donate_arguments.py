"""DON001: arguments that a result replaces, donated."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Any, ClassVar

from hlo_lab.passkit.base import RewriteExample, RewritePass
from hlo_lab.passkit.entry import Argument, arguments, chosen, donate, results
from hlo_lab.passkit.rewriter import Rewriter

_PROGRAM = """
import functools
import jax
import jax.numpy as jnp

DECORATOR
def f(params, grads):
    return BODY

def example_args():
    tree = {"w": jax.ShapeDtypeStruct((64, 16), jnp.float32),
            "b": jax.ShapeDtypeStruct((16,), jnp.float32)}
    return tree, tree
"""


def _program(body: str, decorator: str = "") -> str:
    return _PROGRAM.replace("BODY", body).replace("DECORATOR", decorator)


_UPDATED = "jax.tree.map(lambda p, g: p - 0.1 * g, params, grads)"


@dataclass(frozen=True)
class DonateArgumentsPass(RewritePass):
    """Arguments that a result replaces, donated.

    What it rewrites
        Marks ``arguments`` as donated: names or their beginnings (``params`` for all of
        ``params['w']``, ``params['b']``...), or numbers of what the program takes, with ``+``
        between them; all for none. Each is for the first result of its type and sharding that
        is free, as ``jax.jit(donate_argnames=...)`` has it; those without one are left alone.

    Why it matters
        What is donated is written over: old and new value are never held at once.

    Example
        ``--pass 'donate-arguments{arguments=params+opt_state}'`` on a training step.

    When it does not pay
        Where the caller reads the old value after the call: it then has to keep a copy. Where
        the old value is read after the new one is made, the compiler copies it.

    What changes in the numbers
        Nothing.
    """

    code: ClassVar[str] = "DON001"
    name: ClassVar[str] = "donate-arguments"
    examples: ClassVar[tuple[RewriteExample, ...]] = (
        RewriteExample("an update of parameters", _program(_UPDATED), changes=2),
        RewriteExample(
            "one of them is donated already",
            _program(
                f"{_UPDATED}['w'], params['b'] + 1", "@functools.partial(jax.jit, donate_argnums=0)"
            ),
            changes=0,
        ),
        RewriteExample(
            "no result is as large", _program("sum(jnp.sum(p) for p in params.values())"), changes=0
        ),
    )

    arguments: str = ""

    def rewrite(self, module: Rewriter) -> None:
        """Pair arguments with results in their order, as JAX does."""
        taken = {each.alias for each in arguments(module)}
        free: dict[Any, list[Argument]] = defaultdict(list)
        for each in chosen(module, self.arguments):
            if not each.donated:
                free[each.value.raw.type, each.sharding].append(each)
        for result in results(module):
            waiting = free[result.value.raw.type, result.sharding]
            if result.number not in taken and waiting:
                donate(module, waiting.pop(0), result)
