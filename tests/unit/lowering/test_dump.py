"""Programs of every kind, compiled for real: about 1.3 s each."""

from __future__ import annotations

import gzip
import itertools
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import hlo_lab
from hlo_lab import lowering
from hlo_lab.errors import NotFoundError, UseError
from hlo_lab.ir.files import read_module
from hlo_lab.lowering import STAGES, Bundle
from hlo_lab.lowering.manifest import git_state


@pytest.fixture
def dump(programs: Path, tmp_path: Path) -> Callable[..., Bundle]:
    def run(name: str, **options: Any) -> Bundle:
        return lowering.dump(f"{programs}:{name}", out=tmp_path / "out", **options)

    return run


def arguments(bundle: Bundle) -> list[tuple[str, str, list[int]]]:
    return [(each["path"], each["dtype"], each["shape"]) for each in bundle.manifest["arguments"]]


# ---- what is in a bundle


def test_every_stage_is_there(step: Bundle) -> None:
    assert step.stages == list(STAGES)
    assert "dot_general" in step.text("jaxpr")
    assert "stablehlo.dot_general" in step.text("stablehlo")
    assert "programs.py" in step.text("stablehlo")  # debug locations
    assert step.module("hlo-before").name == step.module().name == "jit_step"
    assert step.module().is_scheduled
    assert not step.module("hlo-before").is_scheduled


def test_text_and_proto_are_the_same_module(step: Bundle) -> None:
    for name in ("hlo_before", "hlo_after"):
        text, proto = (read_module(step.path / f"{name}.{kind}") for kind in ("txt", "pb"))
        assert text.difference(proto) is None


def test_schedule_and_analysis(step: Bundle) -> None:
    module = step.module()
    entry = module.entry_computation
    assert step.schedule[entry.name] == [each.name for each in entry.instructions]
    memory = step.analysis["memory_analysis"]
    assert memory["argument_size_in_bytes"] == 4 * (8 * 8 + 8 + 4 * 8)
    assert step.analysis["cost_analysis"]["flops"] > 2 * 2 * 4 * 8 * 8


def test_the_timeline_holds_the_passes_that_changed_the_module(step: Bundle) -> None:
    assert [entry["index"] for entry in step.passes] == list(range(len(step.passes)))
    texts = [(step.path / entry["file"]).read_text() for entry in step.passes]
    assert all(one != other for one, other in itertools.pairwise(texts))
    assert any(entry["pass"] == "fusion" for entry in step.passes)
    assert any(entry["pass"] == "scheduling" for entry in step.passes)
    before = len(step.module("hlo-before"))
    for entry in step.passes:
        assert entry["instructions_before"] == before
        before = len(read_module(step.path / entry["file"]))
        assert entry["instructions_after"] == before
    assert before == len(step.module())


def test_source_lines_are_the_programs_alone(step: Bundle, programs: Path) -> None:
    module = step.module()
    files = {frame.file for index in range(len(module)) for frame in module.source_stack(index)}
    assert files == {str(programs)}


def test_the_manifest_says_what_was_compiled(step: Bundle, programs: Path) -> None:
    manifest = step.manifest
    assert (manifest["schema"], manifest["schema_version"]) == ("hlo-lab/bundle", 1)
    assert manifest["program"] == {
        "reference": f"{programs}:step",
        "file": str(programs),
        "args": None,
    }
    assert arguments(step) == [
        ("params['b']", "float32", [8]),
        ("params['w']", "float32", [8, 8]),
        ("x", "float32", [4, 8]),
    ]
    assert [each["shape"] for each in manifest["results"]] == [[8], [8, 8]]
    assert (manifest["target"], manifest["devices"]) == ("cpu", 1)
    assert manifest["versions"]["hlo-lab"] == hlo_lab.__version__
    assert set(manifest["versions"]) == {"hlo-lab", "python", "jax", "jaxlib"}
    assert manifest["flags"]["JAX_PLATFORMS"] == "cpu"
    assert manifest["seconds"]["compile"] > 0
    assert manifest["git"] is None
    on_disk = {path.relative_to(step.path).as_posix() for path in step.path.rglob("*.*")}
    assert set(manifest["files"]) == on_disk - {"manifest.json"}
    Bundle.open(step.path, check_hashes=True)


def test_the_same_input_gives_the_same_bytes(step: Bundle, dump: Callable[..., Bundle]) -> None:
    again = dump("step", passes=True)
    assert again.manifest["files"] == step.manifest["files"]
    times = ("created", "seconds", "files")
    one, other = ({k: v for k, v in b.manifest.items() if k not in times} for b in (step, again))
    assert one == other


