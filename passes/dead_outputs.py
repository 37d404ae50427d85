"""MEM003: results that nobody can need, and rows of a scan's outputs that nobody reads."""

# ruff: noqa: E501 - HLO text has long lines

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from hlo_lab.cost.aliasing import donated, parse_aliases
from hlo_lab.ir.module import Module
from hlo_lab.passkit.base import AnalysisPass, Example
from hlo_lab.passkit.context import Context
from hlo_lab.passkit.finding import Finding, Severity
from hlo_lab.passkit.folding import WORTH, Hit, fold, time_severity
from hlo_lab.passkit.patterns import HANDING_ON, Flow, Source
from hlo_lab.passkit.tracing import copied, definition, kernel, readers
from hlo_lab.passkit.wording import bytes_text, counted, place_text

_FILLS = frozenset(("broadcast", "constant", "copy", "convert", "iota", "reshape"))
_UPDATES = _FILLS | {"dynamic-update-slice"}
_LIMITS = re.compile(r"\[(\d+):(\d+)")
_NAMED = 3  # results that a message names
_UNCHANGED = (
    "is an argument unchanged",
    "are arguments unchanged",
    "Leave it out of the results and keep the caller's own, or donate the argument "
    "(jax.jit(..., donate_argnames=...)), which makes it the same buffer.",
)
_CONSTANT = (
    "is the same numbers at every call",
    "are the same numbers at every call",
    "Do not return it. The gradient of what the loss does not depend on is zeros: "
    "differentiate the other arguments alone, or make zeros in the caller.",
)
_TWICE = (
    "is another result once more",
    "are other results once more",
    "Return it once; each result is a buffer of its own.",
)
_Kind = tuple[str, str, str]

_STEP = """HloModule m, is_scheduled=true{header}

%add (l: f32[], r: f32[]) -> f32[] {{
  %l = f32[] parameter(0)
  %r = f32[] parameter(1)
  ROOT %lr = f32[] add(%l, %r)
}}

ENTRY %main (p: f32[1024,1024], x: f32[1024,1024]) -> (f32[1024,1024], f32[1024,1024]) {{
  %p = f32[1024,1024]{{1,0}} parameter(0), metadata={{op_name="state"}}
  %x = f32[1024,1024]{{1,0}} parameter(1), metadata={{op_name="x"}}
  %y = f32[1024,1024]{{1,0}} negate(%x)
  %second = f32[1024,1024]{{1,0}} {second}
  ROOT %t = (f32[1024,1024]{{1,0}}, f32[1024,1024]{{1,0}}) tuple(%y, %second)
}}
"""

_SCAN = """HloModule m, is_scheduled=true

%body (p: (s32[], f32[64,65536], f32[64,65536])) -> (s32[], f32[64,65536], f32[64,65536]) {{
  %p = (s32[], f32[64,65536]{{1,0}}, f32[64,65536]{{1,0}}) parameter(0)
  %i = s32[] get-tuple-element(%p), index=0
  %xs = f32[64,65536]{{1,0}} get-tuple-element(%p), index=1
  %ys = f32[64,65536]{{1,0}} get-tuple-element(%p), index=2
  %zero = s32[] constant(0)
  %one = s32[] constant(1)
  %x = f32[1,65536]{{1,0}} dynamic-slice(%xs, %i, %zero), dynamic_slice_sizes={{1,65536}}
  %y = f32[1,65536]{{1,0}} tanh(%x), metadata={{op_name="jit(f)/while/body/tanh"}}
  %new = f32[64,65536]{{1,0}} dynamic-update-slice(%ys, %y, %i, %zero)
  %next = s32[] add(%i, %one)
  ROOT %r = (s32[], f32[64,65536]{{1,0}}, f32[64,65536]{{1,0}}) tuple(%next, %xs, %new)
}}

%cond (c: (s32[], f32[64,65536], f32[64,65536])) -> pred[] {{
  %c = (s32[], f32[64,65536]{{1,0}}, f32[64,65536]{{1,0}}) parameter(0)
  %k = s32[] get-tuple-element(%c), index=0
  %n = s32[] constant(64)
  ROOT %lt = pred[] compare(%k, %n), direction=LT
}}

ENTRY %main (a: f32[64,65536], b: f32[64,65536]) -> f32[{rows},65536] {{
  %a = f32[64,65536]{{1,0}} parameter(0)
  %b = f32[64,65536]{{1,0}} parameter(1)
  %start = s32[] constant(0)
  %init = (s32[], f32[64,65536]{{1,0}}, f32[64,65536]{{1,0}}) tuple(%start, %a, %b)
  %loop = (s32[], f32[64,65536]{{1,0}}, f32[64,65536]{{1,0}}) while(%init), condition=%cond, body=%body
  %all = f32[64,65536]{{1,0}} get-tuple-element(%loop), index=2
  ROOT %out = f32[{rows},65536]{{1,0}} slice(%all), slice={{[{first}:64], [0:65536]}}
}}
"""


