"""``hlo-lab rewrite``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hlo_lab.cli.common import (
    Args,
    Format,
    FormatOption,
    Mesh,
    Output,
    PassesDir,
    Python,
    Quiet,
    Target,
    TimeLimit,
    XlaFlags,
    check_writable,
    print_report,
    progress,
    write_result,
)


def rewrite(
    first: Annotated[
        str,
        typer.Argument(
            metavar="PASS",
            help="A rewrite pass: sort-to-top-k, or 'NAME{option=value}'; `hlo-lab passes list` "
            "has them.",
            show_default=False,
        ),
    ],
    program: Annotated[
        str,
        typer.Argument(
            metavar="PROGRAM",
            help="file.py:name, package.module:name, a StableHLO file or a bundle.",
            show_default=False,
        ),
    ],
    more: Annotated[
        list[str] | None,
        typer.Option("--pass", metavar="PASS", help="Then apply this one; repeatable."),
    ] = None,
    at: Annotated[
        str | None,
        typer.Option(
            "--at", metavar="FILE:LINE", help="Rewrite only what this source line asks for."
        ),
    ] = None,
    target: Target = None,
    measure: Annotated[
        bool, typer.Option("--measure", help="Also time both, in turn, on this machine's CPU.")
    ] = False,
    seconds: Annotated[
        float, typer.Option("--seconds", metavar="S", help="Time calls for about so long.")
    ] = 3.0,
    cores: Annotated[
        int,
        typer.Option("--cores", metavar="N", min=0, help="Processors for timing; 0 for all."),
    ] = 1,
    inputs: Annotated[
        Path | None,
        typer.Option(
            "--inputs",
            metavar="FILE.npz",
            help="Arguments to run with; random ones of the right kind by default.",
        ),
    ] = None,
    emit: Annotated[
        Path | None,
        typer.Option("--emit", metavar="FILE", help="Write the rewritten StableHLO there."),
    ] = None,
    args: Args = None,
    mesh: Mesh = None,
    xla_flags: XlaFlags = None,
    python: Python = None,
    passes_dir: PassesDir = None,
    format: FormatOption = Format.TEXT,
    output: Output = None,
    time_limit: TimeLimit = 600.0,
    quiet: Quiet = False,
) -> None:
    """Apply rewrite passes to a program: the same numbers? faster?

    The passes change the program's StableHLO, or its HLO, also inside XLA; the module is
    verified after each. Original and rewritten program are compiled for the target and run on
    this machine's CPU with the same inputs, and each result is compared: absolute and relative
    error, ULPs, NaN and infinities. Then both are set side by side, and the verdict is faster,
    slower, no effect, undecided (estimates that contradict each other, or noise) or wrong.

    Exits 1 when the numbers are wrong, and names the first operation that differs; 3 when a
    pass, the program or the compiler failed.
    """
    from hlo_lab import api

    check_writable(output)
    check_writable(emit)
    with progress(f"rewriting {program}") as step:
        result = api.rewrite(
            [first, *(more or ())],
            program,
            target=target,
            at=at,
            args=args,
            mesh=mesh,
            xla_flags=xla_flags or (),
            python=python,
            inputs=inputs,
            measure=measure,
            seconds=seconds,
            cores=cores,
            passes_dirs=passes_dir or (),
            time_limit=time_limit,
            progress=step,
        )
    if emit is not None:
        write_result(result.stablehlo, emit)
    print_report(format, output, result.to_dict, result.to_report)
    if result.exit_code:
        raise typer.Exit(result.exit_code)
