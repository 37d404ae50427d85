"""CTL004: products of a loop's iterations that could be one product."""

# ruff: noqa: E501 - HLO text has long lines

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from hlo_lab.ir.module import Module
from hlo_lab.passkit.base import AnalysisPass, Example
from hlo_lab.passkit.context import Context
from hlo_lab.passkit.finding import Finding, Severity
from hlo_lab.passkit.folding import Hit, fold, share, time_severity
from hlo_lab.passkit.patterns import MOVES, Flow
from hlo_lab.passkit.products import batched_seconds, narrow_products, rows_text
from hlo_lab.passkit.tracing import definition, depends_on_carry, kernel
from hlo_lab.passkit.wording import place_text

_WORTH = 2.0  # times that the single products must take what the joined one takes
_WHOLE = MOVES - {"slice", "dynamic-slice"}  # another part in each iteration is another matrix
_FREE, _BOUND = "", "carry"
_ADVICE = {
    _FREE: "Take the product of all inputs with the matrix before the loop, xs @ w, and let the "
    "loop read its rows; or jax.vmap the function instead of lax.map or scan.",
    _BOUND: "Each iteration needs the result of the one before, so it cannot be moved out: only "
    "more rows in each, such as more sequences decoded at once, use the matrix better.",
}

_SCAN = """HloModule m, is_scheduled=true

%body (p: (s32[], f32[128,1024], f32[128,1024], f32[1024,1024])) -> (s32[], f32[128,1024], f32[128,1024], f32[1024,1024]) {{
  %p = (s32[], f32[128,1024]{{1,0}}, f32[128,1024]{{1,0}}, f32[1024,1024]{{1,0}}) parameter(0)
  %i = s32[] get-tuple-element(%p), index=0
  %xs = f32[128,1024]{{1,0}} get-tuple-element(%p), index=1
  %ys = f32[128,1024]{{1,0}} get-tuple-element(%p), index=2
  %w = f32[1024,1024]{{1,0}} get-tuple-element(%p), index=3
  %zero = s32[] constant(0)
  %one = s32[] constant(1)
  %x = f32[1,1024]{{1,0}} dynamic-slice(%{source}, %i, %zero), dynamic_slice_sizes={{1,1024}}
  %y = f32[1,1024]{{1,0}} dot(%x, %w), lhs_contracting_dims={{1}}, rhs_contracting_dims={{0}}, metadata={{op_name="jit(f)/while/body/dot_general"}}
  %new = f32[128,1024]{{1,0}} dynamic-update-slice(%ys, %y, %i, %zero)
  %next = s32[] add(%i, %one)
  ROOT %r = (s32[], f32[128,1024]{{1,0}}, f32[128,1024]{{1,0}}, f32[1024,1024]{{1,0}}) tuple(%next, %xs, %new, %w)
}}

%cond (c: (s32[], f32[128,1024], f32[128,1024], f32[1024,1024])) -> pred[] {{
  %c = (s32[], f32[128,1024]{{1,0}}, f32[128,1024]{{1,0}}, f32[1024,1024]{{1,0}}) parameter(0)
  %k = s32[] get-tuple-element(%c), index=0
  %n = s32[] constant(128)
  ROOT %lt = pred[] compare(%k, %n), direction=LT
}}

ENTRY %main (a: f32[128,1024], b: f32[128,1024], m: f32[1024,1024]) -> f32[128,1024] {{
  %a = f32[128,1024]{{1,0}} parameter(0)
  %b = f32[128,1024]{{1,0}} parameter(1)
  %m = f32[1024,1024]{{1,0}} parameter(2)
  %start = s32[] constant(0)
  %init = (s32[], f32[128,1024]{{1,0}}, f32[128,1024]{{1,0}}, f32[1024,1024]{{1,0}}) tuple(%start, %a, %b, %m)
  %loop = (s32[], f32[128,1024]{{1,0}}, f32[128,1024]{{1,0}}, f32[1024,1024]{{1,0}}) while(%init), condition=%cond, body=%body
  ROOT %out = f32[128,1024]{{1,0}} get-tuple-element(%loop), index=2
}}
"""


