"""Running an unmodified script, and keeping every program that it compiles."""

from __future__ import annotations

import re
import runpy
import sys
import threading
import traceback
from pathlib import Path
from typing import Any

from hlo_lab.lowering import adapter
from hlo_lab.lowering.worker import stages
from hlo_lab.lowering.worker.failure import explain

MAX_NAME = 100  # characters of a folder's name


def capture(request: dict[str, Any], folder: Path, cwd: Path) -> dict[str, Any]:
    """Run the request's script as ``__main__``; one sub-folder per program it compiles.

    What the script raises does not end the capture: it is given back as ``failure``.
    """
    captured = _Capture(folder, request["filter"], request["min_size"])
    adapter.on_compile(captured.observe)
    script = cwd / request["reference"]
    sys.argv = [request["reference"], *request["argv"]]
    sys.path.insert(0, str(script.resolve().parent))
    failure: str | None = None
    status = 0
    try:
        runpy.run_path(str(script), run_name="__main__")
    except SystemExit as stop:
        status = _exit_status(stop)
        failure = f"the script ended with status {status}" if status else None
    except Exception as error:
        traceback.print_exception(_without_our_frames(error, script))
        status, failure = 1, explain(error, "running")
    if captured.fatal is not None:
        raise captured.fatal
    return {
        "file": str(script.resolve()),
        "programs": captured.programs,
        "skipped": captured.skipped,
        "lost": captured.lost,
        "status": status,
        "failure": failure,
    }


def _without_our_frames(error: Exception, script: Path) -> Exception:
    """The error with a traceback that starts in the script, as Python would show it."""
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename != str(script):
        trace = trace.tb_next
    return error.with_traceback(trace) if trace is not None else error


def _exit_status(stop: SystemExit) -> int:
    """The status that Python itself would end with."""
    if stop.code is None or isinstance(stop.code, int):
        return stop.code or 0
    print(stop.code, file=sys.stderr)
    return 1


class _Capture:
    def __init__(self, folder: Path, pattern: str | None, min_size: int):
        self.folder = folder
        self.pattern = re.compile(pattern) if pattern else None
        self.min_size = min_size
        self.programs: list[dict[str, Any]] = []
        self.skipped = 0
        self.lost: list[str] = []
        self.fatal: OSError | None = None
        self._lock = threading.Lock()
        self._names: dict[str, int] = {}

    def observe(self, mlir_module: Any, executable: Any) -> None:
        """Keep one program. Never raises into the script."""
        if self.fatal is not None:
            return
        try:
            name = adapter.module_name(mlir_module)
            if self.pattern is not None and not self.pattern.search(name):
                self.skipped += 1
                return
            size = stages.count_instructions(executable)
            if size < self.min_size:
                self.skipped += 1
                return
            with self._lock:
                unique = self._unique(name)
            place = self.folder / unique
            place.mkdir()
            stages.write_before(place, mlir_module)
            stages.write_after(place, executable)
            arguments = adapter.main_arguments(mlir_module)
        except OSError as error:
            self.fatal = error
            return
        except Exception as error:
            traceback.print_exc()
            self.lost.append(f"{type(error).__name__}: {error}")
            return
        with self._lock:
            entry = {"name": unique, "module": name, "instructions": size}
            self.programs.append({**entry, "arguments": arguments})

    def _unique(self, name: str) -> str:
        """``jit_step``, then ``jit_step.2``; always a plain folder name."""
        base = re.sub(r"[^A-Za-z0-9_-]+", "_", name)[:MAX_NAME] or "module"
        number = self._names[base] = self._names.get(base, 0) + 1
        return base if number == 1 else f"{base}.{number}"
