"""``hlo-lab compare``."""

from __future__ import annotations

from typing import Annotated

import typer

from hlo_lab.cli.common import (
    Args,
    Format,
    FormatOption,
    Mesh,
    Output,
    Python,
    Quiet,
    TimeLimit,
    XlaFlags,
    check_writable,
    print_report,
    progress,
)


def compare(
    program: Annotated[
        str,
        typer.Argument(
            metavar="PROGRAM",
            help="file.py:name, package.module:name or a StableHLO file.",
            show_default=False,
        ),
    ],
    targets: Annotated[
        list[str] | None,
        typer.Option(
            "--target",
            metavar="TARGET",
            help="What to compile for: tpu:v5e:2x2, gpu:h100:4, cpu; once for each.",
        ),
    ] = None,
    args: Args = None,
    mesh: Mesh = None,
    xla_flags: XlaFlags = None,
    python: Python = None,
    format: FormatOption = Format.TEXT,
    output: Output = None,
    time_limit: TimeLimit = 600.0,
    quiet: Quiet = False,
) -> None:
    """Compile one program for several targets and show them side by side.

    Estimated time and what bounds it, peak memory against capacity, padding, collectives,
    what was not fused. Targets are compiled in parallel as memory allows, and cached.

    Exits 1 when the program does not fit a target's memory, 2 when a target cannot be
    compiled for here, 3 when a compiler or the program failed; the others are shown all
    the same.
    """
    from hlo_lab import api

    check_writable(output)
    with progress(f"comparing {program}") as step:
        comparison = api.compare(
            program,
            targets or (),
            args=args,
            mesh=mesh,
            xla_flags=xla_flags or (),
            python=python,
            time_limit=time_limit,
            progress=step,
        )
    print_report(format, output, comparison.to_dict, comparison.to_report)
    if comparison.exit_code:
        raise typer.Exit(comparison.exit_code)
