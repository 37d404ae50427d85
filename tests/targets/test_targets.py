"""Compiling for accelerators that are not there. Needs the extras ``tpu`` and ``cuda``."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from hlo_lab import api
from hlo_lab.errors import InputError, ProgramError, UseError
from hlo_lab.lowering import Bundle, process
from hlo_lab.lowering.availability import all_targets, of_gpus
from hlo_lab.lowering.logs import log_folder
from hlo_lab.lowering.passlog import PassLog

pytestmark = pytest.mark.targets
Dump = Callable[..., Bundle]
BOTH = pytest.mark.parametrize("target", ["tpu:v5e:2x2", "gpu:h100:4"])


@BOTH
@pytest.mark.parametrize("program", ["looks_up", "step"])
def test_a_plain_program_is_compiled_for_one_device(dump: Dump, target: str, program: str) -> None:
    bundle = dump(program, target)
    assert bundle.manifest["notes"] == [
        f"the program has no shardings: compiled for one device of {target}"
    ]
    module = bundle.module()
    assert module.is_scheduled and "num_partitions" not in module.header
    assert bundle.manifest["devices"] == 1
    assert api.analyze(bundle.path).notes[0] == bundle.manifest["notes"][0]
    if program == "step":
        sizes = bundle.analysis["memory_analysis"]
        assert sizes["argument_size_in_bytes"] == (256 + 512) * 256 * 4
    assert {"buffers", "memory"} <= set(bundle.stages)
    assert ("libtpu" in bundle.manifest["versions"]) == target.startswith("tpu")


@BOTH
@pytest.mark.parametrize(
    ("program", "mesh", "shape"),
    [
        ("bare", None, "f32[128,256]"),
        ("from_mesh", None, "f32[128,256]"),
        ("bare_from_mesh", None, "f32[128,256]"),
        ("two_axes", "data=2,model=2", "f32[256,128]"),
    ],
)
def test_a_program_with_shardings_gets_the_targets_mesh(
    dump: Dump, target: str, program: str, mesh: str | None, shape: str
) -> None:
    bundle = dump(program, target, mesh=mesh)
    assert bundle.manifest["devices"] == 4 and bundle.manifest["notes"] == []
    module = bundle.module()
    assert module.header["num_partitions"] == "4"
    assert shape in module.header["entry_computation_layout"]
    if program != "two_axes":
        assert "all-reduce" in bundle.text("hlo-after")


def test_what_compilers_know_is_kept(dump: Dump) -> None:
    assert "estimated_cycles" in dump("step", "tpu:v6e").text("hlo-after")
    bundle = dump("step", "gpu:h100")
    assert "exec_time_us" in bundle.text("hlo-after")
    assert "exec_time_us" not in dump("step", "gpu:a100").text("hlo-after")


@pytest.mark.parametrize("target", ["tpu:v5e", "gpu:h100"])
def test_who_holds_the_compilers_own_buffers(dump: Dump, target: str) -> None:
    bundle = dump("step", target)
    analysis = api.analyze(bundle.path, passes=["sharding"])
    found, total = analysis.assigned, analysis.compiler_memory
    assert found is not None and total is not None
    assert found.allocated_bytes == pytest.approx(total["peak_bytes"], rel=0.01)
    assert 0.9 * found.allocated_bytes < found.peak_bytes <= found.allocated_bytes
    assert any(holder.source for holder in found.holders)


def test_axes_that_the_mesh_does_not_have(dump: Dump) -> None:
    with pytest.raises(InputError, match=r"the axis model at .* say --mesh model=4"):
        dump("two_axes", "tpu:v5e:2x2")


def test_a_program_of_this_machines_devices(dump: Dump, programs: Path) -> None:
    with pytest.raises(ProgramError) as caught:
        dump("own_devices", "tpu:v5e:2x2")
    line = line_of_mesh(programs)
    assert f"it asks JAX for this machine's devices (jax.device_count at {line})" in str(
        caught.value
    )
    assert "example_args(mesh)" in str(caught.value)


def line_of_mesh(programs: Path) -> str:
    lines = programs.read_text().splitlines()
    number = next(at for at, line in enumerate(lines, 1) if "jax.make_mesh" in line)
    return f"{programs}:{number}"


def test_the_backend_is_the_targets(dump: Dump) -> None:
    assert "constant(2)" in dump("backend", "tpu:v5e").text("hlo-before")


@BOTH
@pytest.mark.parametrize("program", ["prints", "calls"])
def test_host_callbacks(dump: Dump, target: str, program: str) -> None:
    text = dump(program, target.removesuffix(":4").replace("2x2", "1x1")).text("hlo-after")
    assert ("xla_ffi_python_gpu_callback" if "gpu" in target else "is_host_transfer") in text


@pytest.mark.parametrize("target", ["tpu:v5e:1x1", "tpu:v5e:2x2", "gpu:h100"])
def test_a_program_that_computes_while_it_is_traced(dump: Dump, target: str) -> None:
    bundle = dump("computes", target)
    assert "constant(6)" in bundle.text("hlo-before")
    assert len(bundle.manifest["notes"]) == (target == "tpu:v5e:2x2")


def test_a_program_that_does_not_fit(dump: Dump, tmp_path: Path) -> None:
    bundle = dump("too_large", "tpu:v5e")
    found = bundle.manifest["out_of_memory"]
    assert found["needed_bytes"] > found["available_bytes"] > 15 << 30
    assert "Ran out of memory" in found["message"]
    assert found["after_pass"]
    assert len(bundle.module().instruction_names) > 10  # what can be analysed goes on
    assert (bundle.path / "out_of_memory.txt").read_text().startswith("RESOURCE_EXHAUSTED")
    assert not list(bundle.path.glob("raw*"))
    # on a larger chip it is no finding
    assert dump("too_large", "tpu:v5p").manifest["out_of_memory"] is None


def test_flags(dump: Dump) -> None:
    flags = ["xla_gpu_enable_triton_gemm=false"]
    bundle = dump("step", "gpu:h100", xla_flags=flags)
    assert bundle.manifest["xla_flags"] == {"xla_gpu_enable_triton_gemm": "false"}
    assert "__cublas$" in bundle.text("hlo-after")
    with pytest.raises(UseError, match="xla_tpu_scoped_vmem_limit_kib"):
        dump("step", "tpu:v5e", xla_flags=["xla_tpu_scoped_vmem_limit_kb=1"])
    with pytest.raises(UseError, match=r"limit_kib=abc: not a value of its type$"):
        dump("step", "tpu:v5e", xla_flags=["xla_tpu_scoped_vmem_limit_kib=abc"])
    with pytest.raises(UseError, match=r"XLA knows no such flag$"):  # a TPU's is no help
        dump("step", "gpu:h100", xla_flags=["xla_gpu_scoped_vmem_limit_kib=1"])
    chosen = ["xla_tpu_scoped_vmem_limit_kib=8192"]
    assert dump("step", "tpu:v5e", xla_flags=chosen).manifest["xla_flags"]


def test_passes(dump: Dump) -> None:
    bundle = dump("step", "tpu:v5e", passes=True)
    assert len(bundle.passes) > 5


@pytest.mark.parametrize("target", list(all_targets()))
def test_every_kind(dump: Dump, target: str) -> None:
    state = all_targets()[target]
    if not state.usable:
        pytest.skip(state.reason)
    bundle = dump("backend", target)
    assert bundle.module().is_scheduled


def test_other_sources(dump: Dump, tmp_path: Path) -> None:
    bundle = dump("step", "tpu:v5e")
    before = {
        name: shutil.copy(bundle.path / name, tmp_path)
        for name in ("stablehlo.mlir", "hlo_before.pb")
    }
    kept = bundle.module()
    for path in before.values():
        again = dump(str(path), "tpu:v5e").module()
        assert len(again.instruction_names) == len(kept.instruction_names)
    optimised = shutil.copy(bundle.path / "hlo_after.txt", tmp_path)
    with pytest.raises(InputError, match="give the module from before optimisation"):
        dump(str(optimised), "tpu:v5e")


@pytest.mark.parametrize("platforms", ["cpu", "tpu,cuda"])
def test_an_export(dump: Dump, programs: Path, tmp_path: Path, platforms: str) -> None:
    pytest.importorskip("flatbuffers", reason="jax.export serializes with flatbuffers")
    code = (
        "import sys, jax; from jax import export; sys.path.insert(0, sys.argv[1]);"
        "import programs; f = jax.jit(programs.step);"
        "e = export.export(f, platforms=sys.argv[3].split(','))(*programs.step.example_args);"
        "open(sys.argv[2], 'wb').write(e.serialize())"
    )
    path = tmp_path / "step.jax_export"
    subprocess.run(
        [sys.executable, "-c", code, programs.parent, path, platforms],
        check=True,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
    )
    bundle = dump(str(path), "tpu:v5e")
    assert bundle.manifest["module"] == "jit_step"
    assert ("its kernels stay in it" in str(bundle.manifest["notes"])) == (platforms == "cpu")


def test_ptxas_is_the_extras(dump: Dump) -> None:
    """No CUDA on the path; XLA is told where the wheel's toolkit is."""
    if "ptxas of" not in of_gpus().reason:
        pytest.skip("nvidia-cuda-nvcc is not installed")
    bundle = dump("step", "gpu:h100", env={**os.environ, "PATH": "/usr/bin:/bin"})
    assert bundle.analysis["memory_analysis"]["generated_code_size_in_bytes"] >= 0


def test_the_command_line(programs: Path, tmp_path: Path) -> None:
    if not all_targets()["tpu:v5e"].usable:
        pytest.skip("libtpu is not installed")
    out = str(tmp_path / "out")
    command = [sys.executable, "-m", "hlo_lab", "dump", f"{programs}:too_large", "-o", out]
    done = subprocess.run(
        [*command, "--target", "tpu:v5litepod-1"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1, done.stderr
    assert "It does not fit" in done.stdout and "missing" in done.stdout
    assert "note: tpu:v5litepod-1 is tpu:v5e:1x1" in done.stderr
    # what libtpu prints when it starts is not the user's business
    assert "host bounds" not in done.stderr and "InitGoogle" not in done.stderr
    assert json.loads((tmp_path / "out" / "manifest.json").read_text())["target"] == "tpu:v5e:1x1"


@BOTH
def test_the_compiler_says_which_pass_it_is_in(
    dump: Dump, target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[PassLog] = []
    monkeypatch.setattr(process, "PassLog", lambda: made.append(PassLog()) or made[-1])
    before = set(log_folder().glob("*.log"))
    dump("step", target)
    assert made[0].doing
    assert set(log_folder().glob("*.log")) == before  # it says nothing else, and is removed
