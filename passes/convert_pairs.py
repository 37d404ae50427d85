"""PRC003: conversions between float types that pass over memory more often than they need."""

# ruff: noqa: E501 - HLO text has long lines

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from hlo_lab.ir.module import Module
from hlo_lab.ir.shapes import BITS
from hlo_lab.passkit.base import AnalysisPass, Example
from hlo_lab.passkit.context import Context
from hlo_lab.passkit.finding import Finding
from hlo_lab.passkit.folding import Hit, fold, time_severity
from hlo_lab.passkit.patterns import HANDING_ON, Flow
from hlo_lab.passkit.tracing import kernel, readers
from hlo_lab.passkit.wording import place_text, seconds_text, times_text


class Why(enum.Enum):
    """Why a conversion is more than it needs to be: the words, the advice, the remedy."""

    LOOP = (
        "converts {shape}, which no iteration changes, in each of them",
        "Convert in front of the loop (jax.lax.scan, fori_loop, while_loop) and close over the "
        "result; it then takes its own memory throughout.",
        ("move-converts",),
    )
    PART = (
        "converts all of {shape}, of which {part} is looked up",
        "Convert after the lookup: table[i].astype(...) instead of table.astype(...)[i].",
        ("move-converts",),
    )
    ROUND_TRIP = (
        "converts {shape} up and down again, around what gives the same values without",
        "Sort, gather and take maxima in the narrow type: drop both conversions.",
        (),
    )


_FLOATS = frozenset(name for name in BITS if name.startswith(("f", "bf")))
_ONLY = frozenset(("convert", "copy", "reshape", "transpose"))
_THROUGH = HANDING_ON | frozenset(("copy", "reshape", "transpose", "copy-start"))
_LOOKUPS = frozenset(("gather", "dynamic-slice"))
_CHOICES = frozenset(("sort", "gather", "dynamic-slice", "slice", "reverse", "maximum", "minimum"))
_CARRIED = 4  # operands of a sort

_LOOP_TEXT = """HloModule m, is_scheduled=true

%body (s: (s32[], bf16[8,4096], {dtype}[4096,4096])) -> (s32[], bf16[8,4096], {dtype}[4096,4096]) {{
  %s = (s32[], bf16[8,4096]{{1,0}}, {dtype}[4096,4096]{{1,0}}) parameter(0)
  %i = s32[] get-tuple-element(%s), index=0
  %one = s32[] constant(1)
  %next = s32[] add(%i, %one)
  %x = bf16[8,4096]{{1,0}} get-tuple-element(%s), index=1
  %w = {dtype}[4096,4096]{{1,0}} get-tuple-element(%s), index=2
  %c = bf16[4096,4096]{{1,0}} {convert}(%w), metadata={{op_name="jit(f)/while/body/convert_element_type" source_file="model.py" source_line=7}}
  %y = bf16[8,4096]{{1,0}} dot(%x, %c), lhs_contracting_dims={{1}}, rhs_contracting_dims={{0}}
  ROOT %r = (s32[], bf16[8,4096]{{1,0}}, {dtype}[4096,4096]{{1,0}}) tuple(%next, %y, %w)
}}

%cond (s: (s32[], bf16[8,4096], {dtype}[4096,4096])) -> pred[] {{
  %s = (s32[], bf16[8,4096]{{1,0}}, {dtype}[4096,4096]{{1,0}}) parameter(0)
  %i = s32[] get-tuple-element(%s), index=0
  %n = s32[] constant(32)
  ROOT %lt = pred[] compare(%i, %n), direction=LT
}}

ENTRY %main (x: bf16[8,4096], w: {dtype}[4096,4096]) -> bf16[8,4096] {{
  %x = bf16[8,4096]{{1,0}} parameter(0)
  %w = {dtype}[4096,4096]{{1,0}} parameter(1)
  %zero = s32[] constant(0)
  %t = (s32[], bf16[8,4096]{{1,0}}, {dtype}[4096,4096]{{1,0}}) tuple(%zero, %x, %w)
  %loop = (s32[], bf16[8,4096]{{1,0}}, {dtype}[4096,4096]{{1,0}}) while(%t), condition=%cond, body=%body, backend_config={{"known_trip_count":{{"n":"32"}}}}
  ROOT %y = bf16[8,4096]{{1,0}} get-tuple-element(%loop), index=1
}}
"""

