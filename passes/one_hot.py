"""ALG002: a row of a table looked up by a product with a one-hot matrix."""

# ruff: noqa: E501 - HLO text has long lines

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from hlo_lab.ir.module import Module
from hlo_lab.passkit.base import AnalysisPass, Example
from hlo_lab.passkit.context import Context
from hlo_lab.passkit.finding import Finding, Severity
from hlo_lab.passkit.folding import Hit, fold, time_severity
from hlo_lab.passkit.patterns import HANDING_ON, Flow
from hlo_lab.passkit.products import Product, products
from hlo_lab.passkit.tracing import definition, kernel
from hlo_lab.passkit.wording import place_text, times_text

_SAME = HANDING_ON | {"copy", "convert", "reshape", "copy-start"}
_SPREAD = _SAME | {"broadcast"}
_BYTES = 4.0  # of an element of a looked-up row, at most
_WORTH = 2.0  # times that the product must take what reading the rows takes

_TEXT = """HloModule m, is_scheduled=true

%hot (i: s32[4096]) -> f32[4096,{vocabulary}] {{
  %i = s32[4096]{{0}} parameter(0)
  %ib = s32[4096,{vocabulary}]{{1,0}} broadcast(%i), dimensions={{0}}
  %io = s32[4096,{vocabulary}]{{1,0}} iota(), iota_dimension=1
  %eq = pred[4096,{vocabulary}]{{1,0}} compare(%ib, %io), direction=EQ
  ROOT %oh = f32[4096,{vocabulary}]{{1,0}} convert(%eq)
}}

ENTRY %main (ids: s32[4096], table: f32[{vocabulary},1024]) -> f32[4096,1024] {{
  %ids = s32[4096]{{0}} parameter(0)
  %table = f32[{vocabulary},1024]{{1,0}} parameter(1)
  %onehot = f32[4096,{vocabulary}]{{1,0}} fusion(%ids), kind=kLoop, calls=%hot
  ROOT %rows = f32[4096,1024]{{1,0}} dot(%onehot, %table), lhs_contracting_dims={{1}}, rhs_contracting_dims={{0}}
}}
"""

_MASK = """HloModule m, is_scheduled=true

ENTRY %main (x: f32[4096,2048], table: f32[2048,1024]) -> f32[4096,1024] {
  %x = f32[4096,2048]{1,0} parameter(0)
  %table = f32[2048,1024]{1,0} parameter(1)
  %low = f32[] constant(0)
  %lows = f32[4096,2048]{1,0} broadcast(%low), dimensions={}
  %eq = pred[4096,2048]{1,0} compare(%x, %lows), direction=EQ
  %mask = f32[4096,2048]{1,0} convert(%eq)
  ROOT %rows = f32[4096,1024]{1,0} dot(%mask, %table), lhs_contracting_dims={1}, rhs_contracting_dims={0}
}
"""


