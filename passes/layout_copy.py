"""LAY001: kernels that only bring arguments and results into another order."""

# ruff: noqa: E501 - HLO text has long lines

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from hlo_lab.ir.module import Module
from hlo_lab.ir.shapes import Shape
from hlo_lab.passkit.base import AnalysisPass, Example
from hlo_lab.passkit.context import Context
from hlo_lab.passkit.finding import Finding, Severity
from hlo_lab.passkit.folding import Hit, fold, share, time_severity
from hlo_lab.passkit.patterns import HANDING_ON, Flow
from hlo_lab.passkit.tracing import is_joined
from hlo_lab.passkit.wording import counted, place_text, seconds_text, times_text

_AUTO = (
    "let jax.jit choose: in_shardings and out_shardings of "
    "jax.experimental.layout.Format(Layout.AUTO), and the arguments put in "
    "compiled.input_formats. New data of each call is better made in the other order."
)


class Why(enum.Enum):
    """Where a kernel stands that only changes the order: the words, the advice, the remedy."""

    ARGUMENT = (
        "argument {what} wants",
        f"Keep and pass it transposed, or {_AUTO}",
        ("auto-layouts",),
    )
    RESULT = (
        "{what}: a result is brought into the order in which arrays are returned",
        f"Return it transposed, or {_AUTO}",
        ("auto-layouts",),
    )
    INSIDE = ("", "", ())


_ONLY = frozenset(("copy", "transpose", "reshape"))
_SOURCE = HANDING_ON | frozenset(("copy-start", "dynamic-slice", "slice"))
_MOVED = _SOURCE | _ONLY | {"slice-start", "slice-done"}
_AS_GIVEN = HANDING_ON | {"copy", "convert"}
_LEAVES = HANDING_ON | {"tuple"}
_HELD = frozenset(("dot", "convolution", "sort", "custom-call", "gather", "scatter"))

_TEXT = """HloModule m, is_scheduled=true

%wanted (a: f32[2048,2048]) -> f32[2048,2048] {{
  %a = f32[2048,2048]{{{order}}} parameter(0)
  ROOT %n = f32[2048,2048]{{{order}}} negate(%a)
}}

ENTRY %main (x: f32[2048,2048]) -> f32[2048,2048] {{
  %x = f32[2048,2048]{{1,0}} parameter(0)
  {first}
  %y = f32[2048,2048]{{{order}}} fusion(%c), kind=kLoop, calls=%wanted, metadata={{op_name="jit(f)/neg" source_file="model.py" source_line=4}}
  ROOT {last}
}}
"""
_NEGATED = "%y2 = f32[2048,2048]{{{order}}} negate(%y)"