@dataclass(frozen=True)
class DeadOutputsPass(AnalysisPass):
    """Results that nobody can need: arguments, constants and other results once more.

    What it finds
        Results that are an argument unchanged and not donated, the same numbers at every call
        (gradients of what the loss does not depend on), or another result once more. And
        outputs that a scan stacks, of which only the first or last few rows are read. What no
        result depends on, such as a loop's carry that nobody reads, the compiler drops itself.

    Why it matters
        Each result is a buffer of its own, which is written at every call and held by the
        caller: JAX passes no argument through.

    Example
        ``return {"w": p["w"] - rate * g, "frozen": p["frozen"]}`` copies ``frozen``.
        ``jax.lax.scan(step, h, xs)[1][-1]`` writes every ``y`` for the last one.

    What to do
        Return what changed; ``jax.value_and_grad(loss, argnums=...)`` by what is trained; the
        carry of the scan in place of ``ys[-1]``. Donated arguments are passed on for free.

    How it is verified
        Compile again without the result. An unchanged 16.8 MB argument: 158 to 82 us by the
        model on tpu:v5e (saves 76 us, as estimated), 17.5 to 17.0 ms on cpu, 39.7 to 28.5 us on
        gpu:h100. Zeros of 16.8 MB: 130 to 69 us on tpu:v5e (127 to 66 by the cycles), 7.5 to 6.6
        ms on cpu, 14.8 to 8.6 us on gpu:h100. The peak is lower by the bytes of the estimate.
        The last of 64 rows of a scan, 33.5 MB, from the carry instead: 608 to 460 us on tpu:v5e
        (40 us estimated: a copy of the carry goes too), 121.1 to 117.3 ms on cpu, 709 to 611 us
        on gpu:h100; peak 72.4 to 38.3 and 76.0 to 42.5 MB on the last two.
    """

    code: ClassVar[str] = "MEM003"
    name: ClassVar[str] = "dead-output"
    examples: ClassVar[tuple[Example, ...]] = (
        Example("an argument unchanged", _STEP.format(header="", second="copy(%p)")),
        Example(
            "an argument unchanged, donated",
            _STEP.format(
                header=", input_output_alias={ {1}: (0, {}, may-alias) }", second="copy(%p)"
            ),
            finds=0,
        ),
        Example("a result twice", _STEP.format(header="", second="copy(%y)")),
        Example("two results", _STEP.format(header="", second="tanh(%y)"), finds=0),
        Example("the last row of what a scan stacked", _SCAN.format(rows=1, first=63)),
        Example("half of it", _SCAN.format(rows=32, first=32), finds=0),
    )

    min_bytes: int = 1 << 20  # of results of one kind, or of a scan's output
    most: float = 0.125  # share of a scan's rows that is read, at most

    def run(self, module: Module, context: Context) -> Iterator[Finding]:
        """Yield at most one finding per kind of result, and one per stacked output."""
        if module.warnings:
            return
        for kind, results in _results(module, context).items():
            if sum(hit.bytes or 0 for hit in results) >= self.min_bytes:
                yield self._dead(module, context, kind, results)
        yield from self._unread(module, context)

    def _dead(self, module: Module, context: Context, kind: _Kind, results: list[Hit]) -> Finding:
        known = [hit.seconds for hit in results if hit.seconds is not None]
        seconds = sum(known) if known else None
        size = sum(hit.bytes or 0 for hit in results)
        ranked = sorted(results, key=lambda hit: -(hit.bytes or 0))
        named = ", ".join(f"{hit.text} {bytes_text(hit.bytes or 0)}" for hit in ranked[:_NAMED])
        more = f" and {len(ranked) - _NAMED} more" if len(ranked) > _NAMED else ""
        one, several, advice = kind
        worth = max(time_severity(context, seconds), self._size(context, size))
        return self.finding(
            module.instruction(ranked[0].at),
            f"{counted(len(results), 'result')} {one if len(results) == 1 else several}, "
            f"{bytes_text(size)} written at every call: {named}{more}",
            severity=worth,
            advice=advice,
            seconds=seconds,
            bytes=size,
            context=context,
        )

    def _size(self, context: Context, size: int) -> Severity:
        worth = size >= WORTH * context.memory.peak_bytes
        return Severity.WARNING if worth else Severity.NOTE

    def _unread(self, module: Module, context: Context) -> Iterator[Finding]:
        for group in fold(context, self._rows(module, context)):
            worst = group.worst
            yield self.finding(
                module.instruction(worst.at),
                f"{place_text(module, worst.at)} is stacked by a loop{group.times}, and "
                f"{worst.text}",
                severity=max(
                    time_severity(context, group.seconds), self._size(context, group.bytes or 0)
                ),
                advice="Carry what is read: the carry of the scan has the last value, and "
                "jax.lax.scan(...)[0] reads it; return None in place of the output.",
                seconds=group.seconds,
                bytes=group.bytes,
                context=context,
            )

    def _rows(self, module: Module, context: Context) -> Iterator[Hit]:
        """Outputs of loops of which a few rows are read."""
        flow, cost = context.flow, context.cost
        for at in np.nonzero(module.opcode_mask("get-tuple-element"))[0].tolist():
            (loop,) = flow.operands(at)[:1] or [at]
            shape = flow.shape(at)
            if flow.opcode(loop) != "while" or not shape.is_array or not shape.rank:
                continue
            if shape.bytes < self.min_bytes:
                continue
            update = _update(flow, loop, flow.member(at))
            read = None if update is None else _rows_read(flow, at)
            if update is None or read is None or read > self.most * shape.dims[0]:
                continue
            unread = int(shape.padded_bytes * (1 - read / shape.dims[0]))
            seconds = unread * float(cost.executions[loop]) / context.machine.memory_bandwidth
            alone = kernel(flow, update)
            if flow.contents(alone) <= _UPDATES:
                seconds = float(cost.seconds[alone] * cost.executions[alone])
            start = flow.source(flow.operands(loop)[0], (flow.member(at),))
            if _is_constant(flow, start):
                seconds += float(cost.seconds[start[0]] * cost.executions[start[0]])
            yield Hit(
                at=flow.place(definition(flow, flow.operands(update)[1])[0]),
                seconds=seconds,
                bytes=unread if shape.memory_space == 0 else None,
                text=f"{counted(read, 'row')} of {shape.dims[0]} {'is' if read == 1 else 'are'} read: "
                f"{bytes_text(unread)} are written for nothing",
                key=str(shape.without_layout()),
            )


