"""LAY002: layouts of arguments and results left to the compiler."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from hlo_lab.passkit.base import RewriteExample, RewritePass
from hlo_lab.passkit.entry import choose_layouts
from hlo_lab.passkit.rewriter import Rewriter

_PROGRAM = """
import jax
import jax.numpy as jnp

def f(x):
    return x.T * 2

def example_args():
    return (jax.ShapeDtypeStruct((16, 64), jnp.float32),)
"""


@dataclass(frozen=True)
class AutoLayoutsPass(RewritePass):
    """Layouts of arguments and results left to the compiler.

    What it rewrites
        Every argument and result that has no layout of its own: the compiler chooses one, as
        with ``in_shardings=Format(Layout.AUTO)`` of ``jax.jit``.

    Why it matters
        Arguments come in, and results go out, in the order of their dimensions. Where the
        program wants another one, each call copies them.

    Example
        ``jax.jit(lambda x: x.T * 2)``: on a TPU x is copied first.

    When it does not pay
        Where the caller has to copy instead: for weights and states that go from call to call
        it pays, for inputs that are new in each call it does not.

    What changes in the numbers
        Nothing.
    """

    code: ClassVar[str] = "LAY002"
    name: ClassVar[str] = "auto-layouts"
    everywhere: ClassVar[bool] = True
    changes_call: ClassVar[bool] = True
    examples: ClassVar[tuple[RewriteExample, ...]] = (
        RewriteExample("an argument and a result", _PROGRAM, changes=2, has=("transpose",)),
        RewriteExample(
            "layouts that were chosen before",
            _PROGRAM.replace("def f", "from jax.experimental.layout import Format, Layout\n\ndef g")
            + "\nf = jax.jit(g, in_shardings=Format(Layout.AUTO), "
            "out_shardings=Format(Layout.AUTO))\n",
            changes=0,
        ),
    )

    def rewrite(self, module: Rewriter) -> None:
        """All of them: one that is left is copied where another one has to match it."""
        choose_layouts(module)
