"""Run by the Python that ``hlo-lab run`` starts, before the script, which is to notice nothing.

Python imports a module of this name as it starts. This one takes itself out of the path and
the environment again, so that processes which the script starts are left alone, hands over to
the ``sitecustomize`` that the environment has itself, and waits for JAX to be imported: what
the script sets before it imports JAX counts as it always does.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from importlib.machinery import ModuleSpec, PathFinder
from typing import Any

_HERE = os.path.dirname(__file__)  # noqa: PTH120  # pathlib would be imported before the script
_REQUEST = "HLO_LAB_RUN"
_CALLER = "jax._src.interpreters.pxla"  # imports the compiler, and is what calls it


class _Finder:
    """Finds the module of JAX that compiles as others do; calls ``install`` once it is there."""

    def __init__(self, request: str):
        self.request = request

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if name != _CALLER:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is None or spec.loader is None:
            return spec
        execute = spec.loader.exec_module

        def execute_and_install(module: Any) -> None:
            execute(module)
            _package()
            from hlo_lab.lowering.worker.live import install

            install(self.request)

        spec.loader.exec_module = execute_and_install  # type: ignore[method-assign]
        return spec


def _package() -> None:
    """Have this copy of hlo_lab as a module, without its folder on the script's path."""
    if "hlo_lab" in sys.modules:
        return
    from pathlib import Path

    root = Path(__file__).resolve().parents[2]
    spec = importlib.util.spec_from_file_location("hlo_lab", root / "__init__.py")
    assert spec is not None and spec.loader is not None
    package = importlib.util.module_from_spec(spec)
    sys.modules["hlo_lab"] = package
    spec.loader.exec_module(package)


def _start() -> None:
    request = os.environ.pop(_REQUEST, "")
    _, _, rest = os.environ.get("PYTHONPATH", "").partition(os.pathsep)
    if rest:
        os.environ["PYTHONPATH"] = rest
    else:
        os.environ.pop("PYTHONPATH", None)
    sys.path[:] = [place for place in sys.path if place != _HERE]
    sys.path_importer_cache.pop(_HERE, None)
    if request:
        sys.meta_path.insert(0, _Finder(request))
        with open(request + ".started", "w"):  # noqa: PTH123
            pass
    spec = PathFinder.find_spec("sitecustomize", sys.path)
    if spec is not None and spec.loader is not None:
        module = importlib.util.module_from_spec(spec)
        sys.modules["sitecustomize"] = module
        spec.loader.exec_module(module)


_start()
