"""ALG006: work whose result is there already: of an earlier iteration, or of another kernel."""

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
from hlo_lab.passkit.folding import Group, Hit, fold, time_severity
from hlo_lab.passkit.patterns import ELEMENTWISE, EXPENSIVE, FREE, HANDING_ON, Flow, Phase, phase
from hlo_lab.passkit.tracing import kernel
from hlo_lab.passkit.wording import bytes_text, place_text

_HEAVY = frozenset(("dot", "convolution", "sort", "cholesky", "triangular-solve", "fft", "topk"))
# Opcodes that change no value; XLA keeps a copy inside of a loop for a reason.
_MOVES = frozenset(
    ("broadcast", "concatenate", "constant", "convert", "copy", "iota", "pad", "reshape",
     "reverse", "slice", "transpose")
)  # fmt: skip
_PURE = (
    ELEMENTWISE | HANDING_ON | _HEAVY | _MOVES | {"gather", "reduce", "reduce-window", "scatter"}
)
_COSTLY = EXPENSIVE | _HEAVY | {"custom-call", "gather", "reduce", "reduce-window", "scatter"}
_LARGE = 1 << 16  # bytes of a result that is worth a buffer, however cheap
_IMPURE = ("rng", "custom-call", "all-", "collective", "reduce-scatter", "send", "recv")
_RANDOM = ("iota_2x32", "random_", "threefry")
_FEW = 2.0  # iterations, from which on there is something to save

_LOOP = """HloModule m, is_scheduled=true

%body (p: (s32[], f32[32,512], f32[512,512], f32[512,512])) -> (s32[], f32[32,512], f32[512,512], f32[512,512]) {{
  %p = (s32[], f32[32,512]{{1,0}}, f32[512,512]{{1,0}}, f32[512,512]{{1,0}}) parameter(0)
  %i = s32[] get-tuple-element(%p), index=0
  %h = f32[32,512]{{1,0}} get-tuple-element(%p), index=1
  %w = f32[512,512]{{1,0}} get-tuple-element(%p), index=2
  %v = f32[512,512]{{1,0}} get-tuple-element(%p), index=3
  %m = f32[512,512]{{1,0}} dot(%w, %v), lhs_contracting_dims={{1}}, rhs_contracting_dims={{0}}, metadata={{op_name="jit(f)/while/body/dot_general"}}
  %next = f32[32,512]{{1,0}} dot(%h, %m), lhs_contracting_dims={{1}}, rhs_contracting_dims={{0}}
  %one = s32[] constant(1)
  %j = s32[] add(%i, %one)
  ROOT %r = (s32[], f32[32,512]{{1,0}}, f32[512,512]{{1,0}}, f32[512,512]{{1,0}}) tuple(%j, %next, %{kept}, %v)
}}

%cond (c: (s32[], f32[32,512], f32[512,512], f32[512,512])) -> pred[] {{
  %c = (s32[], f32[32,512]{{1,0}}, f32[512,512]{{1,0}}, f32[512,512]{{1,0}}) parameter(0)
  %k = s32[] get-tuple-element(%c), index=0
  %n = s32[] constant(50)
  ROOT %lt = pred[] compare(%k, %n), direction=LT
}}

ENTRY %main (x: f32[32,512], a: f32[512,512], b: f32[512,512]) -> f32[32,512] {{
  %x = f32[32,512]{{1,0}} parameter(0)
  %a = f32[512,512]{{1,0}} parameter(1)
  %b = f32[512,512]{{1,0}} parameter(2)
  %start = s32[] constant(0)
  %init = (s32[], f32[32,512]{{1,0}}, f32[512,512]{{1,0}}, f32[512,512]{{1,0}}) tuple(%start, %x, %a, %b)
  %loop = (s32[], f32[32,512]{{1,0}}, f32[512,512]{{1,0}}, f32[512,512]{{1,0}}) while(%init), condition=%cond, body=%body
  ROOT %out = f32[32,512]{{1,0}} get-tuple-element(%loop), index=1
}}
"""

