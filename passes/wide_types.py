"""PRC002: 64-bit arrays where the program's data is narrower."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from hlo_lab.ir.module import Module
from hlo_lab.passkit.base import AnalysisPass, Example
from hlo_lab.passkit.context import Context
from hlo_lab.passkit.finding import Finding, Severity
from hlo_lab.passkit.patterns import Flow
from hlo_lab.passkit.wording import bytes_text, place_text

_WIDE = {"f64": "float64", "s64": "int64", "c128": "complex128"}
_BEGINS = ("convert", "iota")

_TEXT = """HloModule m

ENTRY %main (x: {dtype}[1024,1024]) -> f64[1024,1024] {{
  %x = {dtype}[1024,1024]{{1,0}} parameter(0)
  {begin}
  ROOT %s = f64[1024,1024]{{1,0}} sine(%c), metadata={{op_name="jit(f)/sin"}}
}}
"""


@dataclass(frozen=True)
class WideTypesPass(AnalysisPass):
    """64-bit arrays that begin inside of a program whose arguments are narrower.

    What it finds
        Large float64, int64 and complex128 arrays that begin with a conversion or
        ``jnp.arange``, in a program none of whose large arguments has that type. With
        the bundle the program before optimisation is looked at, as XLA:TPU splits such arrays
        into pairs. A program that is given 64-bit arrays means them, and gives no finding.

    Why it matters
        They take twice the memory and bandwidth. A TPU has no 64-bit units: float64 is made of
        pairs of f32, int64 of pairs of u32, whose divisions take dozens of operations.

    Example
        With ``jax_enable_x64``: ``jnp.arange(n) % 7``, or ``x * np.linspace(0, 1, n)`` with x f32.

    What to do
        Give the type (``jnp.arange(n, dtype=jnp.int32)``, ``.astype(x.dtype)``), or leave
        ``jax_enable_x64`` off.

    How it is verified
        Compile again with 32-bit types. A grid of 2048 x 2048 indices modulo 7: 7.62 to 0.12
        million cycles on tpu:v5e, 11.8 to 10.2 ms on cpu by the model, peak 67 to 50 MB on both.
        x * linspace, 2048 x 2048: 83 to 77 thousand cycles on tpu:v5e (compiled in 9.7 instead of
        0.3 s), 1.46 to 1.04 ms on cpu by the model. How much it saves depends on what is
        computed, so no figure is promised. Indices that stay inside of a kernel: no effect on
        gpu:h100 by the model, so there a note; on cpu none by the model either, which does not
        know what a 64-bit division takes, and measured 5.2 to 1.4 ms.
    """

    code: ClassVar[str] = "PRC002"
    name: ClassVar[str] = "wide-types"
    examples: ClassVar[tuple[Example, ...]] = (
        Example(
            "f32 converted up",
            _TEXT.format(dtype="f32", begin="%c = f64[1024,1024]{1,0} convert(%x)"),
        ),
        Example(
            "f64 from the start",
            _TEXT.format(dtype="f64", begin="%c = f64[1024,1024]{1,0} negate(%x)"),
            finds=0,
        ),
    )

    min_elements: int = 1 << 16  # of the largest array

    def run(self, module: Module, context: Context) -> Iterator[Finding]:
        """Yield a finding per type, at the largest instruction that begins it."""
        source = module
        if context.machine.kind == "tpu" and context.before is not None:
            source = context.before
        flow = context.flow if source is module else Flow(source)
        sizes = source.shape_values("element_count")
        stored = context.cost.top_level if source is module else np.ones(len(sizes), bool)
        types = np.array([shape.dtype for shape in source.shapes])[source.shape]
        large = sizes >= self.min_elements
        given = set(
            types[
                large & (source.parameter_number >= 0) & (source.computation_of == source.entry)
            ].tolist()
        )
        for wide, name in _WIDE.items():
            these = types == wide
            rows = np.nonzero(these & (sizes > 1) & source.opcode_mask(*_BEGINS))[0]
            begins = [at for at in rows.tolist() if _is_beginning(flow, at)]
            if wide in given or not begins or not (these & large).any():
                continue
            first = max(begins, key=lambda at: int(sizes[at]))
            largest = int(np.where(these, sizes, 0).argmax())
            several = f" (and {len(begins) - 1} more)" if len(begins) > 1 else ""
            shape = flow.shape(largest).without_layout()
            # inside of a GPU's kernels they take no bandwidth, and nothing else was verified
            is_free = context.machine.kind == "gpu" and not (these & large & stored).any()
            yield self.finding(
                source.instruction(first),
                f"{place_text(source, flow.place(first))}{several} begins {name}, up to {shape} "
                f"of {bytes_text(shape.bytes)}, and no large argument has that type",
                severity=Severity.WARNING if context.machine.kind == "tpu" else Severity.NOTE,
                advice=f"Give a 32-bit type where {name} begins (dtype=, .astype), or leave "
                "jax_enable_x64 off.",
                remedy=() if is_free else ("narrow-types",),
                context=context,
            )


def _is_beginning(flow: Flow, at: int) -> bool:
    """Whether nothing that is as wide goes in."""
    return all(flow.shape(one).dtype not in _WIDE for one in flow.operands(at))
