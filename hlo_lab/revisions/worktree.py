"""A revision checked out in a temporary folder, removed again whatever happens.

Outside the user's tree; ``git worktree`` shares the objects, so it is fast and the
user's files, index and branch are not touched. SIGTERM and SIGHUP end the block like
Ctrl-C does. What a killed process left behind is removed by the next one.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

from hlo_lab.errors import ExecutionError
from hlo_lab.revisions.git import Repository, git

_PREFIX = "hlo-lab-worktree-"
_OURS = re.compile(rf"{_PREFIX}(\d+)-\w+$")


@contextlib.contextmanager
def worktree(repository: Repository, commit: str) -> Iterator[Path]:
    """The root of a detached checkout of ``commit``; gone when the block ends.

    Raises:
        ExecutionError: git could not check it out (a missing LFS object, a full disk).
    """
    remove_leftovers(repository)
    with _ending_like_interrupt():
        # the name says who made it; realpath, since git lists worktrees so
        folder = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-")).resolve()
        try:
            tree = folder / "tree"
            answer = git(
                repository.top, "worktree", "add", "--detach", "--force", str(tree), commit,
                check=False,
            )  # fmt: skip
            if answer.returncode:
                said = " ".join(answer.stderr.split()[-40:])
                raise ExecutionError(
                    f"cannot check out {commit[:12]}: {said} "
                    "(submodules and LFS files are not fetched)"
                )
            yield tree
        finally:
            with _uninterrupted():
                _remove(repository, folder)


def remove_leftovers(repository: Repository) -> None:
    """Remove the worktrees of processes that were killed before they could."""
    listed = git(repository.top, "worktree", "list", "--porcelain", check=False).stdout
    for line in listed.splitlines():
        folder = Path(line.removeprefix("worktree ")).parent
        match = _OURS.match(folder.name) if line.startswith("worktree ") else None
        if match and not _is_alive(int(match.group(1))):
            _remove(repository, folder)


def _remove(repository: Repository, folder: Path) -> None:
    tree = folder / "tree"
    git(repository.top, "worktree", "remove", "--force", "--force", str(tree), check=False)
    shutil.rmtree(folder, ignore_errors=True)
    git(repository.top, "worktree", "prune", check=False)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


@contextlib.contextmanager
def _ending_like_interrupt() -> Iterator[None]:
    """SIGTERM and SIGHUP unwind the stack, so that ``finally`` runs, then end the process."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may set handlers
        return

    def end(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    before = {
        number: signal.signal(number, end)
        for number in (signal.SIGTERM, signal.SIGHUP)
        if signal.getsignal(number) is signal.SIG_DFL
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _uninterrupted() -> Iterator[None]:
    """A second Ctrl-C waits until the worktree is gone."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, signal.SIG_IGN) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
