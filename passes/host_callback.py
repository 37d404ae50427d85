"""CTL002: loops that wait for the host."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from hlo_lab.ir.module import Module
from hlo_lab.passkit.base import AnalysisPass, Example
from hlo_lab.passkit.context import Context
from hlo_lab.passkit.finding import Finding, Severity
from hlo_lab.passkit.folding import Hit, fold
from hlo_lab.passkit.patterns import Flow
from hlo_lab.passkit.wording import place_text, times_text

_IN_LOOP = "in a loop"
_MAX_NESTING = 64
_OPCODES = ("custom-call", "send", "infeed", "outfeed", "recv")

_TEXT = """HloModule m, is_scheduled=true

%body (p: (s32[], f32[256])) -> (s32[], f32[256]) {{
  %p = (s32[], f32[256]{{0}}) parameter(0)
  %i = s32[] get-tuple-element(%p), index=0
  %x = f32[256]{{0}} get-tuple-element(%p), index=1
  %one = s32[] constant(1)
  %told = () custom-call(%x), custom_call_target="{target}", custom_call_has_side_effect=true
  %y = f32[256]{{0}} multiply(%x, %x)
  %next = s32[] add(%i, %one)
  ROOT %r = (s32[], f32[256]{{0}}) tuple(%next, %y)
}}

%cond (c: (s32[], f32[256])) -> pred[] {{
  %c = (s32[], f32[256]{{0}}) parameter(0)
  %k = s32[] get-tuple-element(%c), index=0
  %n = s32[] constant(1000)
  ROOT %lt = pred[] compare(%k, %n), direction=LT
}}

ENTRY %main (a: f32[256]) -> f32[256] {{
  %a = f32[256]{{0}} parameter(0)
  %start = s32[] constant(0)
  %init = (s32[], f32[256]{{0}}) tuple(%start, %a)
  %loop = (s32[], f32[256]{{0}}) while(%init), condition=%cond, body=%body
  ROOT %out = f32[256]{{0}} get-tuple-element(%loop), index=1
}}
"""


@dataclass(frozen=True)
class HostCallbackPass(AnalysisPass):
    """Calls to the host's Python, and transfers to and from it, inside of loops.

    What it finds
        ``jax.debug.print``, ``jax.debug.callback``, ``io_callback`` and ``pure_callback``,
        and infeed, outfeed, send and receive to the host, in the body of a loop. Outside of
        loops they are a note, and under a condition too: it may never hold.

    Why it matters
        The device stops for the host's Python on each, and what surrounds the call cannot be
        fused across it. No program with a Python callback can be kept in the compilation cache
        or exported.

    Example
        ``jax.debug.print("{}", loss)`` in the body of a scan.

    What to do
        Let the loop return the values (the second result of scan's body) and print them after
        it; or call the host every hundredth iteration, under ``jax.lax.cond``.

    How it is verified
        Compile again without the call: the transfer is gone. 100 iterations over 1024 values:
        366 to 182 thousand cycles on tpu:v5e, the host's own time not counted. That depends on
        the host, so no seconds are promised.
    """

    code: ClassVar[str] = "CTL002"
    name: ClassVar[str] = "host-callback"
    examples: ClassVar[tuple[Example, ...]] = (
        Example("a callback per iteration", _TEXT.format(target="xla_ffi_python_cpu_callback")),
        Example(
            "values of each iteration fed in",
            _TEXT.format(target="my_kernel").replace(
                "  %y = ",
                "  %order = token[] after-all()\n"
                "  %fed = (f32[256]{0}, token[]) infeed(%order)\n"
                "  %y = ",
            ),
        ),
        Example("another custom call", _TEXT.format(target="my_kernel"), finds=0),
    )

    def run(self, module: Module, context: Context) -> Iterator[Finding]:
        """Yield a finding per source line."""
        if module.warnings:
            return
        for group in fold(context, _hits(module, context)):
            worst = group.worst
            runs = float(context.cost.executions[worst.at])
            yield self.finding(
                module.instruction(worst.at),
                f"{place_text(module, worst.at)} {worst.text}"
                f"{times_text(runs)}{group.times}, {worst.key}: the device waits for the host",
                severity=Severity.WARNING if worst.key == _IN_LOOP else Severity.NOTE,
                advice="Return the values from the loop and use them after it, or call the host "
                "only every so often, under jax.lax.cond.",
                remedy=("drop-callbacks",) if "Python" in worst.text else (),
                context=context,
            )


def _hits(module: Module, context: Context) -> Iterator[Hit]:
    for at in np.nonzero(module.opcode_mask(*_OPCODES))[0].tolist():
        attributes = module.attributes[module.attribute[at]]
        opcode = context.flow.opcode(at)
        target = attributes.get("custom_call_target", "")
        if opcode == "custom-call" and "callback" not in target:
            continue
        if opcode in ("send", "recv") and attributes.get("is_host_transfer") != "true":
            continue
        if context.cost.executions[at] <= 0:
            continue
        calls = opcode == "custom-call" or "send" in opcode or "recv" in opcode
        text = "calls the host's Python" if calls else f"transfers to or from the host ({opcode})"
        yield Hit(at, text=text, key=_situation(context.flow, at))


def _situation(flow: Flow, at: int) -> str:
    """Whether a loop repeats an instruction, or a condition may leave it out."""
    for _ in range(_MAX_NESTING):
        caller = flow.caller(flow.computation_of(at))
        if caller is None:
            break
        if flow.opcode(caller) == "while":
            return _IN_LOOP
        if flow.opcode(caller) == "conditional":
            return "under a condition"
        at = caller
    return "once per step"
