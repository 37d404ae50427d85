"""CAL001: calls of the host whose results nobody uses, left out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from hlo_lab.passkit.base import RewriteExample, RewritePass
from hlo_lab.passkit.rewriter import Op, Rewriter

_PROGRAM = """
import jax
import jax.numpy as jnp
from jax.experimental import io_callback

def f(x, xs):
    def body(h, y):
        BODY
        return h + y, h
    return jax.lax.scan(body, x, xs)

def example_args():
    return jax.ShapeDtypeStruct((8,), jnp.float32), jax.ShapeDtypeStruct((4, 8), jnp.float32)
"""


def _program(body: str) -> str:
    return _PROGRAM.replace("BODY", body)


@dataclass(frozen=True)
class DropCallbacksPass(RewritePass):
    """Calls of the host whose results nobody uses, left out.

    What it rewrites
        ``jax.debug.print``, ``jax.debug.callback``, and ``io_callback`` and ``pure_callback`` of
        which no result is used: they go, ordered or not, with what was computed for them alone.

    Why it matters
        The device stops for the host's Python on each. Without them it is known what they cost.

    Example
        ``jax.debug.print("{}", loss)`` in the body of a scan.

    When it does not pay
        Where the calls are wanted: what they print or write is missing. This finds their price.

    What changes in the numbers
        Nothing.
    """

    code: ClassVar[str] = "CAL001"
    name: ClassVar[str] = "drop-callbacks"
    examples: ClassVar[tuple[RewriteExample, ...]] = (
        RewriteExample(
            "a print that nobody waits for",
            _program("jax.debug.callback(lambda value: None, h[0])"),
            lacks=("custom_call",),
        ),
        RewriteExample(
            "in order",
            _program("jax.debug.callback(lambda value: None, h[0], ordered=True)"),
            lacks=("custom_call",),
        ),
        RewriteExample(
            "a result that is not used",
            _program("io_callback(lambda value: value, h, h)"),
            lacks=("custom_call",),
        ),
        RewriteExample(
            "a result that is used", _program("h = jax.pure_callback(lambda v: v, h, h)"), changes=0
        ),
    )

    def rewrite(self, module: Rewriter) -> None:
        """Remove each call; what is ordered after it is then after what came before it."""
        for op in module.ops("custom_call", "recv"):
            call = _call(op)
            if not call or any(value.users for value in op.results if not value.is_token):
                continue
            changes = module.changes
            before = next((value for value in call[-1].operands if value.is_token), None)
            for value in op.results:
                if value.is_token and before is not None:
                    module.replace(value, before)
            for each in call:
                module.remove(each)
            module.changes = changes + 1


def _call(op: Op) -> list[Op]:
    """The operations that are one call of the host, last to first; empty for something else.

    On TPUs what goes to the host is sent, an array at a time, and then something is received.
    """
    if op.name == "custom_call":
        return [op] if "callback" in str(op.attribute("call_target_name")) else []
    if not op.attribute("is_host_transfer"):
        return []
    found = [op]
    while (send := found[-1].operands[-1].op) is not None and send.name == "send":
        found.append(send)
    return found
