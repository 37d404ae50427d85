from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from hlo_lab.cost import machines, probe
from hlo_lab.errors import NotFoundError

SHIPPED = [name for name in machines.names() if name != "cpu"]


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_machine(name: str) -> None:
    machine = machines.load(name)
    figures = [*machine.matrix_flops.values(), *machine.vector_flops.values()]
    figures += [machine.memory_bytes, machine.launch_overhead, machine.interconnect_bandwidth]
    figures += [rate for _, rate in machine.bandwidth]
    assert all(math.isfinite(figure) and figure > 0 for figure in figures)
    assert machine.sources and all(machine.sources)
    limits = [fits for fits, _ in machine.bandwidth]
    assert limits == sorted(limits) and math.isinf(limits[-1])
    # a matrix unit is no slower than the vector units beside it
    assert machine.matrix_peak("f32") >= machine.vector_peak("f32")


def test_every_machine_of_the_readme_is_there() -> None:
    wanted = "tpu-v4 tpu-v5e tpu-v5p tpu-v6e tpu7x a100-40 a100-80 h100 h100-pcie h200 b200 v100"
    assert set(wanted.split()) <= set(SHIPPED)


@pytest.mark.parametrize(
    ("target", "name"),
    [
        ("tpu:v5e:2x2", "tpu-v5e"),
        ("tpu:v6e", "tpu-v6e"),
        ("gpu:h100:8", "h100"),
        ("gpu:a100_40", "a100-40"),
        ("H100", "h100"),
    ],
)
def test_for_target(target: str, name: str) -> None:
    assert machines.for_target(target).name == name


def test_unknown_machine_lists_the_names() -> None:
    with pytest.raises(NotFoundError, match=r"no machine 'h900'.*tpu-v5e"):
        machines.load("h900")


def test_types_without_units_of_their_own() -> None:
    h100, v100 = machines.load("h100"), machines.load("v100")
    assert h100.matrix_peak("f8e4m3fnuz") == h100.matrix_peak("s8")
    assert v100.matrix_peak("bf16") == v100.vector_peak("f32")
    assert h100.matrix_peak("c64") == h100.matrix_peak("f32")


def test_this_cpu_is_measured_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "machines" / "cpu.json"
    monkeypatch.setattr(probe, "_cache_file", lambda: path)
    measured = []
    figures = {"schema": probe.SCHEMA, "dot_f32": 8e10, "dot_f64": 4e10, "add_f32": 5e9}
    figures |= {"exp_f32": 1e9, "copy": [3e10, 2e10, 1e10]}
    monkeypatch.setattr(probe, "measure", lambda: measured.append(1) or dict(figures))
    reference = machines.load("cpu-reference")
    first, second = probe.this_cpu(reference), probe.this_cpu(reference)
    assert len(measured) == 1 and [file.name for file in path.parent.iterdir()] == ["cpu.json"]
    assert first.matrix_flops == second.matrix_flops
    assert first.matrix_peak("f32") == 8e10 and first.memory_bandwidth == 1e10
    assert "this machine" in first.name and "rough" in first.name


def test_a_damaged_cache_is_measured_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "cpu.json"
    path.write_text(json.dumps({"schema": probe.SCHEMA, "dot_f32": "fast"}))
    monkeypatch.setattr(probe, "_cache_file", lambda: path)
    machine = probe.this_cpu(machines.load("cpu-reference"))
    assert machine.matrix_peak("f32") > 1e8
    assert json.loads(path.read_text())["copy"]


def test_an_unwritable_cache_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    path = tmp_path / "file" / "below" / "cpu.json"
    monkeypatch.setattr(probe, "_cache_file", lambda: path)
    assert "this machine" in probe.this_cpu(machines.load("cpu-reference")).name
    assert not path.exists()


def test_a_failed_measurement_gives_the_fixed_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe, "_cache_file", lambda: tmp_path / "cpu.json")
    monkeypatch.setattr(probe, "measure", lambda: {"schema": probe.SCHEMA, "dot_f32": math.nan})
    reference = machines.load("cpu-reference")
    assert probe.this_cpu(reference) is reference
    assert not (tmp_path / "cpu.json").exists()
