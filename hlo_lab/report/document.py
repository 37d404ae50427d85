"""A report as data: what the commands build and the writers print.

Cells are text already, with units; the writers only lay out, escape and colour.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from hlo_lab.passkit.finding import Finding


@dataclass(frozen=True)
class Column:
    """A table's column. ``elide`` says what may be left out of a cell that is too long:
    ``""`` nothing, ``"middle"`` of a name, ``"source"`` the function and the path of a
    source line, ``"wrap"`` nothing of a sentence, which goes on in the next line."""

    title: str
    right: bool = False
    elide: str = ""


@dataclass(frozen=True)
class Table:
    """Rows of cells, one per column. ``note`` stands below it."""

    columns: Sequence[Column]
    rows: Sequence[Sequence[str]]
    note: str = ""


@dataclass(frozen=True)
class KeyValues:
    """Pairs of a name and a value, one per line."""

    pairs: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Paragraph:
    """Running text. ``severity`` colours it: ``""``, ``warning`` or ``error``."""

    text: str
    severity: str = ""


@dataclass(frozen=True)
class FindingsBlock:
    """Findings in the order in which they are to be read."""

    findings: Sequence[Finding]


Block = Table | KeyValues | Paragraph | FindingsBlock


@dataclass(frozen=True)
class Section:
    """Blocks under a title, which may be empty."""

    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True)
class Report:
    """``provenance`` says what was looked at: module, target, versions."""

    title: str
    provenance: Sequence[tuple[str, str]] = ()
    sections: Sequence[Section] = field(default_factory=tuple)
