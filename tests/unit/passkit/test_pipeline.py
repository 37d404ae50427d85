"""A pipeline runs on when a pass raises, and puts the worst finding first."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from hlo_lab.cost.machines import load
from hlo_lab.ir.text import read_text
from hlo_lab.passkit.base import AnalysisPass
from hlo_lab.passkit.context import Context
from hlo_lab.passkit.discovery import discover
from hlo_lab.passkit.finding import Severity
from hlo_lab.passkit.pipeline import run_passes
from hlo_lab.passkit.selection import select_passes

TEXT = """HloModule m

ENTRY %main (x: f32[4]) -> f32[4] {
  %x = f32[4] parameter(0)
  ROOT %y = f32[4] negate(%x)
}
"""


@pytest.fixture
def module():
    return read_text(TEXT.splitlines(keepends=True))


@pytest.fixture
def context(module):
    return Context(module, load("tpu-v5e"))


@dataclass(frozen=True)
class _Ranked(AnalysisPass):
    code, name = "RNK001", "ranked"

    def run(self, module, context):
        root = module.entry_computation.root
        for text, severity, seconds in (
            ("note", Severity.NOTE, 9.0),
            ("slow", Severity.WARNING, 2.0),
            ("costs", Severity.WARNING, -5.0),
            ("unknown", Severity.WARNING, None),
            ("slower", Severity.WARNING, 3.0),
            ("error", Severity.ERROR, None),
        ):
            yield self.finding(root, text, severity=severity, seconds=seconds, context=context)


def test_findings_stand_by_severity_then_by_the_seconds_they_save(module, context) -> None:
    result = run_passes([_Ranked()], module, context)
    order = [one.message for one in result.findings]
    assert order == ["error", "slower", "slow", "costs", "unknown", "note"]
    assert result.findings[0].estimate.machine == "tpu-v5e"
    (run,) = result.runs
    assert (run.code, run.findings, run.failed) == ("RNK001", 6, False)
    assert run.seconds >= 0


def test_a_pass_that_raises_is_named_with_its_line_and_the_others_run(
    module, context, tmp_path: Path, good: str
) -> None:
    broken = good.replace("yield self.finding(one", "yield self.finding(self.gone")
    (tmp_path / "mine.py").write_text(broken)
    line = next(n for n, text in enumerate(broken.splitlines(), 1) if "self.gone" in text)
    passes = select_passes(["negations"], discover([tmp_path], start=tmp_path))
    result = run_passes([*passes, _Ranked()], module, context)
    assert len(result.findings) == 6
    (failure,) = result.failures
    assert failure.exit_code == 3
    assert "pass negations (NEG001) raised AttributeError" in str(failure)
    assert f"{tmp_path / 'mine.py'}:{line}" in str(failure)
    assert isinstance(failure.__cause__, AttributeError)
    assert [run.failed for run in result.runs] == [True, False]


def test_what_a_pass_found_before_it_raised_is_kept(module, context) -> None:
    class Half(_Ranked):
        def run(self, module, context):
            yield from list(super().run(module, context))[:2]
            raise RuntimeError("first line\nsecond line")

    result = run_passes([Half()], module, context)
    assert len(result.findings) == 2
    assert "RuntimeError: first line at" in str(result.failures[0])
    assert "second" not in str(result.failures[0])


def test_a_pass_has_to_yield_findings(module, context) -> None:
    class Wrong(_Ranked):
        def run(self, module, context):
            yield "a string"

    result = run_passes([Wrong()], module, context)
    assert "yielded str, not a Finding" in str(result.failures[0])


class _Bundle:
    def __init__(self, module):
        self.manifest, self._module, self.asked = {"target": "cpu"}, module, []

    def module(self, stage):
        self.asked.append(stage)
        return self._module


def test_the_context_computes_once_and_on_demand(module) -> None:
    bundle = _Bundle(module)
    context = Context(module, load("tpu-v5e"), bundle=bundle)
    assert not bundle.asked
    assert context.before is module
    assert context.before is context.before
    assert bundle.asked == ["hlo-before"]
    assert context.manifest == {"target": "cpu"}
    assert context.cost is context.cost
    assert context.memory.peak_bytes == 32


def test_a_bare_module_has_no_before_and_no_manifest(module, context) -> None:
    assert context.before is None
    assert context.manifest == {}
