from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path

import jsonschema
import pytest

from hlo_lab.cli.main import main
from hlo_lab.cost import machine_files, machines
from hlo_lab.cost.calibration import Fit, Held
from hlo_lab.measure import calibrate
from hlo_lab.measure.calibrate import Calibration

SCHEMAS = Path(__file__).resolve().parents[2] / "docs" / "json-schema"


def run(*words: str) -> int:
    with pytest.raises(SystemExit) as stop:
        main(["calibrate", *words])
    return int(stop.value.code or 0)


@pytest.fixture
def found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A calibration that takes no time; the folder of the user's machines."""
    machine = machines.shipped("cpu-reference")
    fit = Fit(machine, 2700, (Held("dot", 45, 0.3, 0.12, 0.1), Held("copy", 90, 0.5, 0.31, 0.3)))
    device = {"platform": "cpu", "kind": "A CPU", "count": 1, "machine": None, "facts": {}}
    done = Calibration(fit, device, 1000, 1009, ("9 do not run here",))
    monkeypatch.setattr(calibrate, "calibrate", lambda **_: done)
    monkeypatch.setattr(machine_files, "folder", lambda: tmp_path / "machines")
    return tmp_path / "machines"


def test_the_machine_goes_to_the_users_folder(
    found: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run() == 0
    out = capsys.readouterr().out
    assert "1000 microbenchmarks, 2700 kernels" in out and "12%" in out
    assert "9 do not run here" in out
    assert all(len(line) <= 80 for line in out.splitlines() if "/" not in line)
    machine = machine_files.read(found / "cpu.toml")
    assert machine is not None and machine.rates == machines.shipped("cpu-reference").rates


def test_json_and_a_file_of_ones_own(
    found: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("-o", str(tmp_path / "mine.toml"), "--format", "json") == 0
    document = json.loads(capsys.readouterr().out)
    schema = json.loads((SCHEMAS / "calibrate.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(document, schema)
    assert document.keys() == schema["properties"].keys()
    assert document["schema"] == "hlo-lab/calibrate" and document["kernels"] == 2700
    assert document["held_out"][0] == {
        "category": "dot", "kernels": 45, "error_before": 0.3, "error": 0.12,
    }  # fmt: skip
    assert document["bandwidth"][-1]["fits_bytes"] is None
    assert not found.exists() and machine_files.read(tmp_path / "mine.toml") is not None


def test_one_that_is_no_better_is_not_kept(
    found: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """By kernels, not by kinds: 45 get better, 90 worse."""
    done = calibrate.calibrate()
    held = (Held("dot", 45, 0.44, 0.15, 0.1), Held("copy", 90, 0.3, 0.48, 0.5))
    worse = dataclasses.replace(done, fit=dataclasses.replace(done.fit, held=held))
    monkeypatch.setattr(calibrate, "calibrate", lambda **_: worse)
    assert run() == 1
    out = " ".join(capsys.readouterr().out.split())
    assert "warning: estimates would be no better" in out and "not kept" in out
    assert "all 135 35% 37%" in out and "file none was written" in out
    assert not found.exists()
    assert run("-o", str(tmp_path / "mine.toml"), "--format", "json") == 1
    assert json.loads(capsys.readouterr().out)["better"] is False
    assert machine_files.read(tmp_path / "mine.toml") is not None and not found.exists()


def test_a_busy_machine() -> None:
    cores = os.cpu_count() or 1
    assert calibrate._busy(0.1, [0.02, 0.05, 0.9]) == []
    (note,) = calibrate._busy(2.0 * cores, [0.02, 0.3, 0.9])
    assert f"{2.0 * cores:.1f} processes" in note and "differ by 30%" in note


@pytest.mark.parametrize("words", [("--target", "abacus"), ("--seconds", "0"), ("--seconds", "x")])
def test_wrong_use(words: tuple[str, ...]) -> None:
    assert run(*words) == 2


@pytest.mark.slow
def test_a_short_calibration_of_this_cpu(tmp_path: Path) -> None:
    pytest.importorskip("jax")
    code = run("--target", "cpu", "--seconds", "8", "-o", str(tmp_path / "cpu.toml"), "-q")
    assert code in (0, 1)  # so short a one may be no better
    machine = machine_files.read(tmp_path / "cpu.toml")
    assert machine is not None and "calibrated on" in machine.name
    assert set(machine.rates) == set(machines.shipped("cpu-reference").rates)
    assert machine.errors and machine.device
