"""What becomes of a rewritten program that this machine cannot run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hlo_lab.api.rewrite_work import Work
from hlo_lab.api.source import Options
from hlo_lab.errors import ProgramError
from hlo_lab.lowering.target import Target


def _work(monkeypatch: pytest.MonkeyPatch, message: str) -> Work:
    def compile(
        self: Work, target: str, folder: Path, seconds: float = 0.0, cores: int | None = None
    ) -> tuple[Any, None]:
        if cores is not None:
            raise ProgramError(message)
        return f"a bundle for {target}", None

    monkeypatch.setattr(Work, "compile", compile)
    return Work("prog.py:f", Options("cpu:8"), [], None, 10.0, lambda text: None)


def test_types_that_the_cpu_has_no_kernel_for_are_a_note(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    work = _work(monkeypatch, "the program failed: UNIMPLEMENTED: BF16 x BF16 = F32")
    bundle, run, notes = work.apply(Target.parse("cpu:8"), tmp_path, 0.0, 1)
    assert (bundle, run) == ("a bundle for cpu:8", None)
    (note,) = notes
    assert note.startswith("the numbers were not compared: on cpu:8, the program failed")


def test_a_program_that_fails_otherwise_is_an_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    work = _work(monkeypatch, "the program failed: out of cheese")
    with pytest.raises(ProgramError, match="cheese"):
        work.apply(Target.parse("cpu:8"), tmp_path, 0.0, 1)
