"""FUS003: expensive functions that several kernels evaluate on the same values."""

# ruff: noqa: E501 - HLO text has long lines

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from hlo_lab.cost.efficiency import factors
from hlo_lab.ir.module import Module
from hlo_lab.passkit.base import AnalysisPass, Example
from hlo_lab.passkit.context import Context
from hlo_lab.passkit.finding import Finding
from hlo_lab.passkit.folding import Hit, fold, share, time_severity
from hlo_lab.passkit.patterns import EXPENSIVE, Phase, phase
from hlo_lab.passkit.tracing import kernel
from hlo_lab.passkit.wording import counted, place_text, times_text

_PRODUCTS = frozenset(("dot", "convolution"))
_DOUBT = 0.25  # share of a product's estimate by which it may be wrong
_Where = tuple[int, Phase]  # a computation, and the part of a training step

_TWICE = """HloModule m, is_scheduled=true

%chain.1 (a: f32[4096,1024], v: f32[1024,1024]) -> f32[4096,1024] {{
  %a = f32[4096,1024]{{1,0}} parameter(0)
  %v = f32[1024,1024]{{1,0}} parameter(1)
  %t1 = f32[4096,1024]{{1,0}} tanh(%a), metadata={{op_name="jit(f)/tanh"}}
  %e1 = f32[4096,1024]{{1,0}} exponential(%t1)
  %s1 = f32[4096,1024]{{1,0}} sine(%e1), metadata={{op_name="jit(f)/sin"}}
  ROOT %d1 = f32[4096,1024]{{1,0}} convolution(%s1, %v), dim_labels=bf_io->bf
}}

%chain.2 (b: f32[4096,1024], u: f32[1024,1024]) -> f32[4096,1024] {{
  %b = f32[4096,1024]{{1,0}} parameter(0)
  %u = f32[1024,1024]{{1,0}} parameter(1)
  %t2 = f32[4096,1024]{{1,0}} tanh(%b), metadata={{op_name="jit(f)/tanh"}}
  %e2 = f32[4096,1024]{{1,0}} exponential(%t2)
  %s2 = f32[4096,1024]{{1,0}} sine(%e2), metadata={{op_name="jit(f)/sin"}}
  ROOT %d2 = f32[4096,1024]{{1,0}} convolution(%s2, %u), dim_labels=bf_io->bf
}}

ENTRY %main (x: f32[4096,1024], y: f32[4096,1024], w: f32[1024,1024], z: f32[1024,1024]) -> (f32[4096,1024], f32[4096,1024]) {{
  %x = f32[4096,1024]{{1,0}} parameter(0)
  %y = f32[4096,1024]{{1,0}} parameter(1)
  %w = f32[1024,1024]{{1,0}} parameter(2)
  %z = f32[1024,1024]{{1,0}} parameter(3)
  %first = f32[4096,1024]{{1,0}} fusion(%x, %w), kind=kOutput, calls=%chain.1, backend_config={{"window_config":{{"estimated_cycles":"185516"}}}}
  %second = f32[4096,1024]{{1,0}} fusion(%{other}, %z), kind=kOutput, calls=%chain.2, backend_config={{"window_config":{{"estimated_cycles":"185516"}}}}
  ROOT %t = (f32[4096,1024]{{1,0}}, f32[4096,1024]{{1,0}}) tuple(%first, %second)
}}
"""


