"""``hlo-lab analyze``."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from hlo_lab.cli.common import (
    Args,
    FailOn,
    Format,
    FormatOption,
    Mesh,
    Output,
    Passes,
    PassesDir,
    Python,
    Quiet,
    SourceArgument,
    Target,
    TimeLimit,
    XlaFlags,
    check_writable,
    print_report,
    progress,
)


def analyze(
    source: SourceArgument,
    target: Target = None,
    args: Args = None,
    mesh: Mesh = None,
    xla_flags: XlaFlags = None,
    python: Python = None,
    passes: Passes = None,
    passes_dir: PassesDir = None,
    fail_on: FailOn = None,
    measure: Annotated[
        bool,
        typer.Option(
            "--measure", help="Also run the program on the device at hand, for measured times."
        ),
    ] = False,
    verify: Annotated[
        bool,
        typer.Option("--verify", help="Try the advice: apply it, compile again, compare."),
    ] = False,
    budget: Annotated[
        float | None,
        typer.Option(
            "--budget", metavar="SECONDS", help="For --verify, which tries the best advice first."
        ),
    ] = None,
    show_refuted: Annotated[
        bool, typer.Option("--show-refuted", help="Show advice that --verify refuted too.")
    ] = False,
    format: FormatOption = Format.TEXT,
    output: Output = None,
    top: Annotated[int, typer.Option("--top", metavar="N", min=0, help="Rows of each table.")] = 10,
    limit: Annotated[
        int, typer.Option("--limit", metavar="N", min=0, help="Findings to print; JSON has all.")
    ] = 10,
    time_limit: TimeLimit = 600.0,
    quiet: Quiet = False,
) -> None:
    """Say what costs time and memory, at which source line, and what to do about it.

    Prints a summary, who holds the peak memory, the instructions that take most time, and
    what the passes found. Times are estimates for the machine that is named with them.

    With --measure the program is also run (see `hlo-lab measure`; a record of it does as
    well), and operations are shown by measured time, with the estimate beside it.

    With --verify the findings that name a rewrite are tried: it is applied at the finding's
    source line, the program is compiled again for the target, and the finding is confirmed
    or refuted by time and peak memory before and after; refuted ones are hidden. Numbers are
    compared on this machine's CPU, and with --measure both are timed.

    A program that does not fit the target's memory is an answer too: by how much it
    misses, and who holds the most.

    Exits 1 when --fail-on is met or the program does not fit (on a CPU, which may swap, that
    is a warning), 3 when a pass failed.
    """
    from hlo_lab import api

    check_writable(output)
    with progress(f"reading {source}") as step:
        analysis = api.analyze(
            source,
            target=target,
            args=args,
            mesh=mesh,
            xla_flags=xla_flags or (),
            python=python,
            passes=passes or (),
            passes_dirs=passes_dir or (),
            fail_on=fail_on,
            top=top,
            limit=limit,
            measure=measure,
            verify=verify,
            budget=budget,
            show_refuted=show_refuted,
            time_limit=time_limit,
            progress=step,
        )
    print_report(format, output, analysis.to_dict, analysis.to_report)
    for failure in analysis.failures:
        print(f"error: {failure}", file=sys.stderr)
    if analysis.failures:
        raise typer.Exit(analysis.failures[0].exit_code)
    if analysis.does_not_fit or (fail_on is not None and analysis.fails_on(fail_on)):
        raise typer.Exit(1)
