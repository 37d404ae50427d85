"""HWF001: dimensions that leave much of a TPU's tiles empty."""

# ruff: noqa: E501 - HLO text has long lines

from __future__ import annotations

import enum
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from hlo_lab.cost.tables import attributes_at
from hlo_lab.cost.tiles import LANES
from hlo_lab.cost.windows import ConvolutionDims, WindowDimension, parse_dim_labels, parse_window
from hlo_lab.ir.module import Module
from hlo_lab.passkit.base import AnalysisPass, Example
from hlo_lab.passkit.context import Context
from hlo_lab.passkit.finding import Finding, Severity
from hlo_lab.passkit.folding import Hit, fold, time_severity
from hlo_lab.passkit.patterns import HANDING_ON, Flow, Phase, phase
from hlo_lab.passkit.tracing import kernel
from hlo_lab.passkit.wording import bytes_text, place_text, seconds_text, times_text


class Why(enum.Enum):
    """What leaves tiles empty: the words, and the advice."""

    ABOVE = (
        "multiplies with a dimension of {what}: the matrix units work on whole tiles",
        "Where the size is free (hidden sizes, added features or tokens), take the smaller one. "
        "Padding the larger one up to a whole tile saves nothing.",
    )
    GROUPS = (
        "is a convolution in groups of {what} features, which fill a part of the matrix units, "
        "between copies into another order",
        "Try it without groups, with zeros between them in the kernel (block-diagonal): more "
        "arithmetic, in less time. Or fewer and larger groups, or a depthwise one.",
    )
    STEM = (
        "is a convolution of {what} features, which fill a part of the matrix units",
        "Space to depth, 2 x 2 pixels to four times the features and half the stride, best when "
        "the data is prepared. It saved from 4% to 20% of the convolution.",
    )


_MALFORMED = (ValueError, KeyError, IndexError)
_CONVOLUTION = "conv_general_dilated"
_ORDER = frozenset(("copy", "reshape", "transpose"))
_MOST_ABOVE = LANES // 4  # of a dimension, beyond the last whole tile
_WORTH_IT = 0.01  # share of a product
_STEM = 4  # features, at most
_STEPS = 3  # copies in a row, on either side of a convolution
_HELD = 0.05  # share of the peak that padding takes, for a note
_EMPTY = 0.5  # share of an array in memory that is padding

_TEXT = """HloModule m, is_scheduled=true

ENTRY %main (x: bf16[8192,{size}], w: bf16[{size},{size}]) -> bf16[8192,{size}] {{
  %x = bf16[8192,{size}]{{1,0:T(8,128)(2,1)}} parameter(0)
  %w = bf16[{size},{size}]{{1,0:T(8,128)(2,1)}} parameter(1)
  ROOT %d = bf16[8192,{size}]{{1,0:T(8,128)(2,1)}} convolution(%x, %w), dim_labels=bf_io->bf, metadata={{op_name="jit(f)/dot_general" source_file="model.py" source_line=3}}
}}
"""
_GROUPS_TEXT = """HloModule m, is_scheduled=true

ENTRY %main (x: bf16[128,14,14,{groups},{each}], w: bf16[3,3,{groups},{each},{each}]) -> bf16[128,14,14,{groups},{each}] {{
  %x = bf16[128,14,14,{groups},{each}]{{4,3,2,1,0:T(8,128)(2,1)}} parameter(0)
  %w = bf16[3,3,{groups},{each},{each}]{{4,3,2,1,0:T(8,128)(2,1)}} parameter(1)
  %c = bf16[128,14,14,{groups},{each}]{{0,4,3,2,1:T(8,128)(2,1)}} copy(%x)
  %d = bf16[128,14,14,{groups},{each}]{{0,4,3,2,1:T(8,128)(2,1)}} convolution(%c, %w), window={{size=3x3x{groups} stride=1x1x{less} pad=1_1x1_1x0_0 lhs_dilate=1x1x{groups}}}, dim_labels=b012f_012io->b012f, metadata={{op_name="jit(f)/conv_general_dilated" source_file="model.py" source_line=3}}
  ROOT %r = bf16[128,14,14,{groups},{each}]{{4,3,2,1,0:T(8,128)(2,1)}} copy(%d)
}}
"""


