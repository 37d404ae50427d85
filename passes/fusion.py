"""FUS001: intermediates that go through memory between two kernels, and why."""

# ruff: noqa: E501 - HLO text has long lines

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import ClassVar

from hlo_lab.cost.machines import Machine
from hlo_lab.ir.module import Module
from hlo_lab.passkit.base import AnalysisPass, Example
from hlo_lab.passkit.context import Context
from hlo_lab.passkit.finding import Finding, Severity
from hlo_lab.passkit.patterns import EXPENSIVE, FREE, Flow, Phase, collective_kind, phase
from hlo_lab.passkit.wording import bytes_text, counted, place_text, times_text


class Why(enum.Enum):
    """Why a producer and its consumer may have been left apart: what, and what helps."""

    NO_REASON = (
        "nothing in the graph keeps them apart: the compiler's own limits decided",
        "Try the optimised program with XLA's fusion limits raised, or write the two lines as "
        "one expression inside one jitted function.",
    )
    LAYOUT = (
        "the layout changes in between",
        "Keep one order of dimensions through both lines: move the transpose out of the hot "
        "path, or fold it into the einsum that makes or takes the value.",
    )
    SHAPES = (
        "they loop over different numbers of elements",
        "Where the smaller result is enough, select, reduce or slice before the elementwise "
        "work rather than after it.",
    )
    FAN_OUT = (
        "several kernels read it",
        "If it is cheap to compute again, let each reader compute it, or join the readers "
        "into one expression.",
    )
    COSTLY_FAN_OUT = (
        "several kernels read it, and computing it again for each would cost more",
        "Join the readers into one expression, so that the value is needed once.",
    )
    PRODUCT = ("a matrix product or convolution runs as a kernel of its own", "")
    LIBRARY = ("a library call or custom kernel is not opened for fusion", "")
    REDUCTION = ("a reduction has to finish before its result is read", "")
    COLLECTIVE = ("a collective or an asynchronous copy sits between them", "")
    RESIDUAL = ("the forward pass keeps it for the backward pass, which is for `remat`", "")
    ALONE = ("sort, scatter, gather and their like run on their own", "")
    IN_PLACE = ("an update in place writes into a buffer that goes on living", "")
    BOUNDARY = ("the value enters or leaves a loop, branch or the program", "")


_ACTIONABLE = (Why.NO_REASON, Why.LAYOUT, Why.SHAPES, Why.FAN_OUT, Why.COSTLY_FAN_OUT)
_PRODUCTS = frozenset(("dot", "convolution", "ragged-dot"))
_ALONE = frozenset((
    "sort", "scatter", "gather", "fft", "rng", "rng-bit-generator", "cholesky",
    "triangular-solve", "topk", "select-and-scatter", "reduce-window", "infeed", "outfeed",
    "send", "recv",
))  # fmt: skip
_REASONS = 2  # that the note on the rest names
_NEGLIGIBLE = 0.001  # share of the step's time below which a pair of lines is not named
_CONTROL = frozenset(("tuple", "while", "conditional", "call", "async-start"))
_MOVING = frozenset(("copy", "transpose"))


@dataclass
class _Edge:
    """A value that goes through memory; ``saved`` bytes and ``seconds`` per step."""

    at: int
    reader: int
    why: Why
    saved: float
    seconds: float
    executions: float
    readers: int


@dataclass
class _Group:
    """Edges between the same two source lines for the same reason."""

    edges: list[_Edge] = field(default_factory=list)

    @property
    def saved(self) -> float:
        return sum(edge.saved for edge in self.edges)

    @property
    def seconds(self) -> float:
        return sum(edge.seconds for edge in self.edges)


