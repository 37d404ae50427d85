"""Rewriting what an unmodified script compiles, inside the script's own process.

``install`` is called by ``startup.sitecustomize`` once JAX's compiler is there. What happens is
written down as it happens (``lowering.live`` reads it), so that nothing is lost however the
script ends.
"""

from __future__ import annotations

import functools
import importlib
import json
import os
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Protocol

from hlo_lab.errors import HloLabError, PassError
from hlo_lab.lowering import adapter
from hlo_lab.lowering.worker.failure import first_line
from hlo_lab.lowering.worker.hlo_passes import InsideXla
from hlo_lab.lowering.worker.rewriting import inside_passes, rewrite_outside
from hlo_lab.passkit.base import RewritingPass
from hlo_lab.passkit.rewriting import Applied, PassSpec, inline

RECORDS = "live.jsonl"


class Check(Protocol):
    """What a request may name to look at the first call of each function that was rewritten."""

    def compare(self, before: Any, after: Any, tolerance: float | None) -> list[dict[str, Any]]:
        """The results of both, one by one: ``agrees`` and figures."""


def install(request_path: str) -> None:
    """Rewrite what this process compiles from now on, as the request in that file says."""
    request = json.loads(Path(request_path).read_text())
    live = _Live(request, Path(request["folder"]) / RECORDS)
    adapter.around_compile(live.compile)
    if request["check"]:
        adapter.around_execution(live.execute)


class _Live:
    def __init__(self, request: dict[str, Any], records: Path):
        self.specs = [PassSpec.from_dict(spec) for spec in request["passes"]]
        self.only: str | None = request["only"]
        self.check: str | None = request["check"]
        self.process = os.getpid()
        self.pending: dict[int, _Pending] = {}
        self._records = os.open(records, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self._lock = threading.Lock()
        self._said: set[str] = set()

    @functools.cached_property
    def passes(self) -> list[RewritingPass]:
        return [spec.make() for spec in self.specs]

    @functools.cached_property
    def inside(self) -> InsideXla | None:
        """The passes that are applied while XLA compiles; None where there are none."""
        found = inside_passes(self.passes, self.specs)
        return InsideXla(found) if found else None

    @property
    def _names(self) -> str:
        return " and ".join(dict.fromkeys(spec.name for spec in self.specs))

    @property
    def tolerance(self) -> float | None:
        """The error that the passes mean."""
        errors = [one.relative_error for one in self.passes if one.relative_error is not None]
        return max(errors, default=None)

    def compile(self, module: Any, compile: Callable[[Any], Any]) -> Any:
        """What JAX gets for a module: that of the rewritten one, if the passes change it."""
        name = adapter.module_name(module)
        if os.getpid() != self.process or not matches(name, self.only):
            return compile(module)
        record: dict[str, Any] = {"function": name, "changes": [], "failure": None}
        executable = None
        try:
            executable = self._compile_rewritten(name, module, compile, record)
        except Exception as error:
            record |= {"changes": [], "failure": _line(error)}
            self._say(f"{record['failure']}; {name} is compiled as it was")
        self._record(record)
        if executable is None:
            return compile(module)
        if self.check is not None and any(record["changes"]):
            self.pending[id(executable)] = _Pending(name, module, compile, executable)
        return executable

    def _compile_rewritten(
        self, name: str, module: Any, compile: Callable[[Any], Any], record: dict[str, Any]
    ) -> Any:
        """The executable with what the passes make of a copy; None where they change nothing."""
        began = time.perf_counter()
        with module.context:
            copy = adapter.copy_module(module)
        inline(copy)
        raw, contract = copy, adapter.call_contract(module)
        applied: list[Applied | None] = []
        for one, spec in zip(self.passes, self.specs, strict=True):
            raw, done = rewrite_outside([one], [spec], raw)
            applied += done
            if adapter.call_contract(raw) != contract:
                raise PassError(
                    f"{spec.name} changed which arguments are donated or how arrays lie in "
                    "memory, which the script's caller decides; try it with `hlo-lab rewrite`"
                )
        record["seconds"] = round(time.perf_counter() - began, 6)
        is_other = any(each is not None and each.changes for each in applied)
        executable = None
        if self.inside is not None:
            chosen = raw if is_other else module
            executable = self.inside.compile(name, lambda: compile(chosen), lambda made: made)
            inside = iter(self.inside.applied())
            applied = [each or next(inside) for each in applied]
        elif is_other:
            executable = self._compile_changed(raw, compile)
        record["changes"] = [each.changes for each in applied if each is not None]
        return executable

    def _compile_changed(self, module: Any, compile: Callable[[Any], Any]) -> Any:
        try:
            return compile(module)
        except Exception as error:
            raise PassError(
                f"XLA could not compile what {self._names} made: {first_line(str(error))}"
            ) from error

    def execute(self, execution: adapter.Execution) -> Any:
        """A call; where it is the first of a rewritten function, the original is called too."""
        pending = self.pending.get(id(execution.executable))
        if pending is None or pending.executable is not execution.executable:
            return execution.run()
        self.pending.pop(id(execution.executable), None)
        record: dict[str, Any] = {"function": pending.name, "unchecked": execution.effects}
        expected = None
        if not execution.effects:
            try:
                donated = [
                    number
                    for number, each in enumerate(adapter.main_arguments(pending.module))
                    if each.get("donated")
                ]
                original = pending.compile(pending.module)
                expected = execution.run_with(original, donated)
            except Exception as error:
                record["unchecked"] = _line(error)
        results = execution.run()
        if expected is not None:
            self._compare(pending, expected, results, record)
        self._record(record)
        return results

    def _compare(
        self, pending: _Pending, expected: Any, results: Any, record: dict[str, Any]
    ) -> None:
        assert self.check is not None
        check: Check = importlib.import_module(self.check)
        try:
            outputs = check.compare(expected, results, self.tolerance)
        except Exception as error:  # such as arrays that other processes hold
            record["unchecked"] = _line(error)
            return
        record["outputs"] = outputs
        wrong = [at for at, each in enumerate(outputs) if not each["agrees"]]
        if wrong:
            off = outputs[wrong[0]]["max_rel"]
            self._say(
                f"wrong numbers in {pending.name} after {self._names}: result [{wrong[0]}] is off "
                f"by {off:.1e} relative"
            )

    def _record(self, record: dict[str, Any]) -> None:
        with self._lock:
            os.write(self._records, (json.dumps(record) + "\n").encode())

    def _say(self, text: str) -> None:
        """Once on stderr."""
        with self._lock:
            if text not in self._said:
                self._said.add(text)
                print(f"hlo-lab: {text}", file=sys.stderr, flush=True)


@dataclass(frozen=True)
class _Pending:
    """A rewritten function that was not called yet, and how to have the original."""

    name: str
    module: Any
    compile: Callable[[Any], Any]
    executable: Any


def matches(module: str, pattern: str | None) -> bool:
    """Whether a module's name, ``jit_step``, or its function's, ``step``, fits a glob."""
    names = (module, module.partition("_")[2])
    return pattern is None or any(fnmatchcase(name, pattern) for name in names)


def _line(error: Exception) -> str:
    text = first_line(str(error))
    return text if isinstance(error, HloLabError) else f"{type(error).__name__}: {text}"
