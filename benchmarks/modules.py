"""Big modules to measure on: an unrolled transformer training step before optimisation.

    python benchmarks/modules.py [--layers N]

makes (once) ``train.hlo``, ``train.pb`` and ``changed.hlo``, ``changed.pb``, in which one
layer's activation differs, and prints their folder: a cache folder of the user's.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

LAYERS = 226  # 100,063 instructions before optimisation, with jax 0.10.2


def cache_folder(layers: int = LAYERS) -> Path:
    import platformdirs

    return Path(platformdirs.user_cache_dir("hlo-lab")) / "benchmarks" / f"layers-{layers}"


def modules(layers: int = LAYERS) -> dict[str, Path]:
    """The files by stem and kind: ``train.hlo``, ``train.pb``, ``changed.hlo``, ``changed.pb``."""
    folder = cache_folder(layers)
    paths = {
        f"{stem}.{kind}": folder / f"{stem}.{kind}"
        for stem in ("train", "changed")
        for kind in ("hlo", "pb")
    }
    if not all(path.is_file() for path in paths.values()):
        folder.mkdir(parents=True, exist_ok=True)
        for stem in ("train", "changed"):  # a process each: JAX's caches are large
            subprocess.run(
                [sys.executable, __file__, "--layers", str(layers), "--make", stem], check=True
            )
    return paths


def make(folder: Path, stem: str, layers: int) -> None:
    import jax
    import jax.numpy as jnp
    from jax import ShapeDtypeStruct as Shape
    from jaxlib import _hlo

    width, heads, batch, length = 64, 4, 2, 16
    changed = layers // 2 if stem == "changed" else -1

    def norm(x, scale, bias):
        mean = x.mean(-1, keepdims=True)
        return (x - mean) * jax.lax.rsqrt(x.var(-1, keepdims=True) + 1e-6) * scale + bias

    def block(p, x, number):
        h = norm(x, p["scale1"], p["bias1"])
        q, k, v = ((h @ p[name]).reshape(batch, length, heads, -1).swapaxes(1, 2) for name in "qkv")
        scores = jnp.where(jnp.tri(length, dtype=bool), q @ k.swapaxes(-1, -2), -1e9)
        h = (jax.nn.softmax(scores) @ v).swapaxes(1, 2).reshape(x.shape)
        x = x + h @ p["o"]
        act = jax.nn.gelu if number != changed else jax.nn.silu
        return x + act(norm(x, p["scale2"], p["bias2"]) @ p["up"]) @ p["down"]

    def loss(params, x):
        for number, p in enumerate(params):
            x = block(p, x, number)
        return (x**2).mean()

    def step(params, mu, nu, x):
        value, grads = jax.value_and_grad(loss)(params, x)
        mu = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, mu, grads)
        nu = jax.tree.map(lambda n, g: 0.99 * n + 0.01 * g * g, nu, grads)
        params = jax.tree.map(lambda p, m, n: p - 1e-3 * m / (jnp.sqrt(n) + 1e-8), params, mu, nu)
        return params, mu, nu, value

    square, vector = Shape((width, width), jnp.float32), Shape((width,), jnp.float32)
    layer = dict.fromkeys("qkvo", square) | dict.fromkeys(
        ("scale1", "bias1", "scale2", "bias2"), vector
    )
    layer["up"] = Shape((width, 4 * width), jnp.float32)
    layer["down"] = Shape((4 * width, width), jnp.float32)
    params = [dict(layer) for _ in range(layers)]
    x = Shape((batch, length, width), jnp.float32)
    computation = jax.jit(step).lower(params, params, params, x).compiler_ir("hlo")
    (folder / f"{stem}.pb").write_bytes(computation.as_serialized_hlo_module_proto())
    options = _hlo.HloPrintOptions()
    options.print_metadata = True  # as XLA's own dumps do
    (folder / f"{stem}.hlo").write_text(computation.get_hlo_module().to_string(options))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layers", type=int, default=LAYERS)
    parser.add_argument("--make", choices=("train", "changed"))
    options = parser.parse_args()
    if options.make:
        make(cache_folder(options.layers), options.make, options.layers)
        return
    for name, path in modules(options.layers).items():
        print(f"{name}: {path.stat().st_size / 1e6:.1f} MB {path}")


if __name__ == "__main__":
    main()
