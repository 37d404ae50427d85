"""IDX001: gathers that test their indices, scatters whose ordered indices are sorted again."""

# ruff: noqa: E501 - HLO text has long lines

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from hlo_lab.ir.module import Module
from hlo_lab.passkit.base import AnalysisPass, Example
from hlo_lab.passkit.context import Context
from hlo_lab.passkit.finding import Finding
from hlo_lab.passkit.folding import Hit, fold, time_severity
from hlo_lab.passkit.patterns import HANDING_ON, MOVES, Flow, Source
from hlo_lab.passkit.tracing import SAME_ELEMENTS, definition, kernel
from hlo_lab.passkit.wording import place_text, times_text

_MOST = 64  # instructions that a walk through the arithmetic of indices looks at
# Opcodes that indices go through between their source and the test of their range.
_ARITHMETIC = MOVES | frozenset(
    ("add", "and", "clamp", "compare", "concatenate", "reduce", "select", "custom-call")
)
_MONOTONE = frozenset(("add", "divide", "maximum", "minimum", "multiply"))
_KEEPS = {"select": -1, "clamp": 1, "custom-call": 0}  # which operand is the index
_ROOT = HANDING_ON | {"copy"}

_FILL = """HloModule m, is_scheduled=true

%take (t: f32[50000,128], i: s32[65536]) -> f32[65536,128] {{
  %t = f32[50000,128]{{1,0}} parameter(0)
  %i = s32[65536]{{0}} parameter(1)
  ROOT %g = f32[65536,128]{{1,0}} gather(%t, %i), offset_dims={{1}}, collapsed_slice_dims={{0}}, start_index_map={{0}}, index_vector_dim=1, slice_sizes={{1,128}}
}}

%inside (j: s32[65536]) -> pred[65536] {{
  %j = s32[65536]{{0}} parameter(0)
  %zero = s32[] constant(0)
  %zeros = s32[65536]{{0}} broadcast(%zero), dimensions={{}}
  %ge = pred[65536]{{0}} compare(%j, %zeros), direction=GE
  %last = s32[] constant(49999)
  %lasts = s32[65536]{{0}} broadcast(%last), dimensions={{}}
  %le = pred[65536]{{0}} compare(%j, %lasts), direction=LE
  ROOT %and = pred[65536]{{0}} and(%ge, %le)
}}

%fill (r: f32[65536,128], p: pred[65536]) -> f32[65536,128] {{
  %p = pred[65536]{{0}} parameter(1)
  %pb = pred[65536,128]{{1,0}} broadcast(%p), dimensions={{0}}
  %r = f32[65536,128]{{1,0}} parameter(0)
  %nan = f32[] constant(nan)
  %nans = f32[65536,128]{{1,0}} broadcast(%nan), dimensions={{}}
  ROOT %s = f32[65536,128]{{1,0}} select(%pb, %r, %nans)
}}

ENTRY %main (table: f32[50000,128], ids: s32[65536], other: s32[65536]) -> f32[65536,128] {{
  %table = f32[50000,128]{{1,0}} parameter(0)
  %ids = s32[65536]{{0}} parameter(1)
  %other = s32[65536]{{0}} parameter(2)
  %rows = f32[65536,128]{{1,0}} fusion(%table, %ids), kind=kCustom, calls=%take
  %mask = pred[65536]{{0}} fusion(%{tested}), kind=kLoop, calls=%inside
  ROOT %out = f32[65536,128]{{1,0}} fusion(%rows, %mask), kind=kLoop, calls=%fill
}}
"""

