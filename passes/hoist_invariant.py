"""HOI002: what a loop computes anew from what it does not change, before the loop."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from hlo_lab.passkit.base import RewriteExample, RewritePass
from hlo_lab.passkit.builder import Builder
from hlo_lab.passkit.mlir_module import identity, is_pure, taken, walk
from hlo_lab.passkit.rewriter import Op, Rewriter

_PROGRAM = """
import jax
import jax.numpy as jnp

def f(x, w, v):
    BODY

def example_args():
    return (jax.ShapeDtypeStruct((8, 64), jnp.float32),) + (
        jax.ShapeDtypeStruct((64, 64), jnp.float32),) * 2
"""
# What is worth a buffer that lives as long as the loop.
_COSTLY = frozenset((
    "atan2", "cbrt", "chlo.erf", "chlo.erf_inv", "chlo.top_k", "cholesky", "convolution", "cosine",
    "custom_call", "dot_general", "exponential", "exponential_minus_one", "fft", "log",
    "log_plus_one", "logistic", "power", "reduce", "reduce_window", "sine", "sort", "tan", "tanh",
    "triangular_solve",
))  # fmt: skip
_OWN_REGIONS = frozenset(("reduce", "reduce_window", "sort"))


def _program(body: str) -> str:
    return _PROGRAM.replace("BODY", body)


@dataclass(frozen=True)
class HoistInvariantPass(RewritePass):
    """What every iteration of a loop computes anew, computed once before it.

    What it rewrites
        Products, sorts, reductions, factorisations and functions such as ``exp`` and ``sin`` of
        ``min_elements`` or more in a loop's body, that depend on nothing that the loop changes,
        with what they are computed from; out of several loops at once, where none changes it.

    Why it matters
        XLA:GPU leaves them in the loop; the other compilers do so where the result is larger
        than what it is computed from.

    Example
        ``lax.fori_loop(0, n, lambda i, h: jnp.tanh(h @ (w @ v)), h)``.

    When it does not pay
        A loop of no or one iteration. The results live as long as the loop does. On TPUs a
        function beside a product may cost nothing where it is.

    What changes in the numbers
        Rounding, where the kernel in the loop kept more digits than the type has.
    """

    code: ClassVar[str] = "HOI002"
    name: ClassVar[str] = "hoist-invariant"
    examples: ClassVar[tuple[RewriteExample, ...]] = (
        RewriteExample(
            "a product of two weights",
            _program("return jax.lax.fori_loop(0, 9, lambda i, h: jnp.tanh(h @ (w @ v)), x)"),
        ),
        RewriteExample(
            "out of two loops",
            _program(
                "step = lambda i, h: h @ jnp.sort(w); "
                "return jax.lax.fori_loop(0, 2, lambda i, h: jax.lax.fori_loop(0, 3, step, h), x)"
            ),
            changes=2,
        ),
        RewriteExample(
            "each iteration has its own",
            _program("return jax.lax.fori_loop(0, 9, lambda i, h: jnp.tanh(h @ (w * i)), x)"),
            changes=0,
        ),
        RewriteExample(
            "cheap",
            _program("return jax.lax.fori_loop(0, 9, lambda i, h: h @ (w + v), x)"),
            changes=0,
        ),
    )

    min_elements: int = 32  # of what it is computed from or of the result

    def rewrite(self, module: Rewriter) -> None:
        """Take what inner loops keep out first: outer ones may keep it too."""
        here = {identity(op.raw) for op in module.ops(*_COSTLY)}
        loops = [
            op for raw in walk(module.raw.operation) if (op := Op(raw, module)).name == "while"
        ]
        for loop in reversed(loops):
            block = loop.raw.regions[1].blocks[0]
            *_, last = block.operations
            starts = {
                argument: start
                for argument, result, start in zip(
                    block.arguments, last.operation.operands, loop.raw.operands, strict=True
                )
                if argument == result
            }
            same = _invariant(loop, block, starts)
            chosen = [raw for raw in same if identity(raw) in here]
            wanted = [raw for raw in chosen if self._is_large(Op(raw, module))]
            moved = [Op(raw, module) for raw in _with_sources(same, wanted)]
            for op in moved:
                op.raw.move_before(loop.raw)
                for number, value in enumerate(op.raw.operands):
                    if value in starts:
                        op.raw.operands[number] = starts[value]
            for op in moved:
                _fence(module.before(loop), op, moved)
            module.changes += len(wanted)

    def _is_large(self, op: Op) -> bool:
        size = max((value.size for value in (*op.operands, *op.results)), default=0)
        return size >= self.min_elements


def _invariant(loop: Op, block: Any, starts: dict[Any, Any]) -> list[Any]:
    """Operations of a body that give the same in every iteration, in order."""
    found: dict[Any, None] = {}
    for each in block.operations:
        raw = each.operation
        name = Op(raw, loop.rewriter).name
        if not is_pure(raw) or (len(raw.regions) and name not in _OWN_REGIONS):
            continue
        inside = {each for region in raw.regions for each in region.blocks}
        for value in taken(raw):
            owner = value.owner
            if hasattr(owner, "operation"):
                here = owner.operation.block
                changes = here == block and owner.operation not in found
            else:
                here, changes = owner, owner == block and value not in starts
            if changes and here not in inside:
                break
        else:
            found[raw] = None
    return list(found)


def _fence(build: Builder, op: Op, moved: list[Op]) -> None:
    """Let the loop read results through a barrier: XLA:TPU sinks them into it again."""
    for value in op.results:
        readers = [user for user in value.users if user not in moved]
        if not readers:
            continue
        types = [(value.shape, value.dtype)]
        fenced = build.op("optimization_barrier", [value], types).result
        for reader in readers:
            for number, operand in enumerate(reader.operands):
                if operand == value:
                    reader.raw.operands[number] = fenced.raw


def _with_sources(same: list[Any], wanted: list[Any]) -> list[Any]:
    """What is wanted and what that is computed from, in order."""
    needed, waiting, known = set(wanted), list(wanted), set(same)
    while waiting:
        for value in taken(waiting.pop()):
            raw = value.owner.operation if hasattr(value.owner, "operation") else None
            if raw in known and raw not in needed:
                needed.add(raw)
                waiting.append(raw)
    return [raw for raw in same if raw in needed]
