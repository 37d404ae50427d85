"""HOI001: the product of each iteration's input with one matrix, taken of all before the loop."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from hlo_lab.passkit.base import RewriteExample, RewritePass
from hlo_lab.passkit.builder import Builder
from hlo_lab.passkit.rewriter import Op, Rewriter, Value

_SAME = ("convert", "reshape", "transpose")  # of a matrix, done again before the loop

_PROGRAM = """
import jax
import jax.numpy as jnp

def f(xs, h, w, u):
    BODY

def example_args():
    shapes = (6, 4, 32), (4, 16), (32, 16), (16, 16)
    return tuple(jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes)
"""


def _program(body: str) -> str:
    return _PROGRAM.replace("BODY", body)


@dataclass(frozen=True)
class HoistProductPass(RewritePass):
    """The product of each iteration's input with one matrix, taken of all inputs before the loop.

    What it rewrites
        In the body of a ``while``, as ``jax.lax.scan`` and ``lax.map`` write it, a product of a
        row of what the loop reads with a matrix that the loop hands on unchanged. The product of
        all rows goes in front of the loop, and the body reads the row of the result.

    Why it matters
        Each iteration reads the whole matrix for a few rows; before the loop it is read once.

    Example
        ``lax.scan(lambda h, x: (tanh(x @ w + h @ u), None), h, xs)``: ``x @ w`` becomes a row of
        ``xs @ w``.

    When it does not pay
        On TPUs where the matrix stays in the vector memory and the product of an iteration is
        quick: reading the row then takes as long. Where the result of all products is much
        larger than the inputs, since it is kept.

    What changes in the numbers
        The order of sums.
    """

    code: ClassVar[str] = "HOI001"
    name: ClassVar[str] = "hoist-product"
    examples: ClassVar[tuple[RewriteExample, ...]] = (
        RewriteExample(
            "the input projection of a recurrent network",
            _program("return jax.lax.scan(lambda h, x: (jnp.tanh(x @ w + h @ u),) * 2, h, xs)"),
        ),
        RewriteExample(
            "the matrix on the left, and one vector",
            _program(
                "return jax.lax.map(lambda x: (jax.lax.dot_general(w, x, (((0,), (1,)), ((), ()))),"
                " jnp.convolve(x[0], x[1])), xs), jax.lax.map(lambda v: u @ v, h)"
            ),
            changes=2,
        ),
        RewriteExample(
            "each needs the last",
            _program("return jax.lax.scan(lambda h, x: (h @ u + x[:, :16], None), h, xs)"),
            changes=0,
        ),
    )

    def rewrite(self, module: Rewriter) -> None:
        """Replace each product in a loop's body."""
        for dot in module.ops("dot_general"):
            loop = dot.raw.parent
            if loop.name != "stablehlo.while" or dot.dot.lhs_batch:
                continue
            body = _Body.of(Op(loop.operation, module))
            if dot.raw.block == body.block:
                _hoist(module, body, dot)


@dataclass(frozen=True)
class _Body:
    """The body of a loop; ``unchanged`` maps what it hands on to what the loop began with."""

    loop: Op
    unchanged: dict[Value, Value]

    @classmethod
    def of(cls, loop: Op) -> _Body:
        block = loop.raw.regions[1].blocks[0]
        *_, last = block.operations
        arguments = [Value(each, loop.rewriter) for each in block.arguments]
        returned = [Value(each, loop.rewriter) for each in last.operation.operands]
        handed = zip(arguments, returned, loop.operands, strict=True)
        return cls(loop, {arg: start for arg, out, start in handed if arg == out})

    def is_outside(self, value: Value) -> bool:
        """Whether a value is known before the loop, but for what may be done there again."""
        while value.op is not None and value.op.name in _SAME and value.op.raw.block == self.block:
            value = value.op.operands[0]
        return value in self.unchanged or self._is_captured(value)

    def outside(self, value: Value, build: Builder) -> Value:
        """The same value before the loop, made by ``build``."""
        if value in self.unchanged:
            return self.unchanged[value]
        if value.op is None or self._is_captured(value):
            return value
        return build.copy(value.op, self.outside(value.op.operands[0], build))

    @property
    def block(self) -> object:
        return self.loop.raw.regions[1].blocks[0]

    def _is_captured(self, value: Value) -> bool:
        return value.op is not None and value.op.raw.block == self.loop.raw.block


@dataclass(frozen=True)
class _Row:
    """``whole[..., index, ...]`` along ``dimension``, converted to ``dtype``."""

    whole: Value
    index: Value
    dimension: int
    dtype: str


def _row(body: _Body, value: Value) -> _Row | None:
    """How a value is a row of what the loop reads; None where it is none."""
    dtype, op = value.dtype, value.op
    if op is not None and op.name == "convert":
        op = op.operands[0].op
    if op is None or op.name != "reshape":
        return None
    shape, cut = op.result.shape, op.operands[0].op
    if cut is None or cut.name != "dynamic_slice" or not body.is_outside(cut.operands[0]):
        return None
    sizes, whole = cut.result.shape, cut.operands[0]
    at = [n for n, size in enumerate(sizes) if size != whole.shape[n]]
    if len(at) != 1 or sizes[at[0]] != 1 or shape != (*sizes[: at[0]], *sizes[at[0] + 1 :]):
        return None
    return _Row(whole, cut.operands[1 + at[0]], at[0], dtype)


def _hoist(module: Rewriter, body: _Body, dot: Op) -> None:
    left, right = dot.operands
    rows = _row(body, left)
    if rows is not None and body.is_outside(right):
        _replace(module, body, dot, rows, right, rows_first=True)
        return
    rows = _row(body, right)
    if rows is not None and body.is_outside(left):
        _replace(module, body, dot, rows, left, rows_first=False)


def _replace(
    module: Rewriter, body: _Body, dot: Op, rows: _Row, matrix: Value, *, rows_first: bool
) -> None:
    before = module.before(body.loop)
    numbers = dot.dot
    of_left, of_right = numbers.lhs_contracting, numbers.rhs_contracting
    every = before.convert(body.outside(rows.whole, before), rows.dtype)
    fixed = body.outside(matrix, before)
    shifted = [at + (at >= rows.dimension) for at in (of_left if rows_first else of_right)]
    free = [at for at in range(every.rank) if at not in shifted]
    position = free.index(rows.dimension)
    if rows_first:
        contract: tuple[Sequence[int], Sequence[int]] = (shifted, of_right)
        pair = (every, fixed)
    else:
        contract = (of_left, shifted)
        pair = (fixed, every)
        position += fixed.rank - len(of_left)
    dtype = dot.result.dtype
    whole = before.dot_general(*pair, contract=contract, dtype=dtype, precision=dot.precision)
    inside = module.before(dot)
    zero = inside.constant(0, (), rows.index.dtype)
    sizes = list(whole.shape)
    sizes[position] = 1
    starts = [rows.index if at == position else zero for at in range(whole.rank)]
    cut = inside.op("dynamic_slice", [whole, *starts], [(sizes, dtype)], slice_sizes=sizes).result
    module.replace(dot, inside.reshape(cut, dot.result.shape))