_SORTED = """HloModule m, is_scheduled=true

%less (a: s32[], b: s32[], c: s32[], d: s32[]) -> pred[] {{
  %a = s32[] parameter(0)
  %b = s32[] parameter(1)
  %c = s32[] parameter(2)
  %d = s32[] parameter(3)
  ROOT %lt = pred[] compare(%a, %b), direction=LT
}}

%add (l: f32[], r: f32[]) -> f32[] {{
  %l = f32[] parameter(0)
  %r = f32[] parameter(1)
  ROOT %lr = f32[] add(%l, %r)
}}

ENTRY %main (table: f32[65536,128], rows: f32[65536,128], ids: s32[65536]) -> f32[65536,128] {{
  %table = f32[65536,128]{{1,0}} parameter(0)
  %rows = f32[65536,128]{{1,0}} parameter(1)
  %ids = s32[65536]{{0}} parameter(2)
  %places = s32[65536]{{0}} iota(), iota_dimension=0
  %user = (s32[65536]{{0}}, s32[65536]{{0}}) sort(%ids, %places), dimensions={{0}}, to_apply=%less, metadata={{op_name="jit(f)/sort"}}
  %ordered = s32[65536]{{0}} get-tuple-element(%user), index={member}
  %again = (s32[65536]{{0}}, s32[65536]{{0}}) sort(%ordered, %places), dimensions={{0}}, to_apply=%less, metadata={{op_name="jit(f)/scatter-add"}}
  %keys = s32[65536]{{0}} get-tuple-element(%again), index=0
  %order = s32[65536]{{0}} get-tuple-element(%again), index=1
  %moved = f32[65536,128]{{1,0}} gather(%rows, %order), offset_dims={{1}}, collapsed_slice_dims={{0}}, start_index_map={{0}}, index_vector_dim=1, slice_sizes={{1,128}}
  ROOT %new = f32[65536,128]{{1,0}} scatter(%table, %keys, %moved), update_window_dims={{1}}, inserted_window_dims={{0}}, scatter_dims_to_operand_dims={{0}}, index_vector_dim=1, indices_are_sorted=true, to_apply=%add
}}
"""


@dataclass(frozen=True)
class IndicesPass(AnalysisPass):
    """Gathers that test their indices, and scatters that sort indices in order already.

    What it finds
        On TPUs: a pass over what a gather took, to put NaN (or the smallest integer) where
        an index was out of range, as ``jnp.take`` and ``jnp.take_along_axis`` do by default;
        and the sort that XLA:TPU puts before a scatter whose indices are evidently in order:
        an ``arange``, the result of a sort, or values in the order of their ``argsort``.

    Why it matters
        The test of the range reads and writes all that was taken once more. The sort puts
        the updates in order too.

    Example
        ``jnp.take(table, ids, axis=0)``; ``x.at[jnp.sort(ids)].add(rows)``.

    What to do
        ``jnp.take(..., mode="clip")`` takes the nearest row instead, at no cost; where all
        indices are in range, ``mode="promise_in_bounds"`` says so. ``indices_are_sorted=True``
        in ``.at[ids].add(rows, ...)`` and ``jax.ops.segment_sum``. ``unique_indices=True`` made
        no difference to any program that was tried.

    How it is verified
        Compile again with the promise. 65,536 rows of 128 from a table of 50,000, tpu:v5e: 240
        to 125 us by the cycles and the model (99 us estimated). An arange of 32,768 as the
        indices of a scatter: 227 to 196 us by the model (2 us estimated, the sort alone, for
        which XLA:TPU gives no cycles); sorted ones, 65,536: 265 to 261 us (2.5 us estimated);
        the compiler's own peak stays. On cpu and gpu:h100 the test is fused into the gather
        (3.87 to 3.73 ms, 46.9 to 45.5 us), and no scatter is sorted: no finding there.
    """

    code: ClassVar[str] = "IDX001"
    name: ClassVar[str] = "indices"
    examples: ClassVar[tuple[Example, ...]] = (
        Example("rows that are tested for their range", _FILL.format(tested="ids")),
        Example("a mask of the program's own", _FILL.format(tested="other"), finds=0),
        Example("sorted indices, sorted again", _SORTED.format(member=0)),
        Example("indices in another order", _SORTED.format(member=1), finds=0),
    )

    def run(self, module: Module, context: Context) -> Iterator[Finding]:
        """Yield a finding per source line."""
        if not module.is_scheduled or module.warnings or context.machine.kind != "tpu":
            return
        flow = context.flow
        for group in fold(context, _tests(module, context)):
            worst = group.worst
            yield self.finding(
                module.instruction(worst.at),
                f"{place_text(module, flow.place(worst.at))} takes {worst.text}"
                f"{times_text(float(context.cost.executions[kernel(flow, worst.at)]))}"
                f"{group.times} and then looks at all of it again, for indices out of range",
                severity=time_severity(context, group.seconds),
                advice='mode="clip" takes the nearest for free; mode="promise_in_bounds" where '
                "no index is out of range.",
                remedy=("promise-indices{in_bounds=true}",),
                seconds=group.seconds,
                context=context,
            )
        for group in fold(context, _sorts(module, context)):
            worst = group.worst
            yield self.finding(
                module.instruction(worst.at),
                f"{place_text(module, flow.place(worst.at))} sorts its indices{group.times}, "
                f"which {worst.text}",
                severity=time_severity(context, group.seconds),
                advice="indices_are_sorted=True, where none is negative: those count from the end.",
                remedy=("promise-indices{in_bounds=true}",),
                seconds=group.seconds,
                context=context,
            )


