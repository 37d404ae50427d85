"""Finding the program that a reference names, by running the user's file or module."""

from __future__ import annotations

import difflib
import functools
import importlib
import importlib.util
import inspect
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from hlo_lab.errors import InputError, NotFoundError
from hlo_lab.lowering import adapter
from hlo_lab.lowering.reference import ProgramReference
from hlo_lab.lowering.worker.failure import with_article


def load_module(reference: ProgramReference, cwd: Path) -> ModuleType:
    """Import what the reference names, with ``sys.path`` as Python itself would set it up.

    A file inside a package (an ``__init__.py`` beside it) is imported as part of that
    package, so that its relative imports work. What the user's code raises goes through.

    Raises:
        NotFoundError: no such file or module.
    """
    if reference.kind == "module":
        sys.path.insert(0, str(cwd))
        return _import_dotted(reference.place)
    path = (cwd / reference.place).resolve()
    root, names = path.parent, [path.stem]
    while (root / "__init__.py").exists() and root.name.isidentifier():
        names.insert(0, root.name)
        root = root.parent
    # beside a plain script Python finds its neighbours and not the current folder
    sys.path[:0] = [str(root)] if root == cwd else [str(root), str(cwd)]
    if len(names) > 1:
        return importlib.import_module(".".join(names))
    return _import_file(path)


def _import_dotted(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        # only the named module itself: a missing import inside it is the program's fault
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise
        raise NotFoundError(
            f"no module {error.name!r}: checked sys.path and the current folder"
        ) from None


def _import_file(path: Path) -> ModuleType:
    name = path.stem
    if not name.isidentifier() or name in sys.modules or name in sys.stdlib_module_names:
        name = f"_program_{abs(hash(name)) if not name.isidentifier() else name}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None  # the name ends with .py
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def find_program(module: ModuleType, name: str, where: str) -> tuple[Any, Any]:
    """The callable of that dotted name, and the object or module that it was found on.

    An instance method named through its class (``Model.step``) is bound to ``Model()``
    where that takes no arguments. A bound method that is jitted comes as a
    ``JittedMethod``.

    Raises:
        NotFoundError: no such name; names near it are listed.
        InputError: it is not callable, or the class cannot be made without arguments.
    """
    owner: Any = module
    found: Any = module
    for part in name.split("."):
        owner, found = found, _attribute(found, part, where)
    if inspect.isclass(owner) and inspect.isfunction(inspect.getattr_static(owner, part)):
        found = getattr(_instance(owner, name, where), part)
    if not callable(found):
        kind = with_article(type(found).__name__)
        raise InputError(f"{where}:{name} is {kind}, not something to call")
    return JittedMethod.of(found) or found, owner


class JittedMethod:
    """A bound method that is jitted, ``model.step`` where ``step`` is ``jax.jit(function)``.

    What such a method offers as ``trace`` is the function's, which wants ``self`` as well.
    Here the signature is without it, and ``trace`` takes ``first`` before all else.

    Attributes:
        first: the method's self; in a ``StaticValue`` where jit takes it as static.
    """

    def __init__(self, method: Any):
        self.jitted = method.__func__
        static = adapter.first_is_static(self.jitted)
        self.instance = method.__self__
        self.first = StaticValue(self.instance) if static else self.instance
        self.__name__ = getattr(self.jitted, "__name__", type(self.jitted).__name__)
        self.__signature__ = inspect.signature(method)

    @classmethod
    def of(cls, found: Any) -> JittedMethod | None:
        """The method, or None where it is not bound or not jitted.

        Not only Python's own methods: those of equinox's modules are classes of its own.
        """
        bound = hasattr(found, "__self__") and adapter.is_jitted(getattr(found, "__func__", None))
        return cls(found) if bound else None

    def __getattr__(self, name: str) -> Any:
        if name == "jitted":
            raise AttributeError(name)
        return getattr(self.jitted, name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.jitted(self.instance, *args, **kwargs)

    def trace(self, first: Any, *args: Any, **kwargs: Any) -> Any:
        """``jax.stages.Traced`` of the call with this self."""
        value = first.value if isinstance(first, StaticValue) else first
        return self.jitted.trace(value, *args, **kwargs)


class StaticValue:
    """A value that is one leaf, whatever pytree it may be."""

    def __init__(self, value: Any):
        self.value = value

    def __repr__(self) -> str:
        return repr(self.value)


_SHOWN = 5  # names of those there are, in an error


def _attribute(owner: Any, name: str, where: str) -> Any:
    try:
        return getattr(owner, name)
    except AttributeError:
        known = [each for each in dir(owner) if _is_program(owner, each)]
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.6)
        more = f" and {len(known) - _SHOWN} more" if len(known) > _SHOWN else ""
        hint = f"; it has {', '.join(known[:_SHOWN])}{more}" if known else ""
        hint = f"; did you mean {', '.join(near)}?" if near else hint
        raise NotFoundError(f"{where} has no {name!r}{hint}") from None


def _is_program(owner: Any, name: str) -> bool:
    """Whether a name may be meant: something to call, and not from another package."""
    found = inspect.getattr_static(owner, name, None)  # runs no property
    if name.startswith("_") or not (callable(found) or isinstance(found, _METHODS)):
        return False
    if not inspect.ismodule(owner) or isinstance(found, functools.partial):
        return True
    home = str(getattr(found, "__module__", ""))
    return home.partition(".")[0] == owner.__name__.partition(".")[0]


_METHODS = (classmethod, staticmethod)


def _instance(owner: type, name: str, where: str) -> Any:
    try:
        inspect.signature(owner).bind()
    except (TypeError, ValueError):
        method = name.rpartition(".")[2]
        raise InputError(
            f"{where}:{name} is a method and {owner.__name__} needs arguments: make an instance "
            f"in the file (model = {owner.__name__}(...)) and name model.{method}"
        ) from None
    return owner()
