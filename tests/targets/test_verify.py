"""Advice for a TPU that is not here, tried by compiling again."""

from __future__ import annotations

from pathlib import Path

import pytest

from hlo_lab import api
from hlo_lab.passkit.finding import VerificationStatus
from tests.targets.conftest import need

pytestmark = pytest.mark.targets

PROGRAM = """
import jax
import jax.numpy as jnp

S = jax.ShapeDtypeStruct


def precise(x, w):
    return jnp.tanh(jnp.matmul(x, w, precision="highest"))


precise.example_args = (S((2048, 512), jnp.float32), S((512, 2048), jnp.float32))


def append(cache, entry):
    return jnp.concatenate([cache[:-1], entry[None]])


append.example_args = (S((4096, 512), jnp.float32), S((512,), jnp.float32))
"""


@pytest.mark.parametrize(
    ("program", "code", "remedy"),
    [
        ("precise", "PRC001", ("lower-precision",)),
        ("append", "MEM002", ("concatenate-to-update", "donate-arguments{arguments=cache}")),
    ],
)
def test_advice_on_a_tpu(tmp_path: Path, program: str, code: str, remedy: tuple[str, ...]) -> None:
    need("tpu:v5e")
    (tmp_path / "prog.py").write_text(PROGRAM)
    analysis = api.analyze(
        f"{tmp_path / 'prog.py'}:{program}", target="tpu:v5e", passes=[code], verify=True
    )
    (finding,) = analysis.findings
    assert finding.remedy == remedy
    found = finding.verification
    assert found.status is VerificationStatus.CONFIRMED, found
    assert found.agrees is True
    assert found.seconds is not None and found.ratio is not None
    assert found.seconds.after < found.seconds.before / 2
    assert 0.5 < found.ratio < 2
    if code == "PRC001":
        assert (found.basis, found.coverage > 0.9) == ("compiler", True)
    else:
        assert found.peak_bytes is not None
        assert found.peak_bytes.saved > found.peak_bytes.before / 3