@dataclass(frozen=True)
class LoopProductsPass(AnalysisPass):
    """Products of few rows with one matrix in each iteration of a loop.

    What it finds
        A product of few rows with a matrix that the loop does not change, where the rows do not
        depend on what earlier iterations computed: ``lax.map`` over vectors, the input
        projection of a recurrent network. Where they depend on it, as in decoding, it is a note,
        if it takes a good part of the step.

    Why it matters
        Each iteration reads the whole matrix for a few rows, and fills a part of the matrix
        unit; of all iterations together it is read once, and the rows fill the unit.

    Example
        ``jax.lax.scan(lambda h, x: (jnp.tanh(x @ w + h @ u), None), h, xs)``: ``x @ w``.

    What to do
        ``jax.lax.scan(lambda h, p: (jnp.tanh(p + h @ u), None), h, xs @ w)``: the product of all
        inputs before the loop. ``jax.vmap(f)(xs)`` in place of ``jax.lax.map(f, xs)``.
        ``hlo-lab rewrite hoist-product PROGRAM`` tries it without a change of the source.

    How it is verified
        Compile again. 128 vectors, 1024 x 1024, from lax.map to one product: by the model 2.36 ms
        to 10 us on tpu:v5e, 18.3 to 1.7 ms on cpu (measured there on one core: 21.3 to 2.0 ms),
        1.48 ms to 7 us on gpu:h100. The scan above over 256 steps: width 512 and a batch of 4,
        26.1 to 12.8 ms on cpu (measured: 16.0 to 8.3 ms), 2.76 to 1.78 ms on gpu:h100, but 1.5
        to 2.0 ms on tpu:v5e: the matrix stays in its vector memory, and reading rows of the one
        product takes a kernel more. Width 2048 and a single row there 32 to 14 ms. So on TPUs
        it is a finding where a product takes longer than starting kernels does. ``--verify`` with
        hoist-product: confirmed on cpu (25.0 to 11.5 ms, 0.58 of it promised), and for the map on
        gpu:h100 (1.5 to 0.4 ms, 0.58). 64 steps of 16 rows and a 256 x 512 matrix on cpu, 0.56 ms
        promised: 7.9 to 6.6 ms by the model, measured 11 % less.
    """

    code: ClassVar[str] = "CTL004"
    name: ClassVar[str] = "loop-products"
    examples: ClassVar[tuple[Example, ...]] = (
        Example("a vector of each iteration", _SCAN.format(source="xs")),
        Example("a recurrence is a note", _SCAN.format(source="ys"), finds=1),
        Example(
            "two iterations",
            _SCAN.format(source="xs").replace("constant(128)", "constant(2)"),
            finds=0,
        ),
    )

    most_rows: int = 64  # of one product
    min_times: int = 4  # iterations
    min_gain: float = 0.05  # of the step's time on cpu, where the products take less than twice
    min_share: float = 0.2  # of the step's time, for the note on those that depend on each other

    def run(self, module: Module, context: Context) -> Iterator[Finding]:
        """Yield a finding per source line."""
        if module.warnings:
            return
        for group in fold(context, self._hits(module, context)):
            worst = group.worst
            bound = worst.key == _BOUND
            if bound and share(context, group.seconds) < self.min_share:
                continue
            yield self.finding(
                module.instruction(worst.at),
                f"{place_text(module, context.flow.place(worst.at))} multiplies {worst.text}"
                f"{group.times}"
                + (
                    ", and needs the result of the iteration before"
                    if bound
                    else ": one product of them all reads the matrix once"
                ),
                severity=Severity.NOTE if bound else time_severity(context, group.seconds),
                advice=_ADVICE[worst.key],
                remedy=() if bound else ("hoist-product",),
                seconds=None if bound else group.seconds,
                context=context,
            )

    def _hits(self, module: Module, context: Context) -> Iterator[Hit]:
        flow, cost = context.flow, context.cost
        for product, at in narrow_products(module, context, self.most_rows):
            body = flow.computation_of(at)
            loop = flow.caller(body)
            if loop is None or flow.opcode(loop) != "while":
                continue
            times = float(cost.trips.get(loop, 1))
            rounds = float(cost.executions[at]) / max(times, 1.0)
            matrix, _ = definition(flow, product.right, (), _WHOLE)
            if times < self.min_times or flow.computation_of(kernel(flow, matrix)) == body:
                continue  # made in the loop
            bound = depends_on_carry(flow, product.left, body)
            once = float(cost.seconds[at])
            if not bound and context.machine.kind == "tpu" and not _is_map(flow, loop):
                # the rows of the one product are then read by a kernel of their own
                once -= _WORTH * context.machine.launch_overhead
            now, then = times * once, batched_seconds(product, times, context.machine)
            gain = share(context, (now - then) * rounds)
            is_large = not bound and context.machine.kind == "cpu" and gain >= self.min_gain
            if now < _WORTH * then and not is_large:
                continue
            text = f"{rows_text(product)} in each of {times:.0f} iterations"
            yield Hit(
                product.at,
                (now if bound else now - then) * rounds,
                text=text,
                key=_BOUND if bound else _FREE,
            )


def _is_map(flow: Flow, loop: int) -> bool:
    """Whether a loop carries nothing but counters, what it reads, and rows that it collects."""
    body, carried = flow.callee(loop, "body"), flow.shape(loop)
    if body is None or not carried.is_tuple:
        return False
    return all(
        member.element_count == 1
        or flow.is_invariant(loop, (number,))
        or flow.stacked_update(loop, (number,)) is not None
        for number, member in enumerate(carried.elements)
    )
