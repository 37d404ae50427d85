"""``hlo-lab analyze --verify`` as a user runs it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.unit.api.test_analyze import check

PROGRAM = """
import jax
import jax.numpy as jnp

def f(x):
    top = jnp.sort(x)[:, -8:]
    return top + jnp.tanh(x[:, :8]) + jnp.sin(x[:, 8:16])

f.example_args = lambda: (jax.ShapeDtypeStruct((64, 4096), jnp.float32),)
"""

# an adviser that is wrong in three ways
PASSES = '''
from dataclasses import dataclass
from typing import ClassVar

from hlo_lab.passkit.base import AnalysisPass, RewritePass


@dataclass(frozen=True)
class SwapPass(RewritePass):
    """Swap.

    What it rewrites
        a
    Why it matters
        a
    Example
        a
    When it does not pay
        a
    What changes in the numbers
        a
    """

    code: ClassVar[str] = "SWP001"
    name: ClassVar[str] = "swap"
    old: str = "sine"
    new: str = ""

    def rewrite(self, module):
        for op in module.ops(self.old):
            new = op.operands[0]
            if self.new:
                new = module.before(op).elementwise(self.new, new)
            module.replace(op, new)


@dataclass(frozen=True)
class AdvicePass(AnalysisPass):
    """Advice.

    What it finds
        a
    Why it matters
        a
    Example
        a
    What to do
        a
    How it is verified
        a
    """

    code: ClassVar[str] = "ADV001"
    name: ClassVar[str] = "advice"

    def run(self, module, context):
        def called(name):
            every = (module.instruction(at) for at in range(len(module)))
            return next(each for each in every if each.op_name.endswith("/" + name))

        one, whole = called("sin"), context.cost.total_seconds
        yield self.finding(called("sort"), "other numbers", remedy=("swap{old=sort}",))
        yield self.finding(one, "nothing there", remedy=("swap{old=exponential}",))
        yield self.finding(one, "no gain", remedy=("swap{new=sine}",), seconds=whole / 2)
        yield self.finding(one, "no such pass", remedy=("swapp",))
        yield self.finding(one, "no rewrite")
'''


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("verify")
    (path / "prog.py").write_text(PROGRAM)
    (path / "mine").mkdir()
    (path / "mine" / "advice.py").write_text(PASSES)
    return path


def run(*args: object, cwd: Path, verb: str = "analyze") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "hlo_lab", "-q", verb, *map(str, args)],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=240,
        env={**os.environ, "NO_COLOR": "1", "COLUMNS": "80", "HLO_LAB_CACHE_DIR": str(cwd / "c")},
    )


def by_message(document: dict[str, Any]) -> dict[str, Any]:
    return {each["message"]: each["verification"] for each in document["findings"]}


def test_advice_of_every_fate(folder: Path) -> None:
    done = run(
        "prog.py:f", "--verify", "--passes-dir", "mine", "--pass", "full-sort,advice",
        "--fail-on", "ADV001", "-f", "json", cwd=folder,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    document = json.loads(done.stdout)
    check(document, "analyze")
    found = by_message(document)
    assert {name: each["status"] for name, each in found.items() if "sort" not in name} == {
        "other numbers": "refuted",
        "nothing there": "failed",
        "no gain": "refuted",
        "no such pass": "failed",
        "no rewrite": "not_tried",
    }
    (sort,) = (each for name, each in found.items() if "sort" in name)
    assert (sort["status"], sort["basis"], sort["agrees"]) == ("confirmed", "model", True)
    assert sort["seconds"]["after"] < sort["seconds"]["before"] / 2
    assert sort["peak_bytes"]["after"] < sort["peak_bytes"]["before"]
    assert (
        sort["place"]
        == f"prog.py:{PROGRAM.splitlines().index('    top = jnp.sort(x)[:, -8:]') + 1}"
    )
    assert 0.5 < sort["ratio"] < 2
    assert found["other numbers"]["agrees"] is False
    assert "the results are not those of the original" in found["other numbers"]["reason"]
    assert found["other numbers"]["seconds"]["after"] < sort["seconds"]["before"] / 2
    assert "it saves no time" in found["no gain"]["reason"]
    assert "swap finds nothing to change at" in found["nothing there"]["reason"]
    assert "did you mean 'swap'" in found["no such pass"]["reason"]
    counts = document["verification"]["counts"]
    assert counts == {"confirmed": 1, "failed": 2, "refuted": 2}


def test_refuted_advice_is_hidden_and_does_not_fail_a_gate(folder: Path) -> None:
    (folder / "bad").mkdir()
    first, _ = PASSES.split('        yield self.finding(one, "nothing')
    (folder / "bad" / "advice.py").write_text(first)
    args = ("prog.py:f", "--passes-dir", "bad", "--pass", "advice", "--fail-on", "note", "--verify")
    done = run(*args, cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "other numbers" not in done.stdout and "Findings: none" in done.stdout
    assert "1 refuted by recompiling, hidden; --show-refuted shows them." in done.stdout
    assert all(len(line) <= 80 for line in done.stdout.splitlines())
    done = run(*args, "--show-refuted", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "no refuted by `swap{old=sort}`: the results are not those" in done.stdout
    assert "hidden" not in done.stdout


def test_a_bundle_and_a_budget_that_is_spent(folder: Path) -> None:
    assert run("prog.py:f", "-o", "bundle", cwd=folder, verb="dump").returncode == 0
    args = ("bundle", "--verify", "--pass", "full-sort", "-f", "json")
    document = json.loads(run(*args, cwd=folder).stdout)
    (finding,) = document["findings"]
    assert finding["verification"]["status"] == "confirmed"
    document = json.loads(run(*args, "--budget", "1e-6", cwd=folder).stdout)
    (finding,) = document["findings"]
    assert finding["verification"]["status"] == "not_tried"
    assert finding["verification"]["reason"] == "the budget was spent"
    text = run("bundle", "--verify", "--pass", "full-sort", "--budget", "1e-6", cwd=folder).stdout
    assert "not verified: the budget was spent" in text


def test_a_file_has_nothing_to_compile_again(folder: Path) -> None:
    (folder / "m.hlo").write_text((folder / "bundle" / "hlo_after.txt").read_text())
    done = run("m.hlo", "--verify", "--pass", "full-sort", cwd=folder)
    assert done.returncode == 0
    text = " ".join(done.stdout.split())
    assert "Not verified: m.hlo: advice is verified by compiling again from StableHLO" in text


def test_measured(folder: Path) -> None:
    done = run(
        "prog.py:f", "--verify", "--measure", "--pass", "full-sort", "-f", "json", cwd=folder
    )
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    check(document, "analyze")
    (finding,) = document["findings"]
    assert finding["verification"]["basis"] == "measured"
    assert finding["verification"]["agrees"] is True


@pytest.mark.parametrize(
    ("args", "problem"),
    [
        (("--budget", "3"), "--budget needs --verify"),
        (("--show-refuted",), "--show-refuted needs --verify"),
        (
            ("--verify", "--budget", "0"),
            "--budget is the seconds, above 0, that --verify may take",
        ),
    ],
)
def test_options_of_verification(folder: Path, args: tuple[str, ...], problem: str) -> None:
    done = run("prog.py:f", *args, cwd=folder)
    assert done.returncode == 2
    assert problem in done.stderr
