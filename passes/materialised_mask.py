"""FUS002: masks, tables and repeated arrays that are written out where they need not be."""

# ruff: noqa: E501 - HLO text has long lines

from __future__ import annotations

import enum
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from hlo_lab.cost.tables import attributes_at
from hlo_lab.ir.module import Module
from hlo_lab.passkit.base import AnalysisPass, Example
from hlo_lab.passkit.context import Context
from hlo_lab.passkit.finding import Finding, Severity
from hlo_lab.passkit.folding import Hit, fold, time_severity
from hlo_lab.passkit.patterns import FREE, HANDING_ON, Flow
from hlo_lab.passkit.tracing import definition, kernel
from hlo_lab.passkit.wording import bytes_text, place_text, seconds_text, times_text


class Why(enum.Enum):
    """What is written out for nothing: the words, and the advice."""

    KEPT = (
        "writes {shape}, of which {part} differs, and keeps it throughout a loop that reads it",
        "Let the loop's body make it from the smaller array. If it is kept for the gradient of a "
        "jnp.where, add a bias (0 or -1e9) instead: its gradient needs no mask.",
    )
    JOINED = (
        "multiplies {shape}, of which {part} is a repeated array",
        "Multiply the parts by parts of the matrix, and repeat the small product: "
        "x @ w[:n] + (y @ w[n:])[:, None].",
    )
    REPEATED = (
        "multiplies {shape}, which repeats an array {part} times",
        "Give the other operand one more dimension instead of repeating this one, such as "
        "einsum('btgrd,bsgd->bgrts') for groups of heads that share keys and values.",
    )
    DIAGONAL = (
        "multiplies by a diagonal matrix, {shape}",
        "Multiply by the diagonal: x * s instead of x @ jnp.diag(s), s[:, None] * x from the left.",
    )


_SAME = HANDING_ON | frozenset(("copy", "convert", "reshape", "copy-start", "transpose"))
_SPREAD = _SAME | {"broadcast"}
_COSTLY = frozenset((
    "dot", "convolution", "custom-call", "reduce", "sort", "scatter", "gather", "while", "rng",
    "rng-bit-generator", "dynamic-update-slice", "dynamic-slice", "reduce-window", "infeed",
))  # fmt: skip
_JOINS = frozenset(("maximum", "add", "or"))  # of what XLA:TPU padded, instead of a concatenate
_RATIO = 4  # how often an array is repeated, at least

_PRODUCT_TEXT = """HloModule m, is_scheduled=true

ENTRY %main (x: f32[64,1024,512], y: f32[64,{rows}512], w: f32[1024,512]) -> f32[64,1024,512] {{
  %x = f32[64,1024,512]{{2,1,0}} parameter(0)
  %y = f32[64,{rows}512] parameter(1)
  %w = f32[1024,512]{{1,0}} parameter(2)
  %b = f32[64,1024,512]{{2,1,0}} {repeat}
  %c = f32[64,1024,1024]{{2,1,0}} concatenate(%x, %b), dimensions={{2}}
  ROOT %d = f32[64,1024,512]{{2,1,0}} dot(%c, %w), lhs_contracting_dims={{2}}, rhs_contracting_dims={{0}}, metadata={{op_name="jit(f)/dot_general" source_file="model.py" source_line=3}}
}}
"""

_DIAGONAL_TEXT = """HloModule m, is_scheduled=true

ENTRY %main (x: f32[4096,4096], s: f32[4096]) -> f32[4096,4096] {{
  %x = f32[4096,4096]{{1,0}} parameter(0)
  %s = f32[4096]{{0}} parameter(1)
  %i = s32[4096,4096]{{1,0}} iota(), iota_dimension=0
  %j = s32[4096,4096]{{1,0}} iota(), iota_dimension=1
  %e = pred[4096,4096]{{1,0}} compare(%i, %j), direction={direction}
  %b = f32[4096,4096]{{1,0}} broadcast(%s), dimensions={{0}}
  %z = f32[] constant(0)
  %zs = f32[4096,4096]{{1,0}} broadcast(%z), dimensions={{}}
  %m = f32[4096,4096]{{1,0}} select(%e, %b, %zs)
  ROOT %d = f32[4096,4096]{{1,0}} dot(%x, %m), lhs_contracting_dims={{1}}, rhs_contracting_dims={{0}}, metadata={{op_name="jit(f)/dot_general" source_file="model.py" source_line=3}}
}}
"""


