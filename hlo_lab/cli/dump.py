"""``hlo-lab dump``: compile a program and keep each stage."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from hlo_lab.cli.common import (
    Args,
    MemoryLimit,
    Mesh,
    Python,
    Quiet,
    Target,
    TimeLimit,
    XlaFlags,
    note,
    progress,
)
from hlo_lab.errors import ProgramError, UseError

TIME_LIMIT = 600.0  # seconds

Words = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="PROGRAM",
        help="file.py:name, package.module:name or a StableHLO file (.mlir); a bundle with "
        "--stage. With --script: the script's arguments, after --.",
        show_default=False,
    ),
]
Folder = Annotated[
    Path | None,
    typer.Option("--output", "-o", metavar="DIR", help="The folder to write the bundle to."),
]
Passes = Annotated[
    bool, typer.Option("--passes", help="Also keep the module after each pass that changed it.")
]
Stage = Annotated[
    str | None,
    typer.Option(
        "--stage",
        metavar="NAME",
        help="Print one stage: jaxpr, stablehlo, hlo-before, hlo-after, schedule, analysis, "
        "passes; for accelerators also buffers and memory, the compiler's own reports.",
    ),
]
Force = Annotated[bool, typer.Option("--force", help="Replace DIR even where it is not a bundle.")]
Script = Annotated[
    str | None,
    typer.Option(
        "--script",
        metavar="FILE",
        help="Run this script unmodified, and keep every program that it compiles, also when "
        "it fails or is stopped by --stop-after, --time-limit or Ctrl-C.",
    ),
]
Filter = Annotated[
    str | None,
    typer.Option(
        "--filter",
        metavar="REGEX",
        help="With --script: only programs whose name (jit_step) this finds.",
    ),
]
MinSize = Annotated[
    int | None,
    typer.Option(
        "--min-size",
        metavar="N",
        min=0,
        help="With --script: only programs of at least N instructions.",
    ),
]
StopAfter = Annotated[
    int | None,
    typer.Option(
        "--stop-after",
        metavar="N",
        min=1,
        help="With --script: stop it as soon as N programs are kept.",
    ),
]


def dump(
    program: Words = None,
    output: Folder = None,
    target: Target = None,
    args: Args = None,
    mesh: Mesh = None,
    xla_flags: XlaFlags = None,
    python: Python = None,
    passes: Passes = False,
    stage: Stage = None,
    script: Script = None,
    name_filter: Filter = None,
    stop_after: StopAfter = None,
    min_size: MinSize = None,
    time_limit: TimeLimit = TIME_LIMIT,
    memory_limit: MemoryLimit = None,
    force: Force = False,
    quiet: Quiet = False,
) -> None:
    """Compile a program and keep each stage: jaxpr, StableHLO, HLO before and after.

    Nothing is allocated or run: the arguments are shapes, from --args, from the
    function's example_args, or from example_args() beside it. A program that does not fit
    the target's memory leaves a bundle of what the compiler came to, and exits 1.
    """
    if time_limit < 0:
        raise UseError("--time-limit is a number of seconds, 0 for none")
    chosen = target or "cpu"
    if script is not None:
        if stage is not None or passes or any((args, mesh, xla_flags, python, memory_limit)):
            raise UseError(
                "--script captures whole programs: leave out --args, --mesh, --stage, --passes, "
                "--xla-flag, --python and --memory-limit"
            )
        _dump_script(
            script,
            program or [],
            _needed(output),
            name_filter,
            min_size or 0,
            stop_after,
            chosen,
            time_limit,
            force,
        )
        return
    if name_filter is not None or min_size is not None or stop_after is not None:
        raise UseError("--filter, --min-size and --stop-after are for what a --script compiles")
    if not program or len(program) > 1:
        given = f"{len(program)} were given" if program else "none was given"
        raise UseError(f"name one program ({given}): hlo-lab dump file.py:name -o DIR")
    options: dict[str, Any] = {
        "target": chosen,
        "args": args,
        "mesh": mesh,
        "xla_flags": xla_flags or (),
        "python": python,
        "time_limit": time_limit,
        "memory_limit": memory_limit,
    }
    if output is None and stage is not None:
        _print_stage(program[0], stage, options)
        return
    _dump_program(program[0], _needed(output), passes, stage, force, options)


def _needed(output: Path | None) -> Path:
    if output is None:
        raise UseError("name the folder to write with -o DIR (or print one with --stage NAME)")
    return output


def _print_stage(program: str, stage: str, options: dict[str, Any]) -> None:
    from hlo_lab.api.dump import stage_text

    with progress(f"compiling {program}") as say:
        text = stage_text(program, stage, **options, progress=say)
    sys.stdout.write(text)


def _dump_program(
    program: str,
    output: Path,
    passes: bool,
    stage: str | None,
    force: bool,
    options: dict[str, Any],
) -> None:
    from hlo_lab.api.dump import check_stage, describe_bundle
    from hlo_lab.api.dump import dump as run
    from hlo_lab.report import text

    if stage is not None:
        check_stage(stage)
    with progress(f"compiling {program}") as say:
        bundle = run(
            program,
            output,
            passes=passes or stage == "passes",
            force=force,
            **options,
            progress=say,
        )
    for line in bundle.manifest["notes"]:
        note(line)
    if stage is not None:
        sys.stdout.write(bundle.text(stage))
    else:
        text.render(describe_bundle(bundle))
    if bundle.manifest["out_of_memory"] is not None:
        raise typer.Exit(1)


def _dump_script(
    script: str,
    arguments: list[str],
    output: Path,
    name_filter: str | None,
    min_size: int,
    stop_after: int | None,
    target: str,
    time_limit: float,
    force: bool,
) -> None:
    from hlo_lab.api.dump import describe_script, dump_script
    from hlo_lab.report import text

    # no progress line: the script's own output goes to stderr as it comes
    try:
        run = dump_script(
            script,
            arguments,
            out=output,
            name_filter=name_filter,
            min_size=min_size,
            stop_after=stop_after,
            target=target,
            time_limit=time_limit,
            force=force,
            echo=sys.stderr,
        )
    except (KeyboardInterrupt, SystemExit) as stop:
        for line in getattr(stop, "__notes__", ()):
            note(line)
        raise
    text.render(describe_script(run))
    if run.failure is not None:
        if run.status is not None:  # else the failure says so
            note(f"the bundles were kept: {output}")
        raise ProgramError(run.failure)
