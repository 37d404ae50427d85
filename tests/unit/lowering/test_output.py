"""Folders that are complete or not there."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

import pytest

from hlo_lab.errors import InputError
from hlo_lab.lowering import output
from hlo_lab.lowering.output import check_output, new_folder

MANIFEST = '{"schema": "hlo-lab/bundle"}'


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def fill(folder: Path, text: str = "new") -> None:
    (folder / "manifest.json").write_text(MANIFEST)
    (folder / "content").write_text(text)


def test_the_folder_appears_at_the_end(tmp_path: Path) -> None:
    out = tmp_path / "a" / "b" / "out"
    with new_folder(out) as folder:
        fill(folder)
        assert not out.exists()
    assert (out / "content").read_text() == "new"
    assert names(out.parent) == ["out"]
    assert out.stat().st_mode & 0o777 == 0o755


@pytest.mark.parametrize("exchange", [True, False])
def test_a_bundle_is_replaced(
    exchange: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not exchange:  # as on systems that cannot swap two names
        monkeypatch.setattr(output, "_exchange", lambda a, b: False)
    out = tmp_path / "out"
    for text in ("old", "new"):
        with new_folder(out) as folder:
            fill(folder, text)
            (folder / text).touch()
    assert names(out) == ["content", "manifest.json", "new"]
    assert names(tmp_path) == ["out"]


def test_somebody_reading_never_finds_it_missing(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with new_folder(out) as folder:
        fill(folder, "0")
    seen: list[str] = []
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            seen.append((out / "content").read_text())

    reader = threading.Thread(target=read)
    reader.start()
    for number in range(1, 50):
        with new_folder(out) as folder:
            fill(folder, str(number))
    done.set()
    reader.join()
    assert [int(each) for each in seen] == sorted(int(each) for each in seen)
    assert seen


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, ValueError])
def test_nothing_is_left_after_an_exception(error: type[BaseException], tmp_path: Path) -> None:
    with pytest.raises(error), new_folder(tmp_path / "a" / "out") as folder:
        fill(folder)
        raise error
    assert names(tmp_path) == []


def test_what_was_there_stays_after_an_exception(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with new_folder(out) as folder:
        fill(folder, "old")
    with pytest.raises(KeyboardInterrupt), new_folder(out) as folder:
        fill(folder)
        raise KeyboardInterrupt
    assert (out / "content").read_text() == "old"
    assert names(tmp_path) == ["out"]


def test_another_folder_needs_force(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    check_output(out, force=False)  # an empty one is nobody's
    (out / "thesis.tex").touch()
    with pytest.raises(InputError, match=r"is not a bundle; .*--force"), new_folder(out):
        pytest.fail("must not begin")
    with new_folder(out, force=True) as folder:
        fill(folder)
    assert names(out) == ["content", "manifest.json"]


def test_a_file_is_never_replaced(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.write_text("mine")
    with pytest.raises(InputError, match="is a file"):
        check_output(out, force=True)


def test_precious_folders_are_never_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "place" / "inner"
    place.mkdir(parents=True)
    monkeypatch.chdir(place)
    (place / "file").touch()
    repository = tmp_path / "repository"
    (repository / ".git").mkdir(parents=True)
    for path in (".", "..", str(place), str(repository), str(Path.home()), "/"):
        with pytest.raises(InputError, match="refusing to replace"):
            check_output(Path(path), force=True)


def test_an_unwritable_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(InputError, match="is not a folder"),
        new_folder(tmp_path / "file" / "out"),
    ):
        pytest.fail("must not begin")

    def refuse(*args: object, **kwargs: object) -> str:
        raise PermissionError(errno.EACCES, "Permission denied")

    # a test may run as root, whom no folder refuses
    monkeypatch.setattr(output.tempfile, "mkdtemp", refuse)
    with (
        pytest.raises(InputError, match="cannot be written: Permission denied"),
        new_folder(tmp_path / "deep" / "out"),
    ):
        pytest.fail("must not begin")
    assert names(tmp_path) == ["file"]


def test_a_full_disk(small_disk: Path) -> None:
    with pytest.raises(InputError, match="no space left on the disk; nothing was written"):  # noqa: SIM117
        with new_folder(small_disk / "out") as folder:
            (folder / "content").write_bytes(os.urandom(1 << 20))
    assert names(small_disk) == []


def test_an_error_of_a_full_disk(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no space left on the disk; nothing was written"):  # noqa: SIM117
        with new_folder(tmp_path / "out"):
            raise OSError(errno.ENOSPC, "No space left on device")
    assert names(tmp_path) == []
