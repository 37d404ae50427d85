"""CTL001: loops whose iterations take little beside what each costs to start."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from hlo_lab.cost.roofline import BOUNDS
from hlo_lab.ir.module import Module
from hlo_lab.passkit.base import AnalysisPass, Example
from hlo_lab.passkit.context import Context
from hlo_lab.passkit.finding import Finding
from hlo_lab.passkit.folding import Hit, fold, time_severity
from hlo_lab.passkit.tracing import definition
from hlo_lab.passkit.wording import line_text, seconds_text

_TEXT = """HloModule m, is_scheduled=true

%body (p: (s32[], f32[{size}])) -> (s32[], f32[{size}]) {{
  %p = (s32[], f32[{size}]{{0}}) parameter(0)
  %i = s32[] get-tuple-element(%p), index=0
  %x = f32[{size}]{{0}} get-tuple-element(%p), index=1
  %one = s32[] constant(1)
  %y = f32[{size}]{{0}} multiply(%x, %x)
  %next = s32[] add(%i, %one)
  ROOT %r = (s32[], f32[{size}]{{0}}) tuple(%next, %y)
}}

%cond (c: (s32[], f32[{size}])) -> pred[] {{
  %c = (s32[], f32[{size}]{{0}}) parameter(0)
  %k = s32[] get-tuple-element(%c), index=0
  %n = s32[] constant(1000)
  ROOT %lt = pred[] compare(%k, %n), direction=LT
}}

ENTRY %main (a: f32[{size}]) -> f32[{size}] {{
  %a = f32[{size}]{{0}} parameter(0)
  %start = s32[] constant(0)
  %init = (s32[], f32[{size}]{{0}}) tuple(%start, %a)
  %loop = (s32[], f32[{size}]{{0}}) while(%init), condition=%cond, body=%body
  ROOT %out = f32[{size}]{{0}} get-tuple-element(%loop), index=1
}}
"""


@dataclass(frozen=True)
class TinyScanPass(AnalysisPass):
    """Loops whose iterations take little beside what each kernel costs to start.

    What it finds
        A loop of many iterations (``jax.lax.scan``, ``fori_loop``) without a loop inside, most
        of whose time goes into starting its kernels. Loops that data may end are left out, as
        they cannot be unrolled.

    Why it matters
        Each iteration starts its kernels anew, for work that takes less than the start;
        unrolled, the compiler fuses several iterations into one kernel.

    Example
        ``jax.lax.scan(lambda h, x: (h * a + x, h), h, xs)`` over 4096 rows of 256 values.

    What to do
        ``jax.lax.scan(..., unroll=8)`` (``fori_loop`` takes it too, for limits that are known).
        Compiling takes longer, so no more than the estimate needs. A linear recurrence is also an
        ``associative_scan``, which was slower where it was tried (cumsum on tpu:v5e: 0.32 to
        1.37 million cycles).

    How it is verified
        Compile again with unroll=8. The example on tpu:v5e: 15.1 to 4.8 million cycles, by the
        model 30.4 to 5.8 ms (22.2 ms saved as estimated). Refuted on cpu, where starting a
        kernel costs little: measured 0.78 to 1.88 ms on one core, so there is no finding. On
        gpu:h100 16.7 to 2.6 ms by the model, without a promise.
    """

    code: ClassVar[str] = "CTL001"
    name: ClassVar[str] = "tiny-scan"
    examples: ClassVar[tuple[Example, ...]] = (
        Example("one small product in each of 1000 iterations", _TEXT.format(size=256)),
        Example("iterations that take their time", _TEXT.format(size=1 << 22), finds=0),
    )

    min_trips: int = 64
    unroll: int = 8  # what is proposed
    min_share: float = 0.5  # of an iteration's time that starting kernels must take

    def run(self, module: Module, context: Context) -> Iterator[Finding]:
        """Yield a finding per source line."""
        kind = context.machine.kind
        if module.warnings or not module.is_scheduled or kind == "cpu":
            return
        for group in fold(context, self._hits(module, context)):
            worst = group.worst
            line = line_text(module, worst.at)
            yield self.finding(
                module.instruction(worst.at),
                f"the loop{f' at {line}' if line else ''}{group.times} runs {worst.text}, most "
                "of it to start kernels",
                severity=time_severity(context, group.seconds if kind == "tpu" else None),
                advice=f"jax.lax.scan(..., unroll={self.unroll}), and compare; compiling takes "
                "longer.",
                remedy=(f"unroll-loop{{factor={self.unroll}}}",),
                seconds=group.seconds if kind == "tpu" else None,
                context=context,
            )

    def _hits(self, module: Module, context: Context) -> Iterator[Hit]:
        flow, cost = context.flow, context.cost
        loops = module.opcode_mask("while")
        start = module.computation_start
        for at, trips in cost.trips.items():
            body = flow.callee(at, "body")
            if trips < self.min_trips or body is None or not _is_counted(module, context, at):
                continue
            rows = slice(int(start[body]), int(start[body + 1]))
            if loops[rows].any():
                continue
            seconds = cost.seconds[rows]
            started = cost.bound_index[rows] == BOUNDS.index("overhead")
            once, overhead = float(seconds.sum()), float(seconds[started].sum())
            if not once or overhead < self.min_share * once:
                continue
            runs = float(cost.executions[rows].max())
            kernels = int(np.count_nonzero(seconds))
            yield Hit(
                at=at,
                seconds=overhead * runs * (1 - 1 / self.unroll),
                text=f"{trips:,} iterations of {seconds_text(once)} in {kernels} kernels each",
            )


def _is_counted(module: Module, context: Context, loop: int) -> bool:
    """Whether a counter alone ends the loop, and the user wrote it."""
    flow = context.flow
    condition = flow.callee(loop, "condition")
    if condition is None:
        return False
    name = flow.op_name(loop)
    test, _ = definition(flow, flow.root(condition))
    return flow.opcode(test) == "compare" and (not name or name.endswith("while"))
