"""An analysis as a report for people."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from hlo_lab.api.analyze_measured import in_summary
from hlo_lab.api.analyze_ops import group_ops, typical_error
from hlo_lab.api.analyze_target import on_device, other_times, out_of_memory
from hlo_lab.api.analyze_verified import verification
from hlo_lab.api.measure_report import groups, table
from hlo_lab.ir.source import user_frame
from hlo_lab.passkit.finding import Severity
from hlo_lab.report.document import (
    Block,
    Column,
    FindingsBlock,
    KeyValues,
    Paragraph,
    Report,
    Section,
    Table,
)
from hlo_lab.report.names import line_frame, short_frame
from hlo_lab.report.units import (
    MISSING,
    format_bytes,
    format_count,
    format_estimate,
    format_flops,
    format_seconds,
    format_share,
)

if TYPE_CHECKING:
    from hlo_lab.api.analyze import Analysis
    from hlo_lab.cost.assigned import AssignedMemory
    from hlo_lab.cost.holders import Holder
    from hlo_lab.cost.memory import MemoryProfile

_EQUAL = 0.005  # share of the peak that a ratio of two decimals does not show


def report(analysis: Analysis) -> Report:
    module = analysis.module
    sections = [
        *out_of_memory(analysis),
        Section("Summary", _summary(analysis)),
        Section("Peak memory, by source line", _holders(analysis)),
        _most_time(analysis),
        Section(_findings_title(analysis), _findings(analysis)),
    ]
    if analysis.failures:
        failed = [Paragraph(str(failure), "error") for failure in analysis.failures]
        sections.append(Section("Passes that failed", failed))
    provenance = [("module", module.name), ("target", analysis.loaded.target)]
    return Report(analysis.loaded.label, provenance, sections)


def _most_time(analysis: Analysis) -> Section:
    measured = analysis.measured
    if measured is None or not measured.seen.any():
        return Section(f"Most time, estimated for {analysis.machine.title}", _ops(analysis))
    rows = groups(measured)[: analysis.top]
    return Section("Most time, measured", [table(measured, rows)])


def _summary(analysis: Analysis) -> list[Block]:
    figures, memory = analysis.summary(), analysis.memory
    parts = [
        ("arguments", memory.argument_bytes),
        ("outputs", memory.output_bytes),
        ("temporaries", memory.temp_bytes),
        ("constants", memory.constant_bytes),
    ]
    split = ", ".join(f"{name} {format_bytes(size)}" for name, size in parts if size)
    if memory.alias_bytes:
        split += f"; {format_bytes(memory.alias_bytes)} of the outputs reuse arguments"
    counts = (
        f"{format_count(figures['instructions'])} in "
        f"{format_count(figures['computations'])} "
        f"computation{'s' if figures['computations'] != 1 else ''}, "
        f"{format_count(figures['fusions'])} of them fusions"
    )
    several = analysis.devices > 1
    least = "at least " if analysis.cost.lower_bound else ""
    per = "per device and call" if several else "per call"
    each = " per device" if several else ""
    pairs = [
        ("instructions", counts),
        ("flops", f"{least}{format_flops(figures['flops'])} {per}"),
        ("bytes moved", f"{least}{format_bytes(figures['bytes'])} {per}"),
        (
            "estimated",
            f"{least}{format_seconds(figures['overlapped_s'])} per call on {analysis.machine.name}",
        ),
        *other_times(analysis),
        *_done_again(analysis),
        *([("  measured", in_summary(analysis.measured))] if analysis.measured else []),
        ("peak memory", f"{format_bytes(memory.peak_bytes)}{each} ({split})" if split else "0 B"),
    ]
    if several:
        pairs.insert(1, ("devices", format_count(analysis.devices)))
    own = analysis.compiler_memory
    if own is not None:
        pairs.append(("  by compiler", _by_compiler(memory, own["peak_bytes"])))
    if analysis.assigned is not None:
        pairs.append(("  its buffers", _its_buffers(analysis.assigned)))
    pairs += on_device(analysis)
    blocks: list[Block] = [KeyValues(pairs)]
    if analysis.loaded.stage != "hlo-after":
        text = f"this is {analysis.loaded.stage}: the compiler stopped before it was done with it"
        blocks.append(Paragraph(f"warning: {text}", "warning"))
    blocks += [Paragraph(f"warning: {note}", "warning") for note in analysis.notes]
    return blocks


def _done_again(analysis: Analysis) -> list[tuple[str, str]]:
    found = analysis.recomputed
    if not found.seconds:
        return []
    share = format_share(found.seconds / analysis.cost.total_seconds)
    text = f"{format_flops(found.flops)} flops and {format_bytes(found.bytes)} of these again,"
    return [("  recomputed", f"{text} {share} of the time")]


def _by_compiler(memory: MemoryProfile, theirs: int) -> str:
    """The compiler's figure, which has no constants, beside ours without them."""
    ours = memory.peak_bytes - memory.constant_bytes
    ratio = ours / theirs if theirs else 1.0
    without = " without constants" if memory.constant_bytes > _EQUAL * memory.peak_bytes else ""
    return f"{format_bytes(theirs)} (ours{without} is {ratio:.2f} times that)"


