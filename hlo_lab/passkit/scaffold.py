"""Starting a new pass: one file that works at once."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from string import Template

from hlo_lab.errors import InputError, UseError
from hlo_lab.passkit.loading import NAME, PassInfo


def new_pass(
    name: str,
    folder: str | Path,
    catalogue: Mapping[str, PassInfo],
    *,
    rewrite: bool = False,
    hlo: bool = False,
) -> Path:
    """Write ``folder/name.py``, a pass to edit, and return its path.

    Args:
        name: lower-case words with dashes, such as ``double-precision``.
        catalogue: the passes there are; the new one gets a free code.
        rewrite: one that rewrites programs.
        hlo: one that rewrites their HLO.

    Raises:
        UseError: the name is not well formed or taken.
        InputError: the folder does not exist, the file does, or it cannot be written.
    """
    if not NAME.fullmatch(name):
        raise UseError(f"pass name {name!r}: use lower-case words with dashes, such as 'big-copy'")
    if name in catalogue:
        taken = catalogue[name]
        raise UseError(f"pass name {name!r} is taken by {taken.path}:{taken.line}; choose another")
    target = Path(folder)
    if not target.is_dir():
        raise InputError(f"{target}: no such folder; make it first, or name another with -o")
    path = target / f"{name.replace('-', '_')}.py"
    kind = "hlo" if hlo else "rewrite" if rewrite else "pass"
    file = resources.files("hlo_lab.passkit").joinpath(f"{kind}_template.txt")
    text = Template(file.read_text())
    class_name = "".join(word.capitalize() for word in name.split("-")) + "Pass"
    _write(path, text.substitute(NAME=name, CODE=free_code(name, catalogue), CLASS=class_name))
    return path


def free_code(name: str, catalogue: Mapping[str, PassInfo]) -> str:
    """Three letters of the name and the first number that no pass has: ``BIG001``."""
    letters = (re.sub(r"[^a-z]", "", name).upper() + "XXX")[:3]
    taken = {info.code for info in catalogue.values()}
    codes = (f"{letters}{number:03d}" for number in range(1, 1000))
    free = next((code for code in codes if code not in taken), None)
    if free is None:
        raise UseError(f"pass name {name!r}: every code from {letters}001 on is taken")
    return free


def _write(path: Path, text: str) -> None:
    """Under a temporary name first; never over a file that is there."""
    temporary = ""
    try:
        with tempfile.NamedTemporaryFile(
            "w", dir=path.parent, prefix=f".{path.name}.", delete=False
        ) as file:
            temporary = file.name
            file.write(text)
        Path(temporary).chmod(0o644)
        os.link(temporary, path)
    except FileExistsError:
        raise InputError(f"{path}: is there already; choose another name or folder") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror or error}") from None
    finally:
        if temporary:
            Path(temporary).unlink(missing_ok=True)
