"""The names that JAX does not promise to keep: one test for each, run on every version.

They run in a process of their own, as the adapter itself does: it must not be this one
that starts JAX.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

CODE = Path(__file__).with_name("adapter_checks.py")
CHECKS = [
    line.removeprefix("def ").partition("(")[0]
    for line in CODE.read_text().splitlines()
    if line.startswith("def check_")
]


@pytest.fixture(scope="module")
def outcome() -> dict[str, str]:
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "4"}
    done = subprocess.run(
        [sys.executable, str(CODE), *CHECKS],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return dict(line.split(" ", 1) for line in done.stdout.splitlines())


def test_there_are_checks() -> None:
    assert len(CHECKS) >= 10


@pytest.mark.parametrize("check", CHECKS)
def test_private_names(check: str, outcome: dict[str, str]) -> None:
    assert outcome[check] == "ok"