def _its_buffers(found: AssignedMemory) -> str:
    text = f"{format_bytes(found.allocated_bytes)}, {format_bytes(found.peak_bytes)} of it in use"
    if found.unused_bytes > _EQUAL * found.allocated_bytes:
        text += f" at the worst moment and {format_bytes(found.unused_bytes)} gaps between them"
    return text


def _holders(analysis: Analysis) -> list[Block]:
    """Buffers summed by the user's own source line."""
    memory = analysis.assigned or analysis.memory
    groups: dict[str, list[Holder]] = {}
    for holder in memory.holders:
        groups.setdefault(_place(analysis, holder), []).append(holder)
    sums = {place: sum(holder.bytes for holder in group) for place, group in groups.items()}
    places = sorted(groups, key=lambda place: -sums[place])
    rows = []
    for place in places[: analysis.top]:
        group = groups[place]
        largest = analysis.module.instruction(group[0].instruction)
        kinds: Counter[str] = Counter()
        for holder in group:
            kinds[holder.kind] += holder.bytes
        rows.append(
            [
                format_bytes(sums[place]),
                format_share(sums[place] / memory.peak_bytes),
                *_padding(group, memory.padding_bytes),
                str(len(group)),
                kinds.most_common(1)[0][0] + ("+" if len(kinds) > 1 else ""),
                largest.name,
                line_frame(user_frame(group[0].source)) or place,
            ]
        )
    if not rows:
        return [Paragraph("Nothing is held.")]
    columns = [
        Column("held", right=True),
        Column("share", right=True),
        *([Column("padding", right=True)] if memory.padding_bytes else []),
        Column("buffers", right=True),
        Column("kind"),
        Column("largest", elide="middle"),
        Column("source", elide="source"),
    ]
    peak = analysis.module.instruction(memory.peak_instruction)
    whose = "The compiler's own buffers, at" if analysis.assigned else "At"
    return [Table(columns, rows, f"{whose} the worst moment, when %{peak.name} runs.")]


def _padding(group: list[Holder], any_bytes: int) -> list[str]:
    """The cell of the column that is there where tiles pad something."""
    own = sum(holder.padding_bytes for holder in group)
    return ([format_bytes(own) if own else MISSING]) if any_bytes else []


def _place(analysis: Analysis, holder: Holder) -> str:
    """The source line; else arguments are summed up, and the rest named by what made it."""
    place = short_frame(user_frame(holder.source))
    if place:
        return place
    if holder.kind == "argument":
        return "(arguments)"
    instruction = analysis.module.instruction(holder.instruction)
    return instruction.op_name or f"({instruction.opcode} {instruction.shape.without_layout()})"


def _ops(analysis: Analysis) -> list[Block]:
    """Instructions, those of repeated layers summed up."""
    cost, rows = analysis.cost, []
    compiler, total = analysis.compiler, cost.total_seconds
    groups = group_ops(analysis.module, analysis.spent, cost.executions)[: analysis.top]
    firsts = [group.instructions[0] for group in groups]
    named = any(compiler.of(index).tiles or _library(analysis, index) for index in firsts)
    for group, first in zip(groups, firsts, strict=True):
        many = len(group.instructions)
        bounds = {cost.bound[index] for index in group.instructions}
        theirs = compiler.seconds[group.instructions] * cost.executions[group.instructions]
        rows.append(
            [
                format_estimate(group.seconds, typical_error(group, analysis.spent, cost.error)),
                *([format_seconds(float(theirs.sum()))] if compiler.has_seconds else []),
                format_share(group.seconds / total) if total else MISSING,
                format_count(group.runs),
                cost.bound[first] + ("+" if len(bounds) > 1 else ""),
                *([_library(analysis, first)] if named else []),
                analysis.module.instruction_names[first] + (f" x{many}" if many > 1 else ""),
                group.source,
            ]
        )
    if not rows:
        return [Paragraph("Nothing runs.")]
    columns = [
        Column("time", right=True),
        *([Column("compiler", right=True)] if compiler.has_seconds else []),
        Column("share", right=True),
        Column("runs", right=True),
        Column("bound by"),
        *([Column("kernel", elide="middle")] if named else []),
        Column("instruction", elide="middle"),
        Column("source", elide="source"),
    ]
    return [Table(columns, rows)]


def _library(analysis: Analysis, index: int) -> str:
    """Who computes an instruction on a GPU; XLA:TPU names an emitter for nearly all of them."""
    record = analysis.compiler.of(index)
    return str(record) if analysis.machine.kind == "gpu" or record.kernel == "Pallas" else ""


def _findings_title(analysis: Analysis) -> str:
    counts = Counter(finding.severity for finding in analysis.shown)
    parts = [
        f"{counts[severity]} {severity}{'s' if counts[severity] > 1 else ''}"
        for severity in sorted(Severity, reverse=True)
        if counts[severity]
    ]
    return f"Findings: {', '.join(parts) or 'none'}"


def _findings(analysis: Analysis) -> list[Block]:
    if not analysis.findings:
        names = ", ".join(analysis.passes) or "none"
        return [Paragraph(f"Passes that ran: {names}."), *verification(analysis)]
    shown, total = analysis.shown[: analysis.limit], len(analysis.shown)
    blocks: list[Block] = [FindingsBlock(shown)] if shown else []
    if total > len(shown):
        blocks.append(Paragraph(f"{total - len(shown)} more; --limit {total} shows all."))
    return [*blocks, *verification(analysis)]
