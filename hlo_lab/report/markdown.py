"""Reports as GitHub-flavoured markdown, for pull requests and files."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from hlo_lab.passkit.finding import Finding
from hlo_lab.report.document import (
    Block,
    FindingsBlock,
    KeyValues,
    Paragraph,
    Report,
    Table,
)
from hlo_lab.report.findings import places, saving, verified, with_advice
from hlo_lab.report.names import clean

# Underscores inside a word and most signs inside a line are no markup.
_SPECIAL = re.compile(r"[\\`*\[\]<|&~$]|(?<!\w)_|_(?!\w)|^[>#+-]")


def render(report: Report) -> str:
    """The report as markdown, with a newline at its end."""
    lines = [f"# {escape(report.title)}", ""]
    lines += _pairs(report.provenance)
    for section in report.sections:
        lines += [f"## {escape(section.title)}", ""] if section.title else []
        for block in section.blocks:
            lines += _block(block)
    return "\n".join(lines).rstrip("\n") + "\n"


def escape(text: str) -> str:
    """Text that markdown shows as it stands, in a table too."""
    return _SPECIAL.sub(lambda match: "\\" + match.group(), clean(text))


def _block(block: Block) -> Iterator[str]:
    if isinstance(block, Table):
        yield from _table(block)
    elif isinstance(block, KeyValues):
        yield from _pairs(block.pairs)
    elif isinstance(block, Paragraph):
        yield from (escape(block.text), "")
    elif isinstance(block, FindingsBlock):
        for finding, advice in with_advice(block.findings):
            yield from _finding(finding, advice)
        yield ""


def _pairs(pairs: Sequence[tuple[str, str]]) -> Iterator[str]:
    if not pairs:
        return
    for name, value in pairs:
        yield f"- {escape(name)}: {escape(value)}"
    yield ""


def _table(table: Table) -> Iterator[str]:
    yield _row([escape(column.title) for column in table.columns])
    yield _row(["---:" if column.right else "---" for column in table.columns])
    for row in table.rows:
        yield _row([escape(cell) for cell in row])
    yield ""
    if table.note:
        yield from (escape(table.note), "")


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _finding(finding: Finding, advice: str) -> Iterator[str]:
    head = f"**{finding.severity}** {escape(finding.code)} ({escape(finding.pass_name)})"
    gain = saving(finding.estimate)
    yield f"- {head}: {escape(finding.message)}" + (f"; {escape(gain)}" if gain else "")
    where = finding.where
    details = [f"at {place}" for place in places(finding)]
    if where.instruction:
        details.append(f"instruction {where.instruction} in {where.computation}")
    if where.op_name:
        details.append(f"op_name {where.op_name}")
    if advice:
        details.append(f"what to do: {advice}")
    check = verified(finding)
    if check:
        details.append(check)
    for detail in details:
        yield f"  - {escape(detail)}"