_TWICE = """HloModule m, is_scheduled=true

ENTRY %main (a: f32[1024,1024], b: f32[1024,1024]) -> (f32[1024,1024], f32[1024,1024]) {{
  %a = f32[1024,1024]{{1,0}} parameter(0)
  %b = f32[1024,1024]{{1,0}} parameter(1)
  %first = f32[1024,1024]{{1,0}} dot(%a, %b), lhs_contracting_dims={{1}}, rhs_contracting_dims={{0}}, metadata={{op_name="jit(f)/dot_general"}}
  %second = f32[1024,1024]{{0,1}} dot(%a, %b), lhs_contracting_dims={{1}}, rhs_contracting_dims={{0}}, metadata={{op_name="{name}/dot_general"}}
  ROOT %t = (f32[1024,1024]{{1,0}}, f32[1024,1024]{{0,1}}) tuple(%first, %second)
}}
"""


@dataclass(frozen=True)
class RepeatedPass(AnalysisPass):
    """Work that is done although its result is there already.

    What it finds
        Kernels in a loop that depend on nothing that the loop changes, and compute the same in
        every iteration; and products, sorts, factorisations of the same values in several
        kernels. What ``jax.checkpoint`` or XLA's rematerialization repeats on purpose, random
        numbers and mere copies give no finding.

    Why it matters
        The work is done once per iteration, or twice, for one result. XLA joins what is equal
        within one computation, not across branches and loops. XLA:GPU leaves in a loop what
        does not change; the other compilers do so where the result is larger than what
        it is computed from (tables of positions, pairwise distances).

    Example
        ``lax.fori_loop(0, 50, lambda i, h: jnp.tanh(h @ (w @ v)), h)``.

    What to do
        Compute it before the loop and close over it, behind ``jax.lax.optimization_barrier``
        where the compiler takes it in again. ``hlo-lab rewrite hoist-invariant PROGRAM`` tries
        it without a change of the source.

    How it is verified
        Compile again with the work before the loop. The example, 512 x 512, on gpu:h100: 619 to
        292 us by the model, 327 us saved, as estimated; exp of pairwise distances of 2,048
        points, 20 iterations: 575 to 406 us (124 us estimated); a sort of 65,536, 50 iterations:
        255 to 159 us (97 us). Sines and cosines of positions in a scan over 12 layers: 309 us
        of 3.58 ms by the cycles on tpu:v5e (296 us), 45 us of 1.26 ms on gpu:h100 (45 us). On
        cpu no difference in any of them: XLA:CPU takes all of it out. A product in both branches
        of a conditional and beside it: 6.1 to 2.8 ms on cpu, 28 to 10 us by the cycles on
        tpu:v5e, 21 to 10 us on gpu:h100, where it is a half to two thirds of that which is
        estimated, as one branch runs. What is fused into a kernel that does change is not
        counted: on tpu:v5e a product hid the exp (224 to 253 us with the advice).
    """

    code: ClassVar[str] = "ALG006"
    name: ClassVar[str] = "repeated-subgraph"
    examples: ClassVar[tuple[Example, ...]] = (
        Example("a product that a loop does not change", _LOOP.format(kept="w")),
        Example("a product of what it changes", _LOOP.format(kept="m"), finds=0),
        Example("a product twice", _TWICE.format(name="jit(f)")),
        Example("repeated on purpose", _TWICE.format(name="jit(f)/rematted_computation"), finds=0),
    )

    def run(self, module: Module, context: Context) -> Iterator[Finding]:
        """Yield a finding per source line."""
        if not module.is_scheduled or module.warnings:
            return
        flow, trips = context.flow, context.cost.trips
        looped = {at: loop for loop in trips for at in _unchanged(context, loop)}
        for group in fold(context, (_again(context, at, loop) for at, loop in looped.items())):
            loop = looped[kernel(flow, group.worst.at)]
            yield self._finding(
                module,
                context,
                group,
                f"computes the same in each of {trips[loop]} iterations{group.times}, "
                f"{bytes_text(group.bytes or 0)} of results: nothing that it depends on changes",
                "Compute it before the loop and close over the result, behind "
                "jax.lax.optimization_barrier where the compiler takes it in again.",
                ("hoist-invariant",),
            )
        for group in fold(context, _twice(module, context, set(looped))):
            yield self._finding(
                module,
                context,
                group,
                f"computes what {group.worst.text} computes from the same values{group.times}",
                "Compute it once, outside of the branches or loops that use it.",
                ("reuse-subgraph",),
            )

    def _finding(
        self,
        module: Module,
        context: Context,
        group: Group,
        text: str,
        advice: str,
        remedy: tuple[str, ...],
    ) -> Finding:
        at = group.worst.at
        return self.finding(
            module.instruction(at),
            f"{place_text(module, at)} {text}",
            severity=time_severity(context, group.seconds),
            advice=advice,
            remedy=remedy,
            seconds=group.seconds,
            context=context,
        )


