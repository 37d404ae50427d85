"""Doing one request: load, trace, lower, compile, write; report each step and the end."""

from __future__ import annotations

import errno
import gzip
import json
import os
import sys
import time
import traceback
from pathlib import Path
from typing import Any

from hlo_lab.errors import CompilerError, ExecutionError, HloLabError, InputError, ProgramError
from hlo_lab.lowering import adapter
from hlo_lab.lowering.reference import ProgramReference
from hlo_lab.lowering.worker.channel import Channel, die_with_parent
from hlo_lab.lowering.worker.failure import explain, first_line


def main(request_path: str) -> None:
    """Do the request in that file. Every failure goes back as a result, not as an exit code."""
    request = json.loads(Path(request_path).read_text())
    die_with_parent(request["parent_fd"])
    channel = Channel(request["report_fd"])
    worker = _Worker(request, channel)
    try:
        info = worker.run()
    except BaseException as error:
        traceback.print_exc()
        channel.result(ok=False, **_failure(error, worker))
        raise
    sys.stdout.flush()
    channel.result(ok=True, info=info)
    # threads and exit handlers of the user's program have no say any more
    os._exit(0)


def _failure(error: BaseException, worker: _Worker) -> dict[str, Any]:
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return {"kind": "InputError", "message": "no space left on the disk"}
    if isinstance(error, ExecutionError) or not isinstance(error, HloLabError):
        message = str(error) if isinstance(error, HloLabError) else worker.explain(error)
        kind = CompilerError if worker.stage in ("compile", "read") else ProgramError
        return {"kind": kind.__name__, "message": message}
    return {"kind": type(error).__name__, "message": str(error)}


class _Worker:
    def __init__(self, request: dict[str, Any], channel: Channel):
        self.request = request
        self.channel = channel
        self.folder = Path(request["folder"])
        self.cwd = Path(request["cwd"])
        self.stage = ""
        self.seconds: dict[str, float] = {}
        self._began = time.perf_counter()

    def enter(self, stage: str) -> None:
        now = time.perf_counter()
        if self.stage:
            self.seconds[self.stage] = round(now - self._began, 3)
        self.stage, self._began = stage, now
        self.channel.stage(stage)

    def explain(self, error: BaseException) -> str:
        """What went wrong, for an error that is none of ours."""
        if self.stage in ("compile", "read"):
            verb = "compile" if self.stage == "compile" else "read"
            return f"XLA could not {verb} it: {first_line(str(error)) or type(error).__name__}"
        doing = {
            "import": "being imported",
            "arguments": "making its example arguments",
            "trace": "being traced",
            "lower": "being lowered",
            "script": "running",
        }
        return explain(error, doing.get(self.stage, self.stage))

    def run(self) -> dict[str, Any]:
        mode = self.request["mode"]
        run = {"script": self.script, "stablehlo": self.stablehlo}.get(mode, self.function)
        info = run()
        info["seconds"] = self.seconds
        info["versions"] = adapter.versions()
        info["devices"] = self.device_count()
        return info

    def device_count(self) -> int:
        import jax

        return jax.device_count()

    def prepare_jax(self) -> None:
        adapter.set_config("jax_enable_compilation_cache", False)
        adapter.hide_frames_of(Path(__file__).parents[1])

    def script(self) -> dict[str, Any]:
        from hlo_lab.lowering.worker.script import capture

        def facts() -> dict[str, Any]:
            return {"versions": adapter.versions(), "devices": self.device_count()}

        self.enter("script")
        self.prepare_jax()
        info = capture(self.request, self.folder, self.cwd, facts)
        self.enter("done")
        return info

    def stablehlo(self) -> dict[str, Any]:
        from hlo_lab.lowering.worker import stages

        self.enter("read")
        self.prepare_jax()
        path = self.cwd / self.request["reference"]
        data = path.read_bytes()
        text = (gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data).decode()
        try:
            module = adapter.parse_stablehlo(text)
        except Exception as error:  # MLIR's own error type is private
            detail = first_line(str(error).replace("Unable to parse module assembly:", ""))
            raise InputError(f"{path.name}: not a StableHLO module: {detail}") from None
        stages.write_before(self.folder, module)
        self.enter("compile")
        executable = adapter.compile_stablehlo(module, self.compiler_options())
        self.enter("write")
        stages.write_after(self.folder, executable)
        self.enter("done")
        return {"arguments": adapter.main_arguments(module), "absent": ["jaxpr"]}

    def function(self) -> dict[str, Any]:
        from hlo_lab.lowering.worker import calling, loading, stages
        from hlo_lab.lowering.worker.signature import describe_call

        reference = ProgramReference.parse(self.request["reference"])
        self.enter("import")
        module = loading.load_module(reference, self.cwd)
        function, owner = loading.find_program(module, reference.name, reference.place)
        self.prepare_jax()
        self.enter("arguments")
        call = calling.find_arguments(function, owner, module, self.request["args"], reference.text)
        self.enter("trace")
        jaxpr, lowered = self.lower(function, call)
        if jaxpr is not None:
            stages.write_jaxpr(self.folder, jaxpr)
        stages.write_before(self.folder, lowered.compiler_ir())
        self.enter("compile")
        compiled = lowered.compile(self.compiler_options() or None)
        self.enter("write")
        stages.write_after(self.folder, compiled.runtime_executable())
        self.enter("done")
        return {
            "file": getattr(module, "__file__", None),
            "absent": [] if jaxpr is not None else ["jaxpr"],
            **describe_call(call, adapter.argument_names(jaxpr), lowered, compiled),
        }

    def lower(self, function: Any, call: Any) -> tuple[Any, Any]:
        """(jaxpr or None, ``jax.stages.Lowered``) of the call."""
        import jax

        args, kwargs = call.args, call.kwargs
        if not adapter.is_jitted(function):
            function, (args, kwargs) = call.staged(function)
            function = jax.jit(function)
        traced = function.trace(*args, **kwargs)
        self.enter("lower")
        return adapter.jaxpr_of(traced), adapter.plain_lowered(traced.lower())

    def compiler_options(self) -> dict[str, Any]:
        if not self.request["passes"]:
            return {}
        raw = self.folder / "raw_passes"
        raw.mkdir()
        return adapter.dump_flags(raw)
