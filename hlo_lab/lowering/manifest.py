"""What a bundle's ``manifest.json`` says.

schema, schema_version   "hlo-lab/bundle", 1
program                  reference, file (absolute), arguments as given (args), script and argv
module                   the compiled module's name
target, devices          what it was compiled for, and over how many devices the program runs
mesh, xla_flags          sizes by axis, and values by flag, as they were asked for
notes                    how the request was understood: a cloud name, one device of several
out_of_memory            null, or needed_bytes, available_bytes (each may be null), message and
                         after_pass: hlo_after is the module after that pass, and
                         out_of_memory.txt all that the compiler says
inputs                   fingerprints of the files that the program read and the variables that
                         it looked up; null where that is not known (lowering.worker.inputs)
arguments, results       one per array: path, dtype, shape, and sharding, donated where so
static                   Python values: name, value (its repr)
versions                 hlo-lab, python, jax, jaxlib, what compiles for the target, and what the
                         program came through: torch and torchax, or tensorflow
flags                    XLA_FLAGS, LIBTPU_INIT_ARGS and JAX_* variables that were set
git                      commit, dirty, root; null outside a repository
recompiled               a captured script's function that was compiled several times: function,
                         place, programs, seconds, changes (lowering.retraces); null for others
absent                   stages that this route cannot give
created, seconds         when (UTC), and how long each step took
files                    path inside the bundle -> sha256, bytes
"""

from __future__ import annotations

import datetime
import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hlo_lab.lowering.bundle import MANIFEST, SCHEMA, SCHEMA_VERSION, hash_file

_FLAGS = ("XLA_FLAGS", "LIBTPU_INIT_ARGS")
GIT_SECONDS = 10.0  # a repository on a dead network mount must not stop a dump


def write_manifest(folder: Path, content: Mapping[str, Any]) -> dict[str, Any]:
    """Add schema, versions of the tool, time and file hashes; write it; give it back."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    manifest = {
        "schema": SCHEMA,
        "schema_version": SCHEMA_VERSION,
        **content,
        "created": now(),
        "files": {
            path.relative_to(folder).as_posix(): {
                "sha256": hash_file(path),
                "bytes": path.stat().st_size,
            }
            for path in files
            if path.name != MANIFEST
        },
    }
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
    return manifest


def now() -> str:
    """The time in UTC, to the second."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def flags(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables that change what JAX and XLA do."""
    return {
        name: value
        for name, value in sorted(environment.items())
        if name in _FLAGS or name.startswith("JAX_")
    }


def git_state(file: Path) -> dict[str, Any] | None:
    """Commit, dirty state and root of the repository around a program; None without one.

    Dirty means that a tracked file differs from the commit, or that the program's own
    file is not in it.
    """
    folder = file.parent if file.is_file() else file
    head = _git(folder, "rev-parse", "HEAD", "--show-toplevel")
    if head is None:
        return None
    commit, root = head.split("\n", 1)
    status = _git(folder, "status", "--porcelain", "--untracked-files=no")
    tracked = _git(folder, "ls-files", "--error-unmatch", "--", str(file))
    return {"commit": commit, "dirty": bool(status) or tracked is None, "root": root.strip()}


def _git(folder: Path, *arguments: str) -> str | None:
    # in a hook git sets GIT_DIR and more, which would name the hook's repository instead
    environment = {name: value for name, value in os.environ.items() if name[:4] != "GIT_"}
    try:
        done = subprocess.run(
            ["git", "--no-optional-locks", "-C", str(folder), *arguments],
            capture_output=True,
            text=True,
            timeout=GIT_SECONDS,
            env=environment,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
