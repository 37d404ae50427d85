"""Running an unmodified script, and keeping every program that it compiles.

What is captured is written down as it comes, in the file ``RECORDS``: a script that never
ends, or takes the process with it, loses nothing that was complete.
"""

from __future__ import annotations

import json
import math
import os
import re
import runpy
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hlo_lab.lowering import adapter, retraces
from hlo_lab.lowering.records import RECORDS
from hlo_lab.lowering.worker import stages
from hlo_lab.lowering.worker.failure import explain

MAX_NAME = 100  # characters of a folder's name


def capture(
    request: dict[str, Any], folder: Path, cwd: Path, facts: Callable[[], dict[str, Any]]
) -> dict[str, Any]:
    """Run the request's script as ``__main__``; one sub-folder per program it compiles.

    What the script raises does not end the capture: it is given back as ``failure``. The
    process ends as soon as there are ``stop_after`` programs.

    Args:
        facts: what is known of the process once it has compiled something.
    """
    script = cwd / request["reference"]
    captured = _Capture(
        folder,
        request["filter"],
        request["min_size"],
        request["stop_after"],
        lambda: {"file": str(script.resolve()), **facts()},
    )
    adapter.around_compile(captured.compile)
    adapter.on_retrace(captured.explain)
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
    def __init__(
        self,
        folder: Path,
        pattern: str | None,
        min_size: int,
        stop_after: int | None,
        facts: Callable[[], dict[str, Any]],
    ):
        self.folder = folder
        self.pattern = re.compile(pattern) if pattern else None
        self.min_size = min_size
        self.stop_after = stop_after
        self.facts = facts
        self.count = 0
        self.fatal: OSError | None = None
        self._lock = threading.Lock()
        self._names: dict[str, int] = {}
        self._retraces: dict[str, dict[str, Any]] = {}
        self._records = os.open(folder / RECORDS, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def compile(self, mlir_module: Any, compile: Callable[[Any], Any]) -> Any:
        begun = time.perf_counter()
        executable = compile(mlir_module)
        self.observe(mlir_module, executable, time.perf_counter() - begun)
        return executable

    def explain(self, message: str) -> None:
        """Remember why JAX traced a function, until that is compiled."""
        why = retraces.explained(message)
        if why is not None:
            self._retraces[retraces.key(why["function"])] = why

    def observe(self, mlir_module: Any, executable: Any, seconds: float) -> None:
        """Keep one program, which took ``seconds`` to compile. Never raises into the script."""
        if self.fatal is not None:
            return
        try:
            try:
                entry = self._keep(mlir_module, executable)
                if entry is not None:
                    entry["seconds"] = round(seconds, 3)
            except Exception as error:
                if isinstance(error, OSError):
                    raise
                traceback.print_exc()
                self._record({"lost": f"{type(error).__name__}: {error}"})
                return
            if entry is None:
                self._record({"skipped": 1})
                return
            with self._lock:
                facts = {"facts": self.facts()} if self.count == 0 else {}
                self._record({**facts, "program": entry})
                self.count += 1
                if self.count == self.stop_after:
                    sys.stdout.flush()
                    sys.stderr.flush()
                    os._exit(0)
        except OSError as error:
            self.fatal = error

    def _record(self, record: dict[str, Any]) -> None:
        os.write(self._records, (json.dumps(record) + "\n").encode())

    def _keep(self, mlir_module: Any, executable: Any) -> dict[str, Any] | None:
        """Write one program's stages; None where it is not to be kept."""
        name = adapter.module_name(mlir_module)
        retrace = self._retraces.pop(retraces.key(name), None)
        if self.pattern is not None and not self.pattern.search(name):
            return None
        if self.min_size and stages.count_instructions(executable) < self.min_size:
            return None
        with self._lock:
            unique = self._unique(name)
        place = self.folder / unique
        place.mkdir()
        stages.write_before(place, mlir_module)
        stages.write_after(place, executable)
        return {
            "name": unique,
            "module": name,
            "devices": math.prod(adapter.partitions(mlir_module)),
            "arguments": adapter.main_arguments(mlir_module),
            "retrace": retrace,
        }

    def _unique(self, name: str) -> str:
        """``jit_step``, then ``jit_step.2``; always a plain folder name."""
        base = re.sub(r"[^A-Za-z0-9_-]+", "_", name)[:MAX_NAME] or "module"
        number = self._names[base] = self._names.get(base, 0) + 1
        return base if number == 1 else f"{base}.{number}"
