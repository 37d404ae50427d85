"""``hlo-lab graph``."""

from __future__ import annotations

import enum
from typing import Annotated

import typer

from hlo_lab.cli.common import (
    Args,
    Output,
    Quiet,
    Target,
    TimeLimit,
    check_writable,
    note,
    progress,
    write_result,
)


class Picture(enum.StrEnum):
    SVG = "svg"
    PNG = "png"
    DOT = "dot"


class Color(enum.StrEnum):
    KIND = "kind"
    COST = "cost"


def graph(
    source: Annotated[
        str,
        typer.Argument(
            metavar="PROGRAM|FILE|BUNDLE",
            help="file.py:name, package.module:name, an HLO file, a bundle folder, or a .dot file.",
            show_default=False,
        ),
    ],
    output: Output = None,
    format: Annotated[
        Picture | None,
        typer.Option("--format", "-f", help="By default the suffix of -o; dot on stdout."),
    ] = None,
    computation: Annotated[
        str | None,
        typer.Option("--computation", metavar="NAME", help="Draw this one, not the entry."),
    ] = None,
    focus: Annotated[
        str | None,
        typer.Option("--focus", metavar="NAME", help="Draw what surrounds this instruction."),
    ] = None,
    hops: Annotated[
        int | None,
        typer.Option("--hops", metavar="N", min=0, help="How far around --focus; 2 by default."),
    ] = None,
    color: Annotated[
        Color, typer.Option("--color", "--colour", help="Colour by kind of work or by time.")
    ] = Color.KIND,
    max_nodes: Annotated[
        int | None,
        typer.Option(
            "--max-nodes",
            metavar="N",
            min=1,
            help="Fold until there are this few; by default more than 200 are folded into 60.",
        ),
    ] = None,
    target: Target = None,
    args: Args = None,
    time_limit: TimeLimit = 600.0,
    quiet: Quiet = False,
) -> None:
    """Draw a program, a computation or what surrounds an instruction.

    A large graph is folded: constants and tuples are left out, repeated layers drawn once,
    scopes drawn as one box. The graph and a note on stderr say so.
    """
    from hlo_lab.api.graph import choose_format
    from hlo_lab.api.graph import graph as draw

    chosen = choose_format(output, format)
    check_writable(output)
    with progress(f"reading {source}") as step:
        drawn = draw(
            source,
            computation=computation,
            focus=focus,
            hops=hops,
            color=color,
            max_nodes=max_nodes,
            target=target,
            args=args,
            time_limit=time_limit,
            progress=step,
        )
        step("laying out the graph")
        picture = drawn.render(chosen)
    for text in drawn.notes:
        note(text)
    write_result(picture if chosen == "png" else picture.decode(), output)
