"""PRC001: f32 products in several passes of the matrix units."""

# ruff: noqa: E501 - HLO text has long lines

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from hlo_lab.cost.tables import attributes_at
from hlo_lab.ir.module import Module
from hlo_lab.passkit.base import AnalysisPass, Example
from hlo_lab.passkit.context import Context
from hlo_lab.passkit.finding import Finding
from hlo_lab.passkit.folding import Hit, fold, time_severity
from hlo_lab.passkit.patterns import HANDING_ON, Flow
from hlo_lab.passkit.tracing import definition, kernel
from hlo_lab.passkit.wording import place_text, seconds_text, times_text

_PASSES = {"highest": 6, "high": 3}  # of bf16 products on a TPU, instead of one
_COMPUTE = "compute"

_TEXT = """HloModule m, is_scheduled=true

ENTRY %main (a: f32[4096,4096], b: f32[4096,4096]) -> f32[4096,4096] {{
  %a = f32[4096,4096]{{1,0}} parameter(0)
  %b = f32[4096,4096]{{1,0}} parameter(1)
  ROOT %d = f32[4096,4096]{{1,0}} dot(%a, %b), lhs_contracting_dims={{1}}, rhs_contracting_dims={{0}}{precision}, metadata={{op_name="jit(f)/dot_general" source_file="model.py" source_line=7}}
}}
"""


@dataclass(frozen=True)
class PrecisionPass(AnalysisPass):
    """f32 products in several passes of the matrix units.

    What it finds
        Matrix products and convolutions of f32 operands with ``precision="highest"`` or
        ``"high"`` (an argument, or ``jax_default_matmul_precision``) on a TPU, where they are
        bound by the matrix units. Operands that were converted up from bf16 are left out:
        XLA:TPU sees it and multiplies bf16. Other machines have no finding: a CPU multiplies
        f32 either way, and on GPUs it was not verified.

    Why it matters
        A TPU multiplies bf16. It makes an f32 product of six bf16 products (highest) or three
        (high), and of one by default.

    Example
        ``jnp.dot(a, b, precision="highest")``.

    What to do
        Keep the precision where the numbers need it (losses, solvers, positions); elsewhere drop
        it, or take ``"high"``. Numbers change: default precision keeps 8 bits of each factor.

    How it is verified
        Compile again with the default precision. 4096 x 4096 on tpu:v5e: highest 6.39 million
        cycles, high 3.34, default 1.11; 3.51 ms saved as estimated, 3.53 by the cycles. bf16
        operands converted up, in highest precision: 1.08 million cycles, no finding.
    """

    code: ClassVar[str] = "PRC001"
    name: ClassVar[str] = "precision"
    examples: ClassVar[tuple[Example, ...]] = (
        Example("highest", _TEXT.format(precision=", operand_precision={highest,highest}")),
        Example("default", _TEXT.format(precision=""), finds=0),
    )

    def run(self, module: Module, context: Context) -> Iterator[Finding]:
        """Yield a finding per source line."""
        if module.warnings or context.machine.kind != "tpu":
            return
        flow = context.flow
        for group in fold(context, _hits(module, context)):
            worst = group.worst
            at = kernel(flow, worst.at)
            runs = float(context.cost.executions[at])
            yield self.finding(
                module.instruction(worst.at),
                f"{place_text(module, flow.place(worst.at))} is an f32 product in {worst.key} "
                f"precision, {_PASSES[worst.key]} passes of the matrix units instead of one, "
                f"{seconds_text(float(context.seconds[at]))}{times_text(runs)}{group.times}",
                severity=time_severity(context, group.seconds),
                advice="Where the numbers allow it, drop precision= (or jax_default_matmul_"
                'precision), or take "high"; check the results.',
                remedy=("lower-precision",),
                seconds=group.seconds,
                context=context,
            )


def _hits(module: Module, context: Context) -> Iterator[Hit]:
    flow, cost = context.flow, context.cost
    for at in np.nonzero(module.opcode_mask("dot", "convolution"))[0].tolist():
        attributes = attributes_at(module, int(module.attribute[at]))
        asked = attributes.get("operand_precision", "")
        level = next((level for level in _PASSES if level in asked), "")
        if not level or any(_is_narrow(flow, one) for one in flow.operands(at)[:2]):
            continue
        run = kernel(flow, at)
        if not cost.top_level[run] or cost.bound[run] != _COMPUTE:
            continue
        seconds = float(context.seconds[run] * cost.executions[run])
        yield Hit(at, seconds * (1 - 1 / _PASSES[level]), key=level)


def _is_narrow(flow: Flow, operand: int) -> bool:
    """Whether a factor has no more than the bits of a narrow type."""
    made, _ = definition(
        flow, operand, (), HANDING_ON | {"copy", "copy-start", "reshape", "transpose"}
    )
    if flow.opcode(made) == "convert":
        made = flow.operands(made)[0]
    return flow.shape(made).dtype != "f32"
