"""A program over several devices, rewritten: shardings, donation and source lines stay."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hlo_lab.lowering import Bundle
from hlo_lab.lowering.dumping import dump
from hlo_lab.measure.rewriting import RESULT, Options
from hlo_lab.passkit.discovery import discover
from hlo_lab.passkit.rewriting import PassSpec
from hlo_lab.passkit.selection import select_rewrites

PROGRAM = """
import functools
import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec as P

S = jax.ShapeDtypeStruct


@functools.partial(jax.jit, donate_argnames="momentum")
def step(params, momentum, x):
    def layer(x, w):
        return x + jnp.tanh(x @ w) ** 3, None

    def loss(params):
        return jnp.mean(jax.lax.scan(layer, x, params["w"])[0] ** 2)

    grads = jax.grad(loss)(params)
    momentum = jax.tree.map(lambda m, g: 0.9 * m + g, momentum, grads)
    return jax.tree.map(lambda p, m: p - 0.1 * m, params, momentum), momentum


def example_args(mesh):
    split = NamedSharding(mesh, P(None, None, "data"))
    weights = {"w": S((4, 64, 64), jnp.float32, sharding=split)}
    return weights, weights, S((16, 64), jnp.float32, sharding=NamedSharding(mesh, P("data")))
"""
PASSES = ("recompute{min_bytes=1,products=true}", "donate-arguments{arguments=params}")


def rewritten(folder: Path, target: str, run: bool) -> tuple[Bundle, dict[str, Any]]:
    """The bundle after ``PASSES``, and what running beside the original gave."""
    (folder / "prog.py").write_text(PROGRAM)
    chosen = Options(folder=str(folder / "run"))
    Path(chosen.folder).mkdir()
    bundle = dump(
        "prog.py:step",
        out=folder / "bundle",
        cwd=folder,
        target=target,
        mesh="data=4",
        continuation=chosen.request() if run else None,
        rewrite=[PassSpec.of(info, one) for info, one in select_rewrites(PASSES, discover())],
    )
    result = json.loads(Path(chosen.folder, RESULT).read_text()) if run else {}
    return bundle, result


def check_kept(bundle: Bundle) -> None:
    """Shardings of both kinds, donation old and new, and source lines."""
    recomputed, donated = (each["changes"] for each in bundle.manifest["rewritten"]["passes"])
    assert recomputed >= 1 and donated == 1  # what scans stack differs between versions of JAX
    params, momentum, x = bundle.manifest["arguments"]
    assert (params["donated"], momentum["donated"], "donated" in x) == (True, True, False)
    assert "'data'" in params["sharding"] and params["sharding"] == momentum["sharding"]
    module = bundle.module()
    assert module.header["num_partitions"] == "4"
    assert "f32[4,64,16]" in module.header["entry_computation_layout"]
    aliases = module.header["input_output_alias"]
    assert "(0, {}, " in aliases and "(1, {}, " in aliases
    line = PROGRAM.splitlines().index("        return x + jnp.tanh(x @ w) ** 3, None") + 1
    places = {
        (Path(frame.file).name, frame.line)
        for at in range(len(module))
        for frame in module.source_stack(at)
    }
    assert ("prog.py", line) in places


def test_shardings_donation_and_lines_on_several_devices(tmp_path: Path) -> None:
    bundle, result = rewritten(tmp_path, "cpu:4", run=True)
    assert [each["agrees"] for each in result["outputs"]] == [True, True]
    check_kept(bundle)
