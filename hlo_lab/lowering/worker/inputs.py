"""What a program was made from: the files that it read and the variables that it looked up.

A bundle in the cache stands for its program as long as these are what they were. Watched
are Python's own ways to read: imports, ``open`` and ``os.environ``. A file that only a C
library opens (HDF5, memory-mapped data) is not seen, nor is the listing of a folder.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hlo_lab.lowering.fingerprint import file_fingerprint, text_fingerprint
from hlo_lab.lowering.worker.failure import is_user_file

_ELSEWHERE = ("/proc/", "/sys/", "/dev/")


class Inputs:
    """Watches from the moment it is made.

    Args:
        own: folders whose files are hlo-lab's, such as the one that it writes to.
    """

    def __init__(self, own: tuple[Path, ...]):
        self._began = time.time()
        self._own = tuple(str(folder) + os.sep for folder in own)
        self._environment = dict(os.environ)
        self._opened: set[str] = set()
        self._names: set[str] = set()
        self._watching = True
        sys.addaudithook(self._see)
        environ: Any = type(os.environ)
        environ.__getitem__ = self._noting(environ.__getitem__)

    def note(self, path: Path) -> None:
        """Add a file that a C library reads."""
        self._opened.add(_absolute(str(path)))

    def found(self) -> dict[str, Any] | None:
        """``files`` and ``environment``, each a fingerprint by name; stops watching.

        None where one of the files was written since: what was read of it is not known.
        """
        self._watching = False
        modules = (getattr(each, "__file__", None) for each in list(sys.modules.values()))
        names = {_absolute(each) for each in modules if isinstance(each, str)}
        files: dict[str, Any] = {}
        for name in sorted(self._opened | names):
            if not self._is_input(name):
                continue
            try:
                if Path(name).stat().st_mtime >= self._began:
                    return None
                files[name] = file_fingerprint(Path(name))
            except OSError:
                continue  # removed, or it was never there
        variables = {name: text_fingerprint(self._environment.get(name)) for name in self._names}
        return {"files": files, "environment": dict(sorted(variables.items()))}

    def _is_input(self, name: str) -> bool:
        if name.startswith((*_ELSEWHERE, *self._own)) or name.endswith(".pyc"):
            return False
        return is_user_file(name) and Path(name).is_file()

    def _see(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event != "open" or not self._watching:
            return
        path, mode, flags = arguments
        writes = isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        if not writes and not (isinstance(mode, str) and set(mode) & set("wax+")):
            if isinstance(path, bytes):
                path = os.fsdecode(path)
            if isinstance(path, str):
                self._opened.add(_absolute(path))

    def _noting(self, get: Callable[[Any, Any], str]) -> Callable[[Any, Any], str]:
        def getitem(environment: Any, name: Any) -> str:
            if self._watching and isinstance(name, str):
                frame = sys._getframe(1)
                while frame.f_back is not None and frame.f_code.co_filename.startswith("<frozen"):
                    frame = frame.f_back  # os.getenv, Mapping.get
                if is_user_file(frame.f_code.co_filename):
                    self._names.add(name)
            return get(environment, name)

        return getitem


def _absolute(path: str) -> str:
    # not resolved: where a link leads to may change, too
    return os.path.normpath(Path(path).absolute())