@dataclass(frozen=True)
class MaterialisedMaskPass(AnalysisPass):
    """Masks, tables and repeated arrays that are written out where they need not be.

    What it finds
        Arrays that only repeat a smaller one, or one number, and are kept throughout a loop
        that reads them (masks and zeros for a gradient, on GPUs); and operands of products that
        repeat: beside other features in a concatenation, as keys and values of several heads
        (TPUs; CPUs where memory bounds the product), as a diagonal matrix. The zeros that start
        the stacked buffers of a scan are the compiler's, and not found; what a loop makes anew
        in each iteration is for `repeated-subgraph`.

    Why it matters
        Making them costs a kernel, reading them memory, and products multiply what is the same.

    Example
        ``jnp.concatenate([x, jnp.broadcast_to(y[:, None], x.shape)], -1) @ w``.

    What to do
        Repeat results of products rather than their operands; multiply by a diagonal; add a
        bias instead of selecting by a mask, where a gradient is taken.

    How it is verified
        Compile again. The gradient of 4 layers of attention with jnp.where, gpu:h100: 10.2 to
        9.6 ms with a bias, peak 3180 to 2862 MB; on TPUs no effect, so no finding. A repeated
        half of the features: tpu:v5e 981 to 480 us by the cycles, gpu:h100 503 to 264 us by the
        model, cpu 540 to 262 ms. Keys and values of 4 heads repeated for 32: one query, tpu:v5e
        3652 to 212 us by the cycles, cpu 877 to 116 ms; 1024 queries, tpu:v5e 2481 to 1643 us.
        On gpu:h100, and on cpu with 1024 queries, refuted: no finding there. A diagonal of
        4096: tpu:v5e 713 to 205 us by the cycles, gpu:h100 498 to 42 us, cpu 816 to 12 ms. A
        mask in the fusion instead of a bias by hand: no difference.
    """

    code: ClassVar[str] = "FUS002"
    name: ClassVar[str] = "materialised-mask"
    examples: ClassVar[tuple[Example, ...]] = (
        Example(
            "a repeated half of the features",
            _PRODUCT_TEXT.format(rows="", repeat="broadcast(%y), dimensions={0,2}"),
        ),
        Example(
            "two halves that differ",
            _PRODUCT_TEXT.format(rows="1024,", repeat="copy(%y)"),
            finds=0,
        ),
        Example("a diagonal matrix", _DIAGONAL_TEXT.format(direction="EQ")),
        Example("a triangular matrix", _DIAGONAL_TEXT.format(direction="GE"), finds=0),
    )

    min_bytes: int = 1 << 20  # of the array

    def run(self, module: Module, context: Context) -> Iterator[Finding]:
        """Yield a finding per source line and reason."""
        if not module.is_scheduled or module.warnings:
            return
        flow = context.flow
        for group in fold(context, self._hits(module, context)):
            worst = group.worst
            name, _, shape = worst.key.partition(" ")
            words, advice = Why[name].value
            runs = float(context.cost.executions[kernel(flow, worst.at)])
            held = f", {bytes_text(group.bytes)}" if group.bytes else ""
            severity = time_severity(context, group.seconds)
            if group.bytes and group.bytes >= 0.01 * context.memory.peak_bytes:
                severity = Severity.WARNING
            yield self.finding(
                module.instruction(worst.at),
                f"{place_text(module, flow.place(worst.at))} "
                f"{words.format(shape=shape, part=worst.text)}: "
                f"{seconds_text(group.seconds or 0.0)}{held}{times_text(runs)}{group.times}",
                severity=severity,
                advice=advice,
                seconds=group.seconds,
                bytes=group.bytes,
                context=context,
            )

    def _hits(self, module: Module, context: Context) -> Iterator[Hit]:
        flow, cost = context.flow, context.cost
        kernels = cost.top_level.nonzero()[0].tolist() if context.machine.kind == "gpu" else []
        for at in kernels:
            shape = flow.shape(at)
            large = shape.is_array and shape.bytes >= self.min_bytes
            if not large or flow.opcode(at) in FREE or flow.contents(at) & _COSTLY:
                continue
            hit = _kept(context, at)
            if hit is not None:
                yield hit
        for at in np.nonzero(module.opcode_mask("dot", "convolution", "reduce"))[0].tolist():
            run = kernel(flow, at)
            if cost.top_level[run]:
                yield from self._of_product(context, at, run)

    def _of_product(self, context: Context, at: int, run: int) -> Iterator[Hit]:
        flow, cost = context.flow, context.cost
        whole = float(cost.seconds[run] * cost.executions[run])
        for made in _operands(flow, at):
            shape = flow.shape(made)
            if not shape.is_array or shape.bytes < self.min_bytes:
                continue
            text = str(shape.without_layout())
            if _is_diagonal(flow, made):
                pass_over = 2 * flow.shape(at).bytes / context.machine.memory_bandwidth
                saved = whole - pass_over * float(cost.executions[run])
                yield Hit(at, max(saved, 0.0), key=f"{Why.DIAGONAL.name} {text}")
                continue
            times = _repeats(flow, made)
            if times >= _RATIO:
                saved = _repeated(context, at, made, run)
                if saved:
                    key = f"{Why.REPEATED.name} {text}"
                    yield Hit(at, saved, text=f"{times:.0f}", key=key)
                continue
            parts = [definition(flow, one, (), _SAME)[0] for one in _joined(flow, made)]
            again = [one for one in parts if _repeats(flow, one) >= _RATIO]
            part = sum(flow.shape(one).element_count for one in again) / shape.element_count
            if 0 < part < 1:
                saved = whole * part + _apart(context, (made, *again), run)
                key = f"{Why.JOINED.name} {text}"
                yield Hit(at, saved, text=f"{part:.0%}", key=key)


