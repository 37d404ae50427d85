from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from syrupy.assertion import SnapshotAssertion

from hlo_lab import api
from hlo_lab.api.source import Options
from hlo_lab.cli.main import main
from hlo_lab.errors import CompilerError, HloLabError
from hlo_lab.lowering import Bundle
from hlo_lab.lowering.manifest import write_manifest

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = """\
import jax, jax.numpy as jnp

def f(x):
    return jnp.tanh(x @ x).sum()

f.example_args = lambda: jax.ShapeDtypeStruct((64, 64), jnp.float32)
"""
TPU, GPU, LOST = "tpu:v5e:2x2", "gpu:h100:4", "gpu:b200"


@pytest.fixture
def compiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compilations that took no time: a whole one, one that does not fit, one that failed."""
    refused = {
        "needed_bytes": 17 << 30,
        "available_bytes": 15 << 30,
        "message": "RESOURCE_EXHAUSTED: ran out of memory on HBM",
        "after_pass": "layout-assignment",
    }
    given: dict[str, Bundle | HloLabError] = {
        LOST: CompilerError("the compiler was killed by SIGSEGV", "x.log")
    }
    for target, module, content in (
        (TPU, "mlp_v5e.hlo", {"out_of_memory": refused}),
        (GPU, "mlp_h100.hlo", {}),
    ):
        folder = tmp_path / module
        folder.mkdir()
        (folder / "hlo_after.txt").write_text((ROOT / "fixtures/hlo" / module).read_text())
        facts: dict[str, Any] = {"target": target, "devices": 4, "seconds": {"compile": 2.5}}
        write_manifest(folder, {"program": {"reference": "mlp.py:step"}, **facts, **content})
        given[target] = Bundle.open(folder)

    def fake(program: str, options: Options, *rest: Any) -> Bundle:
        found = given[options.target]
        if isinstance(found, HloLabError):
            raise found
        return found

    monkeypatch.setattr(sys.modules[api.compare.__module__], "compile_cached", fake)


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    with pytest.raises(SystemExit) as stop:
        main(["compare", *words])
    assert isinstance(stop.value.code, int)
    return stop.value.code, capsys.readouterr().out


@pytest.mark.usefixtures("compiled")
@pytest.mark.parametrize("format", ["text", "md"])
def test_what_users_read(
    format: str, capsys: pytest.CaptureFixture[str], snapshot: SnapshotAssertion
) -> None:
    words = [word for target in (TPU, GPU, LOST) for word in ("--target", target)]
    code, shown = run(capsys, "mlp.py:step", *words, "--format", format)
    assert code == 3
    assert shown == snapshot


@pytest.mark.usefixtures("compiled")
@pytest.mark.parametrize(("targets", "code"), [([GPU], 0), ([GPU, TPU], 1), ([LOST, TPU], 3)])
def test_exit_codes(targets: list[str], code: int, capsys: pytest.CaptureFixture[str]) -> None:
    words = [word for target in targets for word in ("--target", target)]
    assert run(capsys, "mlp.py:step", *words)[0] == code


def hlo_lab(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "hlo_lab", *words],
        cwd=folder,
        env={**os.environ, "HLO_LAB_CACHE_DIR": str(folder / "cache")},
        capture_output=True,
        text=True,
    )


def test_two_real_targets_and_the_cache(tmp_path: Path) -> None:
    (tmp_path / "prog.py").write_text(PROGRAM)
    words = ["compare", "prog.py:f", "--target", "cpu", "--target", "cpu:2", "-f", "json"]
    first = hlo_lab(tmp_path, *words)
    assert first.returncode == 0, first.stderr
    document = json.loads(first.stdout)
    assert [side["target"] for side in document["targets"]] == ["cpu", "cpu:2"]
    kept = sorted((tmp_path / "cache").rglob("manifest.json"))
    assert len(kept) == 2
    again = hlo_lab(tmp_path, *words)
    assert sorted((tmp_path / "cache").rglob("manifest.json")) == kept
    figures = [side["instructions"] for side in json.loads(again.stdout)["targets"]]
    assert figures == [side["instructions"] for side in document["targets"]]


def test_bad_use_is_one_line(tmp_path: Path) -> None:
    for words, says in (
        (["compare", "prog.py:f"], "name targets to compare"),
        (["compare", "prog.py:f", "--target", "tpu:v99"], "unknown TPU 'v99'"),
        (["compare", "prog.py:f", "--target", "cpu"], "prog.py"),
    ):
        done = hlo_lab(tmp_path, *words)
        assert done.returncode == 2 and done.stdout == ""
        assert says in done.stderr and done.stderr.count("\n") == 1