def _tests(module: Module, context: Context) -> Iterator[Hit]:
    """Kernels that put a fill value where the index of a gather was out of range."""
    flow, cost = context.flow, context.cost
    for at in np.nonzero(module.opcode_mask("select"))[0].tolist():
        mask, value, fill = flow.operands(at)[:3]
        gather, _ = definition(flow, value, (), SAME_ELEMENTS)
        if flow.opcode(gather) != "gather":
            continue
        if flow.opcode(definition(flow, fill)[0]) != "constant":
            continue
        whole = kernel(flow, at)
        made, path = definition(flow, whole, (), _ROOT)
        if made != at or path or not cost.top_level[whole] or whole == kernel(flow, gather):
            continue
        tested, compares = _sources(flow, mask)
        indices, _ = _sources(flow, flow.operands(gather)[1])
        if not {"GE", "LE"} <= compares or not tested & indices:
            continue
        kernels = {whole}
        test = kernel(flow, flow.source(definition(flow, mask)[0])[0])
        if cost.top_level[test] and flow.kernel_users(test) == [whole]:
            kernels.add(test)
        seconds = sum(float(cost.seconds[one] * cost.executions[one]) for one in kernels)
        yield Hit(at, seconds, text=str(flow.shape(gather).without_layout()))


def _sorts(module: Module, context: Context) -> Iterator[Hit]:
    """Sorts that the compiler made for a scatter, of indices that are in order."""
    flow, cost = context.flow, context.cost
    for at in np.nonzero(module.opcode_mask("sort"))[0].tolist():
        if "scatter" not in flow.op_name(at).rpartition("/")[2]:
            continue
        why = _in_order(flow, flow.operands(at)[0])
        if why is not None:
            yield Hit(at, float(cost.seconds[at] * cost.executions[at]), text=why)


def _in_order(flow: Flow, at: int) -> str | None:
    """Why indices never fall along their first dimension; None where that does not show."""
    for _ in range(_MOST):
        at, path = _index(flow, at)
        opcode, operands = flow.opcode(at), flow.operands(at)
        if opcode == "iota":
            return "count up"
        if opcode == "sort" and path in ((), (0,)):
            return "a sort put in order"
        if opcode == "gather":
            order, path = _index(flow, operands[1])
            by_key = flow.opcode(order) == "sort" and path != (0,)
            same = by_key and _index(flow, flow.operands(order)[0]) == _index(flow, operands[0])
            return "are in the order of their argsort" if same else None
        if opcode not in _MONOTONE or path:
            return None
        varying = [one for one in operands if flow.opcode(_index(flow, one)[0]) != "constant"]
        if len(varying) != 1:
            return None
        at = varying[0]
    return None


def _index(flow: Flow, at: int) -> Source:
    """What indices are, past what JAX and XLA do to keep them in range."""
    for _ in range(_MOST):
        at, path = definition(flow, at, (), MOVES)
        opcode, operands = flow.opcode(at), flow.operands(at)
        if path or opcode not in _KEEPS or not operands:
            break
        # of a select between an index and itself plus the length: the index
        at = operands[_KEEPS[opcode] if len(operands) > 1 else 0]
    return at, path


def _sources(flow: Flow, at: int) -> tuple[set[int], set[str]]:
    """What indices or a test of them come from, and the directions of its comparisons."""
    found: set[int] = set()
    compares: set[str] = set()
    waiting, seen = [at], {at}
    while waiting and len(seen) < _MOST:
        one, path = definition(flow, waiting.pop(), (), MOVES)
        opcode = flow.opcode(one)
        if opcode == "compare":
            compares.add(flow.module.attributes[flow.module.attribute[one]].get("direction", ""))
        if opcode in _ARITHMETIC and not path:
            fresh = [each for each in flow.operands(one) if each not in seen]
            seen.update(fresh)
            waiting += fresh
        elif opcode not in ("constant", "iota"):
            found.add(one)
    return found, compares
