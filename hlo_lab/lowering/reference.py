"""Naming a program: ``path/file.py:name``, ``package.module:name`` or a file that holds one."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from pathlib import Path

from hlo_lab.errors import InputError, NotFoundError, UseError

_DOTTED = re.compile(r"[^\W\d]\w*(?:\.[^\W\d]\w*)*")
_FORMS = (
    "path/file.py:NAME, package.module:NAME, StableHLO (.mlir, .mlirbc), a jax.export artifact "
    "(.jax_export), a torch.export artifact (.pt2), a SavedModel's folder (DIR or "
    "DIR#SIGNATURE) or HLO from before optimisation (.hlo, .txt, .pb)"
)
SUFFIXES = {
    "stablehlo": (".mlir", ".mlirbc", ".stablehlo"),
    "export": (".jax_export", ".jaxexport", ".exported"),
    "torch": (".pt2",),
    "hlo": (".hlo", ".txt", ".pb"),
}
"""What the file of each kind of program is called; each may also end in ``.gz``."""
SAVED_MODEL = "saved_model.pb"
DEFAULT_SIGNATURE = "serving_default"


@dataclass(frozen=True)
class ProgramReference:
    """Where a program is, not yet loaded.

    Attributes:
        text: as the user wrote it.
        kind: ``file`` (a Python file and a name in it), ``module`` (an importable
            module and a name in it), ``stablehlo`` (MLIR text or bytecode), ``export`` (what
            ``jax.export`` serialized), ``torch`` (what ``torch.export`` saved),
            ``saved_model`` (TensorFlow's folder) or ``hlo`` (a module, text or proto).
        place: the file's or folder's path as written, or the module's dotted name.
        name: dotted name inside it (``Model.step``), a SavedModel's signature; else empty.
    """

    text: str
    kind: str
    place: str
    name: str = ""

    @classmethod
    def parse(cls, text: str) -> ProgramReference:
        """Read a reference; of the disk it asks only whether a folder is a SavedModel.

        Raises:
            UseError: the text has none of the known forms.
        """
        if (model := _saved_model(text)) is not None:
            return model
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
        known = SUFFIXES["stablehlo"] + SUFFIXES["export"] + SUFFIXES["torch"]
        if _saved_model(text) is not None:
            return True
        return text.endswith(".py") or plain.endswith(known)

    def check_file(self, cwd: Path) -> Path | None:
        """The file that the reference names, or None for an importable module.

        Raises:
            NotFoundError: no such file.
            InputError: it is a folder, or HLO that a compiler already optimised.
        """
        if self.kind == "module":
            return None
        path = cwd / self.place
        if self.kind == "saved_model":
            path /= SAVED_MODEL
        if path.is_dir():
            raise InputError(f"{self.place}: is a folder, not a program")
        if not path.exists():
            raise NotFoundError(f"{self.place}: no such file")
        if self.kind == "hlo":
            # a worker that has no numpy says so itself
            from hlo_lab.ir.files import begins_scheduled

            if begins_scheduled(path):
                raise optimised_already(path.name)
        return path


def optimised_already(name: str) -> InputError:
    """Of a file that cannot be compiled again."""
    return InputError(
        f"{name}: is scheduled, so a compiler was there before; give the module from before "
        "optimisation (--stage hlo-before)"
    )


def _saved_model(text: str) -> ProgramReference | None:
    """``DIR``, ``DIR/saved_model.pb`` or either with ``#SIGNATURE``; None for anything else."""
    place, mark, signature = text.partition("#")
    folder = Path(place)
    if folder.name == SAVED_MODEL:
        folder = folder.parent
    elif not (folder / SAVED_MODEL).is_file():
        return None
    if mark and not signature:
        raise UseError(f"{text}: name a signature after #, such as {place}#{DEFAULT_SIGNATURE}")
    return ProgramReference(text, "saved_model", str(folder), signature or DEFAULT_SIGNATURE)


def _suggest(path: str) -> str:
    """The last top-level function of a file, without running it; NAME when there is none."""
    try:
        tree = ast.parse(Path(path).read_bytes())
    except (OSError, SyntaxError, ValueError, RecursionError):
        return "NAME"
    names = [node.name for node in tree.body if isinstance(node, ast.FunctionDef)]
    public = [name for name in names if name != "example_args" and not name.startswith("_")]
    return public[-1] if public else "NAME"