def _update(flow: Flow, loop: int, member: int) -> int | None:
    """What writes into row after row of a loop's member that the loop does not read."""
    body = flow.callee(loop, "body")
    if body is None:
        return None
    update, left = definition(flow, flow.root(body), (member,))
    if left or flow.opcode(update) != "dynamic-update-slice":
        return None
    whole, rows = [*flow.operands(update), update][:2]
    kept, path = definition(flow, whole)
    rank = flow.shape(update).rank
    if path != (member,) or flow.computation_of(kept) != body or not rank:
        return None
    return update if flow.shape(rows).dims[:1] == (1,) else None


def _results(module: Module, context: Context) -> dict[_Kind, list[Hit]]:
    """Results that nobody can need, by what they are; none where all are constants."""
    flow, cost = context.flow, context.cost
    root = int(module.computation_root[module.entry])
    outputs = flow.operands(root) if flow.opcode(root) == "tuple" else [root]
    aliases = parse_aliases(module.header.get("input_output_alias", ""))
    aliased, given = {path[0] if path else 0 for path, _, _ in aliases}, donated(module)
    found: dict[_Kind, list[Hit]] = {}
    seen: dict[Source, int] = {}
    for number, output in enumerate(outputs):
        shape = flow.shape(output)
        if not shape.is_array:
            continue
        source, kernels = copied(flow, output)
        if number in aliased:
            seen.setdefault(source, number)
            continue
        made, text = source[0], f"result {number}"
        if flow.opcode(made) == "parameter" and not source[1]:
            if int(module.parameter_number[made]) in given:
                continue
            kind, at = _UNCHANGED, made
            text = flow.op_name(made) or module.instruction_names[made]
        elif _is_constant(flow, source):
            kind, at = _CONSTANT, made
            kernels = [*kernels, made]
        elif source in seen:
            kind, at = _TWICE, made
            text = f"result {number} (as {seen[source]})"
        else:
            seen[source] = number
            continue
        alone = [one for one in kernels if len(flow.users(one)) <= 1]
        seconds = sum(float(cost.seconds[one] * cost.executions[one]) for one in alone)
        # before optimisation nothing copies yet
        known = seconds if module.is_scheduled else None
        found.setdefault(kind, []).append(Hit(at, known, shape.padded_bytes, text))
    if len(found.get(_CONSTANT, [])) == len(outputs):
        del found[_CONSTANT]  # a program that makes initial values
    return found


def _is_constant(flow: Flow, source: Source) -> bool:
    """Whether a kernel fills an array with numbers that depend on nothing."""
    at, path = source
    if path or not flow.contents(at) <= _FILLS:
        return False
    operands = flow.operands(at)
    return all(flow.opcode(flow.source(one)[0]) == "constant" for one in operands)


def _rows_read(flow: Flow, at: int) -> int | None:
    """How many rows from either end of a loop's output are read; None for all, or unknown."""
    length, most = flow.shape(at).dims[0], 0
    for reader in readers(flow, at, HANDING_ON | {"copy", "copy-start"}):
        if flow.opcode(reader) not in ("slice", "slice-start"):
            return None
        text = flow.module.attributes[flow.module.attribute[reader]].get("slice", "")
        limits = _LIMITS.findall(text)
        if not limits:
            return None
        first, last = int(limits[0][0]), int(limits[0][1])
        if first != 0 and last != length:
            return None
        most = max(most, last - first)
    return most or None
