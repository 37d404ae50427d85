"""Fingerprints of what decides how a program compiles."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hlo_lab.errors import InputError

LARGE = 64 << 20  # bytes; of a larger file only size and time are compared

_LIST = """
import json, os, platform, sys
print(json.dumps([platform.python_version(), sys.prefix, [p for p in sys.path if p]]))
"""


def file_fingerprint(path: Path) -> list[Any]:
    """A file's sha256, or size and time of its last change for a large one. Raises OSError."""
    state = path.stat()
    if state.st_size > LARGE:
        return [state.st_size, state.st_mtime_ns]
    with path.open("rb") as stream:
        return [hashlib.file_digest(stream, "sha256").hexdigest()]


def text_fingerprint(text: str | None) -> str | None:
    """The sha256 of a variable's value, which may be a secret; None where it is not set."""
    return None if text is None else hashlib.sha256(os.fsencode(text)).hexdigest()


def still_holds(inputs: Any, environment: Mapping[str, str]) -> bool:
    """Whether files and variables are what ``worker.inputs`` found."""
    if not isinstance(inputs, dict):
        return False
    for name, expected in inputs["environment"].items():
        if text_fingerprint(environment.get(name)) != expected:
            return False
    try:
        return all(
            file_fingerprint(Path(name)) == expected for name, expected in inputs["files"].items()
        )
    except OSError:
        return False


def of_interpreter(python: str, environment: Mapping[str, str]) -> list[Any]:
    """Version and place of an interpreter, and every distribution installed for it.

    Raises:
        InputError: it does not run.
    """
    # a venv's python is a link to the one that it was made from
    if Path(python).absolute() == Path(sys.executable).absolute():
        version, prefix, path = platform.python_version(), sys.prefix, sys.path
    else:
        try:
            done = subprocess.run(
                [python, "-c", _LIST],
                capture_output=True,
                text=True,
                timeout=60,
                check=True,
                env=dict(environment),
            )
            version, prefix, path = json.loads(done.stdout)
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            reason = getattr(error, "strerror", None) or "it does not run as Python"
            raise InputError(f"cannot run {python}: {reason}") from None
    installed = {
        entry.name
        for folder in path
        if folder.endswith(("site-packages", "dist-packages")) and Path(folder).is_dir()
        for entry in os.scandir(folder)
        if entry.name.endswith((".dist-info", ".egg-info"))
    }
    return [version, prefix, sorted(installed)]


def of_own_code() -> str:
    """The sha256 of the code and data of this package, which decide what a bundle holds."""
    whole = hashlib.sha256()
    folder = Path(__file__).parent
    for path in sorted([*folder.rglob("*.py"), *folder.rglob("*.txtpb")]):
        whole.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes())
    return whole.hexdigest()
