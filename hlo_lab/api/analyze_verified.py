"""What ``analyze --verify`` adds to a report, besides a line of each finding."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hlo_lab.passkit.finding import VerificationStatus
from hlo_lab.passkit.wording import counted
from hlo_lab.report.document import Paragraph
from hlo_lab.report.findings import figures
from hlo_lab.report.units import format_seconds

if TYPE_CHECKING:
    from hlo_lab.api.analyze import Analysis
    from hlo_lab.api.verify import Verified


def verification(analysis: Analysis) -> list[Paragraph]:
    """How many were tried, all that was confirmed together, and what is hidden."""
    found = analysis.verified
    if found is None:
        return []
    if found.obstacle:
        return [Paragraph(f"Not verified: {found.obstacle}.", "warning")]
    lines = [_summary(found)]
    if found.together is not None:
        sides = ", ".join(figures(found.together)) or found.together.reason
        lines.append(f"All confirmed advice together: {sides}.")
    hidden = found.counts[VerificationStatus.REFUTED]
    if hidden and not analysis.show_refuted:
        lines.append(f"{hidden} refuted by recompiling, hidden; --show-refuted shows them.")
    return [Paragraph(line) for line in lines]


def _summary(found: Verified) -> str:
    if not found.counts:
        return "Verified: no finding has a rewrite that does what it advises."
    tried = ", ".join(
        f"{count} {status.replace('_', ' ')}" for status, count in sorted(found.counts.items())
    )
    total = counted(found.counts.total(), "finding")
    rest = len(found.findings) - found.counts.total()
    others = f"; {rest} without a rewrite" if rest else ""
    return f"Verified in {format_seconds(found.spent)}: {total}, {tried}{others}."