def _operands(flow: Flow, at: int) -> Iterator[int]:
    """What computes the operands of a product; of a reduction that is none, nothing.

    XLA:TPU writes products of few rows as a multiplication and a reduction: there only what
    the program itself repeats counts, as repeating is how the product is made.
    """
    operands = flow.operands(at)
    if flow.opcode(at) == "reduce":
        if not flow.op_name(at).endswith("dot_general"):
            return
        times = definition(flow, operands[0], (), _SAME)[0]
        operands = flow.operands(times) if flow.opcode(times) == "multiply" else []
        made = [definition(flow, one, (), _SAME)[0] for one in operands]
        yield from (one for one in made if flow.op_name(one).endswith("/broadcast_in_dim"))
        return
    for one in operands[:2]:
        made_by, path = definition(flow, one, (), _SAME)
        if not path:
            yield made_by


def _repeated(context: Context, at: int, made: int, run: int) -> float:
    """Seconds that a product loses because an operand repeats, where that was confirmed."""
    flow, cost, kind = context.flow, context.cost, context.machine.kind
    if kind == "gpu" or (kind == "cpu" and cost.bound[run] != "memory"):
        return 0.0
    if flow.opcode(at) == "reduce":
        whole = float(cost.seconds[run] * cost.executions[run])
        return whole * (1 - 1 / _repeats(flow, made))
    return _apart(context, (made,), run)


