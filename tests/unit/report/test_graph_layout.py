from __future__ import annotations

import stat
from pathlib import Path

import pytest

from hlo_lab.errors import ExecutionError, InputError, MissingDependencyError
from hlo_lab.report.graph_layout import read_dot, render

SMALL = 'digraph { a -> b [label="x"] }'


def program(folder: Path, script: str) -> None:
    path = folder / "dot"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def test_formats() -> None:
    assert render(SMALL, "svg").lstrip().startswith(b"<?xml")
    assert render(SMALL, "png").startswith(b"\x89PNG")
    assert render(SMALL, "dot") == SMALL.encode()


def test_without_the_dot_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingDependencyError, match="apt-get install graphviz"):
        render(SMALL, "svg")
    assert render(SMALL, "dot") == SMALL.encode()


def test_a_layout_that_takes_too_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(tmp_path, "exec sleep 30")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(ExecutionError, match=r"--max-nodes"):
        render(SMALL, "svg", time_limit=0.2)


def test_what_dot_refuses() -> None:
    with pytest.raises(InputError, match=r"dot refused the graph: .*syntax error"):
        render("digraph {", "svg")


def test_a_dot_that_crashes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(tmp_path, "kill -SEGV $$")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(ExecutionError, match="signal 11"):
        render(SMALL, "svg")


@pytest.mark.parametrize("wrong", ["", "HloModule m", "digraph {", "\x00\xff" * 50])
def test_read_dot_refuses_other_things(wrong: str) -> None:
    with pytest.raises(InputError, match=r"x\.dot: not DOT"):
        read_dot(wrong, "x.dot")


def test_read_dot() -> None:
    again = read_dot(SMALL, "x.dot")
    assert "a -> b" in again and render(again, "svg")
