"""A rewrite as a report for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from hlo_lab.api.rewrite import Basis, Verdict
from hlo_lab.passkit.wording import counted
from hlo_lab.report.document import (
    Block,
    Column,
    KeyValues,
    Paragraph,
    Report,
    Section,
    Table,
)
from hlo_lab.report.units import format_seconds, format_share

if TYPE_CHECKING:
    from hlo_lab.api.rewrite import Rewrite

_OUTPUTS = 8  # rows; those that differ come first
_OPS = 12
_SAME = 0.0005  # of the time: less is not shown


def report(rewrite: Rewrite) -> Report:
    from hlo_lab.api.diff_report import report as diff_report

    provenance = [
        ("target", rewrite.target),
        *((each.name, _applied(each.changes, each.options)) for each in rewrite.passes),
        ("verdict", _verdict(rewrite)),
    ]
    sections = []
    if rewrite.run is not None:
        sections.append(Section("Numbers", _numbers(rewrite, rewrite.run)))
        if rewrite.run["time"] is not None:
            sections.append(Section("Measured", [_time(rewrite.run)]))
    if rewrite.changes:
        sections.append(Section("Operations of StableHLO", [_ops(rewrite.ops)]))
        diff = diff_report(rewrite.comparison).sections
        sections += [section for section in diff if section.title != "Notes"]
    notes = [Paragraph(note) for note in rewrite.notes]
    notes += [Paragraph(note, "warning") for note in rewrite.comparison.notes]
    if notes:
        sections.append(Section("Notes", notes))
    return Report(f"{rewrite.program}, rewritten", provenance, sections)


def _applied(changes: int, options: Mapping[str, Any]) -> str:
    given = ", ".join(f"{name}={value}" for name, value in options.items())
    return counted(changes, "change") + (f" ({given})" if given else "")


def _verdict(rewrite: Rewrite) -> str:
    verdict, basis = rewrite.verdict, rewrite.basis
    if verdict is Verdict.WRONG:
        return f"{verdict}: the results are not those of the original"
    same = {True: "", False: "", None: "; numbers not compared"}[rewrite.agrees]
    if not rewrite.changes:
        return f"{verdict}: nothing to rewrite"
    if basis is Basis.STRUCTURE:
        return f"{verdict}: the compiler makes the same of both{same}"
    change = rewrite.change
    if verdict is Verdict.UNDECIDED:
        return f"{verdict}: {change.disagreement}{same}"
    if basis is Basis.MEASURED:
        assert rewrite.run is not None
        return f"{verdict}, measured: {_times(rewrite.run['time']['ratio'])}{same}"
    by = {Basis.COMPILER: " by the compiler's cycles", Basis.MODEL: ""}[basis]
    return f"{verdict}, estimated{by}: {_times(change.ratio)}{same}"


def _times(ratio: float) -> str:
    """``2.9x as fast``, ``12% more time``; of after / before."""
    if ratio <= 0.8:
        return f"{1 / ratio:.3g}x as fast" if ratio else "nothing is left to run"
    if abs(ratio - 1) < _SAME:
        return "the same time"
    if ratio < 1:
        return f"{format_share(1 - ratio)} less time"
    return f"{format_share(ratio - 1)} more time"


def _numbers(rewrite: Rewrite, run: Mapping[str, Any]) -> list[Block]:
    columns = [
        Column("result", elide="middle"),
        Column("type"),
        Column("max abs", right=True),
        Column("max rel", right=True),
        Column("ULPs", right=True),
        Column("allowed", right=True),
        Column(""),
    ]
    pairs = list(zip(rewrite.results, run["outputs"], strict=True))
    pairs.sort(key=lambda pair: (pair[1]["agrees"], -pair[1]["max_rel"]))
    rows = [
        (
            path,
            f"{each['dtype']}[{','.join(map(str, each['shape']))}]",
            _error(each["max_abs"]),
            _error(each["max_rel"]),
            "" if each["max_ulps"] is None else f"{each['max_ulps']:,}",
            _error(each["tolerance"]) if each["tolerance"] else "exact",
            _state(each),
        )
        for path, each in pairs[:_OUTPUTS]
    ]
    note = f"{len(pairs) - _OUTPUTS} more that agree better." if len(pairs) > _OUTPUTS else ""
    blocks: list[Block] = [Table(columns, rows, note=note)]
    first = run["first_difference"]
    if first is not None:
        where = f" at {first['location']}" if first["location"] else ""
        named = f" ({first['op_name']})" if first["op_name"] else ""
        shape = ",".join(map(str, first["shape"]))
        text = (
            f"first difference: {first['op']}{named}{where}, {first['dtype']}[{shape}], off by "
            f"{_error(first['max_rel'])} relative; all that it is computed from agrees"
        )
        blocks.append(Paragraph(text, "error"))
    return blocks


def _state(each: Mapping[str, Any]) -> str:
    if each["agrees"]:
        return "ok"
    return f"{each['special']} not finite" if each["special"] else f"{each['different']} DIFFER"


def _error(value: float) -> str:
    return "0" if not value else f"{value:.1e}"


def _time(run: Mapping[str, Any]) -> KeyValues:
    time = run["time"]
    device = run["device"]
    cores = device["facts"].get("cores")
    where = device["kind"] + (f", {counted(cores, 'core')}" if cores else "")
    calls = counted(time["pairs"], "pair")
    if time["batch"] > 1:
        calls += f" of {time['batch']} calls each"
    return KeyValues(
        [
            ("before", _spread(time["before_s"], time["before_iqr_s"])),
            ("after", _spread(time["after_s"], time["after_iqr_s"])),
            (
                "ratio",
                f"{time['ratio']:.3f}, between {time['low']:.3f} and {time['high']:.3f} with a "
                f"chance of 95%",
            ),
            ("runs", f"{calls}, in turn, on {where}"),
        ]
    )


def _spread(seconds: float, iqr: float) -> str:
    return f"{format_seconds(seconds)} per call (quartiles {format_seconds(iqr)} apart)"


def _ops(ops: Mapping[str, Mapping[str, int]]) -> Table:
    before, after = ops["before"], ops["after"]
    names = sorted(before.keys() | after.keys())
    changed = [name for name in names if before.get(name, 0) != after.get(name, 0)]
    changed.sort(key=lambda name: -abs(after.get(name, 0) - before.get(name, 0)))
    rows = [(name, str(before.get(name, 0)), str(after.get(name, 0))) for name in changed[:_OPS]]
    rows.append(("all", str(sum(before.values())), str(sum(after.values()))))
    columns = [Column("operation"), Column("before", right=True), Column("after", right=True)]
    rest = len(changed) - _OPS
    return Table(columns, rows, note=f"{rest} more names changed." if rest > 0 else "")
