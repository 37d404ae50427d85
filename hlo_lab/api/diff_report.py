"""A comparison as a report for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hlo_lab.diff import Change, Kind, Verdict
from hlo_lab.diff.deltas import METRICS
from hlo_lab.report.document import (
    Block,
    Column,
    KeyValues,
    Paragraph,
    Report,
    Section,
    Table,
)
from hlo_lab.report.names import short_frame
from hlo_lab.report.units import (
    format_bytes,
    format_count,
    format_flops,
    format_seconds,
    format_share,
)

if TYPE_CHECKING:
    from hlo_lab.api.diff import Comparison

_MEANING = {
    Verdict.IDENTICAL: "the same program, up to names, order and source lines",
    Verdict.EQUIVALENT: "differs only in what cannot change what runs",
    Verdict.CHANGED: "what runs is different",
    Verdict.ADDED: "the program exists only after",
    Verdict.REMOVED: "the program exists only before",
}
_NAMES = {
    "peak_bytes": "peak memory",
    "bytes": "bytes moved",
    "collective_bytes": "collective bytes",
    "estimated_s": "estimated time",
}


def report(comparison: Comparison) -> Report:
    result = comparison.result
    provenance = [("before", comparison.before), ("after", comparison.after)]
    if comparison.program is not None:
        provenance.append(("program", comparison.program))
    provenance += [
        ("stage", comparison.stage),
        ("target", comparison.target),
        ("verdict", f"{result.verdict}: {_MEANING[result.verdict]}"),
    ]
    sections = [
        Section(title, [block])
        for title, block in (
            ("Budgets", _budgets(comparison)),
            ("Figures, per call", _deltas(comparison)),
        )
        if block is not None
    ]
    if result.verdict in (Verdict.CHANGED, Verdict.EQUIVALENT):
        sections.append(Section(_changes_title(comparison), _changes(comparison)))
    if comparison.notes:
        sections.append(Section("Notes", [Paragraph(note, "warning") for note in comparison.notes]))
    return Report(f"{comparison.before} -> {comparison.after}", provenance, sections)


def _budgets(comparison: Comparison) -> Table | None:
    if not comparison.budgets:
        return None
    columns = [Column("budget"), Column("actual", right=True), Column("")]
    rows = []
    for budget in comparison.budgets:
        actual = budget.actual
        if not isinstance(actual, str):
            relative = (
                budget.limit.endswith("%") and comparison.result.deltas[budget.metric]["before"]
            )
            actual = _signed_share(actual) if relative else _growth(budget.metric, actual)
        rows.append(
            (f"{budget.metric} {budget.limit}", actual, "BROKEN" if budget.broken else "ok")
        )
    return Table(columns, rows)


def _deltas(comparison: Comparison) -> Table:
    columns = [
        Column("metric"),
        Column("before", right=True),
        Column("after", right=True),
        Column("change", right=True),
    ]
    rows = []
    for metric, values in comparison.result.deltas.items():
        before, after = values["before"], values["after"]
        change = "=" if before == after else _growth(metric, after - before)
        if before and before != after:
            change += f" ({_signed_share((after - before) / before)})"
        name = _NAMES.get(metric, metric)
        rows.append((name, _value(metric, before), _value(metric, after), change))
    return Table(columns, rows, note=f"Times are estimates for {comparison.machine.title}.")


def _value(metric: str, value: float) -> str:
    if METRICS[metric] == "B":
        return format_bytes(value)
    if METRICS[metric] == "s":
        return format_seconds(value)
    return format_flops(value) if metric == "flops" else format_count(value)


def _growth(metric: str, value: float) -> str:
    return ("+" if value > 0 else "-" if value < 0 else "") + _value(metric, abs(value))


def _signed_share(value: float) -> str:
    if 0 < abs(value) < 0.0005:
        return "<+0.1%" if value > 0 else "<-0.1%"
    return ("+" if value > 0 else "") + format_share(value)


def _changes_title(comparison: Comparison) -> str:
    result = comparison.result
    parts = [f"{format_count(result.matched)} operations matched"]
    for count, word in (
        (result.changed, "changed"),
        (result.added, "added"),
        (result.removed, "removed"),
    ):
        if count:
            parts.append(f"{format_count(count)} {word}")
    return "Changes: " + ", ".join(parts)


def _changes(comparison: Comparison) -> list[Block]:
    blocks: list[Block] = []
    changes = comparison.result.changes
    for change in changes[: comparison.limit]:
        blocks += [Paragraph(f"{change.kind}: {change.summary}"), *_details(change)]
    if len(changes) > comparison.limit:
        rest = len(changes) - comparison.limit
        blocks.append(Paragraph(f"{rest} more; see them with --limit {len(changes)} or in JSON"))
    return blocks


def _details(change: Change) -> list[Block]:
    pairs = []
    if change.seconds and change.kind is not Kind.NO_EFFECT:
        sign = "+" if change.seconds > 0 else "-"
        pairs.append(("kernels", f"{sign}{format_seconds(abs(change.seconds))} per call"))
    if change.cause:
        pairs.append(("cause", change.cause))
    for name, side in (("before", change.before), ("after", change.after)):
        if side.instructions:
            names = ", ".join(side.instructions[:3])
            more = ", ..." if len(side.instructions) > 3 else ""
            where = "; ".join(short_frame(frame) for frame in side.source[:2])
            place = where or side.op_name
            pairs.append((name, f"{names}{more}" + (f" at {place}" if place else "")))
    return [KeyValues(pairs)] if pairs else []
