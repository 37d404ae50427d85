"""From an unmodified script to a bundle of each program that it compiles."""

from __future__ import annotations

import itertools
import json
import re
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from hlo_lab.errors import ExecutionError, InputError, NotFoundError, UseError
from hlo_lab.lowering.arguments import short_shape
from hlo_lab.lowering.bundle import Bundle
from hlo_lab.lowering.dumping import finish_bundle, worker_environment
from hlo_lab.lowering.manifest import now
from hlo_lab.lowering.output import check_output, new_folder
from hlo_lab.lowering.process import DEFAULT_TIME_LIMIT, Progress, run_worker
from hlo_lab.lowering.records import Captured, take_records
from hlo_lab.lowering.retraces import recompiled
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
        programs: what ``index.json`` says of each.
        recompiled: functions that were compiled several times, as ``retraces`` has them.
        skipped: programs that the filter or the size left out.
        lost: why programs could not be captured, one line each.
        status: the status that the script ended with; None where it was stopped or died.
        failure: what it raised, with its file and line, or why it was stopped; None when it
            ended well, or there were as many programs as were asked for.
    """

    path: Path
    bundles: list[Bundle]
    programs: list[dict[str, Any]]
    recompiled: list[dict[str, Any]]
    skipped: int
    lost: list[str]
    status: int | None
    failure: str | None


def dump_script(
    script: str | Path,
    argv: Sequence[str] = (),
    *,
    out: str | Path,
    name_filter: str | None = None,
    min_size: int = 0,
    stop_after: int | None = None,
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
        stop_after: stop the script as soon as so many programs are kept; None to let it end.
        echo: a stream that gets what the script prints.

    The others are those of ``dump``. A script that raises or exits is no error here, and
    neither is one that compiles nothing, nor one that is still running at the time limit or
    whose process dies when it has compiled something: ``failure`` says so. After Ctrl-C or
    a signal to end, the folder is written too before the exception goes on, with a note of
    how many programs are in it; a second Ctrl-C leaves nothing.

    Raises:
        InputError, UseError: the script, filter, target or folder is wrong.
        ProgramError: the script did not end in time, or its process died, before there was
            a program to keep.
    """
    if stop_after is not None and stop_after < 1:
        raise UseError("--stop-after is a number of programs, 1 or more")
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
    stopped: BaseException | None = None
    began = time.monotonic()
    with new_folder(out, force=force) as folder:
        info: dict[str, Any] = {"status": None, "failure": None, "seconds": {}}
        try:
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
                    "stop_after": stop_after,
                },
                environment=environment,
                python=python,
                cwd=start,
                time_limit=time_limit,
                progress=progress,
                echo=echo,
            )
        except (ExecutionError, KeyboardInterrupt, SystemExit) as error:
            info["seconds"]["script"] = round(time.monotonic() - began, 3)
            stopped = error
        captured = take_records(folder)
        kept = _count(len(captured.programs))
        if stopped is not None:
            if not captured.programs:
                raise stopped
            if len(captured.programs) == stop_after:
                stopped = None
            elif isinstance(stopped, ExecutionError):
                log = f" (log: {stopped.log})" if stopped.log else ""
                info["failure"] = f"{str(stopped).removesuffix(log)}; {kept} kept in {out}{log}"
            else:
                info["failure"] = "interrupted"
                stopped.add_note(f"{kept} kept in {out}")
        info = {**captured.facts, **info}
        program = {"reference": str(script), "file": info["file"], "argv": list(argv)}
        shared = {"versions": info["versions"], "absent": ABSENT}
        again = recompiled(captured.programs)
        for entry in captured.programs:
            own = {"program": program, **{key: entry[key] for key in ("devices", "arguments")}}
            own["seconds"] = {"compile": entry["seconds"]}
            own["recompiled"] = next(
                (one for one in again if entry["name"] in one["programs"]), None
            )
            finish_bundle(folder / entry["name"], {**shared, **own}, chosen, environment)
        entries = _entries(folder, captured)
        _write_index(folder, program, entries, again, captured, info)
    if stopped is not None and not isinstance(stopped, ExecutionError):
        raise stopped
    return ScriptRun(
        out,
        [Bundle.open(out / entry["name"]) for entry in entries],
        entries,
        again,
        captured.skipped,
        captured.lost,
        info["status"],
        info["failure"],
    )


def _count(programs: int) -> str:
    return "1 program was" if programs == 1 else f"{programs} programs were"


def _entries(folder: Path, captured: Captured) -> list[dict[str, Any]]:
    """What the index says of each program, with what differs from the last of its name."""
    entries: list[dict[str, Any]] = []
    before: dict[str, dict[str, Any]] = {}
    for program in captured.programs:
        schedule = json.loads((folder / program["name"] / "schedule.json").read_bytes())
        entry = {
            "name": program["name"],
            "module": program["module"],
            "instructions": sum(map(len, schedule.values())),
            "arguments": [
                short_shape(each["dtype"], each["shape"]) for each in program["arguments"]
            ],
        }
        last = before.get(entry["module"])
        if last is not None:
            entry["again"] = {
                "of": last["name"],
                "changes": [
                    {"argument": number, "before": old, "after": new}
                    for number, (old, new) in enumerate(
                        itertools.zip_longest(last["arguments"], entry["arguments"])
                    )
                    if old != new
                ],
            }
        before[entry["module"]] = entry
        entries.append(entry)
    return entries


def _check_pattern(pattern: str | None) -> None:
    try:
        re.compile(pattern or "")
    except (re.error, RecursionError, OverflowError) as error:
        raise UseError(f"--filter {pattern!r} is not a regular expression: {error}") from None


def _write_index(
    folder: Path,
    program: Mapping[str, Any],
    entries: list[dict[str, Any]],
    again: list[dict[str, Any]],
    captured: Captured,
    info: Mapping[str, Any],
) -> None:
    index = {
        "schema": INDEX_SCHEMA,
        "schema_version": 1,
        "program": program,
        "programs": entries,
        "recompiled": again,
        "skipped": captured.skipped,
        "lost": captured.lost,
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
