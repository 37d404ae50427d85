"""Big modules to measure on: an unrolled transformer training step before optimisation.

    python benchmarks/modules.py [--layers N]

makes (once) ``train.hlo``, ``train.pb`` and ``changed.hlo``, ``changed.pb``, in which one
layer's activation differs, and prints their folder: a cache folder of the user's.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from pathlib import Path

LAYERS = 226  # 100,063 instructions before optimisation, with jax 0.10.2
STEPS = 9  # of 24 layers, optimised for CPU: 992,324 instructions
_NAME = re.compile(r"%([\w.\-]+)")
_PARAMETER = re.compile(r"\s*%([\w.\-]+) = .* parameter\((\d+)\)")
_ROOT = re.compile(r" tuple\((.*?)\)(?:,|$)")


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


def million() -> Path:
    """An optimised, scheduled module of 992,324 instructions: several train steps in a row."""
    folder = cache_folder(24)
    path = folder / "million.hlo"
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run(
            [sys.executable, __file__, "--layers", "24", "--make", "million"], check=True
        )
    return path


def chained(text: str, steps: int) -> str:
    """A scheduled module that returns a tuple, again and again: each time but the first on the
    results of the time before, the last of which (the loss) nobody takes.
    """
    lines = text.split("\n")
    start = next(at for at, line in enumerate(lines) if line.startswith("ENTRY "))
    end = lines.index("}", start)
    out = [re.sub(r",? (entry_computation_layout|input_output_alias)=\{.*", "", lines[0])]
    entry: list[str] = []
    given: list[str] = []
    for step in range(steps):
        out += [_NAME.sub(rf"%\1.s{step}", line) for line in lines[1:start]]
        names: dict[str, str] = {}

        def name(match: re.Match[str], names=names, step=step) -> str:
            return "%" + names.get(match.group(1), f"{match.group(1)}.s{step}")

        for line in lines[start + 1 : end]:
            parameter = _PARAMETER.match(line)
            if parameter and step:
                number = int(parameter.group(2))
                first = f"{parameter.group(1)}.s0"
                names[parameter.group(1)] = given[number] if number < len(given) else first
            elif not line.startswith("  ROOT ") or step == steps - 1:
                entry.append(_NAME.sub(name, line))
            else:
                results = _NAME.findall(_ROOT.search(line).group(1))
                given = [name(_NAME.match(f"%{each}"))[1:] for each in results[:-1]]
    return "\n".join([*out, "ENTRY %main () -> f32[] {", *entry, "}", ""])


def lower(stem: str, layers: int):
    """The training step, lowered by JAX."""
    import jax
    import jax.numpy as jnp
    from jax import ShapeDtypeStruct as Shape

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
    return jax.jit(step).lower(params, params, params, x)


def make(folder: Path, stem: str, layers: int) -> None:
    from jaxlib import _hlo

    lowered = lower(stem, layers)
    if stem == "million":
        (folder / "million.hlo").write_text(chained(lowered.compile().as_text(), STEPS))
        return
    computation = lowered.compiler_ir("hlo")
    (folder / f"{stem}.pb").write_bytes(computation.as_serialized_hlo_module_proto())
    options = _hlo.HloPrintOptions()
    options.print_metadata = True  # as XLA's own dumps do
    (folder / f"{stem}.hlo").write_text(computation.get_hlo_module().to_string(options))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layers", type=int, default=LAYERS)
    parser.add_argument("--make", choices=("train", "changed", "million"))
    options = parser.parse_args()
    if options.make:
        make(cache_folder(options.layers), options.make, options.layers)
        return
    for name, path in modules(options.layers).items():
        print(f"{name}: {path.stat().st_size / 1e6:.1f} MB {path}")


if __name__ == "__main__":
    main()
