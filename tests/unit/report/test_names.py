from __future__ import annotations

from pathlib import Path

import pytest

from hlo_lab.ir.source import Frame, user_frame
from hlo_lab.report.names import (
    clean,
    elide,
    elide_source,
    line_frame,
    short_frame,
    short_path,
)

LIBRARY = Frame("/v/lib/python3.12/site-packages/flax/linen/linear.py", 271, "Dense")
OWN = Frame("/home/me/model.py", 12, "loss")


def test_clean_takes_escapes_and_bidirectional_marks() -> None:
    assert clean("a\x1b[31mred\x07") == "a?[31mred?"
    assert clean("x\u202ey\nz") == "x?y?z"
    assert clean("größe → ok") == "größe → ok"


@pytest.mark.parametrize("width", range(12))
def test_elide_keeps_both_ends_and_the_width(width: int) -> None:
    short = elide("fusion.1234567", width)
    assert len(short) == width
    if width >= 3:
        assert short.startswith("f") and short.endswith("7") and "…" in short


def test_source_lines_lose_the_function_then_the_path() -> None:
    text = "src/very/long/path/model.py:12 in Model.loss"
    assert elide_source(text, 60) == text
    assert elide_source(text, 30) == "src/very/long/path/model.py:12"
    assert elide_source(text, 12) == "…model.py:12"
    assert elide_source("model.py:12 Attention.__call__", 25) == "model.py:12 Attent…call__"
    assert elide_source("model.py:12 Attention.__call__", 15) == "model.py:12"
    assert elide_source("(dot f32[128,256])", 10) == "(dot…256])"


def test_own_frame_skips_installed_packages() -> None:
    assert user_frame((LIBRARY, OWN)) == OWN
    assert user_frame((LIBRARY,)) == LIBRARY
    assert user_frame(()) is None


def test_paths_are_relative_to_what_the_reader_knows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert short_path(str(tmp_path / "src" / "model.py")) == "src/model.py"
    assert short_path(LIBRARY.file) == "flax/linen/linear.py"
    assert short_path("/elsewhere/model.py") == "/elsewhere/model.py"
    assert short_frame(Frame("model.py", 3)) == "model.py:3"
    assert short_frame(None) == ""


def test_columns_have_lines_without_folders() -> None:
    assert line_frame(OWN) == "model.py:12 loss"
    assert line_frame(Frame("src/model.py", 3)) == "model.py:3"
    assert line_frame(None) == ""
