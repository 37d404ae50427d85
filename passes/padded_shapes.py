"""CMP003: work on rows that only pad a shape."""

# ruff: noqa: E501 - HLO text has long lines

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from hlo_lab.cost.tables import attributes_at, integers
from hlo_lab.cost.windows import parse_dim_labels
from hlo_lab.ir.module import Module
from hlo_lab.passkit.base import AnalysisPass, Example
from hlo_lab.passkit.context import Context
from hlo_lab.passkit.finding import Finding, Severity
from hlo_lab.passkit.folding import Hit, fold, time_severity
from hlo_lab.passkit.patterns import ELEMENTWISE, HANDING_ON, Flow
from hlo_lab.passkit.tracing import definition, kernel, readers
from hlo_lab.passkit.wording import counted, place_text

_Rows = tuple[int, int]  # an instruction and which of its dimensions is padded
_SAME_DIMS = ELEMENTWISE | {"copy", "convert", "copy-start", "copy-done", "bitcast-convert"}
_SPREAD = HANDING_ON | {"broadcast", "convert", "copy", "reshape"}
_MAX_SEEN = 4096  # values that one padding reaches
_PADDED, _MASKED, _DYNAMIC = "padded", "masked", "dynamic"
_ADVICE = {
    _PADDED: "Pad to a smaller size: buckets of a fixed step (multiples of 128) waste less than "
    "powers of two. Each further size is compiled once.",
    _MASKED: "The work is that of the bound whatever the length is: keep a compiled program for "
    "each of a few bounds, and choose by the length outside of jit.",
    _DYNAMIC: "Shapes are of the bound: choose the bound near what occurs.",
}

_TEXT = """HloModule m, is_scheduled=true

ENTRY %main (x: f32[{rows},1024], w: f32[1024,4096]) -> f32[1024,4096] {{
  %x = f32[{rows},1024]{{1,0}} parameter(0)
  %w = f32[1024,4096]{{1,0}} parameter(1)
  %zero = f32[] constant(0)
  %p = f32[1024,1024]{{1,0}} pad(%x, %zero), padding=0_{more}x0_0, metadata={{op_name="jit(f)/{op}"}}
  ROOT %y = f32[1024,4096]{{1,0}} dot(%p, %w), lhs_contracting_dims={{1}}, rhs_contracting_dims={{0}}
}}
"""

_MASK = """HloModule m, is_scheduled=true

ENTRY %main (x: f32[1024], n: s32[]) -> f32[1024] {
  %x = f32[1024]{0} parameter(0)
  %n = s32[] parameter(1)
  %i = s32[1024]{0} iota(), iota_dimension=0
  %m = s32[1024]{0} broadcast(%n), dimensions={}
  %less = pred[1024]{0} compare(%i, %m), direction=LT
  %zero = f32[] constant(0)
  %z = f32[1024]{0} broadcast(%zero), dimensions={}
  ROOT %y = f32[1024]{0} select(%less, %x, %z)
}
"""