_TABLE_TEXT = """HloModule m, is_scheduled=true

ENTRY %main (t: f32[32000,1024], i: s32[{rows},1]) -> bf16[{rows},1024] {{
  %t = f32[32000,1024]{{1,0}} parameter(0)
  %i = s32[{rows},1]{{1,0}} parameter(1)
  %c = bf16[32000,1024]{{1,0}} convert(%t), metadata={{op_name="jit(f)/convert_element_type" source_file="model.py" source_line=3}}
  ROOT %g = bf16[{rows},1024]{{1,0}} gather(%c, %i), offset_dims={{1}}, collapsed_slice_dims={{0}}, start_index_map={{0}}, index_vector_dim=1, slice_sizes={{1,1024}}
}}
"""

_SORT_TEXT = """HloModule m, is_scheduled=true

%less (a: f32[], b: f32[]) -> pred[] {{
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %lt = pred[] compare(%a, %b), direction=LT
}}

ENTRY %main (x: bf16[512,8192]) -> {out}[512,8192] {{
  %x = bf16[512,8192]{{1,0}} parameter(0)
  %c = f32[512,8192]{{1,0}} convert(%x), metadata={{op_name="jit(f)/convert_element_type" source_file="model.py" source_line=3}}
  {rest}
}}
"""


@dataclass(frozen=True)
class ConvertPairsPass(AnalysisPass):
    """Conversions between float types that pass over memory more often than they need.

    What it finds
        On TPUs and GPUs, kernels that do nothing but convert floats, where one of these holds:
        the value is the same in each iteration of the loop around it (weights cast in the body
        of a scan); only a part of the result is looked up; or it is converted up, sorted,
        sliced, or its maximum taken, and converted down again. Conversions that a fusion does
        on the way are free and give no finding, and neither do values that are kept in f32 to
        add up in it. XLA:CPU converts bf16 around its own operations, so nothing is said there.

    Why it matters
        Such a kernel is bound by memory: six bytes per element between f32 and bf16.

    Example
        ``jax.lax.scan(lambda c, _: (c @ w.astype(jnp.bfloat16), None), x, None, length=32)``.

    What to do
        Convert once in front of the loop, which takes half of the f32 weights' memory more;
        convert after a lookup; sort in the narrow type. ``hlo-lab rewrite move-converts PROGRAM``
        tries the first two without a change of the source.

    How it is verified
        Compile again. Two weights of 2048 x 8192 cast in 32 iterations, on gpu:h100: 2955 to
        998 us by the model, 3269 to 1405 by XLA's, 1957 us estimated; peak 169 to 203 MB.
        XLA:TPU and XLA:CPU move them out of the loop themselves: no difference, no finding. An
        embedding of 32,000 x 1024 cast before 2048 lookups, on tpu:v5e: 688 to 30 us by the
        compiler's cycles, 653 us estimated; XLA:GPU fuses it. Sorting 512 x 8192 in f32:
        tpu:v5e 160 to 76 us by the cycles, which leave out the sort, 89 us estimated;
        gpu:h100 97 to 75 us by the model, 17 us estimated.
    """

    code: ClassVar[str] = "PRC003"
    name: ClassVar[str] = "convert-pairs"
    examples: ClassVar[tuple[Example, ...]] = (
        Example("weights cast in a loop", _LOOP_TEXT.format(dtype="f32", convert="convert")),
        Example("narrow weights", _LOOP_TEXT.format(dtype="bf16", convert="copy"), finds=0),
        Example("a table cast before lookups", _TABLE_TEXT.format(rows=2048)),
        Example("as many lookups as rows", _TABLE_TEXT.format(rows=32000), finds=0),
        Example(
            "sorted in f32",
            _SORT_TEXT.format(
                out="bf16",
                rest="%s = f32[512,8192]{1,0} sort(%c), dimensions={1}, to_apply=%less\n"
                "  ROOT %d = bf16[512,8192]{1,0} convert(%s)",
            ),
        ),
        Example(
            "squared in f32",
            _SORT_TEXT.format(
                out="bf16",
                rest="%s = f32[512,8192]{1,0} multiply(%c, %c)\n"
                "  ROOT %d = bf16[512,8192]{1,0} convert(%s)",
            ),
            finds=0,
        ),
    )

    min_bytes: int = 1 << 20  # of the converted array
    most: float = 0.5  # share of a converted array that is looked up

    def run(self, module: Module, context: Context) -> Iterator[Finding]:
        """Yield a finding per source line and reason."""
        if not module.is_scheduled or module.warnings or context.machine.kind == "cpu":
            return
        flow = context.flow
        for group in fold(context, self._hits(context)):
            worst = group.worst
            words, advice, remedy = Why[worst.key].value
            shape = str(flow.shape(worst.at).without_layout())
            runs = float(context.cost.executions[worst.at])
            yield self.finding(
                module.instruction(worst.at),
                f"{place_text(module, flow.place(worst.at))} "
                f"{words.format(shape=shape, part=worst.text)}: "
                f"{seconds_text(group.seconds or 0.0)}{times_text(runs)}{group.times}",
                severity=time_severity(context, group.seconds),
                advice=advice,
                remedy=remedy,
                seconds=group.seconds,
                context=context,
            )

    def _hits(self, context: Context) -> Iterator[Hit]:
        flow, cost = context.flow, context.cost
        for at in cost.top_level.nonzero()[0].tolist():
            contents, shape, given = flow.contents(at), flow.shape(at), flow.operands(at)
            if not contents or not contents <= _ONLY or shape.is_tuple or len(given) != 1:
                continue
            types = {shape.dtype, flow.shape(given[0]).dtype}
            if len(types) == 1 or not types <= _FLOATS:
                continue
            if max(shape.bytes, flow.shape(given[0]).bytes) < self.min_bytes:
                continue
            runs, once = float(cost.executions[at]), float(cost.seconds[at])
            fewer = _runs_outside(context, given[0])
            if fewer < runs:
                yield Hit(at, once * (runs - fewer), key=Why.LOOP.name)
                continue
            part = _looked_up(context, at)
            if part is not None and part <= self.most:
                text = f"{part:.0%}" if part >= 0.01 else "less than 1%"
                yield Hit(at, once * runs * (1 - part), text=text, key=Why.PART.name)
                continue
            back = _back(context, at, flow.shape(given[0]).dtype)
            if back:
                # a copy to another layout, which XLA:TPU lets convert on the way, stays
                own = once * runs if "convert" in contents else 0.0
                seconds = sum(float(cost.seconds[one] * cost.executions[one]) for one in back)
                yield Hit(at, own + seconds, key=Why.ROUND_TRIP.name)


