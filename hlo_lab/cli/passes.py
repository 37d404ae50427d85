"""``hlo-lab passes list | show | new | test``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hlo_lab.cli.common import Format, FormatOption, PassesDir, note, print_report, progress

passes_app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="List, explain, start and test passes."
)


PassName = Annotated[str, typer.Argument(metavar="CODE|NAME", show_default=False)]


@passes_app.command("list")
def list_(passes_dir: PassesDir = None, format: FormatOption = Format.TEXT) -> None:
    """List the passes: code, name, what each finds, where it comes from."""
    from hlo_lab.api import passes

    infos = passes.list_passes(passes_dir or ())
    print_report(
        format, None, lambda: passes.list_document(infos), lambda: passes.list_report(infos)
    )


@passes_app.command("show")
def show(name: PassName, passes_dir: PassesDir = None, format: FormatOption = Format.TEXT) -> None:
    """Explain one pass: what it finds, why it matters, its options and examples."""
    from hlo_lab.api import passes

    info = passes.get_pass(name, passes_dir or ())
    print_report(format, None, lambda: passes.show_document(info), lambda: passes.show_report(info))


@passes_app.command("new")
def new(
    name: Annotated[str, typer.Argument(metavar="NAME", show_default=False)],
    folder: Annotated[
        Path, typer.Option("--output", "-o", metavar="DIR", help="The folder to write it to.")
    ] = Path(),
    rewrite: Annotated[
        bool, typer.Option("--rewrite", help="One that rewrites programs, for hlo-lab rewrite.")
    ] = False,
    hlo: Annotated[
        bool, typer.Option("--hlo", help="One that rewrites HLO, also inside XLA.")
    ] = False,
    passes_dir: PassesDir = None,
) -> None:
    """Write a new pass, one file that works at once, for you to change."""
    from hlo_lab.api import passes

    path = passes.new_pass(name, folder, passes_dir or (), rewrite=rewrite, hlo=hlo)
    print(path)
    note(f"test it with: hlo-lab passes test {name} --passes-dir {path.parent}")


@passes_app.command("test")
def test(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[CODE|NAME]...", show_default=False)
    ] = None,
    passes_dir: PassesDir = None,
) -> None:
    """Run the examples of passes: those named, else those of --passes-dir, else all.

    Exits 1 when an example does not give what it promises.
    """
    from hlo_lab.api import passes

    failed = count = 0
    with progress("finding passes") as step:
        for result in passes.run_pass_examples(names or (), passes_dir or (), progress=step):
            count += 1
            failed += bool(result.problem)
            state = "FAILED" if result.problem else "ok"
            print(f"{state:<6}  {result.pass_name}: {result.title}{_after(result.problem)}")
    print(f"{count} examples, {failed} failed")
    if failed:
        raise typer.Exit(1)


def _after(problem: str) -> str:
    return f": {problem}" if problem else ""
