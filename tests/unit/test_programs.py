"""The programs of fixtures/programs: each lowers, and a few compile."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAMS = Path(__file__).resolve().parents[2] / "fixtures" / "programs"
NAMES = {
    "advice": [
        "lookup",
        "one_by_one",
        "invariant",
        "several",
        "narrowed",
        "cast_again",
        "folded",
        "padded",
        "diagonal",
        "odd",
        "returned",
        "attend",
        "layers",
    ],
    "embedding": ["train_step", "train_step_sparse"],
    "gpt": [
        "train_step",
        "train_step_scan",
        "train_step_remat",
        "train_step_scan_remat",
        "train_step_bf16",
        "decode_step",
    ],
    "kernels": ["attention", "elementwise", "matmuls", "layers", "reorder"],
    "moe": ["train_step", "train_step_sorted"],
    "resnet": ["train_step", "predict"],
    "rewrites": [
        "sample",
        "embed",
        "heads",
        "append",
        "normalise",
        "chain",
        "turns",
        "precise",
    ],
    "rl": ["train_step"],
    "small": ["gpt_train", "gpt_scan_train", "resnet_train", "moe_train", "embedding_train"],
    "sharded": ["train_step", "train_step_tensor", "train_step_fsdp", "train_step_wrong"],
}
COMPILED = {"embedding:train_step_sparse", "gpt:decode_step", "sharded:train_step_tensor"}

LOWER = """
import importlib, inspect, json, sys
import jax

compiled = sys.argv[2:]
module = importlib.import_module(sys.argv[1])
report = {}
for name in json.loads(sys.stdin.read()):
    function = getattr(module, name)
    example = getattr(function, "example_args", None) or module.example_args
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    arguments = example(mesh) if "mesh" in inspect.signature(example).parameters else example()
    shapes = all(isinstance(a, jax.ShapeDtypeStruct) for a in jax.tree.leaves(arguments))
    lowered = (function if hasattr(function, "lower") else jax.jit(function)).lower(*arguments)
    hlo = lowered.compile().as_text() if name in compiled else ""
    report[name] = {"shapes": shapes, "lowered": lowered.as_text(), "hlo": hlo}
print(json.dumps(report))
"""


@pytest.mark.parametrize("module", NAMES)
def test_each_program_lowers_from_shapes(module: str) -> None:
    compiled = [name for name in NAMES[module] if f"{module}:{name}" in COMPILED]
    done = subprocess.run(
        [sys.executable, "-c", LOWER, module, *compiled],
        input=json.dumps(NAMES[module]),
        capture_output=True,
        text=True,
        env={
            **os.environ,
            "PYTHONPATH": str(PROGRAMS),
            "JAX_PLATFORMS": "cpu",
            "JAX_NUM_CPU_DEVICES": "8",
        },
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert list(report) == NAMES[module]
    for name, result in report.items():
        assert result["shapes"], f"{name} has arguments that allocate"
        assert "func.func public @main" in result["lowered"]
        assert ("HloModule" in result["hlo"]) == (name in compiled)
    if module == "gpt":
        # the scanned layers are one loop, so the program is much smaller than the unrolled one
        sizes = {name: len(result["lowered"]) for name, result in report.items()}
        assert "stablehlo.while" in report["train_step_scan"]["lowered"]
        assert sizes["train_step_scan"] < sizes["train_step"] / 2
    if module == "sharded":
        assert "all-reduce" in report["train_step_tensor"]["hlo"]


def test_every_program_file_is_tested() -> None:
    files = {path.stem for path in PROGRAMS.glob("*.py")}
    assert files == {*NAMES, "train"}


def test_the_training_script_learns() -> None:
    done = subprocess.run(
        [sys.executable, PROGRAMS / "train.py", "--steps", "60"],
        capture_output=True,
        text=True,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
    )
    assert done.returncode == 0, done.stderr
    assert float(done.stdout.split("accuracy")[1]) > 0.6
