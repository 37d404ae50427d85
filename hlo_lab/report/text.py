"""Reports on a terminal, or as plain text of 80 columns anywhere else.

The layout is made here, line by line, so that it is the same with and without colour;
rich only puts the colours on a terminal.
"""

from __future__ import annotations

import itertools
import os
import sys
import textwrap
from collections.abc import Iterator, Sequence
from typing import TextIO

from hlo_lab.passkit.finding import Finding, Verification, VerificationStatus
from hlo_lab.report.document import (
    Block,
    Column,
    FindingsBlock,
    KeyValues,
    Paragraph,
    Report,
    Table,
)
from hlo_lab.report.findings import places, saving, verified, with_advice
from hlo_lab.report.names import clean, elide, elide_source

PIPED_WIDTH = 80
_NARROWEST = (12, 8, 5)  # what an elided column keeps; the next where that is too much
_FAVOUR = 16  # columns that a source line may be wider than a name
_MARKS = {"confirmed": "ok", "refuted": "no"}
_UNSURE = "??"
_STYLES = {"note": "cyan", "warning": "yellow", "error": "bold red"}

Line = list[tuple[str, str]]  # (text, rich style) side by side


def _mark(verification: Verification) -> str:
    """``ok`` is for what is sure: confirmed, with the numbers compared."""
    is_sure = verification.agrees or verification.status is not VerificationStatus.CONFIRMED
    return _MARKS.get(verification.status, _UNSURE) if is_sure else _UNSURE


def render(report: Report, stream: TextIO | None = None) -> None:
    """Print to ``stream`` (stdout by default). Colour only on a terminal, never with NO_COLOR."""
    out = stream or sys.stdout
    if not out.isatty() and not os.environ.get("FORCE_COLOR"):
        out.write(to_string(report))
        return
    from rich.console import Console
    from rich.text import Text

    console = Console(file=out, highlight=False, markup=False, emoji=False)
    for line in _report(report, console.width):
        console.print(Text.assemble(*line), soft_wrap=True)


def to_string(report: Report, width: int = PIPED_WIDTH) -> str:
    """The report as plain text of at most ``width`` columns."""
    lines = ("".join(text for text, _ in line).rstrip() for line in _report(report, width))
    return "\n".join(lines) + "\n"


def _report(report: Report, width: int) -> Iterator[Line]:
    yield [(clean(report.title), "bold")]
    yield from _pairs(report.provenance, width)
    for section in report.sections:
        yield []
        if section.title:
            yield [(clean(section.title), "bold")]
        for before, block in zip((None, *section.blocks), section.blocks, strict=False):
            if before and not (isinstance(before, Paragraph) and isinstance(block, Paragraph)):
                yield []
            yield from _block(block, width)


def _block(block: Block, width: int) -> Iterator[Line]:
    if isinstance(block, Table):
        yield from _table(block, width)
    elif isinstance(block, KeyValues):
        yield from _pairs(block.pairs, width)
    elif isinstance(block, Paragraph):
        yield from _wrapped(block.text, width, "  ", _STYLES.get(block.severity, ""))
    elif isinstance(block, FindingsBlock):
        for number, (finding, advice) in enumerate(with_advice(block.findings)):
            if number:
                yield []
            yield from _finding(finding, width, advice)


def _wrapped(text: str, width: int, indent: str, style: str = "", hang: str = "") -> Iterator[Line]:
    room = max(width - len(indent), _NARROWEST[0])
    lines = textwrap.wrap(clean(text), room, subsequent_indent=hang, break_on_hyphens=False)
    for line in lines or [""]:
        yield [(indent, ""), (line, style)]


def _pairs(pairs: Sequence[tuple[str, str]], width: int) -> Iterator[Line]:
    column = max((len(name) for name, _ in pairs), default=0)
    for name, value in pairs:
        label = f"  {clean(name):<{column}}  "
        for number, line in enumerate(_wrapped(value, width, " " * len(label))):
            yield [(label, "dim"), *line[1:]] if number == 0 else line


def _table(table: Table, width: int) -> Iterator[Line]:
    rows = [[clean(cell) for cell in row] for row in table.rows]
    widths = _column_widths(table.columns, rows, width)
    yield [("  " + _cells([c.title for c in table.columns], table.columns, widths), "dim")]
    for row in rows:
        for line in _stacked(row, table.columns, widths):
            yield [("  " + _cells(line, table.columns, widths), "")]
    if table.note:
        yield from _wrapped(table.note, width, "  ", "dim")


def _stacked(
    row: Sequence[str], columns: Sequence[Column], widths: Sequence[int]
) -> Iterator[tuple[str, ...]]:
    """A row's lines: several where a cell is wrapped."""
    cells = [
        textwrap.wrap(cell, width, break_on_hyphens=False) if column.elide == "wrap" else [cell]
        for cell, column, width in zip(row, columns, widths, strict=True)
    ]
    return itertools.zip_longest(*cells, fillvalue="")


def _cells(row: Sequence[str], columns: Sequence[Column], widths: Sequence[int]) -> str:
    cells = []
    for cell, column, width in zip(row, columns, widths, strict=True):
        if column.elide:
            cell = elide_source(cell, width) if column.elide == "source" else elide(cell, width)
        cells.append(cell.rjust(width) if column.right else cell.ljust(width))
    return "  ".join(cells)


def _column_widths(
    columns: Sequence[Column], rows: Sequence[Sequence[str]], width: int
) -> list[int]:
    """Natural widths; where they do not fit, the widest elided column gives way first."""
    widths = [
        max([len(column.title), *(len(row[number]) for row in rows)])
        for number, column in enumerate(columns)
    ]
    room = width - 2 * len(columns)
    elided = [number for number, column in enumerate(columns) if column.elide]
    for narrowest in _NARROWEST:
        while sum(widths) > room:
            wide = [number for number in elided if widths[number] > narrowest]
            if not wide:
                break
            widest = max(wide, key=lambda n: widths[n] - _FAVOUR * (columns[n].elide == "source"))
            widths[widest] -= 1
    return widths


def _finding(finding: Finding, width: int, advice: str) -> Iterator[Line]:
    """``advice`` is what to print of the finding's own."""
    severity = str(finding.severity)
    gain = saving(finding.estimate)
    head = f"{severity} {finding.code} {finding.pass_name}: {finding.message}"
    head += f"; {gain}" if gain else ""
    for number, line in enumerate(_wrapped(head, width, "  ", hang="    ")):
        if number == 0 and line[1][0].startswith(severity):
            rest = line[1][0].removeprefix(severity)
            line = [line[0], (severity, _STYLES.get(severity, "")), (rest, "bold")]
        yield line
    details = [("at", place) for place in places(finding)]
    where = finding.where
    if where.instruction:
        details.append(("in", f"%{where.instruction} of %{where.computation}"))
    if where.op_name:
        details.append(("op", elide(clean(where.op_name), width - 7)))
    if advice:
        details.append(("do", advice))
    check = verified(finding)
    if check:
        details.append((_mark(finding.verification), check))
    for label, text in details:
        for number, line in enumerate(_wrapped(text, width, " " * 7)):
            yield [("    ", ""), (f"{label} ", "dim"), *line[1:]] if number == 0 else line
