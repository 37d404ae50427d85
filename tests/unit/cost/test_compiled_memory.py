"""The liveness sweep against the compiled program's own figures."""

from __future__ import annotations

from typing import Any

import pytest

from hlo_lab.cost.memory import memory_profile
from hlo_lab.ir.text import read_text


def programs() -> dict[str, tuple[Any, tuple[Any, ...], dict[str, Any]]]:
    import jax
    import jax.numpy as jnp

    def f32(*dims: int) -> Any:
        return jax.ShapeDtypeStruct(dims, "float32")

    def mlp(weights: Any, x: Any) -> Any:
        for w in weights:
            x = jax.nn.relu(x @ w)
        return x.var()

    def step(weights: Any, moments: Any, x: Any) -> Any:
        gradient = jax.grad(mlp)(weights, x)
        moments = [0.9 * m + g for m, g in zip(moments, gradient, strict=True)]
        return [w - 0.1 * m for w, m in zip(weights, moments, strict=True)], moments

    def scan(w: Any, x: Any) -> Any:
        return jax.lax.scan(lambda x, w: (jnp.tanh(x @ w), None), x, w)[0].var()

    def refine(x: Any, edges: Any) -> Any:
        def once(carry: Any) -> Any:
            i, x, counts = carry
            x = jnp.sort(x)
            counts = counts.at[jnp.searchsorted(edges, x)].add(x)
            return i + 1, x * 0.5, counts

        start = (0, x, jnp.zeros(edges.shape[0] + 1))
        return jax.lax.while_loop(lambda carry: carry[0] < 5, once, start)

    weights = [f32(256, 256)] * 4
    return {
        "donated": (step, (weights, weights, f32(128, 256)), {"donate_argnums": (0, 1)}),
        "undonated": (step, (weights, weights, f32(128, 256)), {}),
        "scan": (jax.grad(scan), (f32(6, 128, 128), f32(64, 128)), {}),
        "loop of sort and scatter": (refine, (f32(50_000), f32(500)), {}),
    }


@pytest.mark.parametrize("name", ["donated", "undonated", "scan", "loop of sort and scatter"])
def test_peak(name: str) -> None:
    import jax

    function, arguments, options = programs()[name]
    compiled = jax.jit(function, **options).lower(*arguments).compile()
    figures = compiled.memory_analysis()
    profile = memory_profile(read_text(compiled.as_text().splitlines(keepends=True)))
    assert profile.scheduled and not profile.notes
    # exact in what is given and returned; a result tuple's pointers are left out
    assert profile.argument_bytes == figures.argument_size_in_bytes
    assert profile.alias_bytes == figures.alias_size_in_bytes
    assert 0 <= figures.output_size_in_bytes - profile.output_bytes <= 8 * 16
    expected = (
        figures.argument_size_in_bytes
        + figures.output_size_in_bytes
        + figures.temp_size_in_bytes
        - figures.alias_size_in_bytes
    )
    assert profile.peak_bytes == pytest.approx(expected, rel=0.05)
