from __future__ import annotations

import gc
import gzip
from pathlib import Path

import pytest

from hlo_lab import api
from hlo_lab.errors import InputError, NotFoundError, ReadError, UseError

HLO = "HloModule small\n\nENTRY main {\n  x = f32[8] parameter(0)\n  ROOT y = f32[8] negate(x)\n}\n"
PROGRAM = """\
import jax, jax.numpy as jnp

def f(x):
    return jnp.tanh(x)

example_args = lambda: jax.ShapeDtypeStruct((16,), jnp.float32)
"""


def test_a_file(tmp_path: Path) -> None:
    path = tmp_path / "m.hlo.gz"
    path.write_bytes(gzip.compress(HLO.encode()))
    loaded = api.load(path)
    assert (loaded.module.name, loaded.kind, loaded.target) == ("small", "file", "cpu")
    assert loaded.bundle is None
    assert api.load(loaded.module).module is loaded.module


def test_a_colon_in_the_name_of_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("json:tool").write_text(HLO)
    assert api.load("json:tool").kind == "file"


def test_a_program_and_its_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("prog.py").write_text(PROGRAM)
    said: list[str] = []
    loaded = api.load("prog.py:f", progress=said.append)
    assert (loaded.kind, loaded.target, len(said)) == ("program", "cpu", 2)
    assert loaded.bundle is not None
    folder = loaded.bundle.path
    assert folder.is_dir()
    copy = tmp_path / "kept"
    folder.rename(copy)
    again = api.load(copy)
    assert again.kind == "bundle" and again.module == loaded.module
    with pytest.raises(InputError, match="was compiled for cpu, not cpu:2"):
        api.load(copy, target="cpu:2")
    del loaded
    gc.collect()
    assert not folder.parent.exists()


@pytest.mark.parametrize(
    ("source", "error", "says"),
    [
        ("nothing", NotFoundError, "give an HLO file"),
        ("nothing.hlo", NotFoundError, "give an HLO file"),
        ("folder", InputError, "not a bundle"),
        ("prog.py", UseError, r"name a function in it, such as prog\.py:f"),
        ("prog.txt", ReadError, r"prog\.txt"),
        ("missing.py:f", NotFoundError, r"missing\.py: no such file"),
    ],
)
def test_what_is_none_of_these(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, error: type, says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("folder").mkdir()
    Path("prog.py").write_text(PROGRAM)
    Path("prog.txt").write_text(PROGRAM)
    with pytest.raises(error, match=says):
        api.load(source)


def test_the_surface_is_functions_not_the_modules_of_that_name() -> None:
    for name in api.__all__:
        for _ in range(2):  # the first use imports the module
            assert callable(getattr(api, name)), name
    with pytest.raises(AttributeError, match="no attribute 'nope'"):
        api.nope  # noqa: B018
