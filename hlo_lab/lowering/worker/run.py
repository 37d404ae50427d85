"""Doing one request: load, trace, lower, compile, write; report each step and the end."""

from __future__ import annotations

import errno
import faulthandler
import importlib
import importlib.util
import json
import math
import os
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from hlo_lab.errors import (
    CompilerError,
    ExecutionError,
    HloLabError,
    InputError,
    MissingDependencyError,
    PassError,
    ProgramError,
)
from hlo_lab.lowering import adapter
from hlo_lab.lowering.mesh import missing_axes
from hlo_lab.lowering.reference import SAVED_MODEL, ProgramReference
from hlo_lab.lowering.target import Target
from hlo_lab.lowering.worker.calling import Call
from hlo_lab.lowering.worker.channel import Channel, die_with_parent
from hlo_lab.lowering.worker.compiling import Compilation, DoesNotFitError, typed
from hlo_lab.lowering.worker.devices import TargetDevices, context_of
from hlo_lab.lowering.worker.executable import Executable, of_compiled, of_module
from hlo_lab.lowering.worker.failure import explain, first_line, user_line
from hlo_lab.lowering.worker.inputs import Inputs

if TYPE_CHECKING:
    from hlo_lab.lowering.worker.rewriting import Rewritten


class Continuation(Protocol):
    """What a request may name to go on with the program once it is compiled."""

    def prepare(self, options: dict[str, Any]) -> None:
        """Before JAX or the program is imported."""

    def run(
        self, options: dict[str, Any], executable: Executable, enter: Callable[[str], None]
    ) -> dict[str, Any]:
        """With the compiled program; what it gives is added to the worker's info.

        ``enter`` is to be told what is done now.
        """


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
    if message := worker.missing_axes(error):
        return {"kind": "InputError", "message": message}
    is_ours = isinstance(error, HloLabError)
    if not is_ours or (isinstance(error, ExecutionError) and not isinstance(error, PassError)):
        message = str(error) if is_ours else worker.explain(error)
        kind = CompilerError if worker.stage in ("compile", "read") else ProgramError
        return {"kind": kind.__name__, "message": message}
    return {"kind": type(error).__name__, "message": str(error)}


