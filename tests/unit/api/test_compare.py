from __future__ import annotations

import json
import sys
import threading
import time
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from hlo_lab import api
from hlo_lab.api.source import Options
from hlo_lab.errors import (
    CompilerError,
    HloLabError,
    MissingDependencyError,
    NotFoundError,
    UseError,
)
from hlo_lab.lowering import Bundle
from hlo_lab.lowering.manifest import write_manifest
from hlo_lab.report import json_, markdown, text

ROOT = Path(__file__).resolve().parents[3]
HLO = ROOT / "fixtures" / "hlo"
MODULE: Any = sys.modules[api.compare.__module__]  # the package shows the function instead
TPU, GPU = "tpu:v5e:2x2", "gpu:h100:4"


def bundle(folder: Path, target: str, module: str, **manifest: Any) -> Bundle:
    """What compiling would have written."""
    folder.mkdir()
    name = "hlo_before.txt" if "out_of_memory" in manifest else "hlo_after.txt"
    (folder / name).write_text((HLO / module).read_text())
    stats = {"argument_size_in_bytes": 6 << 20, "temp_size_in_bytes": 2 << 20}
    (folder / "analysis.json").write_text(json.dumps({"memory_analysis": stats}))
    content = {"target": target, "devices": 4, "seconds": {"compile": 1.5}, **manifest}
    write_manifest(folder, {"program": {"reference": "mlp.py:step"}, **content})
    return Bundle.open(folder)


@pytest.fixture
def compiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Bundle | HloLabError]:
    """What the compiler gives for each target; the tests change it."""
    given: dict[str, Bundle | HloLabError] = {
        TPU: bundle(tmp_path / "tpu", TPU, "mlp_v5e.hlo"),
        GPU: bundle(tmp_path / "gpu", GPU, "mlp_h100.hlo"),
    }

    def fake(program: str, options: Options, *rest: Any) -> Bundle:
        found = given[options.target]
        if isinstance(found, HloLabError):
            raise found
        return found

    monkeypatch.setattr(MODULE, "compile_cached", fake)
    return given