@dataclass(frozen=True)
class TileWastePass(AnalysisPass):
    """Dimensions that leave much of a TPU's tiles empty.

    What it finds
        On TPUs: products, bound by the matrix units, with a dimension a little above a multiple
        of 128; convolutions in groups of a few features; and as notes, convolutions of up to
        four features (images), and arrays at the memory peak that are mostly padding. Products
        that memory bounds give no finding, whatever their dimensions, and neither do short minor
        dimensions that the layout has already moved away from the lanes.

    Why it matters
        A register holds 8 x 128 elements, the matrix units multiply tiles of 128 x 128: what a
        dimension leaves empty is computed and stored all the same.

    Example
        A hidden size of 2049, or ``feature_group_count=32`` with 256 features.

    What to do
        Make a dimension smaller, merge or move dimensions. Padding does not help: XLA pads.

    How it is verified
        Compile again with other sizes, tpu:v5e, by the cycles. 8192 x 2049 x 2049 to 2048: 411
        to 363 us, 24 us estimated; a gradient of three layers of 1025 to 1024: 848 to 745 us,
        105 us estimated. 50,257 to 50,304 columns, 1000 to 1024 and 129 to 128: no effect, no
        finding. 256 features in groups of 4, 8, 16, 32 and 64 to none: 5624, 3834, 3855, 3726
        and 1436 to 863 us; 3980, 2347, 2347, 3747 and 1847 us estimated. f32[512,2048,16] and
        f32[1048576,3] have no padding, as their minor dimension is laid out elsewhere: merging
        dimensions has no effect, no finding. Rotary embeddings that split 128 features in
        halves: with a roll instead the peak is 335 for 470 MB, as estimated, and the time 1162
        for 1252 us. Images of 3 features, space to depth: 754 to 720 us, with other sizes 1.95
        to 1.55 million cycles, so a note. On cpu space to depth was refuted by measuring (64 to
        81 ms, medians of 12 runs), on gpu:h100 by the model (59 to 63 us), where 2049 columns
        cost 1% by XLA's own estimate; there is no finding on either.
    """

    code: ClassVar[str] = "HWF001"
    name: ClassVar[str] = "tile-waste"
    examples: ClassVar[tuple[Example, ...]] = (
        Example("one above a multiple of 128", _TEXT.format(size=2049)),
        Example("a multiple of 128", _TEXT.format(size=2048), finds=0),
        Example("far above one", _TEXT.format(size=2240), finds=0),
        Example("groups of 8", _GROUPS_TEXT.format(groups=32, less=31, each=8)),
        Example("groups of 128", _GROUPS_TEXT.format(groups=2, less=1, each=128), finds=0),
    )

    def run(self, module: Module, context: Context) -> Iterator[Finding]:
        """Yield a finding per source line and reason, then one note on memory."""
        if not module.is_scheduled or module.warnings or context.machine.kind != "tpu":
            return
        flow = context.flow
        for group in fold(context, _hits(module, context)):
            worst = group.worst
            name, _, what = worst.key.partition(" ")
            words, advice = Why[name].value
            run = kernel(flow, worst.at)
            stem = name == Why.STEM.name
            severity = Severity.NOTE if stem else time_severity(context, group.seconds)
            spent = float(context.cost.seconds[run] * context.cost.executions[run])
            cost = "takes" if stem or group.seconds is None else "costs"
            yield self.finding(
                module.instruction(worst.at),
                f"{place_text(module, flow.place(worst.at))} {words.format(what=what)}; that "
                f"{cost} {seconds_text(group.seconds or spent)}"
                f"{times_text(float(context.cost.executions[run]))}{group.times}",
                severity=severity,
                advice=advice,
                seconds=group.seconds,
                context=context,
            )
        yield from self._padded(module, context)

    def _padded(self, module: Module, context: Context) -> Iterator[Finding]:
        memory = context.memory
        mostly = [
            holder
            for holder in memory.holders
            if holder.kind == "temporary" and holder.padding_bytes >= _EMPTY * holder.bytes
        ]
        empty = sum(holder.padding_bytes for holder in mostly)
        if not empty or empty < _HELD * memory.peak_bytes:
            return
        worst = max(mostly, key=lambda holder: holder.padding_bytes)
        at = worst.instruction
        shape = next(context.flow.shape(at).leaves())[1]
        yield self.finding(
            module.instruction(at),
            f"{bytes_text(empty)} of the memory peak are padding in arrays that are mostly "
            f"padding; the largest is of {place_text(module, context.flow.place(at))}, "
            f"{shape.without_layout()}, {bytes_text(worst.bytes)} in tiles of "
            f"{' x '.join(map(str, shape.tile))}",
            severity=Severity.NOTE,
            advice="Keep 128 features together (jnp.roll rather than halves of 64), merge small "
            "dimensions, or make a long one the last. Products of many small matrices need them "
            "as they are.",
            bytes=empty,
            context=context,
        )