_APART = """HloModule m, is_scheduled=true

%f1 (a: f32[1024,1024]) -> f32[1024,1024] {
  %a = f32[1024,1024]{1,0} parameter(0)
  ROOT %n = f32[1024,1024]{1,0} negate(%a)
}

%f2 (b: f32[1024,1024]) -> f32[1024,1024] {
  %b = f32[1024,1024]{1,0} parameter(0)
  ROOT %m = f32[1024,1024]{1,0} multiply(%b, %b)
}

ENTRY %main (x: f32[1024,1024]) -> f32[1024,1024] {
  %x = f32[1024,1024]{1,0} parameter(0)
  %p = f32[1024,1024]{1,0} fusion(%x), kind=kLoop, calls=%f1, metadata={op_name="jit(f)/neg" source_file="model.py" source_line=3}
  ROOT %c = f32[1024,1024]{1,0} fusion(%p), kind=kLoop, calls=%f2, metadata={op_name="jit(f)/mul" source_file="model.py" source_line=4}
}
"""

_PRODUCT = """HloModule m, is_scheduled=true

%f1 (a: f32[16,16]) -> f32[16,16] {
  %a = f32[16,16]{1,0} parameter(0)
  ROOT %n = f32[16,16]{1,0} negate(%a)
}

ENTRY %main (x: f32[16,16]) -> f32[16,16] {
  %x = f32[16,16]{1,0} parameter(0)
  %p = f32[16,16]{1,0} fusion(%x), kind=kLoop, calls=%f1
  ROOT %d = f32[16,16]{1,0} dot(%p, %x), lhs_contracting_dims={1}, rhs_contracting_dims={0}
}
"""

_BEFORE = """HloModule m

ENTRY %main (x: f32[1024,1024]) -> f32[1024,1024] {
  %x = f32[1024,1024]{1,0} parameter(0)
  %n = f32[1024,1024]{1,0} negate(%x)
  ROOT %m = f32[1024,1024]{1,0} multiply(%n, %n)
}
"""