class _Worker:
    def __init__(self, request: dict[str, Any], channel: Channel):
        self.request = request
        self.channel = channel
        self.folder = Path(request["folder"])
        self.cwd = Path(request["cwd"])
        self.target = Target.parse(request["target"])
        self.notes = [self.target.note] if self.target.note else []
        self.devices: TargetDevices | None = None
        self.converters: tuple[str, ...] = ()
        self.inputs = Inputs((self.folder,))
        self.stage = ""
        self.seconds: dict[str, float] = {}
        self._began = time.perf_counter()
        self.options: dict[str, Any] = request.get("continuation") or {}
        self.continuation: Continuation | None = None
        self.rewriting: Rewritten | None = None

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
        hint = self.devices.explanation() if self.devices is not None else ""
        return explain(error, doing.get(self.stage, self.stage)) + hint

    def missing_axes(self, error: BaseException) -> str:
        """What to do about a program that names axes which the mesh does not have, or ""."""
        devices = self.devices
        if devices is None or isinstance(error, HloLabError):
            return ""
        asked = missing_axes(str(error), devices.mesh_axes)
        if not asked:
            return ""
        count, where = len(devices.devices), user_line(error)
        given = ",".join(f"{name}={size}" for name, size in devices.mesh_axes.items())
        noun, size = ("axis", str(count)) if len(asked) == 1 else ("axes", "N")
        return (
            f"the mesh is {given}, and the program names the {noun} {' and '.join(asked)}"
            f"{f' at {where}' if where else ''}: say --mesh "
            f"{','.join(f'{name}={size}' for name in asked)} ({count} devices in all)"
        )

    def check_interpreter(self) -> None:
        """Raises ``MissingDependencyError`` where this is a Python that cannot compile."""
        missing = [name for name in ("jax", "numpy") if importlib.util.find_spec(name) is None]
        if missing:
            raise MissingDependencyError(
                f"{sys.executable} has no {' and no '.join(missing)}: install it there, or name "
                f"another interpreter with --python"
            )

    def run(self) -> dict[str, Any]:
        self.check_interpreter()
        if self.options:
            self.continuation = importlib.import_module(self.options["module"])
            self.continuation.prepare(self.options)
        mode = self.request["mode"]
        if mode != "script" and not self.target.is_ahead_of_time:
            faulthandler.enable()
        runs = {"script": self.script, "module": self.module, "task": self.task}
        run = runs.get(mode, self.function)
        info = run()
        info["seconds"] = self.seconds
        platform = self.devices.platform if self.devices is not None else self.target.platform
        info["versions"] = adapter.versions(platform, self.converters)
        info["notes"] = self.notes
        info["inputs"] = self.inputs.found()
        if self.rewriting is not None:
            info["rewritten"] = self.rewriting.facts()
        return info

    def prepare_jax(self) -> None:
        adapter.set_config("jax_enable_compilation_cache", False)
        adapter.hide_frames_of(Path(__file__).parents[1])

    def prepare_target(self) -> TargetDevices:
        self.devices = TargetDevices(self.target, self.request["mesh"])
        # after libtpu has set its own handlers, which come next then
        faulthandler.enable()
        return self.devices

    def script(self) -> dict[str, Any]:
        from hlo_lab.lowering.worker.script import capture

        def facts() -> dict[str, Any]:
            return {"versions": adapter.versions(self.target.platform)}

        self.enter("script")
        self.prepare_jax()
        info = capture(self.request, self.folder, self.cwd, facts)
        self.enter("done")
        return info

    def task(self) -> dict[str, Any]:
        """Work of its own that needs JAX: the function ``run`` of the module that it names."""
        self.prepare_jax()
        task = self.request["task"]
        info: dict[str, Any] = importlib.import_module(task["module"]).run(task, self.enter)
        self.enter("done")
        return info

    def rewrite(self, module: Any) -> Rewritten | None:
        """Apply the passes that the request names; None where it names none."""
        from hlo_lab.lowering.worker.rewriting import Rewritten
        from hlo_lab.passkit.rewriting import PassSpec

        if not self.request.get("rewrite"):
            return None
        self.enter("rewrite")
        specs = [PassSpec.from_dict(spec) for spec in self.request["rewrite"]]
        self.rewriting = Rewritten.of(module, specs)
        self.rewriting.check_places(specs)
        idle = next(
            (i for i, one in enumerate(self.rewriting.applied) if one and not one.changes), None
        )
        if self.request.get("must_change") and idle is not None:
            raise InputError(f"{specs[idle].name} finds nothing to change at {specs[idle].place}")
        return self.rewriting

    def module(self) -> dict[str, Any]:
        from hlo_lab.lowering.worker import tensorflow_source
        from hlo_lab.lowering.worker.sources import read_module

        self.enter("read")
        self.prepare_jax()
        devices = self.prepare_target().devices
        reference = ProgramReference.parse(self.request["reference"])
        if reference.kind == "saved_model":
            place = self.cwd / reference.place
            self.inputs.note(place / SAVED_MODEL)
            # the model stays: without it its variables are gone
            function, model = tensorflow_source.load_signature(place, reference.name)
            info = self.tensorflow(function, reference.text, devices)
            del model
            return info
        return self.compile_module(read_module(reference, self.cwd), devices)

    def tensorflow(self, function: Any, where: str, devices: list[Any]) -> dict[str, Any]:
        """Compile what TensorFlow lowers a function to."""
        from hlo_lab.ir.proto import read_proto
        from hlo_lab.lowering.worker.sources import of_module
        from hlo_lab.lowering.worker.tensorflow_source import hlo_of_function

        self.converters = ("tensorflow",)
        self.enter("trace")
        proto, names = hlo_of_function(function, self.request["args"], where)
        info = self.compile_module(of_module(read_proto(proto), where), devices)
        arguments = info["arguments"]
        if len(arguments) == len(names):
            info["arguments"] = [
                {**each, "path": name} for each, name in zip(arguments, names, strict=True)
            ]
        return info

    def compile_module(self, module: Any, devices: list[Any]) -> dict[str, Any]:
        """Compile an MLIR module and write its stages; there is no jaxpr."""
        from hlo_lab.lowering.worker import stages

        rewriting = self.rewrite(module)
        chosen = module if rewriting is None else rewriting.plain()
        arguments = adapter.main_arguments(module)

        def compile_now(module: Any, folder: Path) -> Executable:
            options = typed(self.request["xla_flags"])
            return of_module(adapter.compile_stablehlo(module, options, devices), arguments, folder)

        def original(folder: Path) -> Executable:
            stages.write_before(folder, module)
            return compile_now(module, folder)

        if rewriting is not None:
            rewriting.compile_original = original
            rewriting.compile_probe = lambda probe: compile_now(probe, self.folder)
        stages.write_before(self.folder, chosen)
        info = self.compile(
            lambda options: adapter.compile_stablehlo(chosen, options, devices),
            lambda executable: executable,
        )
        compiled = info.pop("compiled")
        if compiled is not None:
            info |= self.go_on(lambda: of_module(compiled, arguments, self.folder))
        devices_used = math.prod(adapter.partitions(module))
        return {**info, "devices": devices_used, "arguments": arguments, "absent": ["jaxpr"]}

    def go_on(self, executable: Callable[[], Executable]) -> dict[str, Any]:
        """Hand the compiled program to the request's continuation, if it has one.

        Not one that passes left as it was: there is nothing to compare it with.
        """
        if self.continuation is None or (self.rewriting is not None and not self.rewriting.changes):
            return {}
        whole = replace(executable(), rewriting=self.rewriting)
        info = self.continuation.run(self.options, whole, self.enter)
        self.enter("done")
        return info

    def function(self) -> dict[str, Any]:
        from hlo_lab.lowering.worker import (
            calling,
            loading,
            stages,
            tensorflow_source,
            torch_source,
        )
        from hlo_lab.lowering.worker.signature import describe_call

        reference = ProgramReference.parse(self.request["reference"])
        self.enter("import")
        if self.target.is_ahead_of_time:
            # before the program, which may ask for devices
            self.prepare_target()
        file: str | None
        if reference.kind in ("export", "torch"):
            self.prepare_jax()
            devices = self.devices or self.prepare_target()
            read = self.exported if reference.kind == "export" else self.torch_file
            function, call, file = read(reference, devices)
        else:
            module = loading.load_module(reference, self.cwd)
            file = getattr(module, "__file__", None)
            function, owner = loading.find_program(module, reference.name, reference.place)
            self.prepare_jax()
            self.enter("arguments")
            devices = self.devices or self.prepare_target()
            args = self.request["args"]
            exported = torch_source.exported_program(function)
            if tensorflow_source.is_function(function):
                info = self.tensorflow(function, reference.text, devices.devices)
                return {"file": file, **info}
            if exported is not None:
                function, call = self.torch_program(exported, reference.text)
            else:
                call = calling.find_arguments(
                    function,
                    owner,
                    module,
                    args,
                    reference.text,
                    devices,
                    keep_examples=self.continuation is not None,
                )
        self.enter("trace")
        jaxpr, lowered = self.lower(function, call, devices)
        self.check_platform(lowered, reference)
        rewriting = self.rewrite(lowered.compiler_ir())
        names, original = adapter.argument_names(jaxpr), lowered
        if rewriting is not None:
            # the jaxpr is that of another program
            jaxpr, lowered = None, adapter.with_module(lowered, rewriting.plain())
        if jaxpr is not None:
            stages.write_jaxpr(self.folder, jaxpr)
        stages.write_before(self.folder, lowered.compiler_ir())
        info = self.compile(
            lambda options: lowered.compile(options or None),
            lambda compiled: compiled.runtime_executable(),
        )
        compiled = info.pop("compiled")
        described = describe_call(call, names, lowered, compiled)
        if compiled is not None:
            paths = [each["path"] for each in described["arguments"]]
            options = typed(self.request["xla_flags"])

            def compile_original(folder: Path) -> Executable:
                stages.write_before(folder, original.compiler_ir())
                before = original.compile(options or None)
                return of_compiled(before, original, call, paths, folder)

            def compile_probe(module: Any) -> Executable:
                probe = adapter.compile_stablehlo(module, options, devices.devices)
                return of_module(probe, adapter.main_arguments(module), self.folder)

            if rewriting is not None:
                rewriting.compile_original = compile_original
                rewriting.compile_probe = compile_probe
            info |= self.go_on(lambda: of_compiled(compiled, lowered, call, paths, self.folder))
        return {
            "file": file,
            "absent": [] if jaxpr is not None else ["jaxpr"],
            "devices": math.prod(adapter.partitions(lowered.compiler_ir())),
            **described,
            **info,
        }

    def exported(self, reference: ProgramReference, devices: TargetDevices) -> tuple[Any, Any, str]:
        """The function, its call and the file of a ``jax.export`` artifact."""
        from hlo_lab.lowering.worker.sources import call_of_export, read_bytes

        self.enter("read")
        path = self.cwd / reference.place
        function, call, note = call_of_export(read_bytes(path), path.name, devices)
        if note:
            self.notes.append(note)
        return function, call, str(path.resolve())

    def torch_file(
        self, reference: ProgramReference, devices: TargetDevices
    ) -> tuple[Any, Any, str]:
        """The function, its call and the file of what ``torch.export`` saved."""
        from hlo_lab.lowering.worker import torch_source

        self.enter("read")
        path = self.cwd / reference.place
        self.inputs.note(path)
        exported = torch_source.load_exported(path)
        function, call = self.torch_program(exported, path.name)
        return function, call, str(path.resolve())

    def torch_program(self, exported: Any, where: str) -> tuple[Any, Call]:
        """The JAX function and the call of what ``torch.export`` made."""
        from hlo_lab.lowering.worker import torch_source

        found = torch_source.call_of_exported(exported, self.request["args"], where)
        self.converters = ("torch", "torchax")
        return found

    def compile(
        self, compile: Callable[[dict[str, Any]], Any], executable: Callable[[Any], Any]
    ) -> dict[str, Any]:
        """Compile and write what came of it; ``compiled`` is None where it does not fit."""
        from hlo_lab.lowering.worker import stages

        self.enter("compile")
        compilation = Compilation(
            self.folder, self.target, self.request["xla_flags"], passes=self.request["passes"]
        )
        info: dict[str, Any] = {"compiled": None}

        def rewritten(options: dict[str, Any]) -> Any:
            if self.rewriting is None:
                return compile(options)
            return self.rewriting.compiled(lambda: compile(options), executable)

        try:
            info["compiled"] = compile_result = compilation.run(rewritten)
        except DoesNotFitError as failure:
            info["out_of_memory"] = failure.facts
            self.enter("write")
        else:
            self.enter("write")
            stages.write_after(self.folder, executable(compile_result), compilation)
        self.enter("done")
        return info

    def lower(self, function: Any, call: Call, devices: TargetDevices) -> tuple[Any, Any]:
        """(jaxpr or None, ``jax.stages.Lowered``) of the call, inside the mesh that it needs."""
        import jax

        def lower_in(mesh: Any, call: Call = call) -> tuple[Any, Any]:
            self.enter("trace")
            staged, (args, kwargs) = function, (call.args, call.kwargs)
            if not adapter.is_jitted(function):
                run, (args, kwargs) = call.staged(function)
                staged = jax.jit(run)
            with context_of(mesh):
                traced = staged.trace(*args, **kwargs)
                self.enter("lower")
                return adapter.jaxpr_of(traced), adapter.plain_lowered(traced.lower())

        if devices.axes is not None:
            return lower_in(devices.mesh)
        if call.is_sharded or not self.target.is_ahead_of_time:
            # the arguments say where they are, and the program may set a mesh itself
            try:
                return lower_in(None)
            except Exception as error:
                if not adapter.lacks_mesh(error):
                    raise
            mesh = call.mesh or devices.mesh
            if mesh.size == 1:
                self.notes.append(
                    f"the program's PartitionSpecs split nothing on {self.target}'s one device: "
                    f"name several, such as --target cpu:8"
                )
            return lower_in(mesh)
        several = len(devices.devices) > 1
        note = f"the program has no shardings: compiled for one device of {self.target}"
        try:
            found = lower_in(devices.mesh)
        except Exception as error:
            if adapter.computed_on_absent_device(error):
                self.notes += [note] if several else []
                return lower_in(None, call.on(devices.devices[0]))
            raise
        if not several or adapter.has_shardings(found[1].compiler_ir()):
            return found
        self.notes.append(note)
        return lower_in(devices.one)

    def check_platform(self, lowered: Any, reference: ProgramReference) -> None:
        """Raises ``InputError`` where a program was lowered for other devices than the target's."""
        platform = adapter.lowered_platform(lowered)
        if self.devices is None or not self.target.is_ahead_of_time or platform != "cpu":
            return
        raise InputError(
            f"{reference.text} was lowered for this machine's CPU, not for {self.target}"
            + (self.devices.explanation() or "; its shardings name devices of this machine")
        )
