"""Real programs, compiled once per session in a process of their own (JAX on 8 CPU devices)."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from hlo_lab.cost.machines import load
from hlo_lab.ir.files import read_module
from hlo_lab.ir.text import read_text
from hlo_lab.passkit.context import Context
from hlo_lab.passkit.discovery import discover
from hlo_lab.passkit.finding import Finding
from hlo_lab.passkit.pipeline import run_passes
from hlo_lab.passkit.selection import select_passes

Run = Callable[..., list[Finding]]
NAMES = (
    "dp", "fsdp", "tp", "wrong", "explicit", "scanned", "checkpointed", "unrolled", "inference",
)  # fmt: skip


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with NAME.hlo, optimised, for each of ``NAMES``."""
    folder = tmp_path_factory.mktemp("programs")
    script = Path(__file__).with_name("programs.py")
    run = subprocess.run(
        [sys.executable, str(script), str(folder), *NAMES],
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert run.returncode == 0, run.stderr
    return folder


@pytest.fixture(scope="session")
def run_pass() -> Run:
    """``run(selection, source)``: the findings of one pass on a file or on HLO text."""
    catalogue = discover()

    def run(selection: str, source: Path | str) -> list[Finding]:
        module = (
            read_module(source)
            if isinstance(source, Path)
            else read_text(source.splitlines(keepends=True))
        )
        context = Context(module, load("tpu-v5e"))
        result = run_passes(select_passes([selection], catalogue), module, context)
        assert not result.failures, result.failures
        return result.findings

    return run
