from __future__ import annotations

from pathlib import Path

import pytest

from hlo_lab import api
from hlo_lab.api.diff import SideOptions
from hlo_lab.diff import Verdict
from hlo_lab.errors import InputError, UseError

PROGRAM = """\
import jax, jax.numpy as jnp

def f(x):
    return jnp.exp(x @ x) * jnp.log(x)

f.example_args = lambda: jax.ShapeDtypeStruct((64, 64), jnp.float32)
"""


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "prog.py").write_text(PROGRAM)
    monkeypatch.setenv("HLO_LAB_CACHE_DIR", str(tmp_path / "cache"))
    return f"{tmp_path / 'prog.py'}:f"


def test_a_flag_on_one_side(program: str) -> None:
    # without it, more fusions that are smaller are left
    flags = ("xla_disable_hlo_passes=fusion",)
    found = api.diff(program, right=SideOptions(xla_flags=flags))
    assert found.verdict is Verdict.CHANGED
    assert (found.before, found.after) == (program, f"{program} ({flags[0]})")
    deltas = found.result.to_dict()["deltas"]
    assert deltas["fusions"]["before"] != deltas["fusions"]["after"]


def test_a_target_on_each_side(program: str) -> None:
    found = api.diff(program, left=SideOptions("cpu:1"), right=SideOptions("cpu:2"))
    assert found.verdict is Verdict.IDENTICAL
    assert any("different targets: cpu:1 and cpu:2" in note for note in found.notes)


def test_bad_use(program: str) -> None:
    with pytest.raises(UseError, match="name a second file"):
        api.diff(program)
    with pytest.raises(UseError, match="compile a program twice"):
        api.diff("HEAD~1", "HEAD", program, left=SideOptions("cpu:2"))
    with pytest.raises(UseError, match="not of the form"):
        api.diff(program, left=SideOptions(xla_flags=("nonsense",)))
    with pytest.raises(InputError, match="cannot run"):
        api.diff(program, left=SideOptions(python="/no/such/python"))
