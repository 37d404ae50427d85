"""What the compiler says of memory and flags; flags, meshes and limits on the CPU."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from hlo_lab import lowering
from hlo_lab.errors import (
    CompilerError,
    HloLabWarning,
    InputError,
    MissingDependencyError,
    ProgramError,
    UseError,
)
from hlo_lab.lowering import availability, process
from hlo_lab.lowering.availability import of_gpus, of_tpu
from hlo_lab.lowering.process import resident_bytes
from hlo_lab.lowering.worker.compiling import is_out_of_memory, out_of_memory

Write = Callable[..., Path]
GIB = 1 << 30


@pytest.mark.parametrize(
    ("message", "needed", "available"),
    [
        (
            "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO "
            "temporaries (40.00G) exceeds available HBM (15.75G).",
            40 * GIB,
            int(15.75 * GIB),
        ),
        (
            "RESOURCE_EXHAUSTED: Ran out of memory in memory space hbm. Used 16.50G of 15.75G "
            "hbm. Exceeded hbm capacity by 768.00M.",
            int(16.5 * GIB),
            int(15.75 * GIB),
        ),
        ("RESOURCE_EXHAUSTED: something else", None, None),
    ],
)
def test_how_much_memory_is_missing(message: str, needed: int | None, available: int) -> None:
    assert is_out_of_memory(RuntimeError(message))
    found = out_of_memory(message + "\nmore")
    assert (found["needed_bytes"], found["available_bytes"]) == (needed, available)
    assert found["message"] == message


def test_flags_are_kept_and_checked(programs: Path, tmp_path: Path) -> None:
    def dump(*flags: str) -> lowering.Bundle:
        return lowering.dump(f"{programs}:nothing", out=tmp_path / "out", xla_flags=flags)

    flags = {"xla_cpu_enable_fast_math": "true", "xla_backend_optimization_level": "1"}
    bundle = dump(*(f"{name}={value}" for name, value in flags.items()))
    assert bundle.manifest["xla_flags"] == flags
    with pytest.raises(UseError, match="did you mean xla_cpu_enable_fast_math"):
        dump("xla_cpu_enable_fast_mth=true")
    with pytest.raises(UseError, match=r"=high: not a value of its type \(int32\)"):
        dump("xla_backend_optimization_level=high")


def test_a_mesh_on_the_cpu(write: Write, tmp_path: Path) -> None:
    file = write(
        "bare.py",
        """
        import jax, jax.numpy as jnp
        from jax.sharding import PartitionSpec as P

        def step(x):
            return jax.lax.with_sharding_constraint(x * 2, P("data", "model"))

        step.example_args = (jax.ShapeDtypeStruct((8, 8), jnp.float32),)
        """,
    )
    bundle = lowering.dump(
        f"{file}:step", out=tmp_path / "out", target="cpu:4", mesh="data=2,model=2"
    )
    assert bundle.manifest["mesh"] == {"data": 2, "model": 2}
    assert "f32[4,4]" in bundle.text("hlo-after")
    for mesh, said in (("model=4", "data=N,model=N"), ("expert=4", "axes data and model at")):
        with pytest.raises(InputError, match=said):
            lowering.dump(f"{file}:step", out=tmp_path / "out", target="cpu:4", mesh=mesh)
    with pytest.raises(UseError, match="is for 8 devices"):
        lowering.dump(f"{file}:step", out=tmp_path / "out", target="cpu:4", mesh="data=8")


@pytest.mark.parametrize("program", ["bare", "named", "own_axes", "mapped"])
def test_bare_specs_have_a_mesh_without_asking(write: Write, tmp_path: Path, program: str) -> None:
    file = write(
        "specs.py",
        """
        import jax, jax.numpy as jnp
        from jax.sharding import Mesh, NamedSharding, PartitionSpec as P

        def bare(x):
            return jax.grad(lambda x: jax.lax.with_sharding_constraint(x**2, P("data")).sum())(x)

        bare.example_args = (jax.ShapeDtypeStruct((8, 8), jnp.float32),)

        def named(x):
            return bare(x)

        def shapes(mesh):
            split = NamedSharding(mesh, P("data"))
            return jax.ShapeDtypeStruct((8, 8), jnp.float32, sharding=split)

        named.example_args = shapes

        def own_axes(x):
            return jax.lax.with_sharding_constraint(x * 2, P("own"))

        def own_shapes(mesh):
            return shapes(mesh).update(sharding=NamedSharding(Mesh(mesh.devices, "own"), P("own")))

        own_axes.example_args = own_shapes

        def mapped(x):
            return jax.shard_map(lambda x: x * 2, in_specs=P("data"), out_specs=P("data"))(x)

        mapped.example_args = bare.example_args
        """,
    )
    bundle = lowering.dump(f"{file}:{program}", out=tmp_path / "out", target="cpu:4")
    assert "f32[2,8]" in bundle.text("hlo-after") and bundle.manifest["notes"] == []
    if program == "bare":
        alone = lowering.dump(f"{file}:{program}", out=tmp_path / "alone")
        assert "split nothing" in str(alone.manifest["notes"])


def test_a_memory_limit(programs: Path, tmp_path: Path) -> None:
    assert resident_bytes(2**22) == 0
    with pytest.raises((ProgramError, CompilerError), match=r"--memory-limit"):
        lowering.dump(f"{programs}:step", out=tmp_path / "out", memory_limit=20 << 20)
    assert not (tmp_path / "out").exists()


def test_an_interpreter_without_jax(programs: Path, tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True)
    bare = str(tmp_path / "venv" / "bin" / "python")
    with pytest.raises(MissingDependencyError, match="has no jax and no numpy"):
        lowering.dump(f"{programs}:step", out=tmp_path / "out", python=bare)
    with pytest.raises(InputError, match="cannot run"):
        lowering.dump(f"{programs}:step", out=tmp_path / "out", python="/no/python")


def test_what_brings_a_compiler_to_another_interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    versions = {"jax": "0.12.0", "jaxlib": "0.12.1"}
    monkeypatch.setattr(availability, "_version", versions.get)
    pip = f"{sys.executable} -m pip install"
    assert availability.install("tpu") == f"{pip} 'jax[tpu]==0.12.0'"
    cuda = availability.install("cuda")
    assert cuda.startswith(f"{pip} jax-cuda1") and "-plugin==0.12.1 nvidia-cuda-nvcc" in cuda
    assert availability.install("torch") == f"{pip} torch torchax flax"
    versions["hlo-lab"] = "0.1.0"
    assert availability.install("tpu") == f"{pip} 'hlo-lab[tpu]'"


def test_a_worker_needs_nothing_but_jax() -> None:
    code = """
