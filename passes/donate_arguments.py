"""DON001: arguments that a result replaces, donated."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from hlo_lab.passkit.base import RewriteExample, RewritePass
from hlo_lab.passkit.entry import Argument, Result, arguments, chosen, donate, results
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
    changes_call: ClassVar[bool] = True
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
        known = arguments(module)
        aliased = {each.alias for each in known}
        free = [each for each in results(module) if each.number not in aliased]
        # some of them are for what is donated without a result being named
        for each in known:
            if each.donated and each.alias is None:
                _take(free, each)
        for each in chosen(module, self.arguments):
            found = None if each.donated else _take(free, each)
            if found is not None:
                # where the compiler chooses how a result is split, it chooses the result too
                donate(module, each, found if found.sharding == each.sharding else None)


def _take(free: list[Result], argument: Argument) -> Result | None:
    """The first result that can be written over an argument, which is then taken."""
    kind = argument.value.raw.type
    for result in free:
        if result.value.raw.type == kind and result.sharding in ("", argument.sharding):
            free.remove(result)
            return result
    return None
