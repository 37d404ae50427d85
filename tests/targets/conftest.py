"""Programs, and the compilers that they need; a test skips where its compiler is absent."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from hlo_lab import lowering
from hlo_lab.lowering import Bundle, Target
from hlo_lab.lowering.availability import of_gpus, of_tpu

PROGRAMS = """
import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

S = jax.ShapeDtypeStruct


def step(w, x):
    return jax.grad(lambda w: jnp.sum(jnp.tanh(x @ w) ** 2))(w)


step.example_args = (S((256, 256), jnp.float32), S((512, 256), jnp.float32))


def bare(w, x):
    return step(w, jax.lax.with_sharding_constraint(x, P("data")))


bare.example_args = step.example_args


def looks_up(w, rows):
    return jax.grad(lambda w: jnp.sum(jnp.take_along_axis(w[rows], rows[:, None], 1)))(w)


looks_up.example_args = (S((256, 256), jnp.float32), S((512,), jnp.int32))


def two_axes(w, x):
    return step(jax.lax.with_sharding_constraint(w, P(None, "model")), x)


two_axes.example_args = step.example_args


def from_mesh(w, x):
    return step(w, x)


def shapes(mesh):
    w, x = step.example_args
    whole, split = (NamedSharding(mesh, spec) for spec in (P(), P("data")))
    return S(w.shape, w.dtype, sharding=whole), S(x.shape, x.dtype, sharding=split)


from_mesh.example_args = shapes


def bare_from_mesh(w, x):
    return bare(w, x)


bare_from_mesh.example_args = shapes


def prints(x):
    jax.debug.print("sum {}", x.sum())
    return x * 2


def calls(x):
    return jax.pure_callback(lambda x: x, S(x.shape, x.dtype), x) + 1


prints.example_args = calls.example_args = (S((8, 8), jnp.float32),)


def computes(x):
    with jax.ensure_compile_time_eval():
        steps = int(jnp.arange(4).sum())
    return x * steps


computes.example_args = (S((8,), jnp.float32),)


def own_devices(x):
    mesh = jax.make_mesh((jax.device_count(),), ("data",))
    return jax.device_put(x, NamedSharding(mesh, P("data"))) * 2


own_devices.example_args = (S((512, 256), jnp.float32),)


def backend(x):
    return x + {"cpu": 1, "tpu": 2, "gpu": 3}[jax.default_backend()]


backend.example_args = (S((8,), jnp.float32),)


def too_large(x):
    waves = [jnp.sin(x * n) for n in range(1, 6)]
    return sum(wave @ wave for wave in waves), waves


too_large.example_args = (S((32768, 32768), jnp.float32),)
"""


@pytest.fixture(scope="session", autouse=True)
def in_own_folders(own_folders: None) -> None:
    """For every test here."""


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("programs") / "programs.py"
    path.write_text(PROGRAMS)
    return path


def need(target: str) -> None:
    """Skip where the compiler for a target is not installed."""
    state = of_tpu() if Target.parse(target).platform == "tpu" else of_gpus()
    if not state.usable:
        pytest.skip(f"{state.reason}: {state.command}")


@pytest.fixture
def dump(programs: Path, tmp_path: Path) -> Callable[..., Bundle]:
    """Dump one of the programs, or a file, for a target."""

    def run(program: str, target: str, **options: object) -> Bundle:
        need(target)
        reference = program if "." in program else f"{programs}:{program}"
        return lowering.dump(reference, out=tmp_path / "out", target=target, **options)  # type: ignore[arg-type]

    return run