@dataclass(frozen=True)
class FusionPass(AnalysisPass):
    """Producer and consumer left in separate kernels.

    What it finds
        A value that one kernel writes to memory and the next reads back, where nothing
        but the compiler's choice keeps the two apart; with the likely reason: several
        readers, a change of layout, loops of different size, or none that shows. Edges
        that no fusion can remove (matrix products, library calls, reductions,
        collectives, loop boundaries) are summed up in one note. Zeros that start the
        stacked buffers of a scan are left out.

    Why it matters
        Elementwise work is bound by memory: each intermediate costs one write and one
        read per reader, and every further kernel its launch.

    Example
        ``y = -x`` in one kernel and ``y * y`` in the next write and read ``y``; fused,
        the negated value never leaves the registers.

    What to do
        Look at the reason. A transpose between the lines can often move into the einsum
        beside it; a value with several readers can be computed again by each when it is
        cheap. Where no reason shows, put both lines under one ``jax.jit``.

    How it is verified
        Compile the changed program again: the kernel is gone and the bytes of the module
        are lower. The estimate counts the bytes at the machine's bandwidth, so it is an
        upper bound on a machine whose caches hold the intermediate.
    """

    code: ClassVar[str] = "FUS001"
    name: ClassVar[str] = "fusion"
    examples: ClassVar[tuple[Example, ...]] = (
        Example("two elementwise kernels in a row", _APART),
        Example("a matrix product's operand is no finding", _PRODUCT, finds=0),
        Example("a module before optimisation gives a note, not a flood", _BEFORE, finds=1),
    )

    min_bytes: int = 1 << 20  # saved per step; less, or under 0.1% of its time, is left out
    min_share: float = 0.01  # share of the step's estimated time that makes it a warning
    top: int = 10  # pairs of lines named one by one
    notes: bool = True  # also sum up what no fusion can remove

    def run(self, module: Module, context: Context) -> Iterator[Finding]:
        """Yield pairs of lines by time saved, then one note on the rest."""
        if module.warnings:  # the last computation of a cut file may be the inside of a fusion
            yield self.finding(
                module.entry_computation.root,
                "the file is cut, so which instructions run as kernels is not known",
                severity=Severity.NOTE,
                advice="Analyze the whole module.",
            )
            return
        if not module.is_scheduled and not module.opcode_mask("fusion").any():
            if len(module) > len(module.entry_computation.parameters) + 1:
                yield self.finding(
                    module.entry_computation.root,
                    "the module holds no fusions and no schedule: it is from before optimisation, "
                    "where every op stands alone",
                    severity=Severity.NOTE,
                    advice="Analyze the optimised module, or the program itself.",
                )
            return
        groups: dict[tuple[str, str, Why], _Group] = {}
        kept: dict[Why, _Group] = {}
        for edge in _edges(module, context):
            if edge.why in _ACTIONABLE:
                key = _key(context.flow, edge)
                groups.setdefault(key, _Group()).edges.append(edge)
            else:
                kept.setdefault(edge.why, _Group()).edges.append(edge)
        whole = context.cost.total_seconds
        ranked = sorted(groups.items(), key=lambda item: -item[1].seconds)
        for number, ((_, _, why), group) in enumerate(ranked):
            worth = group.saved >= self.min_bytes and group.seconds >= _NEGLIGIBLE * whole
            if number < self.top and worth:
                yield self._apart(module, context, why, group, whole)
        total = sum(group.saved for group in kept.values())
        if self.notes and total and total >= self.min_bytes:
            yield self._note(module, context, kept, whole)

    def _apart(
        self, module: Module, context: Context, why: Why, group: _Group, whole: float
    ) -> Finding:
        flow, worst = context.flow, max(group.edges, key=lambda edge: edge.seconds)
        share = group.seconds / whole if whole else 0.0
        shape = flow.shape(worst.at)
        shown = next(shape.leaves())[1].without_layout()
        runs = sum(edge.executions for edge in group.edges)
        others = f" and {worst.readers - 1} more read" if worst.readers > 1 else " reads"
        what, advice = why.value
        clear = share >= self.min_share and why is not Why.COSTLY_FAN_OUT
        return self.finding(
            module.instruction(worst.at),
            f"{place_text(module, flow.place(worst.at))} writes {shown} that "
            f"{place_text(module, flow.place(worst.reader))}{others} back"
            f"{times_text(runs)}: fusing them saves {share:.1%} of the step's time; {what}",
            severity=Severity.WARNING if clear else Severity.NOTE,
            advice=advice,
            seconds=group.seconds,
            bytes=int(group.saved),
            context=context,
        )

    def _note(
        self, module: Module, context: Context, kept: dict[Why, _Group], whole: float
    ) -> Finding:
        ranked = sorted(kept.items(), key=lambda item: -item[1].saved)
        worst = max(ranked[0][1].edges, key=lambda edge: edge.saved)
        parts = [
            f"{bytes_text(group.saved)} in {counted(len(group.edges), 'value')} because "
            f"{why.value[0]}"
            for why, group in ranked[:_REASONS]
        ]
        total = sum(group.saved for group in kept.values())
        less = sum(group.saved for _, group in ranked[_REASONS:])
        others = f"; {bytes_text(less)} for other reasons" if less else ""
        return self.finding(
            module.instruction(worst.at),
            f"{bytes_text(total)} per step go through memory between kernels that no fusion "
            f"joins: {'; '.join(parts)}{others}; the largest value is from "
            f"{place_text(module, context.flow.place(worst.at))}",
            severity=Severity.NOTE,
            context=context,
        )