def _again(context: Context, at: int, loop: int) -> Hit:
    trips = float(context.cost.trips[loop])
    runs = float(context.cost.executions[at]) * (1 - 1 / trips)
    shape = context.flow.shape(at)
    return Hit(context.flow.place(at), context.kernel_seconds(at) * runs, shape.padded_bytes)


def _unchanged(context: Context, loop: int) -> list[int]:
    """Kernels of a loop's body that compute the same in every iteration."""
    flow, cost = context.flow, context.cost
    body = flow.callee(loop, "body")
    if body is None or cost.trips[loop] < _FEW:
        return []
    start = context.module.computation_start
    same: set[int] = set()
    found: list[int] = []
    changing: set[tuple[str, int]] = set()  # what is computed from what changes, by its source
    for at in range(int(start[body]), int(start[body + 1])):
        opcode, operands = flow.opcode(at), flow.operands(at)
        if opcode == "get-tuple-element" and flow.opcode(operands[0]) == "parameter":
            if flow.is_invariant(loop, (flow.member(at),)):
                same.add(at)
        elif all(one in same for one in operands) and _is_pure(context, at):
            same.add(at)
            contents = flow.contents(at) - _MOVES - FREE
            large = flow.shape(at).padded_bytes >= _LARGE
            if cost.top_level[at] and contents and (large or contents & _COSTLY):
                found.append(at)
        elif cost.top_level[at]:
            changing.add(_source(flow, at))
    # a part of an operation that changes, as the compiler wrote it out, is not for the user
    return [at for at in found if _source(flow, at) not in changing and not _is_random(flow, at)]


def _is_pure(context: Context, at: int) -> bool:
    """Whether an instruction depends on its operands alone and opens no other loop."""
    flow, opcode = context.flow, context.flow.opcode(at)
    if opcode == "fusion":
        return not any(name.startswith(_IMPURE) for name in flow.contents(at))
    if opcode == "custom-call":
        attributes = flow.module.attributes[flow.module.attribute[at]]
        effects = attributes.get("custom_call_has_side_effect", "false")
        return context.machine.kind == "gpu" and effects == "false"
    return opcode in _PURE


def _source(flow: Flow, at: int) -> tuple[str, int]:
    """Which operation of the program an instruction is a part of."""
    metadata = flow.module.metadatas[flow.module.metadata[flow.place(at)]]
    return metadata.op_name, metadata.stack_frame_id


def _is_random(flow: Flow, at: int) -> bool:
    """Whether it is a part of drawing random numbers, which only looks the same."""
    return any(word in flow.op_name(at) for word in _RANDOM)


def _twice(module: Module, context: Context, known: set[int]) -> Iterator[Hit]:
    """Heavy work on equal values in several kernels."""
    flow, cost = context.flow, context.cost
    places: dict[int, dict[int, int]] = {}
    for at in np.nonzero(module.opcode_mask(*_HEAVY))[0].tolist():
        run = kernel(flow, at)
        if not cost.top_level[run] or run in known or ".remat" in module.instruction_names[run]:
            continue
        name = flow.op_name(at)  # what the compiler made itself has none
        if name and phase(name) is not Phase.RECOMPUTE:
            places.setdefault(context.numbers[at], {})[run] = at
    for kernels in places.values():
        branch = {run: _branch(flow, run) for run in kernels}
        always = [run for run in kernels if branch[run] is None]
        if len(kernels) < 2 or not always:
            continue
        spent = {run: context.kernel_seconds(run) * float(cost.executions[run]) for run in kernels}
        first = max(always, key=lambda run: spent[run])
        rest = [run for run in kernels if run != first]
        saved = sum(spent[run] for run in rest if branch[run] is None)
        # of several branches one runs
        saved += max((spent[run] for run in rest if branch[run] is not None), default=0.0)
        again = max(rest, key=lambda run: spent[run])
        yield Hit(kernels[again], saved, text=place_text(module, kernels[first]))


def _branch(flow: Flow, at: int) -> int | None:
    """The conditional that decides whether a kernel runs."""
    caller: int | None = at
    while caller is not None:
        caller = flow.caller(flow.computation_of(caller))
        if caller is not None and flow.opcode(caller) == "conditional":
            return caller
    return None