@dataclass(frozen=True)
class RecomputedPass(AnalysisPass):
    """Expensive functions of the same values, evaluated in several kernels.

    What it finds
        ``exp``, ``tanh``, ``sin`` and the like that the compiler copied into each kernel that
        reads the result, where evaluating them again takes longer than to write and read the
        result once: on TPUs beside products, by the compiler's own cycles beyond what the
        product takes; on GPUs by the model. Forward and backward pass count apart (what is
        kept between them is for ``remat``), and what ``jax.checkpoint`` repeats does not.

    Why it matters
        The vector units work several times for one value, and the matrix units wait for them.

    Example
        ``y = jnp.sin(jnp.exp(jnp.tanh(x)))``, and then ``y @ a``, ``y.T @ x`` and ``y.sum(0)``.

    What to do
        ``y = jax.lax.optimization_barrier(f(x))``: no fusion reaches across it.
        ``hlo-lab rewrite compute-once PROGRAM`` tries it without a change of the source.

    How it is verified
        Compile again with the barrier. The example, 4096 x 1024, with two products: 360 to 259
        us by the cycles on tpu:v5e (87 us estimated), 125 to 114 us by the model on gpu:h100 (7
        us estimated). The compilers rarely go wrong: on tpu:v5e a tanh, softplus, power or GELU
        in two or three products hides behind the matrix units (221 to 357, 221 to 292, 166 to
        199 and 314 to 367 us with the barrier), a sine or erf alone is not copied; softmax reads
        and writes for longer than it computes. None of those gives a finding. XLA:CPU drops the
        barrier before it fuses: no finding there. What a GPU product in Triton evaluates for
        each of its tiles is not counted: a GPU's own tuning decides, which takes a GPU.
    """

    code: ClassVar[str] = "FUS003"
    name: ClassVar[str] = "fusion-recompute"
    examples: ClassVar[tuple[Example, ...]] = (
        Example("a chain in two kernels", _TWICE.format(other="x")),
        Example("the same functions of other values", _TWICE.format(other="y"), finds=0),
    )

    min_share: float = 0.001  # of the step's time

    def run(self, module: Module, context: Context) -> Iterator[Finding]:
        """Yield a finding per source line."""
        if not module.is_scheduled or module.warnings or context.machine.kind == "cpu":
            return
        for group in fold(context, _hits(module, context)):
            if share(context, group.seconds) < self.min_share:
                continue
            worst = group.worst
            runs = float(context.cost.executions[kernel(context.flow, worst.at)])
            yield self.finding(
                module.instruction(worst.at),
                f"{place_text(module, worst.at)} is evaluated again in each kernel that reads it, "
                f"{worst.text}{times_text(runs)}{group.times}: written once, it takes less",
                severity=time_severity(context, group.seconds),
                advice="jax.lax.optimization_barrier(y) around the value before its readers.",
                remedy=("compute-once",),
                seconds=group.seconds,
                context=context,
            )


def _hits(module: Module, context: Context) -> Iterator[Hit]:
    flow, cost = context.flow, context.cost
    made = {context.numbers[at] for at in np.nonzero(cost.top_level)[0].tolist()}
    # what the same kernels evaluate goes together: chains
    chains: dict[tuple[int, ...], list[int]] = {}
    for places in _evaluations(module, context).values():
        if len(places) > 1:
            chains.setdefault(tuple(sorted(places)), []).append(max(places.values()))
    for kernels, functions in chains.items():
        last = max(functions)
        price = _on_tpu if context.machine.kind == "tpu" else _on_gpu
        again = price(context, list(kernels), functions)
        if not any(context.numbers[at] in made for at in functions):
            size = flow.shape(last).padded_bytes
            again -= 2 * size / context.machine.memory_bandwidth + context.machine.launch_overhead
        if again <= 0:
            continue
        yield Hit(
            last,
            again * float(cost.executions[kernels[0]]),
            text=f"{counted(len(functions), 'function')} of {flow.shape(last).without_layout()}"
            f" in {counted(len(kernels), 'kernel')}",
        )


def _on_tpu(context: Context, kernels: list[int], functions: list[int]) -> float:
    """Seconds that kernels spend on functions beside products, by the compiler's own cycles.

    Of most functions it expects that the matrix units hide them, of some it does not.
    """
    spent = 0.0
    for at in kernels:
        if context.flow.contents(at) & _PRODUCTS:
            alone = float(context.cost.seconds[at])
            beyond = context.kernel_seconds(at) - alone
            spent += beyond if beyond > _DOUBT * alone else 0.0
    return spent


def _on_gpu(context: Context, kernels: list[int], functions: list[int]) -> float:
    """Seconds that all kernels but one spend on functions, by the model."""
    unit = factors("gpu")["vector"]["heavy"] / context.machine.vector_peak("f32")
    elements = sum(context.flow.shape(at).element_count for at in functions)
    return (len(kernels) - 1) * unit * elements


def _evaluations(module: Module, context: Context) -> dict[tuple[int, _Where], dict[int, int]]:
    """By value number and place: the kernels that evaluate a function, and where in them."""
    flow, cost = context.flow, context.cost
    found: dict[tuple[int, _Where], dict[int, int]] = {}
    for at in np.nonzero(module.opcode_mask(*EXPENSIVE))[0].tolist():
        name = flow.op_name(at)
        run = kernel(flow, at)
        part = phase(name)
        if part is Phase.RECOMPUTE or not cost.top_level[run]:
            continue
        where = (flow.computation_of(run), part)
        found.setdefault((context.numbers[at], where), {})[run] = at
    return found
