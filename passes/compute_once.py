"""ONC001: expensive values behind a barrier, so that no kernel computes them again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from hlo_lab.passkit.base import RewriteExample, RewritePass
from hlo_lab.passkit.rewriter import Op, Rewriter

_PROGRAM = """
import jax
import jax.numpy as jnp

def f(x, w):
    BODY

def example_args():
    return (jax.ShapeDtypeStruct((64, 64), jnp.float32),) * 2
"""
_EXPENSIVE = frozenset((
    "atan2", "cbrt", "chlo.erf", "chlo.erf_inv", "cosine", "exponential",
    "exponential_minus_one", "log", "log_plus_one", "logistic", "power", "sine", "tan", "tanh",
))  # fmt: skip
_CHEAP = frozenset((
    "abs", "add", "and", "clamp", "compare", "convert", "divide", "floor", "maximum", "minimum",
    "multiply", "negate", "not", "or", "rsqrt", "select", "sign", "sqrt", "subtract",
))  # fmt: skip
_DEPTH = 64  # operations of a chain


def _program(body: str) -> str:
    return _PROGRAM.replace("BODY", body)


@dataclass(frozen=True)
class ComputeOncePass(RewritePass):
    """Expensive values that several operations read, behind a barrier.

    What it rewrites
        The end of a chain of elementwise operations with ``exp``, ``tanh``, ``sin`` or the like
        among them, of ``min_elements`` or more, that two operations or more read, one of them
        no elementwise one: an ``optimization_barrier`` comes before its readers.

    Why it matters
        A compiler may copy the chain into the kernel of each reader. Nothing is fused across a
        barrier.

    Example
        ``y = jnp.sin(jnp.exp(x))``, then ``y @ a`` and ``y.sum(0)``.

    When it does not pay
        Mostly: a cheap chain is better evaluated again than written to memory and read back,
        and TPUs hide most functions behind a product. CPUs ignore the barrier.

    What changes in the numbers
        Rounding, where the kernels kept more digits than the type has.
    """

    code: ClassVar[str] = "ONC001"
    name: ClassVar[str] = "compute-once"
    examples: ClassVar[tuple[RewriteExample, ...]] = (
        RewriteExample(
            "a chain before two products",
            _program("y = jnp.sin(jnp.tanh(x)) + 1; return y @ w, y.T @ w"),
            has=("optimization_barrier",),
        ),
        RewriteExample("one reader", _program("return jnp.sin(jnp.tanh(x)) @ w"), changes=0),
        RewriteExample("cheap", _program("y = x * 2 + 1; return y @ w, y.T @ w"), changes=0),
        RewriteExample(
            "one chain throughout", _program("y = jnp.sin(x); return y * y + y"), changes=0
        ),
    )

    min_elements: int = 4096

    def rewrite(self, module: Rewriter) -> None:
        """Put barriers where chains end."""
        for op in module.ops(*_EXPENSIVE, *_CHEAP):
            value = op.result
            users = value.users
            if value.size < self.min_elements or len(users) < 2 or not _is_costly(op):
                continue
            if all(_is_elementwise(user) for user in users):
                continue
            build = module.before(users[0])
            barrier = build.op("optimization_barrier", [value], [(value.shape, value.dtype)])
            barrier.raw.move_after(op.raw)
            for user in users:
                for number, operand in enumerate(user.operands):
                    if operand == value:
                        user.raw.operands[number] = barrier.result.raw
            module.changes += 1


def _is_elementwise(op: Op) -> bool:
    return op.name in _EXPENSIVE or op.name in _CHEAP


def _is_costly(op: Op) -> bool:
    """Whether an expensive function is in the chain that ends here."""
    waiting, seen = [op], {op.raw}
    while waiting and len(seen) < _DEPTH:
        each = waiting.pop()
        if each.name in _EXPENSIVE:
            return True
        inner = [value.op for value in each.operands if value.size == op.result.size]
        fresh = [one for one in inner if one is not None and one.raw not in seen]
        waiting += [one for one in fresh if one.name in _CHEAP or one.name in _EXPENSIVE]
        seen.update(one.raw for one in fresh)
    return False
