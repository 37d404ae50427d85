"""ALG003: products of a few rows with one matrix that could be one product."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from hlo_lab.ir.module import Module
from hlo_lab.passkit.base import AnalysisPass, Example
from hlo_lab.passkit.context import Context
from hlo_lab.passkit.finding import Finding
from hlo_lab.passkit.folding import Hit, fold, time_severity
from hlo_lab.passkit.patterns import MOVES
from hlo_lab.passkit.products import Product, batched_seconds, narrow_products, rows_text
from hlo_lab.passkit.tracing import definition, reaches
from hlo_lab.passkit.wording import place_text

_Small = tuple[Product, int]  # and the kernel that computes it
_WORTH = 2.0  # times that the single products must take what the joined one takes
_ADVICE = "Stack the inputs and multiply once: jnp.stack(xs) @ w, and index the rows of the result."


def _dots(chained: bool) -> str:
    lines = []
    for number in range(8):
        left = f"%y{number - 1}" if chained and number else f"%x{number}"
        lines.append(
            f"  %y{number} = f32[1,1024]{{1,0}} dot({left}, %w), lhs_contracting_dims={{1}}, "
            "rhs_contracting_dims={0}"
        )
    parameters = ", ".join(f"x{number}: f32[1,1024]" for number in range(8))
    results = ", ".join("f32[1,1024]" for _ in range(8))
    inputs = [f"  %x{n} = f32[1,1024]{{1,0}} parameter({n})" for n in range(8)]
    values = ", ".join(f"%y{number}" for number in range(8))
    return "\n".join([
        "HloModule m, is_scheduled=true", "",
        f"ENTRY %main ({parameters}, w: f32[1024,1024]) -> ({results}) {{",
        *inputs, "  %w = f32[1024,1024]{1,0} parameter(8)", *lines,
        f"  ROOT %t = ({results}) tuple({values})", "}", "",
    ])  # fmt: skip


@dataclass(frozen=True)
class SmallProductsPass(AnalysisPass):
    """Products of a few rows with one matrix, one by one, that could be one product.

    What it finds
        Products of a few rows with the same matrix, side by side, that do not depend on each
        other. Those of a loop's iterations are ``loop-products``. Products of the same rows with
        several matrices are no finding: joining those makes the compiler copy to split the
        result (three projections joined: 436 to 717 thousand cycles on tpu:v5e).

    Why it matters
        Each product reads the whole matrix for a few rows; joined, the matrix is read once, and
        the rows fill the matrix units.

    Example
        ``[x @ w for x in xs]`` for 16 vectors.

    What to do
        ``jnp.stack(xs) @ w``, and index the rows of the result.

    How it is verified
        Compile again with one product. 16 vectors in a list: 111 to 9.5 us on tpu:v5e, 2.2 to
        0.35 ms on cpu by the model (measured there: 1.29 to 0.65 ms).
    """

    code: ClassVar[str] = "ALG003"
    name: ClassVar[str] = "small-products"
    examples: ClassVar[tuple[Example, ...]] = (
        Example("eight products with one matrix", _dots(chained=False)),
        Example("eight products in a chain", _dots(chained=True), finds=0),
    )

    most_rows: int = 8  # of one product
    min_times: int = 4  # products that become one

    def run(self, module: Module, context: Context) -> Iterator[Finding]:
        """Yield a finding per source line."""
        if module.warnings:
            return
        small = narrow_products(module, context, self.most_rows)
        for group in fold(context, self._side_by_side(context, small)):
            worst = group.worst
            yield self.finding(
                module.instruction(worst.at),
                f"{place_text(module, context.flow.place(worst.at))} multiplies {worst.text}"
                f"{group.times}: one product reads the matrix once",
                severity=time_severity(context, group.seconds),
                advice=_ADVICE,
                remedy=("batch-products",),
                seconds=group.seconds,
                context=context,
            )

    def _side_by_side(self, context: Context, small: Iterator[_Small]) -> Iterator[Hit]:
        flow, cost = context.flow, context.cost
        groups: dict[tuple[int, ...], list[tuple[Product, int]]] = {}
        for product, at in small:
            matrix, path = definition(flow, product.right, (), MOVES - {"slice", "dynamic-slice"})
            where = flow.computation_of(at)
            groups.setdefault((where, matrix, *path), []).append((product, at))
        for members in groups.values():
            kernels = list(dict.fromkeys(at for _, at in members))
            if len(members) < self.min_times or reaches(flow, kernels):
                continue
            product, runs = members[0][0], float(cost.executions[kernels[0]])
            now = sum(float(context.seconds[at]) for at in kernels)
            then = batched_seconds(product, len(members), context.machine)
            if now >= _WORTH * then:
                text = f"{rows_text(product)} {len(members)} times"
                yield Hit(product.at, (now - then) * runs, text=text)