@dataclass(frozen=True)
class LayoutCopyPass(AnalysisPass):
    """Kernels that only bring arguments and results into another order.

    What it finds
        Copies and transposes that change the order of elements in memory, in a kernel of their
        own, where the user decides about one end: an argument of the program or a result. The
        rest, between two kernels or in loops, is summed up in one note. Not found: transposes
        that became a matter of layout and cost nothing, copies that keep the order (for
        donation, loops or another memory), and those that compute on the way.

    Why it matters
        Such a kernel reads and writes the whole array, at every call or in every iteration.

    Example
        ``jax.jit(lambda x: x.T * 2)``: on a TPU x is copied into the other order first.

    What to do
        Pass weights and states transposed, or let the compiler choose the layouts of arguments
        and results, ``Format(Layout.AUTO)``; ``hlo-lab rewrite auto-layouts PROGRAM`` tries it.
        A transpose between two products is best tried: folding it into the einsum removes it
        around a dense layer, but on TPUs attention written with einsum alone misses a kernel
        that XLA has for the transposed form.

    How it is verified
        Compile again with layouts left to the compiler. ``x.T * 2``, 4096 x 4096 f32, on
        tpu:v5e: 354 to 205 us by the cycles, 412 to 190 by the model, 222 us estimated. Two
        convolutions in NCHW: gpu:h100 69 to 41 us by the model, 25 us estimated; cpu 80.9 to
        76.7 ms, 4.2 ms estimated. A training step with embeddings of 1,000,000 and 200,000 x
        64, tpu:v5e: 3635 to 1926 us by the cycles, 3174 to 1856 by the model, where the
        estimate of 3030 us counts copies whose work then moves elsewhere. Of 41 small programs
        with a finding all became faster by the model; the estimate was 1.0 times the saving in
        the median (0.2 to 4.2). On cpu only results have findings: an argument keeps its order
        there. In front of and behind sorts it was refuted (tpu:v5e), so they have none; nor has an
        argument that is returned in another order, which is copied in any (``kernels.py:reorder``:
        14 us estimated, 1 us saved on tpu:v5e).
        Attention with transposes written as einsum was refuted too, tpu:v5e 193 to 991 us, so
        what stands between kernels is a note.
    """

    code: ClassVar[str] = "LAY001"
    name: ClassVar[str] = "layout-copy"
    examples: ClassVar[tuple[Example, ...]] = (
        Example(
            "an argument",
            _TEXT.format(
                order="0,1",
                first="%c = f32[2048,2048]{0,1} copy(%x)",
                last=_NEGATED.format(order="0,1"),
            ),
        ),
        Example(
            "a result",
            _TEXT.format(
                order="0,1",
                first="%c = f32[2048,2048]{0,1} bitcast(%x)",
                last="%y2 = f32[2048,2048]{1,0} copy(%y)",
            ),
        ),
        Example(
            "an argument returned in another order, which is a copy in any order",
            """HloModule m, is_scheduled=true

ENTRY %main (x: f32[2048,1024]) -> f32[1024,2048] {
  %x = f32[2048,1024]{1,0} parameter(0)
  %t = f32[1024,2048]{0,1} bitcast(%x)
  ROOT %c = f32[1024,2048]{1,0} copy(%t), metadata={op_name="jit(f)/transpose"}
}
""",
            finds=0,
        ),
        Example(
            "the order stays",
            _TEXT.format(
                order="1,0",
                first="%c = f32[2048,2048]{1,0} copy(%x)",
                last=_NEGATED.format(order="1,0"),
            ),
            finds=0,
        ),
        Example(
            "the layout does it",
            _TEXT.format(
                order="0,1",
                first="%c = f32[2048,2048]{0,1} bitcast(%x)",
                last=_NEGATED.format(order="0,1"),
            ),
            finds=0,
        ),
    )

    min_bytes: int = 1 << 20  # of the array
    min_share: float = 0.001  # of the step's time, for a line to be named
    notes: bool = True  # also sum up what stands between two kernels

    def run(self, module: Module, context: Context) -> Iterator[Finding]:
        """Yield a finding per source line and reason, then one note on the rest."""
        if not module.is_scheduled or module.warnings:
            return
        groups = fold(context, self._hits(context))
        inside = [group for group in groups if group.worst.key == Why.INSIDE.name]
        for group in groups:
            if group in inside or share(context, group.seconds) < self.min_share:
                continue
            worst = group.worst
            words, advice, remedy = Why[worst.key].value
            yield self.finding(
                module.instruction(worst.at),
                f"{words.format(what=worst.text or _named(context, worst.at))}, "
                f"{seconds_text(group.seconds or 0.0)}"
                f"{times_text(float(context.cost.executions[worst.at]))}{group.times}",
                severity=time_severity(context, group.seconds),
                advice=advice,
                remedy=remedy,
                seconds=group.seconds,
                context=context,
            )
        spent = sum(group.seconds or 0.0 for group in inside)
        if self.notes and inside and time_severity(context, spent) is Severity.WARNING:
            most = inside[0].worst.at
            count = sum(len(group.hits) for group in inside)
            yield self.finding(
                module.instruction(most),
                f"{counted(count, 'kernel')} between others only change"
                f"{'s' if count == 1 else ''} the order of elements, {seconds_text(spent)}, "
                f"{share(context, spent):.1%} of the step's time; the largest is "
                f"{_named(context, most)}",
                severity=Severity.NOTE,
                advice="Try another order of dimensions there, and compile again: the compiler "
                "may move the copy elsewhere.",
                context=context,
            )

    def _hits(self, context: Context) -> Iterator[Hit]:
        flow, cost = context.flow, context.cost
        for at in cost.top_level.nonzero()[0].tolist():
            shape = flow.shape(at)
            if not shape.is_array or shape.bytes < self.min_bytes:
                continue
            if not _only_reorders(flow, at):
                continue
            if _is_result(flow, at) and _is_given(flow, at):
                continue  # in whatever order, a result is not the argument itself
            why, text = _why(context, at)
            seconds = float(cost.seconds[at] * cost.executions[at])
            yield Hit(at, seconds, text=text, key=why.name)


