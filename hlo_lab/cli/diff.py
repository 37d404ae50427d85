"""``hlo-lab diff``."""

from __future__ import annotations

from typing import Annotated

import typer

from hlo_lab.cli.common import (
    Args,
    Format,
    FormatOption,
    Output,
    Quiet,
    Target,
    TimeLimit,
    print_report,
    progress,
)


def diff(
    before: Annotated[
        str,
        typer.Argument(
            metavar="A",
            help="A revision, a range (main..feature), an HLO file, a bundle or a program; "
            ". is the working tree.",
            show_default=False,
        ),
    ],
    after: Annotated[
        str,
        typer.Argument(
            metavar="B", help="The same; the program after a range.", show_default=False
        ),
    ],
    program: Annotated[
        str | None,
        typer.Argument(
            metavar="PROGRAM",
            help="file.py:name or package.module:name, where A and B are revisions.",
            show_default=False,
        ),
    ] = None,
    target: Target = None,
    args: Args = None,
    stage: Annotated[
        str, typer.Option("--stage", metavar="STAGE", help="hlo-after or hlo-before optimisation.")
    ] = "hlo-after",
    fail_on: Annotated[
        str | None,
        typer.Option(
            "--fail-on",
            metavar="BUDGETS",
            help="Exit 1 when one is broken: 'flops>1%,peak_bytes>10MiB', or a verdict: "
            "equivalent (or worse), changed (or worse), added, removed. A program that is gone "
            "in B breaks any; one that is new in B breaks none but a verdict.",
        ),
    ] = None,
    limit: Annotated[
        int, typer.Option("--limit", metavar="N", min=0, help="Changes to print; JSON has all.")
    ] = 10,
    format: FormatOption = Format.TEXT,
    output: Output = None,
    time_limit: TimeLimit = 600.0,
    quiet: Quiet = False,
) -> None:
    """Compare two programs after compilation: what changed, at which line, at what cost.

    Revisions are compiled in worktrees of their own and cached; your files are not
    touched. A renamed file is followed, and REV:file.py:name on each side names two
    programs. The verdict is identical (up to names, order and source lines), equivalent
    (differs only in what cannot change what runs) or changed.

    Exits 1 when a budget of --fail-on is broken, 3 when a program fails in a revision.
    """
    from hlo_lab import api
    from hlo_lab.cli.common import note

    with progress(f"comparing {before} and {after}") as step:
        comparison = api.diff(
            before,
            after,
            program,
            target=target,
            args=args,
            stage=stage,
            fail_on=fail_on,
            limit=limit,
            time_limit=time_limit,
            progress=step,
        )
    print_report(format, output, comparison.to_dict, comparison.to_report)
    if comparison.missing and fail_on is not None:
        note(comparison.missing)
    if comparison.broken:
        raise typer.Exit(1)
