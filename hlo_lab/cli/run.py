"""``hlo-lab run``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from hlo_lab.cli.common import (
    Format,
    FormatOption,
    PassesDir,
    Quiet,
    check_writable,
    is_quiet,
    print_report,
)
from hlo_lab.errors import UseError


def run(
    command: Annotated[
        list[str],
        typer.Argument(
            metavar="SCRIPT",
            help="A script, or -m MODULE, and its arguments, as after `python`.",
            show_default=False,
        ),
    ],
    with_pass: Annotated[
        list[str],
        typer.Option(
            "--with-pass",
            metavar="PASS",
            help="A rewrite pass: sort-to-top-k, or 'NAME{option=value}'; repeatable.",
        ),
    ],
    only: Annotated[
        str | None,
        typer.Option(
            "--only", metavar="GLOB", help="Only functions of this name: step, 'train_*'."
        ),
    ] = None,
    check: Annotated[
        bool,
        typer.Option(
            "--check",
            help="At the first call of each rewritten function, call the original too and "
            "compare the results.",
        ),
    ] = False,
    python: Annotated[
        str | None,
        typer.Option("--python", metavar="PATH", help="Run it with this interpreter."),
    ] = None,
    passes_dir: PassesDir = None,
    format: FormatOption = Format.TEXT,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="FILE", help="Write the table to FILE instead of stderr."
        ),
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Run an unmodified script with rewrite passes applied to what JAX compiles in it.

    The script runs as under python, on this terminal and on the devices that it finds. Its
    jitted functions are rewritten before XLA gets them. At the end, a table on stderr (or in
    the file of -o) says what was replaced where.

    Exits as the script does. Where that is 0: 1 when --check found wrong numbers, 3 when a
    pass failed (the function was compiled as it was).
    """
    from hlo_lab import api
    from hlo_lab.report import text

    if format is not Format.TEXT and output is None:
        raise UseError(f"--format {format} needs -o FILE: stdout is the script's")
    check_writable(output)
    result = api.run(
        with_pass, command, only=only, check=check, python=python, passes_dirs=passes_dir or ()
    )
    if output is not None:
        print_report(format, output, result.to_dict, result.to_report)
    elif not is_quiet():
        text.render(result.to_report(), sys.stderr)
    if result.exit_code:
        raise typer.Exit(result.exit_code)
