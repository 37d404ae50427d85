"""What verification makes of a compiler that fails, and of time that runs out."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hlo_lab import api
from hlo_lab.api import verify as MODULE
from hlo_lab.api.rewrite_work import Work
from hlo_lab.api.verify import Effort, place_of, verify_all
from hlo_lab.errors import CompilerError, ProgramError
from hlo_lab.ir.source import Frame
from hlo_lab.lowering import Bundle
from hlo_lab.passkit.discovery import discover
from hlo_lab.passkit.finding import Estimate, Finding, Severity, VerificationStatus, Where
from hlo_lab.passkit.place import Place

PROGRAM = """
import jax
import jax.numpy as jnp

def f(x):
    return jnp.tanh(x) @ x

f.example_args = lambda: (jax.ShapeDtypeStruct((64, 64), jnp.float32),)
"""
PLACE = Where(source=(Frame("/x/prog.py", 6, "f"),))


def finding(seconds: float | None = None, remedy: str = "drop-pairs", **place: Any) -> Finding:
    where = Where(**place) if place else PLACE
    return Finding(
        "T001", "t", Severity.WARNING, "m", where, remedy=(remedy,), estimate=Estimate(seconds)
    )


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory, own_folders: None) -> Bundle:
    folder = tmp_path_factory.mktemp("verify")
    (folder / "prog.py").write_text(PROGRAM)
    return api.dump(f"{folder / 'prog.py'}:f", out=folder / "bundle")


@pytest.fixture
def analysis(bundle: Bundle) -> api.Analysis:
    return api.analyze(bundle.path, passes=["full-sort"])


Compile = Callable[..., Any]


@pytest.fixture
def compiler(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Compile], list[Any]]]:
    """Put a function in the place of compiling; the specs that it is given are kept."""

    def use(compile: Compile) -> list[Any]:
        asked: list[Any] = []

        def instead(self: Work, target: str, folder: Path, *more: Any) -> Any:
            asked.append([(spec.name, spec.place) for spec in self.specs])
            return compile(self, target, folder, *more)

        monkeypatch.setattr(Work, "compile", instead)
        return asked

    yield use


def verified(analysis: api.Analysis, *findings: Finding, **effort: Any) -> MODULE.Verified:
    analysis.findings = list(findings)
    return verify_all(analysis, discover(), Effort(**effort))


def copy_of(bundle: Bundle, folder: Path, **changes: Any) -> Bundle:
    shutil.copytree(bundle.path, folder)
    path = folder / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    return Bundle.open(folder)


def test_a_crash_is_the_findings_own(analysis: api.Analysis, compiler: Any) -> None:
    def crash(*_: Any) -> Any:
        raise CompilerError("XLA died of signal 11\nmore of it")

    compiler(crash)
    done = verified(analysis, finding(1e-6), finding(2e-6, remedy="no-such-pass"))
    first, second = (each.verification for each in done.findings)
    assert (first.status, first.reason) == (VerificationStatus.FAILED, "XLA died of signal 11")
    assert second.status is VerificationStatus.FAILED and "no pass 'no-such-pass'" in second.reason
    assert done.counts == {VerificationStatus.FAILED: 2}


def test_the_best_first_and_what_is_alike_once(analysis: api.Analysis, compiler: Any) -> None:
    def crash(*_: Any) -> Any:
        raise CompilerError("no")

    asked = compiler(crash)
    other = Where(op_name="jit(f)/tanh")
    verified(
        analysis,
        finding(1e-6),
        finding(None, op_name=other.op_name),
        finding(5e-6, source=(Frame("/x/prog.py", 9, "f"),)),
        finding(2e-6),
    )
    places = [place for ((_, place),) in asked]
    assert places == [Place("/x/prog.py", 9), Place("/x/prog.py", 6), Place(op_name=other.op_name)]


def test_findings_share_what_changes_the_whole_program(
    analysis: api.Analysis, bundle: Bundle, compiler: Any
) -> None:
    asked = compiler(lambda work, target, folder, *_: (copy_of(bundle, folder), None))
    layouts = [finding(5e-9 * n, "auto-layouts", op_name=str(n)) for n in (1, 2)]
    done = verified(analysis, *layouts)
    assert asked == [[("auto-layouts", None)]]
    first, second = (each.verification for each in done.findings)
    assert first == second and first.place == MODULE.EVERYWHERE


def test_the_place_of_a_finding() -> None:
    library = Frame("/v/site-packages/flax/linear.py", 3)
    assert place_of(finding(source=(library, Frame("m.py", 7)))) == Place("m.py", 7)
    assert place_of(finding(op_name="jit(f)/dot")) == Place(op_name="jit(f)/dot")
    assert place_of(replace(finding(), where=Where())) is None


def test_time_that_runs_out_while_it_compiles_is_no_failure(
    analysis: api.Analysis, compiler: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr(MODULE.time, "monotonic", lambda: now[0])

    def slow(work: Work, *_: Any) -> Any:
        assert work.time_limit == 5.0
        now[0] += 6.0
        raise ProgramError("still running after 5 s")

    asked = compiler(slow)
    done = verified(analysis, finding(2e-6), finding(1e-6, op_name="x"), budget=5.0)
    assert [each.verification.reason for each in done.findings] == ["the budget was spent"] * 2
    assert done.counts == {VerificationStatus.NOT_TRIED: 2}
    assert len(asked) == 1 and done.spent == 6.0


def test_another_compiler_says_nothing(
    analysis: api.Analysis, bundle: Bundle, compiler: Any
) -> None:
    versions = {**bundle.manifest["versions"], "jaxlib": "0.0.1"}
    compiler(lambda work, target, folder: (copy_of(bundle, folder, versions=versions), None))
    (found,) = verified(analysis, finding(1e-6)).findings
    assert found.verification.status is VerificationStatus.FAILED
    assert "and this is 0.0.1: dump it again" in found.verification.reason


def test_what_does_not_fit(analysis: api.Analysis, bundle: Bundle, compiler: Any) -> None:
    refused = {"needed_bytes": 3 << 30, "available_bytes": 1 << 30, "message": "", "after_pass": ""}
    compiler(lambda work, target, folder: (copy_of(bundle, folder, out_of_memory=refused), None))
    (found,) = verified(analysis, finding(1e-6)).findings
    assert found.verification.status is VerificationStatus.REFUTED
    assert found.verification.reason == "with it the program does not fit the device's memory"
    analysis.loaded.bundle = copy_of(bundle, bundle.path.with_name("large"), out_of_memory=refused)
    compiler(lambda work, target, folder: (copy_of(bundle, folder), None))
    (found,) = verified(analysis, finding(1e-6)).findings
    assert found.verification.reason == "with it the program fits"
    less = {**refused, "needed_bytes": 2 << 30}
    compiler(lambda work, target, folder: (copy_of(bundle, folder, out_of_memory=less), None))
    (found,) = verified(analysis, finding(1e-6)).findings
    assert found.verification.status is VerificationStatus.CONFIRMED
    assert found.verification.reason == "it needs less, and still does not fit"


def test_numbers_that_cannot_be_compared_are_named(
    analysis: api.Analysis,
    bundle: Bundle,
    compiler: Any,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    empty = "HloModule m, is_scheduled=true\n\nENTRY %m (x: f32[64,64]) -> f32[64,64] {\n"
    empty += "  ROOT %x = f32[64,64]{1,0} parameter(0)\n}\n"

    def faster(work: Work, target: str, folder: Path, *running: Any) -> Any:
        if running:
            raise ProgramError("it has no kernel for a CPU", log="x.log")
        copy = copy_of(bundle, folder)
        (folder / "hlo_after.txt").write_text(empty)
        return copy, None

    compiler(faster)
    (found,) = verified(analysis, finding(1e-9)).findings
    assert found.verification.status is VerificationStatus.CONFIRMED
    assert found.verification.agrees is None
    assert found.verification.reason == (
        "numbers not compared (on cpu, it has no kernel for a CPU)"
    )
    monkeypatch.setattr(MODULE, "available_bytes", lambda: 1)
    (found,) = verified(analysis, finding(1e-9)).findings
    assert "too large for this machine" in found.verification.reason
    calls = analysis.loaded.bundle = copy_of(bundle, tmp_path / "calls")
    text = calls.text("stablehlo") + "\n// custom_call @xla_ffi_python_cpu_callback\n"
    calls.path_of("stablehlo").write_text(text)
    (found,) = verified(analysis, finding(1e-9)).findings
    assert "it calls Python, which is not there" in found.verification.reason


def test_without_a_bundle_there_is_an_obstacle(analysis: api.Analysis) -> None:
    assert verified(analysis, replace(finding(), remedy=())) == MODULE.Verified(analysis.findings)
    analysis.loaded.bundle = None
    for findings in ([finding(1e-6)], []):
        assert (
            "verify the program, its bundle or its StableHLO"
            in verified(analysis, *findings).obstacle
        )
