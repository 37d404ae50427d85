"""From an unmodified script to a bundle of each program that it compiles."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from hlo_lab.errors import InputError, NotFoundError, UseError
from hlo_lab.lowering.bundle import Bundle
from hlo_lab.lowering.dumping import finish_bundle, worker_environment
from hlo_lab.lowering.manifest import now
from hlo_lab.lowering.output import check_output, new_folder
from hlo_lab.lowering.process import DEFAULT_TIME_LIMIT, Progress, run_worker
from hlo_lab.lowering.target import Target

INDEX = "index.json"
INDEX_SCHEMA = "hlo-lab/script"
ABSENT = ["jaxpr", "passes"]  # the hook sees what goes into the compiler, after tracing


@dataclass(frozen=True)
class ScriptRun:
    """What came of a script.

    Attributes:
        path: the folder, with one bundle per program and ``index.json``.
        bundles: in the order of compilation.
        skipped: programs that the filter or the size left out.
        lost: why programs could not be captured, one line each.
        status: the status that the script ended with.
        failure: what it raised, with its file and line; None when it ended well.
    """

    path: Path
    bundles: list[Bundle]
    skipped: int
    lost: list[str]
    status: int
    failure: str | None


def dump_script(
    script: str | Path,
    argv: Sequence[str] = (),
    *,
    out: str | Path,
    name_filter: str | None = None,
    min_size: int = 0,
    target: str = "cpu",
    time_limit: float = DEFAULT_TIME_LIMIT,
    force: bool = False,
    python: str = sys.executable,
    cwd: str | Path | None = None,
    env: Mapping[str, str] | None = None,
    progress: Progress | None = None,
    echo: IO[str] | None = None,
) -> ScriptRun:
    """Run a script as ``python script.py ARGV`` would, and keep every program it compiles.

    Args:
        script: the file.
        argv: its arguments, without its own name.
        out: the folder to write, one bundle in it per program.
        name_filter: a regular expression that the module's name (``jit_step``) must match
            somewhere.
        min_size: leave out programs with fewer instructions after optimisation.
        echo: a stream that gets what the script prints.

    The others are those of ``dump``. A script that raises or exits is no error here, and
    neither is one that compiles nothing.

    Raises:
        InputError, UseError: the script, filter, target or folder is wrong.
        ProgramError: the script did not end in time, or its process died.
    """
    chosen = Target.parse(target)
    if chosen.is_ahead_of_time:
        raise UseError(
            f"a script runs on this machine's devices, so not for {chosen}: use --target cpu or "
            f"cpu:N, or name a function of it (file.py:name)"
        )
    start = Path.cwd() if cwd is None else Path(cwd).resolve()
    if not (start / script).is_file():
        raise NotFoundError(f"{script}: no such file")
    _check_pattern(name_filter)
    out = Path(out)
    check_output(out, force=force)
    environment = worker_environment(chosen, env)
    with new_folder(out, force=force) as folder:
        info = run_worker(
            {
                "mode": "script",
                "reference": str(script),
                "argv": list(argv),
                "target": target,
                "filter": name_filter,
                "min_size": min_size,
                "folder": str(folder),
                "cwd": str(start),
            },
            environment=environment,
            python=python,
            cwd=start,
            time_limit=time_limit,
            progress=progress,
            echo=echo,
        )
        program = {"reference": str(script), "file": info["file"], "argv": list(argv)}
        shared = {"devices": info["devices"], "versions": info["versions"], "absent": ABSENT}
        for entry in info["programs"]:
            own = {"program": program, "arguments": entry.pop("arguments")}
            finish_bundle(folder / entry["name"], {**shared, **own}, chosen, environment)
        _write_index(folder, program, info)
    return ScriptRun(
        out,
        [Bundle.open(out / entry["name"]) for entry in info["programs"]],
        info["skipped"],
        info["lost"],
        info["status"],
        info["failure"],
    )


def _check_pattern(pattern: str | None) -> None:
    try:
        re.compile(pattern or "")
    except (re.error, RecursionError, OverflowError) as error:
        raise UseError(f"--filter {pattern!r} is not a regular expression: {error}") from None


def _write_index(folder: Path, program: Mapping[str, Any], info: Mapping[str, Any]) -> None:
    index = {
        "schema": INDEX_SCHEMA,
        "schema_version": 1,
        "program": program,
        "programs": info["programs"],
        "skipped": info["skipped"],
        "lost": info["lost"],
        "status": info["status"],
        "failure": info["failure"],
        "created": now(),
        "seconds": info["seconds"],
    }
    (folder / INDEX).write_text(json.dumps(index, indent=1) + "\n", encoding="utf-8")


def open_index(path: str | Path) -> list[Bundle]:
    """The bundles in a folder that ``dump_script`` wrote.

    Raises:
        InputError: it is not such a folder, or a bundle in it is damaged.
    """
    folder = Path(path)
    try:
        index = json.loads((folder / INDEX).read_bytes())
        names = [str(entry["name"]) for entry in index["programs"]]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        raise InputError(f"{path}: not a folder of captured programs") from None
    if index.get("schema") != INDEX_SCHEMA or any(Path(name).name != name for name in names):
        raise InputError(f"{path}: not a folder of captured programs")
    return [Bundle.open(folder / name) for name in names]