@dataclass(frozen=True)
class PaddedShapesPass(AnalysisPass):
    """Products of rows that only pad a shape; masks by a length that is known at run time.

    What it finds
        ``jnp.pad`` of which a good part is padding, and the kernels that compute with the padded
        rows, followed through products and elementwise operations until something cuts them off:
        the share of their time that is padding. As a note: masks that compare positions with a
        length given as an argument, and dimensions of bounded size, where only the bound is
        known. What the compiler pads by itself is not meant.

    Why it matters
        A padded row costs what any other costs.

    Example
        A batch of 600 rows padded to 1024, then ``gelu(x @ w1) @ w2``.

    What to do
        Buckets of a fixed step in place of powers of two, several sequences packed into one
        row, or sorting by length so that what is padded together is alike.

    How it is verified
        Compile again without the padding. 4800 rows padded to 8192 on tpu:v5e: 2.40 to 1.15 ms by
        the compiler's cycles, 1.24 saved and 0.98 as estimated. 600 padded to 1024: on cpu
        measured 143 to 111 ms on one core, 45 ms estimated; by the model 90 to 65 us on gpu:h100
        (25 saved, 37 estimated). On tpu:v5e 76 to 73 us by the cycles, where 33 were estimated:
        without padding both products become one kernel there, of hardly fewer cycles.
    """

    code: ClassVar[str] = "CMP003"
    name: ClassVar[str] = "padded-shapes"
    examples: ClassVar[tuple[Example, ...]] = (
        Example("600 rows padded to 1024", _TEXT.format(rows=600, more=424, op="pad")),
        Example("1000 rows padded to 1024", _TEXT.format(rows=1000, more=24, op="pad"), finds=0),
        Example(
            "the gradient of a slice",
            _TEXT.format(rows=600, more=424, op="transpose(jvp())/pad"),
            finds=0,
        ),
        Example("a mask by length", _MASK),
    )

    min_padding: float = 0.15  # share of the padded dimension
    min_bound: int = 128  # of a mask or a dynamic dimension

    def run(self, module: Module, context: Context) -> Iterator[Finding]:
        """Yield a finding per source line."""
        if module.warnings:
            return
        hits = [*self._pads(module, context), *self._masks(module, context), *self._dynamic(module)]
        for group in fold(context, hits):
            worst = group.worst
            padded = worst.key == _PADDED
            yield self.finding(
                module.instruction(worst.at),
                f"{place_text(module, context.flow.place(worst.at))} {worst.text}{group.times}",
                severity=time_severity(context, group.seconds) if padded else Severity.NOTE,
                advice=_ADVICE[worst.key],
                seconds=group.seconds,
                context=context,
            )

    def _pads(self, module: Module, context: Context) -> Iterator[Hit]:
        flow, cost = context.flow, context.cost
        for at in np.nonzero(module.opcode_mask("pad"))[0].tolist():
            name = flow.op_name(at)
            if not name.endswith("/pad") or "transpose(" in name:
                continue  # the compiler's own, or the gradient of a slice
            before, after = flow.shape(flow.operands(at)[0]).dims, flow.shape(at).dims
            wide = [
                (1 - old / new, dimension)
                for dimension, (old, new) in enumerate(zip(before, after, strict=False))
                if new and 1 - old / new >= self.min_padding
            ]
            if not wide:
                continue
            share, dimension = max(wide)
            kernels = _computed_with(flow, at, dimension)
            seconds = sum(float(cost.seconds[one] * cost.executions[one]) for one in kernels)
            if not kernels:
                continue  # no product: what is elementwise is cheap
            yield Hit(
                at,
                share * seconds,
                text=f"pads {before[dimension]:,} rows to {after[dimension]:,}: {share:.0%} of the "
                f"work of {counted(len(kernels), 'kernel')} is padding",
                key=_PADDED,
            )

    def _masks(self, module: Module, context: Context) -> Iterator[Hit]:
        flow = context.flow
        for at in np.nonzero(module.opcode_mask("compare"))[0].tolist():
            sides = [definition(flow, one, (), _SPREAD)[0] for one in flow.operands(at)]
            counters = [one for one in sides if flow.opcode(one) == "iota"]
            lengths = [one for one in sides if _is_length(flow, one)]
            if len(counters) != 1 or len(lengths) != 1:
                continue
            text = attributes_at(module, int(module.attribute[counters[0]])).get(
                "iota_dimension", "0"
            )
            bound = flow.shape(counters[0]).dims[int(text)]
            used = {flow.opcode(one) for one in readers(flow, at, _SPREAD | {"and"})}
            if bound < self.min_bound or "select" not in used:
                continue
            name = flow.op_name(lengths[0])
            yield Hit(
                at,
                text=f"masks {bound:,} positions by a length known at run time"
                f"{f' ({name})' if name else ''}: all are computed",
                key=_MASKED,
            )

    def _dynamic(self, module: Module) -> Iterator[Hit]:
        for at in np.nonzero(module.opcode_mask("set-dimension-size"))[0].tolist():
            shape = module.shapes[module.shape[at]]
            bounds = [size for size, open_ in zip(shape.dims, shape.dynamic, strict=False) if open_]
            if max(bounds, default=0) >= self.min_bound:
                text = f"has a dynamic dimension of at most {max(bounds):,}: memory is that of it"
                yield Hit(at, text=text, key=_DYNAMIC)


