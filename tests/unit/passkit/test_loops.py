"""Loops of a known number of iterations, and unrolling them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from hlo_lab.passkit.loops import CountedLoop
from hlo_lab.passkit.mlir_module import count_ops
from hlo_lab.passkit.unrolling import unroll
from tests.unit.passkit.modules import rewriting, traced

X, XS = (jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((4,), (20, 4)))


def _loops(function: Callable[..., Any]) -> tuple[Any, list[CountedLoop | None]]:
    raw = traced(function, X, XS)
    with rewriting(raw) as module:
        return raw, [CountedLoop.of(op) for op in module.ops("while")]


def test_what_a_counter_ends() -> None:
    _, (loop,) = _loops(lambda x, xs: jax.lax.fori_loop(3, 17, lambda i, h: h * i, x))
    assert loop is not None
    assert (loop.step, loop.trips) == (1, 14)
    _, (outer, inner) = _loops(
        lambda x, xs: jax.lax.fori_loop(
            0, 3, lambda i, h: jax.lax.fori_loop(0, 5, lambda j, g: g * j, h), x
        )
    )
    assert outer is not None and inner is not None
    assert (outer.is_innermost, inner.is_innermost) == (False, True)


@pytest.mark.parametrize(
    "limit", [lambda x: x[0], lambda x: 5 + x[0].astype(int)], ids=["a value", "a sum"]
)
def test_what_data_may_end(limit: Callable[[Any], Any]) -> None:
    _, (loop,) = _loops(
        lambda x, xs: jax.lax.while_loop(
            lambda c: c[0] < limit(c[1]), lambda c: (c[0] + 1, c[1] * 2), (0, x)
        )
    )
    assert loop is None


@pytest.mark.parametrize(
    ("body", "reads", "writes"),
    [
        (lambda x, xs: jax.lax.scan(lambda h, y: (h + y, h), x, xs), 3, 3),
        (lambda x, xs: jax.lax.scan(lambda h, y: (h + y, h), x, xs, reverse=True), 3, 3),
        (lambda x, xs: jax.lax.fori_loop(0, 20, lambda i, h: h + xs[i], x), 3, 0),
        # beyond the end the last one is read again, which a block would not do
        (
            lambda x, xs: jax.lax.fori_loop(
                2, 22, lambda i, h: h + jax.lax.dynamic_index_in_dim(xs, i, 0, False), x
            ),
            8,
            0,
        ),
        # what an iteration writes the next one reads
        (
            lambda x, xs: jax.lax.fori_loop(
                0, 20, lambda i, a: jax.lax.dynamic_update_slice(a, a[i][None] + 1, (i, 0)), xs
            ),
            8,
            8,
        ),
    ],
    ids=["forward", "reversed", "by index", "beyond the end", "in place"],
)
def test_arrays_are_read_and_written_in_blocks(
    body: Callable[..., Any], reads: int, writes: int
) -> None:
    """Of 20 iterations two run before the loop, and six at a time in it."""
    raw = traced(body, X, XS)
    with rewriting(raw) as module:
        (op,) = module.ops("while")
        loop = CountedLoop.of(op)
        assert loop is not None
        unroll(module, loop, 6)
        assert module.changes == 1
    counts = count_ops(raw)
    assert (counts.get("dynamic_slice", 0), counts.get("dynamic_update_slice", 0)) == (
        reads,
        writes,
    )
