from __future__ import annotations

import os
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pydot
import pytest

SVG = "{http://www.w3.org/2000/svg}"
HLO = """\
HloModule m

ENTRY e {
  x = f32[8] parameter(0)
  y = f32[8] negate(x), metadata={op_name="jit(f)/neg" source_file="/w/model.py" source_line=12}
  ROOT z = f32[8] add(y, x)
}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "m.hlo").write_text(HLO)
    return tmp_path


def graph(folder: Path, *words: str, path: str | None = None) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "hlo_lab", "graph", *words]
    environment = {**os.environ, **({} if path is None else {"PATH": path})}
    return subprocess.run(command, cwd=folder, capture_output=True, env=environment)


def test_svg_carries_names_and_source_lines(folder: Path) -> None:
    done = graph(folder, "m.hlo", "-o", "out.svg")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    root = ElementTree.parse(folder / "out.svg").getroot()
    shown = {element.text for element in root.iter(f"{SVG}text")}
    assert {"x", "y", "z"} <= shown
    assert "elementwise" in shown  # the legend
    tips = " ".join(
        element.get("{http://www.w3.org/1999/xlink}title", "") for element in root.iter(f"{SVG}a")
    )
    assert "/w/model.py:12" in tips and "jit(f)/neg" in tips


def test_png_dot_and_stdout(folder: Path) -> None:
    assert graph(folder, "m.hlo", "-o", "out.png").returncode == 0
    assert (folder / "out.png").read_bytes().startswith(b"\x89PNG")
    assert graph(folder, "m.hlo", "-f", "png").stdout.startswith(b"\x89PNG")
    source = graph(folder, "m.hlo").stdout.decode()
    assert pydot.graph_from_dot_data(source)[0].get_name() == "hlo"


def test_a_dot_file_is_drawn_again(folder: Path) -> None:
    assert graph(folder, "m.hlo", "-o", "out.dot").returncode == 0
    assert graph(folder, "out.dot", "-o", "again.svg").returncode == 0
    shown = {element.text for element in ElementTree.parse(folder / "again.svg").iter(f"{SVG}text")}
    assert {"x", "y", "z"} <= shown
    (folder / "bad.dot").write_text("no graph at all {")
    wrong = graph(folder, "bad.dot", "-o", "again.svg")
    assert wrong.returncode == 2 and b"bad.dot: not DOT" in wrong.stderr


def test_without_the_dot_program(folder: Path, tmp_path: Path) -> None:
    done = graph(folder, "m.hlo", "-o", "out.svg", path=str(tmp_path))
    assert done.returncode == 2
    assert b"apt-get install graphviz" in done.stderr
    assert not (folder / "out.svg").exists()
    assert graph(folder, "m.hlo", "-o", "out.dot", path=str(tmp_path)).returncode == 0


def test_folding_is_told(folder: Path) -> None:
    done = graph(folder, "m.hlo", "-o", "out.dot", "--max-nodes", "1")
    assert b"note: 3 instructions folded into 1 nodes" in done.stderr
    assert "3 instructions folded into 1 nodes" in (folder / "out.dot").read_text()
    assert graph(folder, "-q", "m.hlo", "-o", "out.dot", "--max-nodes", "1").stderr == b""


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["-o", "out.pdf"], "-o out.pdf: give a name that ends in .svg, .png or .dot"),
        (["--focus", "nope"], "no instruction 'nope'"),
        (["--hops", "3"], "--hops counts from an instruction: name it with --focus"),
        (["--computation", "nope"], "no computation 'nope'"),
        (["-o", "no/such/out.dot"], "cannot be written"),
    ],
)
def test_wrong_use(folder: Path, words: list[str], says: str) -> None:
    done = graph(folder, "m.hlo", *words)
    assert done.returncode == 2 and says in done.stderr.decode()
    assert done.stderr.count(b"\n") == 1