def _is_length(flow: Flow, at: int) -> bool:
    """Whether a value is an integer that the program is given."""
    at, path = flow.origin(at)
    entry = flow.opcode(at) == "parameter" and flow.computation_of(at) == flow.module.entry
    shape = flow.shape(at)
    return entry and not path and shape.element_count == 1 and shape.dtype[0] in "su"


def _computed_with(flow: Flow, at: int, dimension: int) -> set[int]:
    """The kernels with products of what a padded dimension reaches, and elementwise ones of it."""
    waiting: list[_Rows] = [(at, dimension)]
    seen, kernels, products = set(waiting), {kernel(flow, at)}, 0
    while waiting and len(seen) < _MAX_SEEN:
        value, dim = waiting.pop()
        for user, number in _uses(flow, value):
            products += flow.opcode(user) in ("dot", "convolution")
            for step in _further(flow, user, number, dim):
                if step not in seen:
                    seen.add(step)
                    waiting.append(step)
                    kernels.add(kernel(flow, user))
    return kernels if products else set()


def _uses(flow: Flow, value: int) -> Iterator[tuple[int, int]]:
    """(instruction, number of the operand) of each use; of a fusion's result, outside of it."""
    caller = flow.caller(flow.computation_of(value))
    if flow.root(flow.computation_of(value)) == value and caller is not None:
        yield caller, -1
    for user in flow.users(value):
        for number, operand in enumerate(flow.operands(user)):
            if operand == value:
                yield user, number


def _further(flow: Flow, user: int, number: int, dim: int) -> list[_Rows]:
    """Where a dimension of an operand goes on; empty where it ends."""
    opcode = flow.opcode(user)
    if opcode == "fusion":
        if number < 0:
            return [(user, dim)]
        inside = flow.callee(user, "calls")
        parameter = None if inside is None else flow.parameter(inside, number)
        return [] if parameter is None else [(parameter, dim)]
    if opcode == "tuple":
        return [(member, dim) for member in _members(flow, user, number)]
    if number < 0:
        return []
    if opcode in _SAME_DIMS:
        return [(user, dim)]
    attributes = attributes_at(flow.module, int(flow.module.attribute[user]))
    source, result = flow.shape(flow.operands(user)[number]).dims, flow.shape(user).dims
    try:
        if opcode == "transpose":
            return [(user, integers(attributes["dimensions"]).index(dim))]
        if opcode == "broadcast":
            return [(user, integers(attributes["dimensions"])[dim])]
        if opcode in ("reshape", "bitcast"):
            return [(user, dim)] if result[: dim + 1] == source[: dim + 1] else []
        if opcode == "reduce" and number == 0:
            gone = integers(attributes["dimensions"])
            return [] if dim in gone else [(user, dim - sum(one < dim for one in gone))]
        if opcode == "dot":
            return _through_dot(flow, user, number, dim, attributes)
        if opcode == "convolution" and number == 0:
            labels = parse_dim_labels(attributes["dim_labels"])
            if dim == labels.input_batch:
                return [(user, attributes["dim_labels"].partition("->")[2].index("b"))]
    except (ValueError, KeyError, IndexError):
        return []
    return []


def _members(flow: Flow, at: int, number: int) -> list[int]:
    """What takes a member of the tuple that a fusion gives."""
    computation = flow.computation_of(at)
    caller = flow.caller(computation)
    if caller is None or flow.opcode(caller) != "fusion" or flow.root(computation) != at:
        return []
    return [
        user
        for user in flow.users(caller)
        if flow.opcode(user) == "get-tuple-element" and flow.member(user) == number
    ]


def _through_dot(
    flow: Flow, at: int, number: int, dim: int, attributes: dict[str, str]
) -> list[_Rows]:
    sides = ("lhs", "rhs")
    batch = [integers(attributes.get(f"{side}_batch_dims", "")) for side in sides]
    summed = [integers(attributes.get(f"{side}_contracting_dims", "")) for side in sides]
    if number > 1 or dim in summed[number]:
        return []
    if dim in batch[number]:
        return [(at, batch[number].index(dim))]
    free = [
        [one for one in range(flow.shape(operand).rank) if one not in (*batch[n], *summed[n])]
        for n, operand in enumerate(flow.operands(at)[:2])
    ]
    before = len(batch[0]) + (len(free[0]) if number else 0)
    return [(at, before + free[number].index(dim))]