import sys
for name in ("platformdirs", "typer", "rich", "networkx", "filelock", "graphviz", "pydot"):
    sys.modules[name] = None
import hlo_lab.lowering.worker.run, hlo_lab.lowering.worker.calling
import hlo_lab.lowering.worker.sources, hlo_lab.lowering.worker.stages
"""
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.skipif(of_tpu().usable, reason="libtpu is installed")
def test_without_libtpu(programs: Path, tmp_path: Path) -> None:
    with pytest.raises(MissingDependencyError, match=r"pip install 'hlo-lab\[tpu\]'"):
        lowering.dump(f"{programs}:step", out=tmp_path / "out", target="tpu:v5e")


@pytest.mark.skipif(of_gpus().usable, reason="XLA's CUDA compiler is installed")
def test_without_the_cuda_compiler(programs: Path, tmp_path: Path) -> None:
    with pytest.raises(MissingDependencyError, match=r"pip install 'hlo-lab\[cuda\]'"):
        lowering.dump(f"{programs}:step", out=tmp_path / "out", target="gpu:h100")


def test_a_script_runs_on_this_machine_only(write: Write, tmp_path: Path) -> None:
    with pytest.raises(UseError, match="a script runs on this machine's devices"):
        lowering.dump_script(write("s.py", ""), out=tmp_path / "out", target="gpu:h100")


def test_a_memory_limit_that_nothing_watches(
    programs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "resident_bytes", lambda pid: 0)  # a system without /proc
    with pytest.warns(HloLabWarning, match="memory-limit is not watched"):
        lowering.dump(f"{programs}:nothing", out=tmp_path / "out", memory_limit=GIB)