def _edges(module: Module, context: Context) -> Iterator[_Edge]:
    flow, cost = context.flow, context.cost
    runs_of, bytes_of = cost.executions.tolist(), cost.bytes.tolist()
    for at in cost.top_level.nonzero()[0].tolist():
        opcode = flow.opcode(at)
        if opcode in FREE or opcode in _CONTROL or flow.shape(at).element_count <= 1:
            continue
        contents = flow.contents(at)
        if not contents - {"broadcast", "copy", "constant", "iota"} and "iota" not in contents:
            continue  # zeros for stacked buffers, and copies of them
        shape = flow.shape(at)
        members = _members(flow, at) if shape.is_tuple else [(at, shape.bytes)]
        for value, size in members:
            readers = flow.kernel_users(value)
            kernels = [one for one in readers if flow.opcode(one) not in _CONTROL]
            if not kernels:
                continue
            reasons = {one: _reason(flow, at, one) for one in kernels}
            fusable = [one for one in kernels if reasons[one] in _ACTIONABLE]
            reads = [min(size, bytes_of[one]) for one in fusable or kernels]
            removed = len(reads) == len(readers)
            saved = sum(reads) + (size if removed else 0)
            if fusable:
                # each reader then reads what the producer reads, which stays unless removed
                inputs = max(bytes_of[at] - shape.bytes, 0)
                saved -= inputs * (len(fusable) - removed)
            if saved <= 0:
                continue
            saved *= runs_of[at]
            why = reasons[(fusable or kernels)[0]]
            if fusable and len(readers) > 1:
                why = Why.COSTLY_FAN_OUT if contents & EXPENSIVE else Why.FAN_OUT
            if fusable and len(readers) > len(kernels):
                why = Why.BOUNDARY
            yield _Edge(
                at=value,
                reader=(fusable or kernels)[0],
                why=why,
                saved=saved,
                seconds=saved / _bandwidth(context.machine, size)
                + (context.machine.launch_overhead * runs_of[at] if fusable and removed else 0.0),
                executions=runs_of[at],
                readers=len(fusable or kernels),
            )


def _members(flow: Flow, at: int) -> list[tuple[int, int]]:
    """The outputs of a fusion with several, as (get-tuple-element, bytes)."""
    users = [user for user in flow.users(at) if flow.opcode(user) == "get-tuple-element"]
    return [(user, flow.shape(user).bytes) for user in users if flow.shape(user).is_array]


def _reason(flow: Flow, producer: int, consumer: int) -> Why:
    """Why ``consumer`` was not fused with ``producer``."""
    for at in (producer, consumer):
        opcode, inside = flow.opcode(at), flow.contents(at)
        if collective_kind(opcode) or opcode.endswith(("-start", "-done")):
            return Why.COLLECTIVE
        if inside & _PRODUCTS:
            return Why.PRODUCT
        if opcode == "custom-call" or "custom-call" in inside or _is_custom(flow, at):
            return Why.LIBRARY
        if inside & _ALONE:
            return Why.ALONE
        if "dynamic-update-slice" in inside:
            return Why.IN_PLACE
    if "reduce" in flow.contents(producer):
        return Why.REDUCTION
    if phase(flow.op_name(producer)) is Phase.FORWARD is not phase(flow.op_name(consumer)):
        return Why.RESIDUAL
    if _moves(flow, producer) or _moves(flow, consumer):
        return Why.LAYOUT
    if flow.shape(producer).element_count != flow.shape(consumer).element_count:
        return Why.SHAPES
    return Why.NO_REASON


def _is_custom(flow: Flow, at: int) -> bool:
    attributes: dict[str, str] = flow.module.attributes[flow.module.attribute[at]]
    return attributes.get("kind") == "kCustom"


def _moves(flow: Flow, at: int) -> bool:
    return bool(flow.contents(at) & _MOVING)


def _bandwidth(machine: Machine, size: int) -> float:
    """Bytes/s of the memory level that holds a value of ``size`` bytes."""
    return next(
        (rate for fits, rate in machine.bandwidth if size <= fits), machine.memory_bandwidth
    )


def _key(flow: Flow, edge: _Edge) -> tuple[str, str, Why]:
    module = flow.module
    return (
        place_text(module, flow.place(edge.at)),
        place_text(module, flow.place(edge.reader)),
        edge.why,
    )