def _apart(context: Context, made: Sequence[int], run: int) -> float:
    """Seconds of the kernels that write values out for another kernel."""
    flow, cost = context.flow, context.cost
    makers = dict.fromkeys(kernel(flow, one) for one in made)
    others = [one for one in makers if one != run and cost.top_level[one]]
    return sum(float(cost.seconds[one] * cost.executions[one]) for one in others)


def _kept(context: Context, at: int) -> Hit | None:
    """A kernel that repeats something smaller, which a loop carries unchanged and reads."""
    flow, cost = context.flow, context.cost
    made, _ = definition(flow, at, (), _SAME)
    times = _repeats(flow, made, of_numbers=True)
    if times < _RATIO:
        return None
    runs = sum(float(cost.executions[reader]) for reader in _readers_in_loops(flow, at))
    if not runs:
        return None
    size = flow.shape(at).bytes
    seconds = float(cost.seconds[at] * cost.executions[at])
    seconds += size * runs / context.machine.memory_bandwidth
    part = 1 / times
    text = f"{part:.0%}" if part >= 0.01 else "less than 1%"
    return Hit(at, seconds, size, text, f"{Why.KEPT.name} {flow.shape(at).without_layout()}")


def _readers_in_loops(flow: Flow, at: int) -> Iterator[int]:
    """The kernels in bodies of loops that carry a value unchanged."""
    for carried in flow.kernel_users(at):
        if flow.opcode(carried) != "tuple":
            continue
        numbers = [n for n, one in enumerate(flow.operands(carried)) if flow.source(one)[0] == at]
        for loop in flow.users(carried):
            body = flow.callee(loop, "body") if flow.opcode(loop) == "while" else None
            given = None if body is None else flow.parameter(body)
            if body is None or given is None:
                continue
            kept = {number for number in numbers if flow.is_invariant(loop, (number,))}
            for member in flow.users(given):
                if flow.opcode(member) == "get-tuple-element" and flow.member(member) in kept:
                    users = flow.kernel_users(member)
                    yield from (user for user in users if user != flow.root(body))


def _repeats(flow: Flow, at: int, *, of_numbers: bool = False) -> float:
    """How often a value repeats the array that it is a broadcast of; 1 for anything else."""
    operands = flow.operands(at)
    if flow.opcode(at) != "broadcast" or not operands:
        return 1.0
    source = flow.shape(operands[0]).element_count
    if source <= 1 and not of_numbers:
        return 1.0
    return flow.shape(at).element_count / max(source, 1)


def _joined(flow: Flow, at: int) -> list[int]:
    """The parts that a value puts side by side; none for anything else."""
    operands = flow.operands(at)
    if flow.opcode(at) == "concatenate":
        return operands
    if flow.opcode(at) not in _JOINS:
        return []
    pads = [definition(flow, one, (), _SAME)[0] for one in operands]
    return [flow.operands(one)[0] for one in pads if flow.opcode(one) == "pad"]


def _is_diagonal(flow: Flow, at: int) -> bool:
    """Whether a square matrix is zero where its row is not its column."""
    shape = flow.shape(at)
    if flow.opcode(at) not in ("select", "multiply") or shape.rank != 2:
        return False
    operands = flow.operands(at)
    if shape.dims[0] != shape.dims[1]:
        return False
    if flow.opcode(at) == "select":
        if flow.shape(definition(flow, operands[2], (), _SPREAD)[0]).element_count != 1:
            return False
        operands = operands[:1]
    return any(_is_identity(flow, definition(flow, one, (), _SAME)[0]) for one in operands)


def _is_identity(flow: Flow, at: int) -> bool:
    if flow.opcode(at) != "compare":
        return False
    module = flow.module
    if attributes_at(module, int(module.attribute[at])).get("direction") != "EQ":
        return False
    sides = [definition(flow, one, (), _SPREAD)[0] for one in flow.operands(at)]
    return all(flow.opcode(one) == "iota" for one in sides)
