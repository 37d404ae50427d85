"""The command ``dump``, as a user runs it; about 1.5 s per program."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

PROGRAM = """
import jax, jax.numpy as jnp

print("printed on import")

@jax.jit
def step(w, x):
    return jnp.tanh(x @ w)

def example_args():
    return jnp.zeros((8, 8)), jnp.zeros((4, 8))

if __name__ == "__main__":
    print("printed by the script")
    step(*example_args())
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dump")
    (folder / "train.py").write_text(PROGRAM)
    (folder / "bad.py").write_text("import sys\nsys.exit(9)\n")
    return folder


Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def run(place: Path) -> Run:
    def run_command(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            # quiet: a busy machine may be slow enough for progress to show
            [sys.executable, "-m", "hlo_lab", "-q", "dump", *arguments],
            capture_output=True,
            text=True,
            cwd=place,
            env={**os.environ, "XDG_STATE_HOME": str(place / "state"), "NO_COLOR": "1"},
            check=False,
        )

    return run_command


def test_a_bundle_and_what_to_do_next(run: Run, place: Path) -> None:
    done = run("train.py:step", "-o", "out", "--passes")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("train.py:step for cpu\n")
    for word in ("stablehlo.mlir", "hlo_after.txt", "passes changed", "hlo-lab analyze out"):
        assert word in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert (place / "out" / "manifest.json").exists()
    # a bundle is replaced without a word, and read without compiling
    assert run("train.py:step", "-o", "out").returncode == 0
    done = run("out", "--stage", "jaxpr")
    assert done.returncode == 0
    assert done.stdout == (place / "out" / "jaxpr.txt").read_text()
    done = run("out", "--stage", "passes")
    assert done.returncode == 2
    assert "dump it with --passes" in done.stderr


def test_one_stage_to_stdout_writes_nothing_else(run: Run, place: Path) -> None:
    before = sorted(place.iterdir())
    done = run("train.py:step", "--stage", "hlo-after", "--args", "f32[8,8], bf16[2,8]")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("HloModule jit_step, is_scheduled=true")
    assert "bf16[2,8]" in done.stdout
    assert [path for path in sorted(place.iterdir()) if path.name != "state"] == [
        path for path in before if path.name != "state"
    ]


def test_64_bits_that_become_32_are_noted(place: Path) -> None:
    def notes(*options: str, **variables: str) -> str:
        command = [sys.executable, "-m", "hlo_lab", *options, "train.py:step", "--args"]
        done = subprocess.run(
            [*command, "f32[8,8], f64[2,8]"],
            capture_output=True,
            text=True,
            cwd=place,
            env={**os.environ, "XDG_STATE_HOME": str(place / "state"), **variables},
            check=True,
        )
        return "".join(line for line in done.stderr.splitlines() if line.startswith("note: "))

    expected = "note: --args has f64, which JAX takes as f32: set JAX_ENABLE_X64=1 for 64 bits"
    assert notes("dump", "--stage", "jaxpr") == expected
    assert notes("-q", "dump", "--stage", "jaxpr") == ""
    assert notes("dump", "--stage", "jaxpr", JAX_ENABLE_X64="1") == ""


def test_a_stage_and_a_bundle(run: Run, place: Path) -> None:
    done = run("train.py:step", "--stage", "passes", "-o", "both")
    assert json.loads(done.stdout) == json.loads((place / "both" / "passes.json").read_text())


def test_a_script(run: Run, place: Path) -> None:
    done = run("--script", "train.py", "-o", "captured", "--filter", "step", "--", "--flag", "x")
    assert done.returncode == 0
    assert "printed by the script" in done.stderr
    assert done.stdout.startswith("1 program in captured\n")
    assert "jit_step" in done.stdout and "left out" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80
    index = json.loads((place / "captured" / "index.json").read_text())
    assert index["program"]["argv"] == ["--flag", "x"]


def test_a_script_that_fails_keeps_what_it_compiled(run: Run, place: Path) -> None:
    done = run("--script", "bad.py", "-o", "kept")
    assert done.returncode == 3
    assert done.stderr.splitlines()[-1] == "error: the script ended with status 9"
    assert (place / "kept" / "index.json").exists()


def test_a_script_that_takes_too_long_keeps_what_it_compiled(run: Run, place: Path) -> None:
    (place / "slow.py").write_text(PROGRAM + "    import time; time.sleep(600)\n")
    done = run("--script", "slow.py", "-o", "late", "--filter", "step", "--time-limit", "8")
    assert done.returncode == 3
    assert "1 program was kept in late (log: " in done.stderr.splitlines()[-1]
    assert done.stdout.startswith("1 program in late\n")
    done = run("--script", "slow.py", "-o", "first", "--filter", "step", "--stop-after", "1")
    assert (done.returncode, done.stdout.splitlines()[0]) == (0, "1 program in first")
    words = " ".join(run("--help").stdout.split())
    assert "stopped by --stop-after, --time-limit or Ctrl-C" in words


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["train.py:step"], 2, "name the folder to write with -o DIR"),
        (["-o", "new"], 2, "name one program (none was given)"),
        (["a.py:f", "b.py:g", "-o", "new"], 2, "name one program (2 were given)"),
        (["train.py", "-o", "new"], 2, "train.py:step"),
        (["train.py:steps", "-o", "new"], 2, "has no 'steps'; did you mean step?"),
        (["missing.py:f", "-o", "new"], 2, "missing.py: no such file"),
        (["train.py:step", "--stage", "hlo"], 2, "unknown stage 'hlo': use one of jaxpr"),
        (["train.py:step", "--stage", "hlo", "-o", "new"], 2, "unknown stage 'hlo'"),
        (["train.py:step", "-o", "new", "--target", "tpu:v9:2x2"], 2, "unknown TPU"),
        (["train.py:step", "-o", "new", "--args", "f32[8"], 2, "--args 'f32[8'"),
        (["train.py:step", "-o", "new", "--time-limit", "-1"], 2, "--time-limit"),
        (["train.py:step", "-o", "new", "--min-size", "3"], 2, "--script"),
        (["--script", "train.py", "-o", "new", "--passes"], 2, "leave out"),
        (["--script", "train.py"], 2, "-o DIR"),
        (["train.py:step", "-o", "new", "--stop-after", "3"], 2, "--stop-after"),
        (["train.py:step", "-o", "state"], 2, "exists and is not a bundle"),
        (["train.py:step", "-o", ".", "--force"], 2, "refusing to replace"),
        (["train.py:step", "-o", "train.py"], 2, "is a file"),
        (["bad.py:f", "-o", "new"], 3, "being imported: called sys.exit(9)"),
    ],
)
def test_errors_are_one_line_and_leave_nothing(
    arguments: list[str], code: int, message: str, run: Run, place: Path
) -> None:
    (place / "state").mkdir(exist_ok=True)
    (place / "state" / "file").touch()
    done = run(*arguments)
    assert done.returncode == code
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("error: ")
    assert message in done.stderr
    assert not (place / "new").exists()
    assert not list(place.glob(".*"))
