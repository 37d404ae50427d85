"""Reading one pass file: its module under a name of its own, its pass classes checked."""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import re
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from hlo_lab.errors import InputError
from hlo_lab.passkit.base import HloRewritePass, Pass, Stage
from hlo_lab.passkit.documentation import missing_headings, summary
from hlo_lab.passkit.options import options_of

CODE = re.compile(r"[A-Z]{3}\d{3}")
NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")


@dataclass(frozen=True)
class PassInfo:
    """A pass that was found: ``origin`` says by which route, ``path`` and ``line`` where."""

    pass_class: type[Pass]
    origin: str
    path: Path

    @property
    def line(self) -> int:
        """Looked up when it is asked for: that reads and tokenises the whole file."""
        return _line(self.pass_class)

    @property
    def code(self) -> str:
        return self.pass_class.code

    @property
    def name(self) -> str:
        return self.pass_class.name

    @property
    def kind(self) -> str:
        """``analysis`` or ``rewrite``."""
        return self.pass_class.kind

    @property
    def summary(self) -> str:
        return summary(self.pass_class)


def load_file(path: Path, origin: str) -> list[PassInfo]:
    """The passes that a file defines, checked.

    Raises:
        InputError: the file does not compile or import, defines no pass, or one that is
            not well formed; names the file and the line.
    """
    module = _import(path)
    classes = pass_classes(module)
    if not classes:
        raise InputError(
            f"{path}:1: defines no pass: no class derives from AnalysisPass, RewritePass or "
            "HloRewritePass"
        )
    return [check_class(pass_class, origin) for pass_class in classes]


def pass_classes(module: ModuleType) -> list[type[Pass]]:
    """The concrete passes that a Python module defines itself, in the order written."""
    return [
        value
        for value in vars(module).values()
        if inspect.isclass(value)
        and issubclass(value, Pass)
        and value.__module__ == module.__name__
        and not inspect.isabstract(value)
    ]


def check_class(pass_class: type[Pass], origin: str) -> PassInfo:
    """Raises ``InputError`` naming file and line unless the class is a well-formed pass."""

    def need(condition: bool, problem: str) -> None:
        if not condition:
            raise InputError(f"{_place(pass_class)}: pass {pass_class.__name__} {problem}")

    code, name = getattr(pass_class, "code", None), getattr(pass_class, "name", None)
    need(
        isinstance(code, str) and CODE.fullmatch(code) is not None,
        f"needs `code`, three capitals and three digits such as 'FUS001', not {code!r}",
    )
    need(
        isinstance(name, str) and NAME.fullmatch(name) is not None,
        f"needs `name`, lower-case words with dashes such as 'fusion', not {name!r}",
    )
    parameters = pass_class.__dict__.get("__dataclass_params__")
    need(parameters is not None and parameters.frozen, "is not decorated @dataclass(frozen=True)")
    need(pass_class.__dict__.get("__doc__") is not None, "has no docstring")
    missing = missing_headings(pass_class)
    need(not missing, f"lacks in its docstring: {', '.join(missing)}")
    examples, wanted = getattr(pass_class, "examples", None), pass_class.example_type
    need(
        isinstance(examples, tuple) and all(isinstance(one, wanted) for one in examples),
        f"needs `examples`, a tuple of {wanted.__name__}",
    )
    if issubclass(pass_class, HloRewritePass):
        stages = [str(stage) for stage in Stage if stage is not Stage.STABLEHLO]
        need(pass_class.stage in stages, f"needs `stage`, one of {', '.join(stages)}")
    try:
        options_of(pass_class)
    except (TypeError, NameError) as error:
        raise InputError(f"{_place(pass_class)}: pass {pass_class.__name__}: {error}") from None
    return PassInfo(pass_class, origin, _path(pass_class))


def _place(pass_class: type) -> str:
    return f"{_path(pass_class)}:{_line(pass_class)}"


def _path(pass_class: type) -> Path:
    try:
        return Path(inspect.getfile(pass_class))
    except (OSError, TypeError):
        return Path(f"<{pass_class.__module__}>")


def _line(pass_class: type) -> int:
    try:
        return inspect.getsourcelines(pass_class)[1]
    except (OSError, TypeError):
        return 1


def _import(path: Path) -> ModuleType:
    digest = hashlib.blake2b(str(path.resolve()).encode(), digest_size=4).hexdigest()
    name = f"hlo_lab_pass_{re.sub(r'[^A-Za-z0-9_]', '_', path.stem)}_{digest}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise InputError(f"{path}: cannot be imported as Python")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look the module up while the class is made
    writes = sys.dont_write_bytecode
    sys.dont_write_bytecode = True  # no __pycache__ in the user's folder
    try:
        spec.loader.exec_module(module)
    except SyntaxError as error:
        sys.modules.pop(name, None)
        where = error.filename or path
        raise InputError(f"{where}:{error.lineno or 1}: syntax error: {error.msg}") from error
    except (Exception, SystemExit) as error:
        sys.modules.pop(name, None)
        frames = traceback.extract_tb(error.__traceback__)
        lines = [frame.lineno for frame in frames if frame.filename == spec.origin]
        line = lines[-1] if lines and lines[-1] else 1
        text = str(error).strip().split("\n")[0]
        raise InputError(
            f"{path}:{line}: importing the pass file raised {type(error).__name__}: {text}"
        ) from error
    finally:
        sys.dont_write_bytecode = writes
    return module
