"""From a program to its bundle."""

from __future__ import annotations

import json
import os
import sys
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hlo_lab import __version__
from hlo_lab.errors import CompilerError, HloLabWarning
from hlo_lab.lowering import passlog
from hlo_lab.lowering.arguments import narrowed, parse_arguments
from hlo_lab.lowering.bundle import Bundle
from hlo_lab.lowering.flags import parse_flags
from hlo_lab.lowering.manifest import flags, git_state, write_manifest
from hlo_lab.lowering.mesh import check_mesh, parse_mesh
from hlo_lab.lowering.output import check_output, new_folder
from hlo_lab.lowering.process import DEFAULT_TIME_LIMIT, Progress, run_worker
from hlo_lab.lowering.reference import ProgramReference
from hlo_lab.lowering.target import Target
from hlo_lab.lowering.timeline import write_timeline
from hlo_lab.passkit.rewriting import PassSpec


def dump(
    reference: str,
    *,
    out: str | Path,
    target: str = "cpu",
    args: str | None = None,
    mesh: str | None = None,
    xla_flags: Iterable[str] = (),
    passes: bool = False,
    time_limit: float = DEFAULT_TIME_LIMIT,
    memory_limit: int = 0,
    force: bool = False,
    python: str = sys.executable,
    cwd: str | Path | None = None,
    env: Mapping[str, str] | None = None,
    progress: Progress | None = None,
    continuation: Mapping[str, Any] | None = None,
    rewrite: Sequence[PassSpec] = (),
    must_change: bool = False,
) -> Bundle:
    """Lower and compile a program in a process of its own, and write its bundle.

    Args:
        reference: ``file.py:name``, ``package.module:name`` or a StableHLO file.
        out: the folder to write; a bundle already there is replaced in one step.
        target: see ``Target.parse``.
        args: see ``lowering.arguments``; None to use the program's example arguments.
        mesh: axes over all devices of the target, ``data=4,model=2``: what a parameter
            ``mesh`` of ``example_args`` gets, and what bare PartitionSpecs mean.
        xla_flags: options of XLA, ``KEY=VALUE`` each.
        passes: also keep the module after each pass that changed it.
        time_limit: seconds until the process is killed; 0 for none.
        memory_limit: bytes of memory until the process is killed; 0 for none.
        force: replace a folder that is not a bundle.
        python: the interpreter to compile with.
        cwd: where relative references start and the program runs; the current folder.
        env: the program's environment; this process's own by default.
        progress: called with the stage and the seconds since the start.
        continuation: what the worker does with the compiled program: the ``module`` that has
            the functions ``prepare`` and ``run`` of ``worker.run.Continuation``, and options
            of its own.
        rewrite: passes that change the StableHLO before it is compiled; the bundle is that
            of the rewritten program, and its manifest says under ``rewritten`` what they did.
        must_change: do not compile where one of them changes nothing.

    Warns:
        HloLabWarning: ``args`` names 64-bit types, and JAX took them as 32 bits.

    Raises:
        InputError, UseError: the reference, arguments, target or folder is wrong; a pass
            that has to change something changes nothing.
        ProgramError, CompilerError: the program or the compiler failed; ``log`` has more.
    """
    program, chosen = ProgramReference.parse(reference), Target.parse(target)
    if args is not None:
        parse_arguments(args)
    flags_given = parse_flags(xla_flags)
    axes = parse_mesh(mesh) if mesh is not None else None
    if axes is not None and chosen.devices is not None:
        check_mesh(axes, chosen.devices, str(chosen))
    start = Path.cwd() if cwd is None else Path(cwd).resolve()
    file = program.check_file(start)
    out = Path(out)
    check_output(out, force=force)
    environment = compile_environment(chosen, env)
    with new_folder(out, force=force) as folder:
        request = {
            "mode": "module" if program.kind in ("stablehlo", "hlo", "saved_model") else "function",
            "reference": reference,
            "args": args,
            "target": target,
            "mesh": axes,
            "xla_flags": flags_given,
            "passes": passes,
            "folder": str(folder),
            "cwd": str(start),
            "continuation": continuation,
            "rewrite": [spec.to_dict() for spec in rewrite],
            "must_change": must_change,
        }
        info = run_worker(
            request,
            environment=environment,
            python=python,
            cwd=start,
            time_limit=time_limit,
            memory_limit=memory_limit,
            progress=progress,
        )
        note = args and narrowed(args, {each["dtype"] for each in info.get("arguments", ())})
        if note:
            warnings.warn(note, HloLabWarning, stacklevel=2)
        if passes:
            write_timeline(folder)
        source = info.pop("file", None) or (str(file.resolve()) if file else None)
        facts = {"program": {"reference": reference, "file": source, "args": args}}
        compiled = {"mesh": axes, "xla_flags": request["xla_flags"]}
        finish_bundle(folder, {**facts, **compiled, **info}, chosen, environment)
    return Bundle.open(out)


def worker_environment(target: Target, env: Mapping[str, str] | None) -> dict[str, str]:
    """The environment of a worker: the caller's, the target's, and what makes runs alike."""
    return {
        "PYTHONHASHSEED": "0",  # a program may go through a set of names
        **(os.environ if env is None else env),
        **target.environment(),
        # a module found in the cache is not compiled, and then there are no passes to see
        "JAX_ENABLE_COMPILATION_CACHE": "0",
    }


def compile_environment(target: Target, env: Mapping[str, str] | None) -> dict[str, str]:
    """That of a worker whose compiler says which pass it is in."""
    environment = worker_environment(target, env)
    return {**environment, **passlog.variables(environment)}


def finish_bundle(
    folder: Path, info: Mapping[str, Any], target: Target, environment: Mapping[str, str]
) -> None:
    """Add to a worker's files what is derived from them, and the manifest."""
    from hlo_lab.ir.files import read_module

    if not (folder / "hlo_after.txt").exists():
        raise CompilerError(str(info["out_of_memory"]["message"].splitlines()[0]))
    module = read_module(folder / "hlo_after.txt")
    order = {
        computation.name: [module.instruction_names[row] for row in computation.rows]
        for computation in module.computations
    }
    (folder / "schedule.json").write_text(json.dumps(order, indent=1) + "\n", encoding="utf-8")
    file = info["program"].get("file")
    write_manifest(
        folder,
        {
            "program": info["program"],
            "module": module.name,
            "target": info.get("target", str(target)),
            "mesh": info.get("mesh"),
            "xla_flags": info.get("xla_flags", {}),
            "notes": info.get("notes", []),
            "out_of_memory": info.get("out_of_memory"),
            "devices": info["devices"],
            "arguments": info.get("arguments", []),
            "static": info.get("static", []),
            "results": info.get("results", []),
            "versions": {"hlo-lab": __version__, **info["versions"]},
            "flags": flags(environment),
            "git": git_state(Path(file)) if file else None,
            "inputs": info.get("inputs"),
            "absent": info.get("absent", []),
            "rewritten": info.get("rewritten"),
            "recompiled": info.get("recompiled"),
            "seconds": info.get("seconds", {}),
        },
    )
