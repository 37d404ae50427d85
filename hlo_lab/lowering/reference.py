"""Naming a program: ``path/file.py:name``, ``package.module:name`` or a StableHLO file."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from pathlib import Path

from hlo_lab.errors import InputError, NotFoundError, UseError

_DOTTED = re.compile(r"[^\W\d]\w*(?:\.[^\W\d]\w*)*")
_FORMS = (
    "path/file.py:NAME, package.module:NAME, StableHLO (.mlir, .mlirbc), a jax.export artifact "
    "(.jax_export) or HLO from before optimisation (.hlo, .txt, .pb)"
)
SUFFIXES = {
    "stablehlo": (".mlir", ".mlirbc", ".stablehlo"),
    "export": (".jax_export", ".jaxexport", ".exported"),
    "hlo": (".hlo", ".txt", ".pb"),
}
"""What the file of each kind of program is called; each may also end in ``.gz``."""


@dataclass(frozen=True)
class ProgramReference:
    """Where a program is, not yet loaded.

    Attributes:
        text: as the user wrote it.
        kind: ``file`` (a Python file and a name in it), ``module`` (an importable
            module and a name in it), ``stablehlo`` (MLIR text or bytecode), ``export`` (what
            ``jax.export`` serialized) or ``hlo`` (a module, text or proto).
        place: the file's path as written, or the module's dotted name.
        name: dotted name inside it (``Model.step``); empty for the last three.
    """

    text: str
    kind: str
    place: str
    name: str = ""

    @classmethod
    def parse(cls, text: str) -> ProgramReference:
        """Read a reference; touches no file.

        Raises:
            UseError: the text has none of the known forms.
        """
        place, colon, name = text.rpartition(":")
        for kind, suffixes in SUFFIXES.items():
            if text.removesuffix(".gz").endswith(suffixes):
                return cls(text, kind, text)
        if not colon:
            place = text
        if place.endswith(".py"):
            if not name or not colon:
                raise UseError(f"{text}: name a function in it, such as {place}:{_suggest(place)}")
            if not _DOTTED.fullmatch(name):
                raise UseError(f"{text}: {name!r} is not a Python name")
            return cls(text, "file", place, name)
        if colon and _DOTTED.fullmatch(place) and _DOTTED.fullmatch(name):
            return cls(text, "module", place, name)
        raise UseError(f"{text!r} names no program: use {_FORMS}")

    @staticmethod
    def is_program(text: str) -> bool:
        """Whether the text has the form of a program rather than of an HLO file or bundle."""
        try:
            return ProgramReference.parse(text).kind != "hlo"
        except UseError:
            return text.endswith(".py")

    @staticmethod
    def is_program_file(text: str) -> bool:
        """Whether it names a file that is a program even where it could be read as HLO."""
        plain = text.removesuffix(".gz")
        return text.endswith(".py") or plain.endswith(SUFFIXES["stablehlo"] + SUFFIXES["export"])

    def check_file(self, cwd: Path) -> Path | None:
        """The file that the reference names, or None for an importable module.

        Raises:
            NotFoundError: no such file.
            InputError: it is a folder.
        """
        if self.kind == "module":
            return None
        path = cwd / self.place
        if path.is_dir():
            raise InputError(f"{self.place}: is a folder, not a program")
        if not path.exists():
            raise NotFoundError(f"{self.place}: no such file")
        return path


def _suggest(path: str) -> str:
    """The last top-level function of a file, without running it; NAME when there is none."""
    try:
        tree = ast.parse(Path(path).read_bytes())
    except (OSError, SyntaxError, ValueError, RecursionError):
        return "NAME"
    names = [node.name for node in tree.body if isinstance(node, ast.FunctionDef)]
    public = [name for name in names if name != "example_args" and not name.startswith("_")]
    return public[-1] if public else "NAME"