def _only_reorders(flow: Flow, at: int) -> bool:
    """Whether a kernel does nothing but bring one array into another order."""
    contents = flow.contents(at)
    only = bool(contents) and contents <= _ONLY and len(flow.operands(at)) == 1
    return only and _reorders(flow, at)


def _reorders(flow: Flow, at: int) -> bool:
    """Whether elements change places; copies to another memory or tile do not count."""
    if flow.opcode(at) != "fusion":
        given = flow.shape(flow.operands(at)[0])
        return flow.opcode(at) != "copy" or _order(given) != _order(flow.shape(at))
    inside = flow.callee(at, "calls")
    if inside is None:
        return False
    start = flow.module.computation_start
    rows = range(int(start[inside]), int(start[inside + 1]))
    return any(flow.opcode(one) in _ONLY and _reorders(flow, one) for one in rows)


def _order(shape: Shape) -> list[int]:
    """The dimensions from minor to major, without those of one element."""
    return [dim for dim in shape.minor_to_major if shape.dims[dim] > 1]


def _why(context: Context, at: int) -> tuple[Why, str]:
    """The reason for a copy, and words for what wanted it."""
    flow, module = context.flow, context.module
    given, users = flow.operands(at)[0], flow.kernel_users(at)
    if not _has_dimensions(flow.shape(given), flow.shape(at)):
        return Why.INSIDE, ""
    if _is_sort(flow, given) or any(_is_sort(flow, user) for user in users):
        return Why.INSIDE, ""  # XLA chooses its order last of all
    if _is_result(flow, at):
        # two in a row go by an order of the compiler's own
        twice = _only_reorders(flow, flow.source(given, (), HANDING_ON)[0])
        return (Why.INSIDE if twice else Why.RESULT), ""
    made, _ = flow.origin(given, (), _SOURCE)
    named = flow.opcode(made) == "parameter" and flow.computation_of(made) == module.entry
    # XLA:CPU keeps to the order that an argument has, where it may choose
    if not named or context.machine.kind == "cpu":
        return Why.INSIDE, ""
    if not _has_dimensions(flow.shape(made), flow.shape(at)):
        return Why.INSIDE, ""
    if any(flow.contents(user) & _HELD for user in flow.kernel_users(made) if user != at):
        return Why.INSIDE, ""  # something else wants the order it has
    reader = next((user for user in users if flow.opcode(user) != "tuple"), at)
    name = module.metadatas[module.metadata[made]].op_name or module.instruction_names[made]
    shape = flow.shape(made).without_layout()
    wanting = _place(context, reader)
    return Why.ARGUMENT, f"{name}, {shape}, is brought into the order that {wanting}"


def _is_result(flow: Flow, at: int) -> bool:
    """Whether the program returns it, and does nothing else with it."""
    here, users = flow.computation_of(at), flow.kernel_users(at)
    root = flow.root(here)
    # a root that is no tuple may only hand it on
    leaves = flow.opcode(root) in _LEAVES and all(user == root for user in users)
    return here == flow.module.entry and (at == root or leaves)


def _is_given(flow: Flow, at: int) -> bool:
    """Whether what is brought into another order is an argument of the program."""
    made, _ = flow.origin(flow.operands(at)[0], (), _MOVED)
    if is_joined(flow, made):
        made, _ = flow.origin(flow.operands(made)[0], (), _MOVED)
    return flow.opcode(made) == "parameter" and flow.computation_of(made) == flow.module.entry


def _is_sort(flow: Flow, at: int) -> bool:
    return "sort" in flow.contents(flow.source(at, (), _AS_GIVEN)[0])


def _has_dimensions(given: Shape, wanted: Shape) -> bool:
    """Whether an order of ``given``'s dimensions can be that of ``wanted``, or of a part of it."""
    left = Counter(size for size in given.dims if size > 1)
    return Counter(size for size in wanted.dims if size > 1) <= left


def _place(context: Context, at: int) -> str:
    return place_text(context.module, context.flow.place(at))


def _named(context: Context, at: int) -> str:
    """``transpose at model.py:3, f32[8,128]``."""
    return f"{_place(context, at)}, {context.flow.shape(at).without_layout()}"
