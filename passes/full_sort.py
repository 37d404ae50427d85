"""ALG001: a whole sort of which the first few elements are used."""

# ruff: noqa: E501 - HLO text has long lines

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
from hlo_lab.passkit.tracing import definition, kernel, readers
from hlo_lab.passkit.wording import counted, place_text, times_text

_THROUGH = HANDING_ON | {"copy", "convert", "copy-start"}
_LIMITS = re.compile(r"\[(\d+):(\d+)(?::(\d+))?\]")
_FIRST = re.compile(r"\d+")
_TIES = (
    " Of equal elements its indices have the first ones first, as argsort(x, descending=True) "
    "has; this sort has them in another order, so compare where there may be ties."
)

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

_OWN_KERNEL = """HloModule m, is_scheduled=true

%less (a: f32[], b: f32[], i: s32[], j: s32[]) -> pred[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  %i = s32[] parameter(2)
  %j = s32[] parameter(3)
  ROOT %lt = pred[] compare(%a, %b), direction=LT
}

%sorting (x: f32[64,65536]) -> (f32[64,65536], s32[64,65536]) {
  %x = f32[64,65536]{1,0} parameter(0)
  %at = s32[64,65536]{1,0} iota(), iota_dimension=1
  ROOT %sort = (f32[64,65536]{1,0}, s32[64,65536]{1,0}) sort(%x, %at), dimensions={1}, to_apply=%less
}

ENTRY %main (x: f32[64,65536]) -> s32[64,8] {
  %x = f32[64,65536]{1,0} parameter(0)
  %sorted = (f32[64,65536]{1,0}, s32[64,65536]{1,0}) fusion(%x), kind=kCustom, calls=%sorting
  %indices = s32[64,65536]{1,0} get-tuple-element(%sorted), index=1
  ROOT %top = s32[64,8]{1,0} slice(%indices), slice={[0:64], [65528:65536]}
}
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
        for the smallest. Results come largest first; NaN counts as the largest. Of equal
        elements the first indices come first, as in ``argsort(x, descending=True)``; where
        ``argsort(x)[..., ::-1]`` has the last ones first, the finding says so.
        ``hlo-lab rewrite sort-to-top-k PROGRAM`` tries it without a change of the source.

    How it is verified
        Compile again with top_k. 64 rows of 65,536 on cpu: measured 960 to 14 ms, by the model
        314 to 14 ms, and peak 33.6 to 16.8 MB. On tpu:v5e the sort needs 16.8 MB more, as
        estimated; XLA:TPU gives no cycles for sorts of this size, so no time is promised there
        (where it does, 2.4 to 0.85 million cycles). On gpu:h100 by the model alone: the indices
        of 10 of 32,000 in 64 rows, 41.6 to 9.0 us, and peak 31.3 to 7.8 MiB.
    """

    code: ClassVar[str] = "ALG001"
    name: ClassVar[str] = "full-sort"
    examples: ClassVar[tuple[Example, ...]] = (
        Example("the last 8 of 65,536", _TEXT.format(kept=8, first=65528)),
        Example("where the last 8 are, as XLA:GPU has it", _OWN_KERNEL),
        Example("half of it", _TEXT.format(kept=32768, first=32768), finds=0),
    )

    most: float = 0.125  # share of the sorted elements that is used, at most
    min_length: int = 256  # of the sorted dimension

    def run(self, module: Module, context: Context) -> Iterator[Finding]:
        """Yield a finding per source line."""
        if module.warnings:
            return
        flow = context.flow
        for group in fold(context, self._hits(module, context)):
            worst = group.worst
            runs = float(context.cost.executions[kernel(flow, worst.at)])
            severity = time_severity(context, group.seconds)
            tied = _reorders_ties(flow, worst.at)
            if context.machine.kind == "tpu":
                severity = Severity.WARNING
            yield self.finding(
                module.instruction(worst.at),
                f"{place_text(module, flow.place(worst.at))} sorts {worst.key}"
                f"{times_text(runs)}{group.times}, and {worst.text} used: top_k finds them "
                "without sorting the rest",
                severity=severity,
                advice="jax.lax.top_k(x, k) for the largest, -jax.lax.top_k(-x, k)[0] for the "
                "smallest; it returns the indices too." + (_TIES if tied else ""),
                remedy=(f"sort-to-top-k{'{any_order_of_ties=true}' if tied else ''}",),
                seconds=group.seconds,
                bytes=group.bytes,
                context=context,
            )

    def _hits(self, module: Module, context: Context) -> Iterator[Hit]:
        flow = context.flow
        for at in np.nonzero(module.opcode_mask("sort"))[0].tolist():
            keys = next(flow.shape(at).leaves())[1]
            dimension = _dimension(flow, at)
            length = keys.dims[dimension] if dimension < keys.rank else 0
            if length < self.min_length:
                continue
            used = _used(flow, at, dimension, length)
            if used is None or used > self.most * length:
                continue
            seconds = _saved(context, at, float(keys.padded_bytes))
            main = [leaf for _, leaf in flow.shape(at).leaves() if leaf.memory_space == 0]
            yield Hit(
                at=at,
                seconds=seconds,
                bytes=sum(leaf.padded_bytes for leaf in main),
                text=f"{counted(used, 'element')} of {length:,} {'is' if used == 1 else 'are'}",
                key=str(keys.without_layout()),
            )


