"""Compile small programs for eight CPU devices; run in a process of its own by the tests.

usage: python programs.py FOLDER NAME...   writes FOLDER/NAME.hlo, and NAME.before.hlo
"""

import os
import sys
from pathlib import Path

os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"
os.environ["JAX_PLATFORMS"] = "cpu"

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

D, F, LAYERS = 64, 256, 4
F32 = jnp.float32


def block(x, p):
    h = x * jax.lax.rsqrt((x * x).mean(-1, keepdims=True) + 1e-6)
    h = jax.nn.gelu(h @ p["w1"])
    return x + h @ p["w2"]


def unrolled(params, x):
    for p in params:
        x = block(x, p)
    return (x**2).mean()


def scanned(params, x):
    return (jax.lax.scan(lambda c, p: (block(c, p), None), x, params)[0] ** 2).mean()


def checkpointed(params, x):
    body = jax.checkpoint(lambda c, p: (block(c, p), None), prevent_cse=False)
    return (jax.lax.scan(body, x, params)[0] ** 2).mean()


def kept(params, x):
    def body(c, p):
        h = jnp.tanh(c @ p["w1"])
        return c + h @ p["w2"], None

    return (jax.lax.scan(body, x, params)[0] ** 2).mean()


def step(loss):
    def train(params, x):
        value, gradient = jax.value_and_grad(loss)(params, x)
        return value, jax.tree.map(lambda p, g: p - 1e-3 * g, params, gradient)

    return train


def weights(layers=None):
    front = () if layers is None else (layers,)
    shapes = {"w1": (D, F), "w2": (F, D)}
    return {k: jax.ShapeDtypeStruct((*front, *s), F32) for k, s in shapes.items()}


def sharded(specs, axes):
    mesh = jax.make_mesh(tuple(axes.values()), tuple(axes), axis_types=(AxisType.Auto,) * len(axes))
    layer = {k: NamedSharding(mesh, v) for k, v in specs.items()}
    batch, whole = NamedSharding(mesh, P("data")), NamedSharding(mesh, P())
    jitted = jax.jit(
        step(unrolled),
        in_shardings=([layer] * 2, batch),
        out_shardings=(whole, [layer] * 2),
    )
    return jitted.lower([weights()] * 2, jax.ShapeDtypeStruct((8, 128, D), F32))


def explicit():
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))

    def mean(x):
        return jax.lax.pmean(x, "data")

    mapped = jax.shard_map(mean, mesh=mesh, in_specs=P("data"), out_specs=P())
    return jax.jit(mapped).lower(jax.ShapeDtypeStruct((1024, 1024), F32))


def one_device(loss, stacked):
    params = weights(LAYERS) if stacked else [weights()] * LAYERS
    return jax.jit(step(loss)).lower(params, jax.ShapeDtypeStruct((16, 128, D), F32))


def inference():
    return jax.jit(unrolled).lower([weights()] * 2, jax.ShapeDtypeStruct((16, 128, D), F32))


DATA, BOTH = {"data": 8}, {"data": 2, "model": 4}
PROGRAMS = {
    "dp": lambda: sharded({"w1": P(), "w2": P()}, DATA),
    "fsdp": lambda: sharded({"w1": P("data", None), "w2": P("data", None)}, DATA),
    "tp": lambda: sharded({"w1": P(None, "model"), "w2": P("model", None)}, BOTH),
    "wrong": lambda: sharded({"w1": P(None, "model"), "w2": P(None, "model")}, BOTH),
    "explicit": explicit,
    "scanned": lambda: one_device(scanned, stacked=True),
    "kept": lambda: one_device(kept, stacked=True),
    "checkpointed": lambda: one_device(checkpointed, stacked=True),
    "unrolled": lambda: one_device(unrolled, stacked=False),
    "inference": inference,
}

if __name__ == "__main__":
    for name in sys.argv[2:]:
        lowered = PROGRAMS[name]()
        before = lowered.compiler_ir("hlo").as_hlo_text()
        Path(sys.argv[1], f"{name}.before.hlo").write_text(before)
        Path(sys.argv[1], f"{name}.hlo").write_text(lowered.compile().as_text())
