"""The command ``doctor``."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from hlo_lab.api.doctor import doctor
from hlo_lab.lowering import availability
from hlo_lab.report.text import to_string

# the module: `hlo_lab.api.doctor` as an attribute is the function
room = importlib.import_module("hlo_lab.api.doctor")


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_text_and_json_without_importing_jax() -> None:
    code = """
import sys
from hlo_lab.cli.main import main
try:
    main(sys.argv[1:])
finally:
    assert not {"jax", "jaxlib"} & set(sys.modules), "imported too much"
"""
    for options in ([], ["--format", "json"]):
        done = subprocess.run(
            [sys.executable, "-c", code, "doctor", *options],
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert metadata.version("jax") in done.stdout
    assert json.loads(done.stdout)["schema"] == "hlo-lab/doctor/1"


def test_versions_and_targets() -> None:
    found = doctor()
    assert found.versions["jaxlib"] == metadata.version("jaxlib")
    assert found.protobuf_implementation == "upb"
    assert [each.name for each in found.targets] == ["cpu", "tpu", "gpu"]
    assert found.targets[0].usable
    assert max(map(len, to_string(found.report).splitlines())) <= 80


def test_sizes_of_the_folders(tmp_path: Path) -> None:
    logs = tmp_path / "state" / "hlo-lab" / "log"
    logs.mkdir(parents=True)
    (logs / "a.log").write_bytes(b"x" * 1000)
    (logs / "link").symlink_to("/dev/zero")
    stores = {each.name: each for each in doctor().stores}
    assert (stores["logs"].files, stores["logs"].bytes) == (1, 1000)
    assert (stores["cache"].files, stores["cache"].bytes) == (0, 0)
    assert Path(stores["logs"].path) == logs


def test_what_is_missing_is_a_problem_with_a_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    version = room._version
    monkeypatch.setattr(room, "_version", lambda name: None if name == "jax" else version(name))
    monkeypatch.setattr(room, "_protobuf_implementation", lambda: "python")
    found = doctor()
    assert found.versions["dot"] is None
    assert not found.targets[0].usable
    assert "pip install jax" in found.targets[0].reason
    text = " ".join(found.problems)
    for word in ("apt install graphviz", "-m pip install jax", "slow python implementation"):
        assert word in text
    assert "Problems" in to_string(found.report)


def test_a_dot_program_that_does_not_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "dot"
    program.write_text("#!/bin/sh\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    assert doctor().versions["dot"] is None
    program.write_text("#!/bin/sh\necho dot - graphviz version 9.9.9 >&2\n")
    assert doctor().versions["dot"] == "9.9.9"


def test_compilers_of_accelerators(monkeypatch: pytest.MonkeyPatch) -> None:
    version = availability._version
    jaxlib = version("jaxlib")
    there = {
        "libtpu": "0.0.52",
        "jax-cuda12-pjrt": None,
        "jax-cuda13-pjrt": jaxlib,
        "nvidia-cuda-nvcc-cu12": None,
        "nvidia-cuda-nvcc": "13.1.2",
    }
    monkeypatch.setattr(availability, "_version", lambda name: there.get(name, version(name)))
    _, tpu, gpu = doctor().targets
    assert (tpu.usable, tpu.reason) == (True, "libtpu 0.0.52")
    assert (gpu.usable, gpu.reason) == (True, f"jax-cuda13-pjrt {jaxlib} with ptxas of 13.1.2")
    there |= {"libtpu": None, "jax-cuda13-pjrt": "0.9.0"}
    _, tpu, gpu = doctor().targets
    assert not tpu.usable and tpu.reason.endswith("pip install 'hlo-lab[tpu]'")
    assert not gpu.usable and gpu.reason.startswith("jax-cuda13-pjrt 0.9.0 is not of jaxlib")
