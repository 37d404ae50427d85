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
from hlo_lab.passkit.context import BundleLike, Context
from hlo_lab.passkit.discovery import discover
from hlo_lab.passkit.finding import Finding
from hlo_lab.passkit.pipeline import run_passes
from hlo_lab.passkit.selection import select_passes

Run = Callable[..., list[Finding]]
NAMES = (
    "dp", "fsdp", "tp", "wrong", "explicit", "scanned", "kept", "checkpointed", "unrolled",
    "inference",
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
    """``run(selection, source)``: the findings of one pass on a file or on HLO text.

    Times are for ``machine``; ``bundle`` is what the module is said to come from.
    """
    catalogue = discover()

    def run(
        selection: str,
        source: Path | str,
        machine: str = "tpu-v5e",
        bundle: BundleLike | None = None,
    ) -> list[Finding]:
        module = (
            read_module(source)
            if isinstance(source, Path)
            else read_text(source.splitlines(keepends=True))
        )
        # what a bundle holds beside the module
        whole = source.with_suffix(".before.hlo") if isinstance(source, Path) else None
        before = read_module(whole) if whole is not None and whole.exists() else None
        context = Context(module, load(machine), bundle=bundle, before=before)
        result = run_passes(select_passes([selection], catalogue), module, context)
        assert not result.failures, result.failures
        return result.findings

    return run
