"""ALG001: a whole sort of which the first few elements are used."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from hlo_lab.ir.module import Module
from hlo_lab.passkit.base import AnalysisPass, Example
from hlo_lab.passkit.context import Context
from hlo_lab.passkit.finding import Finding, Severity
from hlo_lab.passkit.folding import Hit, fold, time_severity
from hlo_lab.passkit.patterns import HANDING_ON, Flow
from hlo_lab.passkit.tracing import readers
from hlo_lab.passkit.wording import counted, place_text, times_text

_THROUGH = HANDING_ON | {"copy", "convert", "copy-start"}
_LIMITS = re.compile(r"\[(\d+):(\d+)(?::(\d+))?\]")
_FIRST = re.compile(r"\d+")

_TEXT = """HloModule m, is_scheduled=true

%less (a: f32[], b: f32[]) -> pred[] {{
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %lt = pred[] compare(%a, %b), direction=LT
}}

%last (s: f32[64,65536]) -> f32[64,{kept}] {{
  %s = f32[64,65536]{{1,0}} parameter(0)
  ROOT %cut = f32[64,{kept}]{{1,0}} slice(%s), slice={{[0:64], [{first}:65536]}}
}}

ENTRY %main (x: f32[64,65536]) -> f32[64,{kept}] {{
  %x = f32[64,65536]{{1,0}} parameter(0)
  %sorted = f32[64,65536]{{1,0}} sort(%x), dimensions={{1}}, to_apply=%less
  ROOT %top = f32[64,{kept}]{{1,0}} fusion(%sorted), kind=kLoop, calls=%last
}}
"""


@dataclass(frozen=True)
class FullSortPass(AnalysisPass):
    """A whole sort of which only the first or last few elements are used.

    What it finds
        A sort (``jnp.sort``, ``jnp.argsort``) all of whose readers take the first or the last
        elements along the sorted dimension, an eighth of them or less. A median or a quantile
        takes others, and gives no finding.

    Why it matters
        A sort moves and compares every element many times; finding the largest few passes over
        them about once, and does not write the sorted array.

    Example
        ``jnp.sort(x)[..., -8:]`` of 65,536 elements.

    What to do
        ``values, indices = jax.lax.top_k(x, k)`` for the largest, ``-jax.lax.top_k(-x, k)[0]``
        for the smallest. Results come largest first; NaN counts as the largest.
        ``hlo-lab rewrite sort-to-top-k PROGRAM`` tries it without a change of the source.

    How it is verified
        Compile again with top_k. 64 rows of 65,536 on cpu: measured 960 to 14 ms, by the model
        314 to 14 ms, and peak 33.6 to 16.8 MB. On tpu:v5e the sort needs 16.8 MB more, as
        estimated; XLA:TPU gives no cycles for sorts of this size, so no time is promised there
        (where it does, 2.4 to 0.85 million cycles). On GPUs a note, not verified.
    """

    code: ClassVar[str] = "ALG001"
    name: ClassVar[str] = "full-sort"
    examples: ClassVar[tuple[Example, ...]] = (
        Example("the last 8 of 65,536", _TEXT.format(kept=8, first=65528)),
        Example("half of it", _TEXT.format(kept=32768, first=32768), finds=0),
    )

    most: float = 0.125  # share of the sorted elements that is used, at most
    min_length: int = 256  # of the sorted dimension

    def run(self, module: Module, context: Context) -> Iterator[Finding]:
        """Yield a finding per source line."""
        if module.warnings:
            return
        flow = context.flow
        promised = context.machine.kind == "cpu"
        for group in fold(context, self._hits(module, context, promised)):
            worst = group.worst
            runs = float(context.cost.executions[worst.at])
            severity = time_severity(context, group.seconds)
            if context.machine.kind == "tpu":
                severity = Severity.WARNING
            yield self.finding(
                module.instruction(worst.at),
                f"{place_text(module, flow.place(worst.at))} sorts {worst.key}"
                f"{times_text(runs)}{group.times}, and {worst.text} used: top_k finds them "
                "without sorting the rest",
                severity=severity,
                advice="jax.lax.top_k(x, k) for the largest, -jax.lax.top_k(-x, k)[0] for the "
                "smallest; it returns the indices too.",
                remedy=("sort-to-top-k",),
                seconds=group.seconds,
                bytes=group.bytes,
                context=context,
            )

    def _hits(self, module: Module, context: Context, promised: bool) -> Iterator[Hit]:
        flow, cost = context.flow, context.cost
        for at in np.nonzero(module.opcode_mask("sort"))[0].tolist():
            match = _FIRST.search(module.attributes[module.attribute[at]].get("dimensions", "0"))
            keys = next(flow.shape(at).leaves())[1]
            dimension = int(match.group()) if match else 0
            length = keys.dims[dimension] if dimension < keys.rank else 0
            if length < self.min_length:
                continue
            used = _used(flow, at, dimension, length)
            if used is None or used > self.most * length:
                continue
            seconds = float(context.seconds[at] * cost.executions[at])
            main = [leaf for _, leaf in flow.shape(at).leaves() if leaf.memory_space == 0]
            yield Hit(
                at=at,
                seconds=seconds if promised else None,
                bytes=sum(leaf.padded_bytes for leaf in main),
                text=f"{counted(used, 'element')} of {length:,} {'is' if used == 1 else 'are'}",
                key=str(keys.without_layout()),
            )


def _used(flow: Flow, at: int, dimension: int, length: int) -> int | None:
    """How many elements from either end of the sorted dimension are read; None for all."""
    outputs = flow.users(at) if flow.shape(at).is_tuple else [at]
    most = 0
    for output in outputs:
        if flow.opcode(output) != "get-tuple-element" and output != at:
            return None
        for reader in readers(flow, output, _THROUGH):
            if flow.opcode(reader) not in ("slice", "slice-start"):
                return None
            text = flow.module.attributes[flow.module.attribute[reader]].get("slice", "")
            limits = _LIMITS.findall(text)
            if dimension >= len(limits):
                return None
            first, last, step = (int(part or 1) for part in limits[dimension])
            if step != 1 or (first != 0 and last != length):
                return None
            most = max(most, last - first)
    return most or None
