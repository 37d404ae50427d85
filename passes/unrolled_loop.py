"""CTL003: a block of operations written out many times where a loop would do."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from hlo_lab.ir.module import Module
from hlo_lab.ir.source import Frame
from hlo_lab.passkit.base import AnalysisPass, Example
from hlo_lab.passkit.context import Context
from hlo_lab.passkit.finding import Finding, Severity
from hlo_lab.passkit.patterns import FREE
from hlo_lab.passkit.tracing import kernel
from hlo_lab.passkit.wording import counted, seconds_text

# Measured on one core with JAX 0.10.2 (see "How it is verified"), tracing and lowering included:
# seconds for each repeated instruction, and what a loop itself costs to compile.
_SECONDS = {"cpu": 0.5e-3, "gpu": 0.95e-3, "tpu": 1.7e-3}
_LOOP_SECONDS = {"cpu": 1.1, "gpu": 0.0, "tpu": 0.0}
_NUMBERS = re.compile(r"(?<![A-Za-z])\d+|(?<=_)\d+")  # layers_3, blocks/3
_OPERANDS = 8  # that tell one kind from another
_TRIED = 6  # counts of repeats, and operations that may form the chain for each
_MOST = 0.7  # of what was called from the outermost line
_HEAVY = frozenset(("dot", "convolution", "reduce", "fusion", "custom-call", "while"))


def _text(layers: int, chained: bool) -> str:
    """Layers of twelve operations each."""
    lines = ["HloModule m, is_scheduled=true", ""]
    lines += ["ENTRY %main (x: f32[64,64], w: f32[64,64]) -> f32[64,64] {"]
    lines += ["  %x = f32[64,64]{1,0} parameter(0)", "  %w = f32[64,64]{1,0} parameter(1)"]
    value = "%x"
    for layer in range(layers):
        meta = (
            f'metadata={{op_name="jit(f)/layers_{layer}/OP" source_file="net.py" source_line=LINE}}'
        )
        start = value if chained else "%x"
        for step in range(12):
            made = f"%v{layer}_{step}"
            what = (
                f"dot({start}, %w), lhs_contracting_dims={{1}}, rhs_contracting_dims={{0}}"
                if step == 0
                else f"tanh({start})"
            )
            said = meta.replace("OP", "dot_general" if step == 0 else "tanh").replace(
                "LINE", str(7 + step)
            )
            lines.append(f"  {made} = f32[64,64]{{1,0}} {what}, {said}")
            start = made
        value = start if chained else value
    lines += [f"  ROOT %r = f32[64,64]{{1,0}} negate({start})", "}", ""]
    return "\n".join(lines)


@dataclass(frozen=True)
class UnrolledLoopPass(AnalysisPass):
    """A block of operations written out many times, each taking the result of the one before.

    What it finds
        Operations of one source line and shape that occur N times, each occurrence after the
        one before, and all that occurs as often with them: the layers of a network in a
        Python ``for``, a solver's steps, ``unroll=`` of many iterations. Copies side by side
        (heads, parameters of an optimiser) are no finding.

    Why it matters
        XLA optimises and schedules, and its back ends generate code for, each copy on its own:
        the program takes several times as long to compile and its code is as much larger.

    Example
        ``for p in layers: x = block(p, x)`` over 24 layers of the same shapes.

    What to do
        Stack the parameters (``jax.tree.map(lambda *p: jnp.stack(p), *layers)``) and
        ``x, _ = jax.lax.scan(lambda x, p: (block(p, x), None), x, stacked)``; flax has
        ``nn.scan``. It is the compile time that is saved: a step may
        take a little longer, since the loop copies a layer's parameters and collects residuals.

    How it is verified
        Compile both, seconds from tracing to the end on one core, training steps of attention
        layers (width 256): 12 layers on tpu:v5e 7.8 unrolled, 4.1 scanned (3.7 saved, 3.8 as
        estimated); on gpu:h100 5.8 and 3.8 (1.9, estimated 1.8); on cpu 2.1 and 2.3, where a
        loop itself takes long to compile, so there is no finding; 48 layers on cpu 5.7 and 2.3
        (3.4, estimated 3.5). The scanned step is slower by the model, 1.4 to 2.8 ms on tpu:v5e
        and 1.5 to 2.6 ms on gpu:h100, and its peak is higher, 76 to 262 and 183 to 329 MB.
    """

    code: ClassVar[str] = "CTL003"
    name: ClassVar[str] = "unrolled-loop"
    examples: ClassVar[tuple[Example, ...]] = (
        Example("sixty layers, one after another", _text(60, True)),
        Example("sixty copies side by side", _text(60, False), finds=0),
        Example("three layers", _text(3, True), finds=0),
    )

    min_repeats: int = 6
    min_instructions: int = 500  # in all copies together
    min_seconds: float = 1.0  # of compile time saved
    warn_seconds: float = 10.0  # of compile time saved, for a warning

    def run(self, module: Module, context: Context) -> Iterator[Finding]:
        """Yield at most one finding, on the loop that takes the most instructions."""
        if module.warnings or len(module) < self.min_instructions:
            return
        kinds = _Kinds(module, context)
        for repeats in kinds.repeats(self.min_repeats):
            anchor = kinds.chain(repeats)
            if anchor is None:
                continue
            frame, inside = kinds.block(repeats, anchor)
            if len(inside) < self.min_instructions:
                continue
            kind = context.machine.kind
            saved = _SECONDS[kind] * len(inside) * (1 - 1 / repeats) - _LOOP_SECONDS[kind]
            if saved < self.min_seconds:
                continue
            where = _where(frame, context.flow.op_name(anchor))
            clear = saved >= self.warn_seconds and bool(where)
            yield self.finding(
                module.instruction(anchor),
                f"a block of {counted(len(inside) // repeats, 'instruction')}{where} is written "
                f"out {repeats} times, {len(inside):,} of {len(module):,} instructions: as a loop "
                f"it would compile about {seconds_text(saved)} faster",
                severity=Severity.WARNING if clear else Severity.NOTE,
                advice="Stack the parameters of the copies and use jax.lax.scan (nn.scan in "
                "flax), or a smaller unroll=, where compiling takes too long; the step may take "
                "longer and keep more memory.",
                context=context,
            )
            return


class _Kinds:
    """Instructions by kind: operation, shape and source line, without the layer's number.

    A module without op_names tells by the operations and shapes of the operands instead.
    Instructions that no kernel runs for are left out.
    """

    def __init__(self, module: Module, context: Context):
        self.module, self.flow = module, context.flow
        names = [_NUMBERS.sub("#", one.op_name) for one in module.metadatas]
        origins = [
            (name, one.source_file, one.source_line, one.stack_frame_id)
            for name, one in zip(names, module.metadatas, strict=True)
        ]
        by_name = any(names)
        free = {number for number, name in enumerate(module.opcodes) if name in FREE}
        fused = _fused(module)
        opcodes, shapes = module.opcode.tolist(), module.shape.tolist()
        metadata, home = module.metadata.tolist(), module.computation_of.tolist()
        self.rows: dict[tuple[object, ...], list[int]] = {}
        for at, (opcode, shape) in enumerate(zip(opcodes, shapes, strict=True)):
            if opcode in free or (by_name and not names[metadata[at]]):
                continue
            operands = () if by_name else self.flow.operands(at)[:_OPERANDS]
            told = origins[metadata[at]] if by_name else [(opcodes[o], shapes[o]) for o in operands]
            key = (*told, opcode, shape, -1 if fused[home[at]] else home[at])
            self.rows.setdefault(key, []).append(at)

    def repeats(self, least: int) -> list[int]:
        """How often blocks may be repeated: the counts that most instructions have, most first."""
        weight: Counter[int] = Counter()
        for rows in self.rows.values():
            if len(rows) >= least:
                weight[len(rows)] += len(rows)
        return [count for count, _ in weight.most_common(_TRIED)]

    def chain(self, repeats: int) -> int | None:
        """The first of as many alike instructions, each of which depends on the one before."""
        alike = [rows for rows in self.rows.values() if len(rows) == repeats]
        alike.sort(key=lambda rows: self._opcode(rows[0]) not in _HEAVY)
        for rows in alike[:_TRIED]:
            kernels = sorted({kernel(self.flow, at) for at in rows})
            homes = {self.flow.computation_of(at) for at in kernels}
            if len(kernels) == repeats and len(homes) == 1 and self._depth(kernels) == repeats:
                return rows[0]
        return None

    def _opcode(self, at: int) -> str:
        return self.flow.opcode(at)

    def _depth(self, kernels: list[int]) -> int:
        """How many of some instructions lie on one path; one walk over what is in between."""
        wanted, first = set(kernels), kernels[0]
        depth: dict[int, int] = {}
        for at in range(first, kernels[-1] + 1):
            above = max((depth.get(one, 0) for one in self.flow.operands(at)), default=0)
            if above or at in wanted:
                depth[at] = above + (at in wanted)
        return depth[kernels[-1]]

    def block(self, repeats: int, anchor: int) -> tuple[Frame | None, list[int]]:
        """The source line of the loop, and all instructions that repeat with ``anchor``.

        The innermost line that nearly all of them were called from; without source lines,
        all that occurs as often.
        """
        whole = [rows for rows in self.rows.values() if len(rows) % repeats == 0]
        stacks = [self.module.source_stack(rows[0]) for rows in whole]
        frames = self.module.source_stack(anchor)
        sizes = [
            sum(len(rows) for rows, stack in zip(whole, stacks, strict=True) if frame in stack)
            for frame in frames
        ]
        exact = [rows for rows in whole if len(rows) == repeats]
        if len(frames) < 2:
            return None, [at for rows in exact for at in rows]
        frame = next(
            one for one, size in zip(frames, sizes, strict=True) if size >= _MOST * sizes[-1]
        )
        rows = [r for r, stack in zip(whole, stacks, strict=True) if frame in stack]
        return frame, [at for each in rows for at in each]


def _where(frame: Frame | None, op_name: str) -> str:
    """`` at model.py:12``, else `` (decoder_block_0)``, the first numbered part of the op_name."""
    if frame is not None:
        return f" at {frame.file.rsplit('/', 1)[-1]}:{frame.line}"
    named = (part for part in op_name.split("/") if _NUMBERS.search(part))
    part = next(named, "")
    return f" ({part})" if part else ""


def _fused(module: Module) -> list[bool]:
    """bool[C]: whether a computation is a fusion's body, or applied element by element."""
    out = [False] * len(module.computation_names)
    fusions = np.nonzero(module.opcode_mask("fusion"))[0].tolist()
    for at in fusions:
        for row in range(module.callee_start[at], module.callee_start[at + 1]):
            out[int(module.callee[row])] = True
    return out
