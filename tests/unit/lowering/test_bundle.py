"""Opening bundles: whole ones, damaged ones and hostile ones."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hlo_lab.errors import InputError, NotFoundError
from hlo_lab.lowering import Bundle


@pytest.fixture
def copy(step: Bundle, tmp_path: Path) -> Path:
    return Path(shutil.copytree(step.path, tmp_path / "copy"))


@pytest.fixture
def edit(copy: Path) -> Callable[[Callable[[dict[str, Any]], object]], Path]:
    """Change the manifest of a copy."""

    def change(how: Callable[[dict[str, Any]], object]) -> Path:
        path = copy / "manifest.json"
        manifest = json.loads(path.read_text())
        how(manifest)
        path.write_text(json.dumps(manifest))
        return copy

    return change


Edit = Callable[[Callable[[dict[str, Any]], object]], Path]


def test_a_whole_bundle_opens(copy: Path, step: Bundle) -> None:
    bundle = Bundle.open(str(copy), check_hashes=True)
    assert bundle.manifest == step.manifest
    assert bundle.program.endswith("programs.py:step")
    assert Bundle.is_bundle(copy)


def test_what_is_no_bundle(tmp_path: Path, copy: Path) -> None:
    with pytest.raises(NotFoundError, match="no such bundle"):
        Bundle.open(tmp_path / "none")
    with pytest.raises(InputError, match="it has no manifest"):
        Bundle.open(copy / "passes")
    with pytest.raises(InputError, match="it has no manifest"):
        Bundle.open(copy / "manifest.json")
    with pytest.raises(InputError, match=r"holds bundles; name one, such as .*copy"):
        Bundle.open(copy.parent)
    (copy / "manifest.json").write_text('{"schema": "of another program"}')
    with pytest.raises(InputError, match="something else's"):
        Bundle.open(copy)
    assert not Bundle.is_bundle(copy)


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, "\xff\xfe", "3", "null", "[]"])
def test_a_manifest_of_junk(text: str, copy: Path) -> None:
    (copy / "manifest.json").write_text(text, encoding="latin-1")
    with pytest.raises(InputError, match=r"manifest\.json"):
        Bundle.open(copy)


def test_a_newer_bundle_says_what_to_do(edit: Edit) -> None:
    folder = edit(lambda manifest: manifest.update(schema_version=99))
    with pytest.raises(InputError, match=r"newer hlo-lab \(bundle version 99.*update hlo-lab"):
        Bundle.open(folder)


@pytest.mark.parametrize("version", [None, "1", 0, -1])
def test_versions_that_are_none(version: object, edit: Edit) -> None:
    folder = edit(lambda manifest: manifest.update(schema_version=version))
    with pytest.raises(InputError, match="no schema version"):
        Bundle.open(folder)


def test_files_that_are_missing_cut_or_changed(copy: Path) -> None:
    path = copy / "hlo_after.txt"
    text = path.read_text()
    path.write_text(text.replace("tanh", "sinh"))
    Bundle.open(copy)  # same length: only the hash tells
    with pytest.raises(InputError, match=r"hlo_after\.txt was changed after the dump"):
        Bundle.open(copy, check_hashes=True)
    path.write_text(text[:-10])
    with pytest.raises(InputError, match=r"hlo_after\.txt has \d+ bytes, not \d+"):
        Bundle.open(copy)
    path.unlink()
    with pytest.raises(InputError, match=r"hlo_after\.txt is missing"):
        Bundle.open(copy)


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "passes/../../secret", "a\0b"])
def test_files_outside_of_the_folder_are_refused(name: str, edit: Edit) -> None:
    entry = {"bytes": 1, "sha256": ""}
    folder = edit(lambda manifest: manifest["files"].update({name: entry}))
    with pytest.raises(InputError, match="names a file outside of it"):
        Bundle.open(folder)


def test_links_are_refused(copy: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    (copy / "jaxpr.txt").rename(secret)
    (copy / "jaxpr.txt").symlink_to(secret)
    with pytest.raises(InputError, match="is a link out of it"):
        Bundle.open(copy)
    (copy / "jaxpr.txt").unlink()
    secret.rename(copy / "jaxpr.txt")
    (copy / "passes").rename(tmp_path / "passes")
    (copy / "passes").symlink_to(tmp_path / "passes")
    with pytest.raises(InputError, match="is a link out of it"):
        Bundle.open(copy)


@pytest.mark.parametrize("files", [None, [], {"jaxpr.txt": None}, {"jaxpr.txt": {"bytes": "1"}}])
def test_a_manifest_without_proper_files(files: object, edit: Edit) -> None:
    with pytest.raises(InputError, match="dump it again"):
        Bundle.open(edit(lambda manifest: manifest.update(files=files)))


def test_a_stage_that_is_not_there_says_how_to_get_it(edit: Edit) -> None:
    bundle = Bundle.open(edit(lambda manifest: manifest["files"].pop("passes.json")))
    assert "passes" not in bundle.stages
    with pytest.raises(NotFoundError, match="--passes"):
        bundle.path_of("passes")
