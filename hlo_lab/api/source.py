"""A module from whatever the user named: an HLO file, a bundle or a program."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from hlo_lab.errors import InputError, NotFoundError
from hlo_lab.ir.module import Module

if TYPE_CHECKING:
    from hlo_lab.lowering.bundle import Bundle

TIME_LIMIT = 600.0  # seconds for a program to be imported and compiled
DEFAULT_TARGET = "cpu"
ACCEPTED = (
    "give an HLO file (text or proto, also .gz, or -), a bundle that `hlo-lab dump` wrote, "
    "or a program as path/file.py:NAME or package.module:NAME"
)


@dataclass(eq=False)
class Loaded:
    """A module and where it comes from.

    Attributes:
        module: the module after optimisation, or whatever one HLO file holds.
        label: what the user named.
        kind: ``file``, ``bundle`` or ``program``.
        target: what it was compiled for, as ``--target`` takes it.
        bundle: all stages, for bundles and programs. A program's bundle lives in a
            temporary folder that goes when this object does.
    """

    module: Module
    label: str
    kind: str
    target: str
    bundle: Bundle | None = None
    _folder: Path | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self._folder is not None:
            weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)


def load(
    source: str | Path | Module,
    *,
    target: str | None = None,
    args: str | None = None,
    time_limit: float = TIME_LIMIT,
    progress: Callable[[str], None] = lambda text: None,
) -> Loaded:
    """Load ``source``; a program is compiled for ``target`` first, in a process of its own.

    Args:
        target: ``cpu`` by default. For a file it names the machine of the estimates; a
            bundle has its own.
        args: shapes of a program's arguments, ``f32[8,128], i32[8]``.
        time_limit: seconds that a program may take to be imported and compiled.
        progress: told what is going on.

    Raises:
        InputError: ``source`` is none of these, or a bundle that is not whole.
        ExecutionError: the program or the compiler failed.
    """
    if isinstance(source, Module):
        return Loaded(source, source.name, "file", target or DEFAULT_TARGET)
    text = str(source)
    path = Path(text)
    if text != "-" and path.is_dir():
        return _bundle(path, target)
    from hlo_lab.lowering.reference import ProgramReference

    code = text.endswith((".py", ".mlir", ".mlir.gz"))
    if ProgramReference.is_program(text) and (code or not path.is_file()):
        return _program(text, target or DEFAULT_TARGET, args, time_limit, progress)
    progress(f"reading {text}")
    return _file(text, target)


def _file(text: str, target: str | None) -> Loaded:
    from hlo_lab.ir.files import read_module

    try:
        module = read_module(text)
    except NotFoundError:
        raise NotFoundError(f"{text}: no such file; {ACCEPTED}") from None
    return Loaded(module, text, "file", target or DEFAULT_TARGET)


def _bundle(path: Path, target: str | None) -> Loaded:
    from hlo_lab.lowering.bundle import Bundle

    bundle = Bundle.open(path)
    if target not in (None, bundle.target):
        raise InputError(
            f"{path}: the bundle was compiled for {bundle.target}, not {target}; dump it again"
        )
    return Loaded(bundle.module("hlo-after"), str(path), "bundle", bundle.target, bundle)


def _program(
    text: str,
    target: str,
    args: str | None,
    time_limit: float,
    progress: Callable[[str], None],
) -> Loaded:
    from hlo_lab.lowering import dump

    folder = Path(tempfile.mkdtemp(prefix="hlo-lab-"))
    try:
        progress(f"compiling {text} for {target}")
        bundle = dump(text, out=folder / "bundle", target=target, args=args, time_limit=time_limit)
        progress(f"reading what {text} compiled to")
        module = bundle.module("hlo-after")
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return Loaded(module, text, "program", target, bundle, folder)