@dataclass(frozen=True)
class OneHotPass(AnalysisPass):
    """Rows of a table looked up by a product with a one-hot matrix.

    What it finds
        A matrix product that contracts ``jax.nn.one_hot(ids, n)`` with a table of n rows. Small
        tables, and products that take no longer than reading the rows, are left out. Where the
        transposed product is there too (the gradient of the table), or the program is for
        several devices (the table may be sharded), it is a note without a figure.

    Why it matters
        The product multiplies by n - 1 zeros per row; looking up reads the row alone. Kept in
        memory, the one-hot matrix is as large as the logits.

    Example
        ``jax.nn.one_hot(ids, 32768) @ table``.

    What to do
        ``table[ids]``. Its gradient is a scatter-add, which may be slower than the product on
        TPUs; compile the training step both ways. Ids outside of the table give zeros with
        one-hot, the nearest row with ``table[ids]``: ``table.at[ids].get(mode="fill",
        fill_value=0)`` keeps the zeros.

    How it is verified
        Compile again with the look-up. 4096 ids into 32768 x 1024 f32, by the model: tpu:v5e
        1.55 ms to 54 us (2.2 million cycles; gathers carry no cycles), cpu 1.75 s to 1.8 ms
        (measured for a smaller table: 244 to 0.14 ms) and peak 688 to 151 MB, 537 as estimated.
        A one-hot that a reduction reads (cross-entropy) is no finding: fused, it costs nothing,
        and take_along_axis was no faster on tpu:v5e (8.88 and 8.92 million cycles). On gpu:h100
        by the model alone: 2048 ids into 8192 x 512 f32, 95.5 to 7.9 us (86.2 us promised) and
        peak 92 to 20 MiB.
    """

    code: ClassVar[str] = "ALG002"
    name: ClassVar[str] = "one-hot"
    examples: ClassVar[tuple[Example, ...]] = (
        Example("4096 rows of 32,768", _TEXT.format(vocabulary=32768)),
        Example("a tiny table", _TEXT.format(vocabulary=16), finds=0),
        Example("a mask that is no one-hot", _MASK, finds=0),
    )

    min_rows: int = 256  # of the table

    def run(self, module: Module, context: Context) -> Iterator[Finding]:
        """Yield a finding per source line."""
        if module.warnings:
            return
        flow = context.flow
        hot = list(self._one_hots(module, flow))
        trained = {length for _, _, length, is_look_up in hot if not is_look_up}
        devices = int(module.header.get("num_partitions", "1") or 1)
        hits = [
            hit
            for product, compare, length, is_look_up in hot
            if is_look_up
            and (hit := _hit(context, product, compare, length in trained or devices > 1))
        ]
        for group in fold(context, hits):
            worst = group.worst
            runs = float(context.cost.executions[kernel(flow, worst.at)])
            sure = group.seconds is not None
            why = (
                ""
                if sure
                else (
                    "; the table may be sharded"
                    if devices > 1
                    else "; its gradient would become a scatter-add"
                )
            )
            yield self.finding(
                module.instruction(worst.at),
                f"{place_text(module, flow.place(worst.at))} looks up rows of a table by a "
                f"product with a one-hot matrix, {worst.text}{times_text(runs)}{group.times}{why}",
                severity=time_severity(context, group.seconds) if sure else Severity.NOTE,
                advice='table[ids], or table.at[ids].get(mode="fill", fill_value=0) where ids '
                "may lie outside of it; compile the gradient both ways.",
                remedy=("one-hot-to-gather",),
                seconds=group.seconds,
                bytes=group.bytes,
                context=context,
            )

    def _one_hots(self, module: Module, flow: Flow) -> Iterator[tuple[Product, int, int, bool]]:
        """(product, the comparison, rows of the table, whether it looks them up)."""
        for product in products(module, flow):
            for operand, other in ((product.left, product.rows), (product.right, product.columns)):
                if max(product.depth, other) < self.min_rows:
                    continue
                compare, _ = definition(flow, operand, (), _SAME)
                length = _length(flow, compare)
                if length >= self.min_rows and length in (product.depth, other):
                    yield product, compare, length, product.depth == length
                    break


def _hit(context: Context, product: Product, compare: int, unsure: bool) -> Hit | None:
    flow, cost = context.flow, context.cost
    at, made = kernel(flow, product.at), kernel(flow, compare)
    runs = float(cost.executions[at])
    apart = made != at
    seconds = float(context.seconds[at] + (context.seconds[made] if apart else 0.0))
    # XLA:GPU keeps 0, 1, 2... in memory, as large as the one-hot matrix
    counter = kernel(flow, _counter(flow, compare))
    counts = bool(cost.top_level[counter]) and counter not in (at, made)
    if counts:
        seconds += float(context.seconds[counter]) / max(len(flow.kernel_users(counter)), 1)
    elements = product.batch * product.rows * product.columns
    machine = context.machine
    rows = 2 * _BYTES * elements / machine.memory_bandwidth + machine.launch_overhead
    if seconds < _WORTH * rows:
        return None
    shown = counter if counts else compare  # the comparison may be split over the depth
    held = made if apart else counter if counts else None
    size = None if held is None else flow.shape(held).padded_bytes
    return Hit(
        at=product.at,
        seconds=None if unsure else (seconds - rows) * runs,
        bytes=None if unsure else size,
        text="[" + str(flow.shape(shown).without_layout()).partition("[")[2],
    )


def _length(flow: Flow, compare: int) -> int:
    """The classes of a one-hot matrix, given the comparison that makes it; 0 for any other."""
    attributes = flow.module.attributes[flow.module.attribute[compare]]
    if flow.opcode(compare) != "compare" or attributes.get("direction") != "EQ":
        return 0
    made = [definition(flow, one, (), _SPREAD)[0] for one in flow.operands(compare)]
    counters = [one for one in made if flow.opcode(one) == "iota"]
    ids = [one for one in made if flow.opcode(one) not in ("iota", "constant")]
    if len(counters) != 1 or len(ids) != 1:
        return 0
    shape = flow.shape(counters[0])
    text = flow.module.attributes[flow.module.attribute[counters[0]]].get("iota_dimension", "0")
    dimension = int(text) if text.isdecimal() else 0
    return shape.dims[dimension] if dimension < shape.rank else 0


def _counter(flow: Flow, compare: int) -> int:
    """The iota that a one-hot matrix compares with."""
    made = (definition(flow, one, (), _SPREAD)[0] for one in flow.operands(compare))
    return next(one for one in made if flow.opcode(one) == "iota")
