"""The catalogue of passes: list, explain, start, test."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from hlo_lab.ir.module import Module
from hlo_lab.passkit import documentation
from hlo_lab.passkit.base import AnalysisPass, Example, RewritingPass
from hlo_lab.passkit.discovery import BUNDLED, discover
from hlo_lab.passkit.loading import PassInfo, check_class
from hlo_lab.passkit.options import options_of
from hlo_lab.passkit.selection import find_pass
from hlo_lab.passkit.testing import ExampleResult, Trial, run_examples
from hlo_lab.passkit.wording import counted
from hlo_lab.report.document import Column, KeyValues, Paragraph, Report, Section, Table
from hlo_lab.report.names import short_path

SCHEMA = "hlo-lab/passes"
SCHEMA_VERSION = 1
_FILE = "example.py"
_STAGES = {
    "stablehlo": "StableHLO",
    "hlo": "HLO before optimisation",
    "pre-scheduler": "HLO inside XLA, before its scheduler",
    "post-scheduler": "HLO inside XLA, after its scheduler",
}


def list_passes(passes_dirs: Sequence[str | Path] = ()) -> list[PassInfo]:
    """Every pass there is, by code. Raises ``InputError`` on a broken pass file."""
    return list(discover(passes_dirs).values())


def get_pass(name: str, passes_dirs: Sequence[str | Path] = ()) -> PassInfo:
    """The pass of that name or code. Raises ``UseError`` with near names."""
    return find_pass(name, discover(passes_dirs))


def new_pass(
    name: str,
    folder: str | Path = ".",
    passes_dirs: Sequence[str | Path] = (),
    *,
    rewrite: bool = False,
    hlo: bool = False,
) -> Path:
    """Write a new pass file into ``folder`` and return its path.

    Args:
        rewrite: one that rewrites programs, rather than one that finds something in them.
        hlo: one that rewrites their HLO.

    Raises:
        UseError: the name is not well formed or taken.
        InputError: the file cannot be written, or is there already.
    """
    from hlo_lab.passkit.scaffold import new_pass as write

    return write(name, folder, discover(passes_dirs), rewrite=rewrite, hlo=hlo)


def run_pass_examples(
    names: Sequence[str] = (),
    passes_dirs: Sequence[str | Path] = (),
    *,
    progress: Callable[[str], None] = lambda text: None,
) -> Iterator[ExampleResult]:
    """Run the examples of the passes named: all of ``passes_dirs`` by default, else all there are.

    Raises:
        InputError, UseError: a broken pass file, an unknown name.
    """
    catalogue = discover(passes_dirs)
    chosen = [find_pass(name, catalogue) for name in names]
    if not names:
        folders = {Path(folder).resolve() for folder in passes_dirs}
        chosen = [
            info
            for info in catalogue.values()
            if not folders or info.path.resolve().parent in folders
        ]
    for info in chosen:
        progress(f"running the examples of {info.name}")
        yield from run_examples(info.pass_class, lower=lower_example, rewrite=try_examples)


def lower_example(example: Example) -> Module:
    """Compile a JAX example for its target, in a process of its own.

    Raises:
        ExecutionError: the example or the compiler failed.
    """
    from hlo_lab import lowering

    with tempfile.TemporaryDirectory(prefix="hlo-lab-example-") as folder:
        Path(folder, _FILE).write_text(example.jax, encoding="utf-8")
        bundle = lowering.dump(
            f"{_FILE}:f", out=Path(folder, "bundle"), target=example.target, cwd=folder
        )
        return bundle.module("hlo-after")


def try_examples(pass_class: type[RewritingPass]) -> list[Trial]:
    """Apply a rewrite pass to its examples, and compare numbers, in a process of its own.

    Raises:
        InputError: the pass is not well formed.
        ExecutionError: the process failed.
    """
    from hlo_lab.measure.trials import try_examples as run

    return run([check_class(pass_class, "")])[pass_class.name]


def list_document(infos: Sequence[PassInfo]) -> dict[str, Any]:
    """The document of ``passes list --format json``."""
    rows = [
        {
            "code": info.code,
            "name": info.name,
            "kind": info.kind,
            "summary": info.summary,
            "origin": info.origin,
            "path": str(info.path),
        }
        for info in infos
    ]
    return {"schema": SCHEMA, "schema_version": SCHEMA_VERSION, "passes": rows}


def list_report(infos: Sequence[PassInfo]) -> Report:
    """A table of passes; where each comes from, unless all are bundled."""
    columns = [Column("code"), Column("name"), Column("summary", elide="wrap")]
    columns.append(Column("origin", elide="middle"))
    shown = 4 if any(one.origin != BUNDLED for one in infos) else 3
    sections = []
    for kind, title in (("analysis", "Find something"), ("rewrite", "Rewrite programs")):
        rows = [
            (one.code, one.name, one.summary, short_path(one.origin))[:shown]
            for one in infos
            if one.kind == kind
        ]
        sections += [Section(title, (Table(columns[:shown], rows),))] * bool(rows)
    return Report("passes", sections=tuple(sections))


def show_document(info: PassInfo) -> dict[str, Any]:
    """The document of ``passes show --format json``."""
    return {
        "schema": SCHEMA,
        "schema_version": SCHEMA_VERSION,
        "code": info.code,
        "name": info.name,
        "kind": info.kind,
        "stage": _stage(info),
        "summary": info.summary,
        "origin": info.origin,
        "path": str(info.path),
        "line": info.line,
        "sections": documentation.sections(info.pass_class),
        "options": [
            {"name": option.name, "type": option.type.__name__, "default": option.default}
            for option in options_of(info.pass_class)
        ],
        "examples": _examples(info),
    }


def show_report(info: PassInfo) -> Report:
    """The documentation of a pass."""
    sections = [
        Section(heading, tuple(Paragraph(text) for text in _paragraphs(body)))
        for heading, body in documentation.sections(info.pass_class).items()
    ]
    options = [
        (option.name, f"{option.type.__name__}, {option.default} unless given")
        for option in options_of(info.pass_class)
    ]
    if options:
        usage = f"{_verb(info)} '{info.name}{{{options[0][0]}=...}}'"
        sections.append(Section("Options", (KeyValues(options), Paragraph(usage))))
    examples = [
        (each["title"], counted(each["finds"], "finding"))
        if info.kind == "analysis"
        else (each["title"], counted(each["changes"], "change"))
        for each in _examples(info)
    ]
    if examples:
        columns = (Column("example"), Column("gives", right=True))
        sections.append(Section("Examples", (Table(columns, examples),)))
    return Report(
        f"{info.code} {info.name}: {info.summary}",
        provenance=(
            ("origin", info.origin),
            ("file", f"{info.path}:{info.line}"),
            *([("works on", stage)] if (stage := _STAGES.get(_stage(info) or "")) else []),
        ),
        sections=tuple(sections),
    )


def _stage(info: PassInfo) -> str | None:
    """When a rewrite happens; None for analysis."""
    return str(info.pass_class.stage) if issubclass(info.pass_class, RewritingPass) else None


def _examples(info: PassInfo) -> list[dict[str, Any]]:
    if issubclass(info.pass_class, RewritingPass):
        return [
            {
                "title": one.title,
                "changes": one.changes,
                "has": list(one.has),
                "lacks": list(one.lacks),
                "jax": one.jax,
            }
            for one in info.pass_class.examples
        ]
    assert issubclass(info.pass_class, AnalysisPass)
    return [
        {"title": one.title, "finds": one.finds, "hlo": one.hlo, "jax": one.jax}
        for one in info.pass_class.examples
    ]


def _verb(info: PassInfo) -> str:
    """What its selection follows on the command line."""
    return "--pass" if info.kind == "analysis" else "hlo-lab rewrite"


def _paragraphs(text: str) -> list[str]:
    """Blocks between blank lines, their lines joined."""
    return [" ".join(block.split()) for block in text.split("\n\n") if block.strip()]