def _saved(context: Context, at: int, size: float) -> float | None:
    """Seconds per call that a top-k saves, given the bytes of the keys; None on TPUs.

    XLA:TPU gives no cycles for sorts of most sizes, so that nothing bears an estimate out.
    """
    machine, sort = context.machine, kernel(context.flow, at)
    if machine.kind == "tpu":
        return None
    rest = size / machine.memory_bandwidth + machine.launch_overhead
    return max(float(context.seconds[sort]) - rest, 0.0) * float(context.cost.executions[sort])


def _used(flow: Flow, at: int, dimension: int, length: int) -> int | None:
    """How many elements from either end of the sorted dimension are read; None for all."""
    limits = [_limits(flow, reader, dimension) for _, reader in _readers(flow, at)]
    if not limits or any(
        step != 1 or (first != 0 and last != length) for first, last, step in limits
    ):
        return None
    return max(last - first for first, last, _ in limits)


def _reorders_ties(flow: Flow, at: int) -> bool:
    """Whether indices are read whose order a top-k changes where elements are equal.

    A stable sort has the first of equal elements first, so at the end of the sorted array the
    last ones are taken; the other way round where it is given the elements in reverse.
    """
    for number, reader in _readers(flow, at):
        given = flow.operands(at)[number] if number < len(flow.operands(at)) else at
        if number and flow.shape(given).dtype.startswith(("s", "u")):
            is_first = _limits(flow, reader, _dimension(flow, at))[0] == 0
            if is_first != (flow.opcode(definition(flow, given)[0]) == "iota"):
                return True
    return False


def _readers(flow: Flow, at: int) -> list[tuple[int, int]]:
    """(number of the sorted array, what computes with it)."""
    if not flow.shape(at).is_tuple:
        return [(0, reader) for reader in readers(flow, at, _THROUGH)]
    # XLA:GPU has sorts in fusions of their own
    outputs = flow.users(at) or flow.users(kernel(flow, at))
    return [
        (flow.member(output), reader)
        for output in outputs
        for reader in (
            readers(flow, output, _THROUGH)
            if flow.opcode(output) == "get-tuple-element"
            else [output]
        )
    ]


def _dimension(flow: Flow, at: int) -> int:
    match = _FIRST.search(flow.module.attributes[flow.module.attribute[at]].get("dimensions", "0"))
    return int(match.group()) if match else 0


def _limits(flow: Flow, reader: int, dimension: int) -> tuple[int, int, int]:
    """First, last and step of what a slice takes; a step of 0 for any other reader."""
    text = flow.module.attributes[flow.module.attribute[reader]].get("slice", "")
    limits = _LIMITS.findall(text)
    if flow.opcode(reader) not in ("slice", "slice-start") or dimension >= len(limits):
        return 0, 0, 0
    first, last, step = (int(part or 1) for part in limits[dimension])
    return first, last, step
