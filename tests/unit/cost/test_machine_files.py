from __future__ import annotations

import dataclasses
import re
from importlib import resources
from pathlib import Path

import pytest

from hlo_lab.cost import machine_files, machines, probe
from hlo_lab.errors import InputError, NotFoundError, ReadError


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the user's machines, empty; what was looked up before is forgotten."""
    monkeypatch.setattr(machine_files, "folder", lambda: tmp_path / "machines")
    machines._cpu.cache_clear()
    yield tmp_path / "machines"
    machines._cpu.cache_clear()


def test_a_machine_comes_back_as_it_was_written(own: Path) -> None:
    machine = machines.load("cpu-reference")
    path = machine_files.path_of("mine")
    machine_files.write(machine, path)
    assert machine_files.read(path) == machine or vars(machine_files.read(path)) == vars(machine)
    assert [file.name for file in own.iterdir()] == ["mine.toml"]


def test_names_and_texts_survive(own: Path) -> None:
    reference = machines.load("cpu-reference")
    odd = dataclasses.replace(
        reference,
        title='a "quoted" title \\ with\nlines',
        rates={**reference.rates, "dot.flop": 1e-12},
    )
    path = machine_files.path_of("odd")
    machine_files.write(odd, path)
    found = machine_files.read(path)
    assert found is not None
    assert (found.title, found.rates) == (odd.title, odd.rates)


def test_the_users_file_comes_first(own: Path) -> None:
    reference = machines.load("cpu-reference")
    mine = dataclasses.replace(
        reference, name="cpu (calibrated 2026-01-01)", device=probe.model_name()
    )
    machine_files.write(mine, machine_files.path_of("cpu"))
    machine_files.write(dataclasses.replace(reference, title="of mine"), own / "lab.toml")
    machines._cpu.cache_clear()
    assert machines.for_target("cpu:8").name == "cpu (calibrated 2026-01-01)"
    assert machines.load("lab").title == "of mine"
    assert "lab" in machines.names()


def test_a_machine_of_the_user_shadows_a_shipped_one(own: Path) -> None:
    measured = dataclasses.replace(machines.load("h100"), title="measured here", topology=None)
    machine_files.write(measured, own / "h100.toml")
    assert machines.for_target("gpu:h100:8").title == "measured here"
    assert machines.for_target("gpu:h200").title != "measured here"


def test_a_calibration_of_another_cpu_is_not_taken(own: Path) -> None:
    reference = machines.load("cpu-reference")
    other = dataclasses.replace(reference, name="other", device="some other model")
    machine_files.write(other, machine_files.path_of("cpu"))
    machines._cpu.cache_clear()
    assert machines.load("cpu").name != "other"


@pytest.mark.parametrize("name", ["", "..", "../x", "A b", "x" * 80, "a/b", ".hidden"])
def test_a_name_that_is_no_files_name(own: Path, name: str) -> None:
    with pytest.raises(InputError, match="no name for a machine"):
        machine_files.path_of(name)
    with pytest.raises(NotFoundError):
        machines.load(name)


GOOD = machine_files.to_toml(machines.load("cpu-reference"))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "name is no text"),
        ("\x00\x01", "no TOML"),
        ("name = ", "no TOML"),
        ("a = " + "[" * 5000, "no TOML"),
        (GOOD[: len(GOOD) // 2], "no"),
        (GOOD.replace('kind = "cpu"', 'kind = "abacus"'), "kind is 'abacus'"),
        (GOOD.replace("memory_bytes = ", "memory_bytes = -"), "memory_bytes is no positive"),
        (GOOD.replace('"kernel.launch" = ', '"kernel.launch" = -'), r"\[rates\]"),
        (GOOD.replace('"kernel.launch" = ', '"kernel.other" = '), "another version"),
        (GOOD.replace('"kernel.launch" = ', '"kernel.launch" = "x" #'), r"\[rates\]"),
        (GOOD.replace("inf, ", "nan, "), "bandwidth"),
        (GOOD.replace("inf, ", "7.0, "), "bandwidth"),
        (GOOD.replace("f32 = ", "f33 = "), "f32"),
        ("x = 1\n" * 300_000, "too large"),
    ],
)
def test_a_hostile_file_is_a_clear_error(own: Path, text: str, says: str) -> None:
    own.mkdir()
    path = own / "bad.toml"
    path.write_text(text)
    with pytest.raises(ReadError, match=says) as raised:
        machines.load("bad")
    assert "bad.toml" in str(raised.value) and "\n" not in str(raised.value)


def test_an_interrupted_write_leaves_the_old_file(
    own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = machines.load("cpu-reference")
    path = machine_files.path_of("cpu")
    machine_files.write(machine, path)
    before = path.read_bytes()

    def stop(machine: object) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(machine_files, "to_toml", stop)
    with pytest.raises(KeyboardInterrupt):
        machine_files.write(machine, path)
    assert path.read_bytes() == before and [file.name for file in own.iterdir()] == ["cpu.toml"]


@pytest.mark.parametrize("name", [name for name in machines.names() if name != "cpu"])
def test_every_shipped_machine_comes_back_whole(own: Path, name: str) -> None:
    machine = machines.shipped(name)
    machine_files.write(machine, own / "copy.toml")
    found = machine_files.read(own / "copy.toml")
    assert found is not None and vars(found) == vars(machine)


@pytest.mark.parametrize("name", [name for name in machines.names() if name != "cpu"])
def test_a_shipped_file_may_be_copied_and_changed(own: Path, name: str) -> None:
    own.mkdir()
    data = resources.files("hlo_lab.cost") / "data" / f"{name}.toml"
    (own / "copy.toml").write_text(data.read_text())
    assert vars(machines.load("copy")) == vars(machines.shipped(name))


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("wrap = ", "warp = ", "[topology] has 'warp'"),
        ("links = 4", "", "[topology] has no links"),
        ("links = 4", 'links = "four"', "links is no whole number"),
        ("links = 4", "links = 4.5", "links is no whole number"),
        ("optical = false", "optical = 3", "optical is not true or false"),
        ('shape = "torus"', 'shape = ["torus"]', "shape that is not"),
        ("lanes = 1024", "lanes = 0.5", "whole numbers"),
        ("lanes = 1024", "lanes = [1]", "[units]"),
        ("[scratchpad]\nbytes", "[scratchpad]\nsize", "[scratchpad]"),
        ("clock = 1500000000.0", 'clock = "fast"', "clock"),
        ("clock = 1500000000.0", "clock = 1.0\ncolour = 2", "'colour'"),
        ("[topology]", "[[topology]]", "[topology] is no table"),
        ("sources = [", "sources = [3,", "sources"),
    ],
)
def test_a_key_that_is_none_is_one_line(own: Path, old: str, new: str, said: str) -> None:
    text = machine_files.to_toml(machines.shipped("tpu-v5e"))
    assert old in text
    own.mkdir()
    (own / "mine.toml").write_text(text.replace(old, new))
    with pytest.raises(ReadError, match=re.escape(said)) as raised:
        machines.load("mine")
    assert "\n" not in str(raised.value)
