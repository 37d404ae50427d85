from __future__ import annotations

from pathlib import Path

import pytest

from hlo_lab.errors import InputError, NotFoundError, UseError
from hlo_lab.lowering import ProgramReference, Target


@pytest.mark.parametrize(
    ("text", "kind", "place", "name"),
    [
        ("train.py:step", "file", "train.py", "step"),
        ("a/b c/train.py:Model.step", "file", "a/b c/train.py", "Model.step"),
        ("/x/y:z/train.py:step", "file", "/x/y:z/train.py", "step"),
        ("package.module:step", "module", "package.module", "step"),
        ("module:Model.Inner.step", "module", "module", "Model.Inner.step"),
        ("step.mlir", "stablehlo", "step.mlir", ""),
        ("a:b/step.mlir.gz", "stablehlo", "a:b/step.mlir.gz", ""),
    ],
)
def test_forms(text: str, kind: str, place: str, name: str) -> None:
    assert ProgramReference.parse(text) == ProgramReference(text, kind, place, name)
    assert ProgramReference.is_program(text)


@pytest.mark.parametrize("text", ["", "module", "a/b.csv", ":step", "module:", "a b:c"])
def test_other_words_are_no_programs(text: str) -> None:
    assert not ProgramReference.is_program(text)
    with pytest.raises(UseError, match="names no program"):
        ProgramReference.parse(text)


def test_a_module_can_be_compiled_but_is_read_where_both_are_possible() -> None:
    assert ProgramReference.parse("step.hlo") == ProgramReference("step.hlo", "hlo", "step.hlo")
    assert not ProgramReference.is_program("step.hlo")


def test_programs_of_other_frameworks(tmp_path: Path) -> None:
    parse = ProgramReference.parse
    assert parse("a/model.pt2") == ProgramReference("a/model.pt2", "torch", "a/model.pt2")
    (tmp_path / "saved_model.pb").write_bytes(b"")
    folder = str(tmp_path)
    for text, name in [
        (folder, "serving_default"),
        (f"{folder}#train", "train"),
        (f"{folder}/saved_model.pb#train", "train"),
    ]:
        assert parse(text) == ProgramReference(text, "saved_model", folder, name)
        assert ProgramReference.is_program_file(text)
    with pytest.raises(UseError, match="name a signature after #"):
        parse(f"{folder}#")


@pytest.mark.parametrize("text", ["train.py", "train.py:", "train.py:a-b", "train.py:1"])
def test_a_file_needs_a_name(text: str) -> None:
    with pytest.raises(UseError, match=r"train\.py"):
        ProgramReference.parse(text)


def test_a_file_without_a_name_is_answered_with_one_of_its_functions(tmp_path: Path) -> None:
    file = tmp_path / "train.py"
    file.write_text("def _a(): ...\ndef step(): ...\ndef example_args(): ...\n")
    with pytest.raises(UseError, match=r"train\.py:step"):
        ProgramReference.parse(str(file))


def test_the_file_is_looked_for_from_the_given_folder(tmp_path: Path) -> None:
    (tmp_path / "train.py").touch()
    (tmp_path / "folder.py").mkdir()
    parse = ProgramReference.parse
    assert parse("train.py:f").check_file(tmp_path) == tmp_path / "train.py"
    assert parse("train:f").check_file(tmp_path) is None
    with pytest.raises(NotFoundError, match=r"other\.py: no such file"):
        parse("other.py:f").check_file(tmp_path)
    with pytest.raises(InputError, match="is a folder"):
        parse("folder.py:f").check_file(tmp_path)


def test_targets() -> None:
    assert Target.parse("cpu").environment() == {"JAX_PLATFORMS": "cpu"}
    assert str(Target.parse("cpu")) == "cpu"
    assert Target.parse("cpu:8").environment()["JAX_NUM_CPU_DEVICES"] == "8"
    assert str(Target.parse("cpu:8")) == "cpu:8"


@pytest.mark.parametrize("text", ["", "npu:1", "cpu:", "cpu:x", "cpu:-1", "v5e"])
def test_unknown_targets_are_answered_with_the_known_ones(text: str) -> None:
    with pytest.raises(UseError, match=r"cpu:8"):
        Target.parse(text)


@pytest.mark.parametrize("text", ["cpu:0", "cpu:513", "cpu:999999"])
def test_the_number_of_devices_is_bounded(text: str) -> None:
    with pytest.raises(UseError, match="1 to 512"):
        Target.parse(text)