def _hits(module: Module, context: Context) -> Iterator[Hit]:
    flow, cost = context.flow, context.cost
    for at in np.nonzero(module.opcode_mask("convolution"))[0].tolist():
        run = kernel(flow, at)
        if not cost.top_level[run]:
            continue
        attributes = attributes_at(module, int(module.attribute[at]))
        try:
            dims = parse_dim_labels(attributes["dim_labels"])
            window = parse_window(attributes.get("window", ""))
            hit = _hit(context, at, run, dims, window)
        except _MALFORMED:
            continue
        if hit is not None:
            yield hit


def _hit(
    context: Context, at: int, run: int, dims: ConvolutionDims, window: tuple[WindowDimension, ...]
) -> Hit | None:
    flow, cost = context.flow, context.cost
    source, result = flow.shape(flow.operands(at)[0]), flow.shape(at)
    depth, columns = source.dims[dims.input_feature], result.dims[dims.output_feature]
    whole = float(cost.seconds[run] * cost.executions[run])
    taps = math.prod(each.size for each in window if each.base_dilation == 1)
    name = flow.op_name(at)  # dots slide too; a gradient's features may be the batch
    if taps > 1 and name.endswith(_CONVOLUTION) and phase(name) is not Phase.BACKWARD:
        groups = math.prod(each.size for each in window if each.base_dilation > 1)
        if 1 < depth < LANES and groups > 1:
            dense = 2.0 * result.element_count * taps
            dense *= _up(groups * depth) * _up(groups * columns) / (groups * columns)
            once = dense / context.machine.matrix_peak(source.dtype)
            saved = whole + _around(context, at, run) - once * float(cost.executions[run])
            return Hit(at, saved, key=f"{Why.GROUPS.name} {depth}") if saved > 0 else None
        large = time_severity(context, whole) is Severity.WARNING
        if depth <= _STEM and groups == 1 and large and cost.bound[run] == "compute":
            return Hit(at, key=f"{Why.STEM.name} {depth}")
    if cost.bound[run] != "compute" or taps > 1:
        return None
    # of two such dimensions XLA pads one or both: count the worse
    size = max((depth, columns), key=_above)
    if not _above(size):
        return None
    down = size // LANES * LANES
    what = f"{size:,}, {size - down} above {down:,}"
    return Hit(at, whole * _above(size), key=f"{Why.ABOVE.name} {what}")


def _above(size: int) -> float:
    """The share of whole tiles that a dimension a little above a multiple wastes; else 0."""
    down = size // LANES * LANES
    little = down >= 2 * LANES and 0 < size - down <= _MOST_ABOVE
    share = 1 - down / _up(size)
    return share if little and share >= _WORTH_IT else 0.0


def _up(size: int) -> int:
    return math.ceil(size / LANES) * LANES


def _around(context: Context, at: int, run: int) -> float:
    """Seconds of the copies that bring a convolution's data into its order and out of it."""
    flow, cost = context.flow, context.cost
    found: dict[int, None] = {}
    one = run
    for _ in range(_STEPS):
        users = flow.kernel_users(one)
        if len(users) != 1 or not _is_copy(flow, users[0]):
            break
        one = users[0]
        found[one] = None
    for one in flow.operands(run):
        for _ in range(_STEPS):
            one, path = flow.source(one, (), HANDING_ON)
            if path or not _is_copy(flow, one):
                break
            found[one] = None
            one = flow.operands(one)[0]
    return sum(float(cost.seconds[copy] * cost.executions[copy]) for copy in found)


def _is_copy(flow: Flow, at: int) -> bool:
    contents = flow.contents(at)
    return bool(contents) and contents <= _ORDER and len(flow.operands(at)) == 1
