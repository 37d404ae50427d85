"""Peak memory by the liveness sweep against the compiled program's own figure.

    python benchmarks/memory.py [NAME ...]

Compiles real programs for the CPU and prints, for each, argument + output + temp - alias
of ``compiled.memory_analysis()``, the sweep's ``peak_bytes`` on the printed module, and
their ratios (in all, and of the temporaries alone). ``peak_memory_in_bytes`` is no
reference here: on the CPU it holds the arguments only.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from hlo_lab.cost.memory import memory_profile
from hlo_lab.ir.text import read_text

# program name -> function that gives (jitted function, arguments)
PROGRAMS: dict[str, Callable[[], tuple[Any, tuple[Any, ...]]]] = {}


def program(function: Callable[[], tuple[Any, tuple[Any, ...]]]) -> Any:
    PROGRAMS[function.__name__] = function
    return function


def shaped(*dims: int, dtype: Any = jnp.float32) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(dims, dtype)


def train_step(model: nn.Module, inputs: Any, loss: Callable[..., Any], donate: bool) -> Any:
    """(jitted Adam step, its abstract arguments) of a flax model."""
    optimiser = optax.adam(1e-3)
    variables = jax.eval_shape(model.init, jax.random.key(0), inputs)
    state = jax.eval_shape(optimiser.init, variables)

    def step(variables: Any, state: Any, inputs: Any, targets: Any) -> Any:
        value, gradient = jax.value_and_grad(lambda v: loss(model.apply(v, inputs), targets))(
            variables
        )
        updates, state = optimiser.update(gradient, state, variables)
        return optax.apply_updates(variables, updates), state, value

    output = jax.eval_shape(model.apply, variables, inputs)
    targets = shaped(*output.shape[:-1], dtype=jnp.int32)
    donated = (0, 1) if donate else ()
    return jax.jit(step, donate_argnums=donated), (variables, state, inputs, targets)


def cross_entropy(logits: Any, labels: Any) -> Any:
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


class Block(nn.Module):
    width: int
    heads: int

    @nn.compact
    def __call__(self, x: Any) -> Any:
        mask = nn.make_causal_mask(jnp.ones(x.shape[:2]))
        x = x + nn.SelfAttention(self.heads)(nn.LayerNorm()(x), mask=mask)
        hidden = nn.gelu(nn.Dense(4 * self.width)(nn.LayerNorm()(x)))
        return x + nn.Dense(self.width)(hidden)


class GPT(nn.Module):
    vocabulary: int = 2048
    width: int = 192
    heads: int = 6
    layers: int = 3

    @nn.compact
    def __call__(self, tokens: Any) -> Any:
        x = nn.Embed(self.vocabulary, self.width)(tokens)
        x = x + self.param("position", nn.initializers.normal(), (tokens.shape[1], self.width))
        for _ in range(self.layers):
            x = Block(self.width, self.heads)(x)
        return nn.Dense(self.vocabulary)(nn.LayerNorm()(x))


@program
def gpt_step() -> Any:
    return train_step(GPT(), shaped(8, 128, dtype=jnp.int32), cross_entropy, donate=True)


@program
def gpt_step_undonated() -> Any:
    return train_step(GPT(layers=2), shaped(4, 128, dtype=jnp.int32), cross_entropy, donate=False)


@program
def scan_transformer() -> Any:
    """Layers stacked and scanned over, gradient of the loss."""
    depth, width, batch, length = 6, 256, 8, 128

    def block(x: Any, weights: Any) -> Any:
        q, k, v = (x @ weights[name] for name in ("q", "k", "v"))
        scores = jax.nn.softmax(jnp.einsum("btd,bsd->bts", q, k) / width**0.5)
        x = x + jnp.einsum("bts,bsd->btd", scores, v) @ weights["o"]
        return x + jax.nn.gelu(x @ weights["up"]) @ weights["down"], None

    def loss(weights: Any, x: Any) -> Any:
        return jax.lax.scan(block, x, weights)[0].var()

    square = shaped(depth, width, width)
    weights = dict.fromkeys("qkvo", square)
    weights |= {"up": shaped(depth, width, 4 * width), "down": shaped(depth, 4 * width, width)}
    return jax.jit(jax.grad(loss)), (weights, shaped(batch, length, width))


class ResNet(nn.Module):
    @nn.compact
    def __call__(self, x: Any) -> Any:
        x = nn.relu(nn.Conv(32, (3, 3))(x))
        for features in (32, 64, 128):
            strides = (1, 1) if features == 32 else (2, 2)
            y = nn.relu(nn.GroupNorm(8)(nn.Conv(features, (3, 3), strides)(x)))
            y = nn.GroupNorm(8)(nn.Conv(features, (3, 3))(y))
            x = nn.relu(y + nn.Conv(features, (1, 1), strides)(x))
        return nn.Dense(100)(x.mean((1, 2)))


@program
def resnet_step() -> Any:
    return train_step(ResNet(), shaped(16, 64, 64, 3), cross_entropy, donate=True)


@program
def attention() -> Any:
    """Softmax attention over long sequences, forward and backward."""

    def loss(q: Any, k: Any, v: Any) -> Any:
        scores = jnp.einsum("bhtd,bhsd->bhts", q, k) / q.shape[-1] ** 0.5
        return jnp.einsum("bhts,bhsd->bhtd", jax.nn.softmax(scores), v).var()

    heads = shaped(2, 8, 512, 64)
    return jax.jit(jax.grad(loss, argnums=(0, 1, 2))), (heads, heads, heads)


class MLP(nn.Module):
    @nn.compact
    def __call__(self, x: Any) -> Any:
        for _ in range(4):
            x = nn.relu(nn.Dense(1024)(x))
        return nn.Dense(10)(x)


@program
def mlp_step() -> Any:
    return train_step(MLP(), shaped(512, 784), cross_entropy, donate=True)


@program
def sort_scatter_loop() -> Any:
    """A while loop around sort, gather and scatter: histogram refinement."""

    def run(values: Any, edges: Any) -> Any:
        def step(carry: Any) -> Any:
            index, values, counts = carry
            ordered = jnp.sort(values)
            bins = jnp.searchsorted(edges, ordered)
            counts = counts.at[bins].add(ordered)
            return index + 1, ordered * 0.5 + counts[bins] * 1e-3, counts

        start = (0, values, jnp.zeros(edges.shape[0] + 1))
        return jax.lax.while_loop(lambda carry: carry[0] < 5, step, start)[1:]

    return jax.jit(run), (shaped(400_000), shaped(5_000))


@program
def embedding_step() -> Any:
    """Two-tower embedding model: gathers forward, scatter-adds backward, in place."""

    def loss(tables: Any, users: Any, items: Any, labels: Any) -> Any:
        a = jnp.tanh(tables["users"][users].mean(1) @ tables["mix"])
        b = tables["items"][items].mean(1)
        return optax.sigmoid_binary_cross_entropy((a * b).sum(-1), labels).mean()

    def step(tables: Any, *batch: Any) -> Any:
        value, gradient = jax.value_and_grad(loss)(tables, *batch)
        return jax.tree.map(lambda t, g: t - 0.1 * g, tables, gradient), value

    tables = {"users": shaped(50_000, 64), "items": shaped(20_000, 64), "mix": shaped(64, 64)}
    ids = shaped(1024, 8, dtype=jnp.int32)
    return jax.jit(step, donate_argnums=0), (tables, ids, ids, shaped(1024))


def measure(name: str) -> tuple[float, float, float, float, float]:
    """(compiled peak, own peak, compiled temp, own temp, own seconds) in bytes and CPU seconds."""
    function, arguments = PROGRAMS[name]()
    compiled = function.lower(*arguments).compile()
    figures = compiled.memory_analysis()
    module = read_text(compiled.as_text().splitlines(keepends=True))
    start = time.process_time()
    profile = memory_profile(module)
    seconds = time.process_time() - start
    temp = figures.temp_size_in_bytes
    given = figures.argument_size_in_bytes + figures.output_size_in_bytes
    peak = given + temp - figures.alias_size_in_bytes
    return peak, profile.peak_bytes, temp, profile.temp_bytes, seconds


def main(names: list[str]) -> None:
    print(f"{'program':20} {'compiled MB':>11} {'own MB':>8} {'ratio':>6}", end=" ")
    print(f"{'temp MB':>8} {'own MB':>8} {'ratio':>6} {'seconds':>8}")
    for name in names or PROGRAMS:
        peak, own, temp, own_temp, seconds = measure(name)
        print(f"{name:20} {peak / 1e6:11.2f} {own / 1e6:8.2f} {own / peak:6.3f}", end=" ")
        ratio = own_temp / max(temp, 1)
        print(f"{temp / 1e6:8.2f} {own_temp / 1e6:8.2f} {ratio:6.3f} {seconds:8.3f}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