def check(comparison: Any) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(json_.dumps(comparison.to_dict()))
    schema = json.loads((ROOT / "docs" / "json-schema" / "compare.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(document, schema)
    return document


@pytest.mark.usefixtures("compiled")
def test_side_by_side() -> None:
    comparison = api.compare("mlp.py:step", [TPU, GPU, TPU])
    assert comparison.exit_code == 0
    document = check(comparison)
    tpu, gpu = document["targets"]
    assert (tpu["target"], tpu["status"], tpu["devices"]) == (TPU, "compiled", 4)
    assert tpu["compiler_peak_bytes"] == 8 << 20 and tpu["compile_s"] == 1.5
    assert tpu["padding_bytes"] > 0 == gpu["padding_bytes"]
    for side in (tpu, gpu):
        assert sum(side["bound"].values()) == pytest.approx(1)
        assert side["collectives"]["count"] == 1
    assert gpu["compiler"]["coverage"] == 1
    shown = text.to_string(comparison.to_report())
    assert TPU in shown and GPU in shown and "went wrong" not in shown
    assert max(map(len, shown.splitlines())) <= 80
    assert "| estimated time |" in markdown.render(comparison.to_report())


def test_unfused_kernels_are_single_operations(compiled: dict[str, Any]) -> None:
    [side] = api.compare("mlp.py:step", [TPU]).sides
    assert side.analysis is not None
    module, cost = side.analysis.module, side.analysis.cost
    single = [i.opcode for i in module.instructions if cost.top_level[i.index]]
    single = [name for name in single if name not in ("fusion", "custom-call", "all-reduce")]
    assert side.unfused == len([name for name in single if not name.endswith("-start")]) > 0


def test_a_target_that_fails_does_not_stop_the_others(compiled: dict[str, Any]) -> None:
    compiled[GPU] = CompilerError("the compiler was killed by SIGSEGV", "/tmp/x.log")
    comparison = api.compare("mlp.py:step", [GPU, TPU])
    assert comparison.exit_code == 3
    failed, whole = check(comparison)["targets"]
    assert failed == {
        "target": GPU,
        "status": "failed",
        "message": "the compiler was killed by SIGSEGV (log: /tmp/x.log)",
    }
    assert whole["status"] == "compiled"
    assert "killed by SIGSEGV" in text.to_string(comparison.to_report())


def test_a_target_without_its_compiler(compiled: dict[str, Any]) -> None:
    compiled[GPU] = MissingDependencyError("pip install 'hlo-lab[cuda]'")
    comparison = api.compare("mlp.py:step", [TPU, GPU])
    assert comparison.exit_code == 2 and check(comparison)["targets"][1]["status"] == "unusable"


def test_a_program_that_does_not_fit(compiled: dict[str, Any], tmp_path: Path) -> None:
    refused = {"needed_bytes": 20 << 30, "available_bytes": 15 << 30, "message": "ran out"}
    compiled[TPU] = bundle(tmp_path / "oom", TPU, "mlp_v5e.hlo", out_of_memory=refused)
    comparison = api.compare("mlp.py:step", [TPU, GPU])
    assert comparison.exit_code == 1
    side = check(comparison)["targets"][0]
    assert (side["status"], side["stage"]) == ("out_of_memory", "hlo-before")
    assert (side["missing_bytes"], side["capacity_bytes"]) == (5 << 30, 15 << 30)
    shown = text.to_string(comparison.to_report())
    assert "does not fit" in shown and "5.0 GiB" in shown and "ran out" in shown


def test_a_program_that_compiles_and_still_does_not_fit(
    compiled: dict[str, Any], tmp_path: Path
) -> None:
    folder = tmp_path / "large"
    compiled[GPU] = bundle(folder, GPU, "mlp_h100.hlo")
    compiled[GPU].analysis["memory_analysis"]["temp_size_in_bytes"] = 200 << 30
    comparison = api.compare("mlp.py:step", [GPU])
    [side] = check(comparison)["targets"]
    assert side["status"] == "out_of_memory" and "peak memory is 200 GiB" in side["message"]


def test_what_is_wrong_with_the_program_is_one_error(compiled: dict[str, Any]) -> None:
    compiled[TPU] = compiled[GPU] = NotFoundError("mlp.py: no such file")
    with pytest.raises(NotFoundError, match="no such file"):
        api.compare("mlp.py:step", [TPU, GPU])


@pytest.mark.parametrize("targets", [[], ["tpu:v99:2x2"], [TPU, "toaster"]])
@pytest.mark.usefixtures("compiled")
def test_targets_are_checked_first(targets: list[str]) -> None:
    with pytest.raises(UseError):
        api.compare("mlp.py:step", targets)


def test_an_interrupt_ends_what_is_running(monkeypatch: pytest.MonkeyPatch) -> None:
    ended = threading.Event()

    def endless(program: str, options: Options, limit: float, progress: Any) -> None:
        if options.target == TPU:
            time.sleep(0.2)
            raise KeyboardInterrupt
        try:
            while True:
                progress("compile")
                time.sleep(0.01)
        finally:
            ended.set()

    monkeypatch.setattr(MODULE, "compile_cached", endless)
    monkeypatch.setattr(MODULE, "at_once", lambda wanted: wanted)
    with pytest.raises(KeyboardInterrupt):
        api.compare("mlp.py:step", [TPU, GPU])
    assert ended.wait(5)


def test_how_many_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MODULE, "available_bytes", lambda: 9 << 30)
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    assert [MODULE.at_once(wanted) for wanted in (1, 2, 5)] == [1, 2, 2]
    monkeypatch.setattr(MODULE, "available_bytes", lambda: 1 << 30)
    assert MODULE.at_once(5) == 1