def _runs_outside(context: Context, value: int) -> float:
    """How often what makes a value runs, in front of the loops that hand it on unchanged."""
    made, _ = context.flow.origin(value, (), _THROUGH)
    return float(context.cost.executions[made])


def _looked_up(context: Context, at: int) -> float | None:
    """The share of a value's elements that lookups read; None where something reads it all."""
    flow, runs = context.flow, context.cost.executions
    found, count = readers(flow, at, _THROUGH), 0.0
    for reader in found:
        if flow.opcode(reader) not in _LOOKUPS or not _same_size(
            flow, flow.operands(reader)[0], at
        ):
            return None
        count += flow.shape(reader).element_count
    return count / flow.shape(at).element_count if found and runs[at] else None


def _same_size(flow: Flow, one: int, other: int) -> bool:
    return flow.shape(one).element_count == flow.shape(other).element_count


def _back(context: Context, at: int, narrow: str) -> list[int]:
    """The kernels that convert what was chosen from a widened value down again.

    Empty unless everything that reads the value chooses from it, and is then converted.
    """
    flow = context.flow
    if BITS[narrow] >= BITS[flow.shape(at).dtype]:
        return []
    found: list[int] = []
    for choice in readers(flow, at, _THROUGH):
        if flow.opcode(choice) not in _CHOICES or len(flow.operands(choice)) > _CARRIED:
            return []
        for back in readers(flow, choice, _THROUGH):
            if flow.opcode(back) != "convert" or flow.shape(back).dtype != narrow:
                return []
            found.append(kernel(flow, back))
    return [one for one in dict.fromkeys(found) if flow.contents(one) <= _ONLY]
