"""Building HLO instructions: shapes are inferred, and nothing is built that does nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from hlo_lab.ir.shapes import Shape

if TYPE_CHECKING:
    from hlo_lab.passkit.hlo_rewriter import HloOp, HloRewriter


class HloBuilder:
    """Makes instructions beside one that is there; ``HloRewriter.before`` and ``after`` give it.

    Every method gives the new instruction, or one that is there where it would be the same.
    """

    def __init__(self, rewriter: HloRewriter, like: HloOp, before: HloOp | None):
        self._rewriter = rewriter
        self._like = like
        self._before = before

    def op(
        self,
        opcode: str,
        operands: Sequence[HloOp],
        shape: Shape | str,
        attributes: Mapping[str, str] | None = None,
    ) -> HloOp:
        """Any instruction that calls no computation.

        Args:
            shape: as XLA prints it: ``f32[8,128]``, also with a layout.
            attributes: name to text, as XLA prints them: ``{"dimensions": "{0}"}``.
        """
        made = Shape.parse(shape) if isinstance(shape, str) else shape
        return self._rewriter.add(
            self._like, self._before, opcode, made, operands, attributes or {}
        )

    def elementwise(self, opcode: str, *operands: HloOp) -> HloOp:
        """``add``, ``multiply``, ``tanh``, ``logistic``...: shape and type of the operands.

        Raises:
            ValueError: the operands' shapes or types differ.
        """
        first = operands[0].type.without_layout()
        other = next((each for each in operands if each.type.without_layout() != first), None)
        if other is not None:
            raise ValueError(f"{opcode} of {operands[0].type} and {other.type}")
        return self.op(opcode, operands, operands[0].type)

    def constant(self, value: float, dtype: str) -> HloOp:
        """One number of an element type, ``f32[]``."""
        text = str(value).lower() if isinstance(value, bool) else repr(value)
        return self._rewriter.add(self._like, self._before, "constant", Shape(dtype), [], {}, text)

    def full_like(self, like: HloOp, value: float) -> HloOp:
        """An array as another one, full of one number."""
        one = self.constant(value, like.dtype)
        if not like.shape:
            return one
        return self.op("broadcast", [one], like.type, {"dimensions": "{}"})

    def convert(self, value: HloOp, dtype: str) -> HloOp:
        """Of another element type."""
        if value.dtype == dtype:
            return value
        return self.op("convert", [value], replace(value.type, dtype=dtype))

    def reshape(self, value: HloOp, shape: Sequence[int]) -> HloOp:
        """Of the same number of elements."""
        if value.shape == tuple(shape):
            return value
        return self.op("reshape", [value], Shape(value.dtype, tuple(shape)))

    def transpose(self, value: HloOp, permutation: Sequence[int]) -> HloOp:
        """Dimension ``n`` of the result is dimension ``permutation[n]`` of the value."""
        if list(permutation) == list(range(value.rank)):
            return value
        shape = Shape(value.dtype, tuple(value.shape[at] for at in permutation))
        return self.op("transpose", [value], shape, {"dimensions": _braces(permutation)})

    def broadcast(self, value: HloOp, shape: Sequence[int], dimensions: Sequence[int]) -> HloOp:
        """Dimension ``n`` of the value becomes dimension ``dimensions[n]`` of the result."""
        made = Shape(value.dtype, tuple(shape))
        return self.op("broadcast", [value], made, {"dimensions": _braces(dimensions)})

    def barrier(self, value: HloOp) -> HloOp:
        """The same value, behind a barrier that the compiler moves nothing across."""
        return self.op("opt-barrier", [value], value.type)

    def copy(self, like: HloOp, *operands: HloOp) -> HloOp:
        """An instruction like another one, of other operands of the same shapes."""
        return self.op(like.name, operands, like.type, like.attributes)


def _braces(numbers: Sequence[int]) -> str:
    return "{" + ",".join(map(str, numbers)) + "}"
