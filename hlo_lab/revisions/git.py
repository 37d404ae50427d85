"""The few questions that are asked of git, with its answers as errors people can act on."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from hlo_lab.errors import ExecutionError, InputError, MissingDependencyError, NotFoundError

WORKING_TREE = "."  # how a user names what is checked out, with its uncommitted changes

# Set while git runs a hook; they would point every command at the user's index.
_HOOK_VARIABLES = (
    "GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_COMMON_DIR",
    "GIT_PREFIX", "GIT_ALTERNATE_OBJECT_DIRECTORIES", "GIT_NAMESPACE",
)  # fmt: skip


@dataclass(frozen=True)
class Repository:
    """A git repository seen from a folder inside it.

    ``top`` is the root of its working tree; ``prefix`` the folder that relative paths
    start from, relative to ``top`` (empty at the top).
    """

    top: Path
    prefix: Path

    @classmethod
    def of(cls, folder: str | Path = ".") -> Repository:
        """The repository that ``folder`` is in.

        Raises:
            InputError: it is in none, or in a bare one.
            MissingDependencyError: git is not installed.
        """
        start = Path(folder).resolve()
        answer = git(start, "rev-parse", "--show-toplevel", check=False)
        if answer.returncode or not answer.stdout.strip():
            reason = "a bare repository" if not answer.returncode else "not a git repository"
            raise InputError(
                f"{start}: {reason}; to compare revisions, run in a checkout "
                "(or give two files or bundles)"
            )
        top = Path(answer.stdout.strip()).resolve()
        return cls(top, start.relative_to(top))

    def commit(self, revision: str) -> str:
        """The full hash of the commit that ``revision`` names.

        Raises:
            NotFoundError: git knows no such revision.
        """
        name = f"{revision}^{{commit}}"
        answer = git(
            self.top, "rev-parse", "--verify", "--quiet", "--end-of-options", name, check=False
        )
        # --end-of-options is echoed by some versions
        found = answer.stdout.split()
        if answer.returncode or not found:
            raise NotFoundError(
                f"unknown revision {revision!r} in {self.top}; `git log --oneline --all` lists them"
            )
        return found[-1]

    def tree(self, commit: str) -> str:
        """The hash of a commit's content: equal for commits that differ in history alone."""
        return git(self.top, "rev-parse", f"{commit}^{{tree}}").stdout.strip()

    def merge_base(self, a: str, b: str) -> str:
        """The commit that ``a...b`` starts from. Raises ``NotFoundError`` where there is none."""
        answer = git(self.top, "merge-base", self.commit(a), self.commit(b), check=False)
        if answer.returncode:
            raise NotFoundError(f"{a} and {b} have no common commit in {self.top}")
        return answer.stdout.strip()

    def is_dirty(self) -> bool:
        """Whether tracked files have changes that are not committed."""
        status = git(self.top, "status", "--porcelain", "--untracked-files=no", check=False)
        return bool(status.stdout.strip())

    def has_file(self, revision: str, path: str) -> bool:
        """Whether a revision, or the working tree, has the file; ``path`` is from the top."""
        if revision == WORKING_TREE:
            return (self.top / path).is_file()
        name = f"{self.commit(revision)}:{path}"
        return git(self.top, "cat-file", "-e", name, check=False).returncode == 0

    def renames(self, a: str, b: str) -> dict[str, str]:
        """Old path to new path, from the top, of the files that git sees renamed from a to b."""
        if a == b:
            return {}
        commits = [self.commit(name) for name in (a, b) if name != WORKING_TREE]
        backwards = ["-R"] if a == WORKING_TREE else []
        answer = git(
            self.top, "diff", "--find-renames", "--name-status", "--diff-filter=R", "-z",
            *backwards, *commits, "--", check=False,
        )  # fmt: skip
        words = answer.stdout.split("\0")
        return dict(zip(words[1::3], words[2::3], strict=False))

    def path_of(self, reference: str) -> str | None:
        """The path from the top of the file that holds a program; None for a module's name.

        Raises:
            InputError: a file outside the repository, which has no revisions.
        """
        place, _, _ = _split(reference)
        if not place:
            return None
        path = Path(os.path.normpath(self.top / self.prefix / place))
        if not path.is_relative_to(self.top):
            path = path.resolve()
        if not path.is_relative_to(self.top):
            raise InputError(f"{place}: is outside the repository {self.top}")
        return path.relative_to(self.top).as_posix()

    def reference(self, path: str, reference: str) -> str:
        """The program of ``reference`` in another file: from where relative paths start."""
        _, colon, name = _split(reference)
        return os.path.relpath(self.top / path, self.top / self.prefix) + colon + name


def _split(reference: str) -> tuple[str, str, str]:
    """(file, colon, name); no file for ``package.module:name``."""
    if reference.endswith((".mlir", ".mlir.gz")):
        return reference, "", ""
    place, colon, name = reference.rpartition(":")
    return (place, colon, name) if place.endswith(".py") else ("", "", "")


def git(folder: Path, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run git in ``folder``, without hooks, prompts or the variables of a running hook.

    Raises:
        MissingDependencyError: git is not installed.
        ExecutionError: it failed, where ``check`` is set.
    """
    environment = {k: v for k, v in os.environ.items() if k not in _HOOK_VARIABLES}
    environment |= {"GIT_TERMINAL_PROMPT": "0", "GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C"}
    try:
        answer = subprocess.run(
            ["git", "-c", f"core.hooksPath={os.devnull}", "-C", str(folder), *arguments],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
    except FileNotFoundError:
        raise MissingDependencyError(
            "git is not installed; install it to compare revisions, or compare files or bundles"
        ) from None
    if check and answer.returncode:
        said = " ".join(answer.stderr.split()) or f"status {answer.returncode}"
        raise ExecutionError(f"git {arguments[0]} failed: {said}")
    return answer