def test_git_state(
    write: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write("repo/program.py", "def f(): return 1.0")

    def git(*words: str) -> str:
        identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
        command = ["git", "-C", str(file.parent), *identity, *words]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    git("init", "-q")
    git("add", "program.py")
    git("commit", "-q", "-m", "one")
    file.write_text("def f(): return 2.0")
    state = lowering.dump(f"{file}:f", out=tmp_path / "out").manifest["git"]
    clean = {"commit": git("rev-parse", "HEAD"), "dirty": False, "root": str(file.parent)}
    assert state == {**clean, "dirty": True}
    git("checkout", "-q", "program.py")
    assert git_state(file) == clean
    monkeypatch.setenv("GIT_DIR", "/nonexistent")  # as in a hook of another repository
    assert git_state(file) == clean
    assert git_state(write("repo/new.py", "")) == {**clean, "dirty": True}


# ---- kinds of programs


def test_no_arguments(dump: Callable[..., Bundle]) -> None:
    # example_args() beside it belongs to functions that have arguments
    bundle = dump("nothing")
    assert bundle.manifest["arguments"] == []
    assert bundle.manifest["results"][0]["shape"] == [4]


def test_static_arguments_of_a_plain_function(dump: Callable[..., Bundle]) -> None:
    bundle = dump("scaled", args="f32[8], 3, 'tanh'")
    assert arguments(bundle) == [("x", "float32", [8])]
    assert bundle.manifest["static"] == [
        {"name": "power", "value": "3"},
        {"name": "activation", "value": "'tanh'"},
    ]
    assert "tanh" in bundle.module("hlo-before").opcodes


def test_a_jitted_function_keeps_its_own_options(dump: Callable[..., Bundle]) -> None:
    bundle = dump("jitted")
    (argument,) = bundle.manifest["arguments"]
    assert argument == {"path": "x", "dtype": "float32", "shape": [16], "donated": True}
    assert "input_output_alias" in bundle.module().header


def test_partial_and_arguments_by_name(dump: Callable[..., Bundle]) -> None:
    assert arguments(dump("partial", args="f64[8]")) == [("x", "float32", [8])]
    bundle = dump("by_name")
    assert [each[:2] for each in arguments(bundle)] == [("gain", "float32"), ("x", "bfloat16")]
    assert bundle.manifest["static"] == [{"name": "training", "value": "True"}]


@pytest.mark.parametrize("name", ["Model.step", "model.step", "model", "Model.Inner.run"])
def test_methods_and_callable_objects(name: str, dump: Callable[..., Bundle]) -> None:
    bundle = dump(name)
    assert arguments(bundle) == [("x", "float32", [64])]


def test_example_args_beside_the_function_and_large_constants(dump: Callable[..., Bundle]) -> None:
    bundle = dump("constants")
    assert "62, 63" in bundle.text("hlo-after") or "iota" in bundle.module().opcodes


def test_a_module_in_a_package(write: Callable[..., Path], tmp_path: Path) -> None:
    write("pack/__init__.py", "")
    write("pack/other.py", "def twice(x): return x * 2")
    file = write("pack/inner.py", "from .other import twice\ndef f(x): return twice(x)\n")
    by_name = lowering.dump("pack.inner:f", out=tmp_path / "a", cwd=tmp_path, args="f32[2]")
    by_file = lowering.dump(f"{file}:f", out=tmp_path / "b", args="f32[2]")
    assert by_name.manifest["files"] == by_file.manifest["files"]


def test_several_devices_and_a_mesh(write: Callable[..., Path], tmp_path: Path) -> None:
    file = write(
        "spread.py",
        """
        import jax, jax.numpy as jnp
        from jax.sharding import NamedSharding, PartitionSpec as P

        def loss(w, x):
            return jnp.sum(jnp.tanh(x @ w))

        def example_args(mesh):
            def array(shape, *spec):
                return jax.ShapeDtypeStruct(
                    shape, jnp.float32, sharding=NamedSharding(mesh, P(*spec)))
            return array((32, 32)), array((16, 32), "data")
        """,
    )
    bundle = lowering.dump(f"{file}:loss", out=tmp_path / "out", target="cpu:8")
    assert (bundle.target, bundle.manifest["devices"]) == ("cpu:8", 8)
    assert "data" in bundle.manifest["arguments"][1]["sharding"]
    assert "all-reduce" in bundle.module().opcodes
    for stage in ("hlo-before", "hlo-after"):
        assert bundle.module(stage).header["num_partitions"] == "8"
    # the same module again, from its StableHLO alone
    again = lowering.dump(
        str(bundle.path_of("stablehlo")), out=tmp_path / "again", target="cpu:8", passes=True
    )
    assert again.manifest["absent"] == ["jaxpr"]
    assert len(again.module()) == len(bundle.module())
    assert again.module().opcodes == bundle.module().opcodes
    for entry in again.passes:
        assert len(read_module(again.path / entry["file"])) == entry["instructions_after"]
    with pytest.raises(NotFoundError, match="has no stage jaxpr"):
        again.text("jaxpr")


def test_stablehlo_files_may_be_packed(step: Bundle, tmp_path: Path) -> None:
    packed = tmp_path / "step.mlir.gz"
    packed.write_bytes(gzip.compress(step.text("stablehlo").encode()))
    bundle = lowering.dump(str(packed), out=tmp_path / "out")
    assert bundle.module().instruction_names == step.module().instruction_names
    assert arguments(bundle)[1] == ("[1]", "float32", [8, 8])


def test_a_flax_module_in_a_function(write: Callable[..., Path], tmp_path: Path) -> None:
    pytest.importorskip("flax")
    file = write(
        "net.py",
        """
        import jax, jax.numpy as jnp
        from flax import linen as nn, nnx

        class Net(nn.Module):
            @nn.compact
            def __call__(self, x):
                return nn.Dense(4)(nn.relu(nn.Dense(8)(x)))

        net = Net()

        def forward(params, x):
            return net.apply(params, x)

        def example_args():
            x = jax.ShapeDtypeStruct((2, 16), jnp.float32)
            return jax.eval_shape(net.init, jax.random.key(0), x), x

        model = nnx.Linear(16, 4, rngs=nnx.Rngs(0))

        @nnx.jit
        def stateful(model, x):
            return model(x)

        stateful.example_args = (model, jnp.ones((2, 16)))
        """,
    )
    bundle = lowering.dump(f"{file}:forward", out=tmp_path / "linen")
    shapes = sorted(each[2] for each in arguments(bundle))
    assert shapes == [[2, 16], [4], [8], [8, 4], [16, 8]]
    bundle = lowering.dump(f"{file}:stateful", out=tmp_path / "nnx")
    assert "dot" in bundle.module("hlo-before").opcodes


def test_pytrees_may_hold_what_is_no_array(write: Callable[..., Path], tmp_path: Path) -> None:
    file = write(
        "mixed.py",
        """
        import jax, jax.numpy as jnp

        def f(model, x, unhashable):
            return model["activation"](x @ model["w"]) * unhashable[0]

        def example_args():
            model = {"w": jnp.ones((8, 8)), "activation": jnp.tanh, "name": "net"}
            return model, jnp.ones(8), ["a", 3.0][1:]

        def g(x, words):
            return x * len(words)

        g.example_args = (2.0, {"a": "b"})
        """,
    )
    bundle = lowering.dump(f"{file}:f", out=tmp_path / "f")
    assert [each[0] for each in arguments(bundle)] == ["model['w']", "x", "unhashable[0]"]
    static = {each["name"]: each["value"] for each in bundle.manifest["static"]}
    assert static["model['name']"] == "'net'"
    assert set(static) == {"model['name']", "model['activation']"}
    assert "tanh" in bundle.module("hlo-before").opcodes
    bundle = lowering.dump(f"{file}:g", out=tmp_path / "g")
    assert bundle.manifest["static"] == [{"name": "words['a']", "value": "'b'"}]


def test_nothing_is_allocated(write: Callable[..., Path], tmp_path: Path) -> None:
    file = write("big.py", "def f(x): return x + 1")
    bundle = lowering.dump(f"{file}:f", out=tmp_path / "out", args="f32[4194304,1048576]")
    assert bundle.analysis["memory_analysis"]["argument_size_in_bytes"] == 1 << 44


def test_the_programs_environment_and_flags(write: Callable[..., Path], tmp_path: Path) -> None:
    file = write(
        "env.py", "import os, jax.numpy as jnp\ndef f(): return jnp.ones(int(os.environ['N']))"
    )
    bundle = lowering.dump(
        f"{file}:f",
        out=tmp_path / "out",
        env={"N": "5", "XLA_FLAGS": "--xla_cpu_enable_fast_math=false"},
    )
    assert bundle.manifest["results"][0]["shape"] == [5]
    assert bundle.manifest["flags"]["XLA_FLAGS"] == "--xla_cpu_enable_fast_math=false"


def test_stage_names_are_checked(step: Bundle) -> None:
    with pytest.raises(UseError, match="use one of jaxpr, stablehlo"):
        step.text("hlo")
    with pytest.raises(UseError, match="is not HLO"):
        step.module("jaxpr")


def test_json_stages_are_json(step: Bundle) -> None:
    for stage in ("schedule", "analysis", "passes"):
        json.loads(step.text(stage))
