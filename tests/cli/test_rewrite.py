"""``hlo-lab rewrite`` as a user runs it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from hlo_lab import api
from tests.unit.api.test_analyze import check
from tests.unit.measure.test_rewriting import PASS

PROGRAM = """
import jax
import jax.numpy as jnp

def f(x):
    return jnp.sort(x)[:, -8:] + jax.nn.sigmoid(x[:, :8])

f.example_args = lambda: (jax.ShapeDtypeStruct((64, 4096), jnp.float32),)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "prog.py").write_text(PROGRAM)
    # the first line is enough: what follows may be long
    (tmp_path / "optimised.hlo").write_text("HloModule m, is_scheduled=true\n\nand no more")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "sigmoid.py").write_text(PASS)
    return tmp_path


def run(*args: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "hlo_lab", "-q", "rewrite", *map(str, args)],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=110,
        env={**os.environ, "NO_COLOR": "1", "COLUMNS": "80", "HLO_LAB_CACHE_DIR": str(cwd / "c")},
    )


def test_two_passes_as_text_and_the_module(folder: Path) -> None:
    done = run(
        "sort-to-top-k", "prog.py:f", "--pass", "sigmoid", "--passes-dir", "mine",
        "--emit", "new.mlir", cwd=folder,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for text in ("sort-to-top-k  1 change", "sigmoid        1 change", "faster, estimated", "ok"):
        assert text in done.stdout
    assert all(len(line) <= 80 for line in done.stdout.splitlines())
    text = (folder / "new.mlir").read_text()
    assert "chlo.top_k" in text and "stablehlo.logistic" in text and "prog.py" in text
    again = run("sort-to-top-k", "new.mlir", "--format", "json", cwd=folder)
    assert again.returncode == 0, again.stderr
    document = json.loads(again.stdout)
    assert (document["verdict"], document["basis"]) == ("no effect", "structure")
    assert document["notes"][0] == "nothing to rewrite for sort-to-top-k"


def test_a_bundle(folder: Path) -> None:
    api.dump(f"{folder}/prog.py:f", folder / "b")
    done = run("sort-to-top-k", "b", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "b, rewritten" in done.stdout and "sort-to-top-k  1 change" in done.stdout
    for options, problem in (
        (["--target", "tpu:v5e"], "compiled for cpu, not tpu:v5e"),
        (["--args", "f32[8]"], "leave out --args"),
    ):
        done = run("sort-to-top-k", "b", *options, cwd=folder)
        assert done.returncode == 2 and problem in done.stderr
    assert "not a bundle" in run("sort-to-top-k", "mine", cwd=folder).stderr


def test_at_one_source_line(folder: Path) -> None:
    line = PROGRAM.splitlines().index("    return jnp.sort(x)[:, -8:] + jax.nn.sigmoid(x[:, :8])")
    where = f"prog.py:{line + 1}"
    for name, changes, verdict in (("sort-to-top-k", 1, "faster"), ("drop-pairs", 0, "no effect")):
        done = run(name, "prog.py:f", "--at", where, "-f", "json", cwd=folder)
        assert done.returncode == 0, done.stderr
        document = json.loads(done.stdout)
        check(document, "rewrite")
        assert (document["passes"][0]["changes"], document["verdict"]) == (changes, verdict)
        note = f"nothing to rewrite for {name} at {where}"
        assert (note in document["notes"]) is (changes == 0)
        assert (document["numbers"] is None) is (changes == 0)
    assert document["seconds"]["before"] > 0
    done = run("drop-pairs", "prog.py:f", "--at", where, "--measure", cwd=folder)
    assert (done.returncode, "Numbers" in done.stdout) == (0, False)
    assert "verdict     no effect: nothing to rewrite\n" in done.stdout


def test_the_document_with_times(folder: Path) -> None:
    done = run(
        "sort-to-top-k{most=0.1}", "prog.py:f", "--measure", "--seconds", "0.2",
        "--format", "json", cwd=folder,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    check(document, "rewrite")
    assert document["passes"] == [
        {"code": "TOP001", "name": "sort-to-top-k", "options": {"most": 0.1}, "changes": 1}
    ]
    assert document["basis"] == "measured"
    assert document["ops"]["before"]["sort"] == document["ops"]["after"]["chlo.top_k"] == 1
    assert document["numbers"]["agrees"] is True
    assert document["diff"]["schema"] == "hlo-lab/diff"
    assert document["diff"]["deltas"]["estimated_s"]["before"] > 0


def test_wrong_numbers_exit_1_and_name_the_operation(folder: Path) -> None:
    done = run("sigmoid{to=tanh}", "prog.py:f", "--passes-dir", "mine", cwd=folder)
    assert done.returncode == 1, done.stderr
    assert "wrong: the results are not those of the original" in done.stdout
    line = PROGRAM.splitlines().index("    return jnp.sort(x)[:, -8:] + jax.nn.sigmoid(x[:, :8])")
    text = " ".join(done.stdout.split())
    assert "first difference: divide" in text
    assert f"prog.py:{line + 1}" in text
    document = json.loads(
        run(
            "sigmoid{to=tanh}", "prog.py:f", "--passes-dir", "mine", "-f", "json", cwd=folder
        ).stdout
    )
    check(document, "rewrite")
    assert document["numbers"]["first_difference"]["op"] == "divide"


@pytest.mark.parametrize(
    ("args", "problem"),
    [
        (("fusion", "prog.py:f"), "analyses programs and rewrites nothing"),
        (("sort-to-top-kk", "prog.py:f"), "did you mean 'sort-to-top-k'"),
        (("sort-to-top-k", "gone.py:f"), "no such file"),
        (("sort-to-top-k", "optimised.hlo"), "a compiler was there before"),
        (("sort-to-top-k", "prog.py:f", "--at", "prog.py"), "give FILE:LINE"),
        (
            ("sort-to-top-k", "prog.py:f", "--at", "nosuch.py:5"),
            "no operation of the program is from nosuch.py:5; there are some from prog.py:6",
        ),
        (("sort-to-top-k", "prog.py:f", "--measure", "--target", "tpu:v5e"), "leave it out"),
        (("sort-to-top-k", "prog.py:f", "--emit", "gone/x.mlir"), "there is no folder gone"),
    ],
)
def test_bad_use_is_one_line_and_exit_2(folder: Path, args, problem: str) -> None:
    done = run(*args, cwd=folder)
    assert done.returncode == 2
    assert problem in done.stderr
    assert done.stderr.count("\n") == 1
