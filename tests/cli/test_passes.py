"""``hlo-lab passes`` as a user runs it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest


def run(*args: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "hlo_lab", "passes", *map(str, args)],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "NO_COLOR": "1", "COLUMNS": "80"},
    )


def test_list(tmp_path: Path) -> None:
    done = run("list", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    both = done.stdout.partition("Rewrite programs")
    for part, known in ((both[0], {"FUS001", "REM001", "SHD001"}), (both[2], {"TOP001"})):
        rows = [line.split() for line in part.splitlines()]
        codes = [row[0] for row in rows if row and re.fullmatch("[A-Z]{3}[0-9]{3}", row[0])]
        assert codes == sorted(codes)
        assert known <= set(codes)
    assert all(len(line) <= 80 for line in done.stdout.splitlines())
    listed = " ".join(done.stdout.split())
    assert "A whole sort of which only the first or last few elements are used" in listed
    assert "bundled" not in listed
    run("new", "mine", cwd=tmp_path)
    lines = run("list", "--passes-dir", tmp_path, cwd=tmp_path).stdout.splitlines()
    assert any(" mine " in line and line.endswith("  .") for line in lines)
    assert any(line.endswith("  bundled") for line in lines)


def test_list_as_json(tmp_path: Path) -> None:
    document = json.loads(run("list", "--format", "json", cwd=tmp_path).stdout)
    assert (document["schema"], document["schema_version"]) == ("hlo-lab/passes", 1)
    (first,) = [one for one in document["passes"] if one["code"] == "FUS001"]
    assert (first["name"], first["origin"]) == ("fusion", "bundled")


def test_show_by_name_and_by_code(tmp_path: Path) -> None:
    by_code, by_name = run("show", "shd001", cwd=tmp_path), run("show", "sharding", cwd=tmp_path)
    assert by_code.returncode == 0
    assert by_code.stdout == by_name.stdout
    for text in ("SHD001 sharding", "What it finds", "How it is verified", "min_bytes", "Examples"):
        assert text in by_code.stdout
    document = json.loads(run("show", "sharding", "--format", "json", cwd=tmp_path).stdout)
    assert {"name": "top", "type": "int", "default": 20} in document["options"]
    assert {one["finds"] for one in document["examples"]} == {0, 1}


def test_show_of_an_unknown_pass(tmp_path: Path) -> None:
    done = run("show", "fuson", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr == "error: no pass 'fuson'; did you mean 'fusion'?\n"


def test_a_new_pass_works_at_once(tmp_path: Path) -> None:
    made = run("new", "double-precision", cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    assert made.stdout == "double_precision.py\n"
    tested = run("test", "--passes-dir", ".", cwd=tmp_path)
    assert tested.returncode == 0, tested.stdout
    assert "ok      double-precision: an addition in f64" in tested.stdout
    assert "2 examples, 0 failed" in tested.stdout
    listed = run("list", "--passes-dir", ".", cwd=tmp_path)
    assert "DOU001" in listed.stdout
    again = run("new", "double-precision", cwd=tmp_path)
    assert again.returncode == 2
    assert "is there already" in again.stderr


def test_a_new_pass_on_hlo_works_at_once(tmp_path: Path) -> None:
    made = run("new", "double-negation", "--hlo", cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    tested = run("test", "--passes-dir", ".", cwd=tmp_path)
    assert tested.returncode == 0, tested.stdout
    assert "2 examples, 0 failed" in tested.stdout


@pytest.mark.parametrize(
    ("args", "problem"),
    [
        (("new", "Big Copy"), "use lower-case words with dashes"),
        (("new", "fusion"), "pass name 'fusion' is taken by"),
        (("new", "mine", "-o", "gone"), "no such folder"),
        (("list", "--passes-dir", "gone"), "no such folder of passes"),
        (("test", "gone"), "no pass 'gone'"),
    ],
)
def test_bad_use_is_one_line_and_exit_2(tmp_path: Path, args, problem: str) -> None:
    done = run(*args, cwd=tmp_path)
    assert done.returncode == 2
    assert problem in done.stderr
    assert done.stderr.count("\n") == 1


def test_an_example_that_does_not_hold_exits_1(tmp_path: Path) -> None:
    run("new", "mine", cwd=tmp_path)
    path = tmp_path / "mine.py"
    path.write_text(path.read_text().replace("finds=0", "finds=2"))
    done = run("test", "mine", "--passes-dir", ".", cwd=tmp_path)
    assert done.returncode == 1
    assert "FAILED  mine: the same in f32: expected 2 findings, got 0" in done.stdout


def test_a_broken_pass_file_names_file_and_line(tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text("x = 1\ny = (\n")
    done = run("list", "--passes-dir", tmp_path, cwd=tmp_path)
    assert done.returncode == 2
    assert f"{tmp_path / 'bad.py'}:2: syntax error" in done.stderr
    (tmp_path / "bad.py").write_text("x = 1\nimport nothing_of_this_name\n")
    done = run("list", "--passes-dir", ".", cwd=tmp_path)
    assert "bad.py:2: importing the pass file raised ModuleNotFoundError" in done.stderr
