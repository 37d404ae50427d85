"""What users read, in each format, held by snapshots."""

from __future__ import annotations

import io
import json
import math
from dataclasses import replace

import numpy as np
import pytest
from syrupy.assertion import SnapshotAssertion

from hlo_lab.ir.source import Frame
from hlo_lab.passkit.finding import (
    BeforeAfter,
    Estimate,
    Finding,
    Severity,
    Verification,
    VerificationStatus,
    Where,
)
from hlo_lab.report import findings, json_, markdown, text
from hlo_lab.report.document import (
    Column,
    FindingsBlock,
    KeyValues,
    Paragraph,
    Report,
    Section,
    Table,
)

HOSTILE = "\x1b[2J[bold red]<img src=x>|`*_pwn_*`\u202e"


def finding(**changes: object) -> Finding:
    fields: dict[str, object] = {
        "code": "REM001",
        "pass_name": "remat",
        "severity": Severity.WARNING,
        "message": "tanh at model.py:34 is kept for the backward pass and cheap to make again",
        "where": Where(
            "main.1",
            "fusion.2",
            "jit(step)/jvp(GPT)/layer_0/" + "attention/" * 6 + "tanh",
            (
                Frame("/v/lib/python3.12/site-packages/flax/linen/linear.py", 271, "Dense"),
                Frame("model.py", 34, "attention"),
            ),
        ),
        "advice": "Wrap the block in jax.checkpoint.",
        "estimate": Estimate(-3e-6, 1_234_567, "h100"),
    }
    return Finding(**{**fields, **changes})  # type: ignore[arg-type]


def report() -> Report:
    table = Table(
        (Column("time", right=True), Column("name", elide="middle"), Column("at", elide="source")),
        (
            ("1.2 us", "fusion_" * 12, "/a/long/way/down/" * 4 + "model.py:12 in loss"),
            ("12 ms", "dot.3", "model.py:7"),
            ("3 s", HOSTILE, HOSTILE),
        ),
        "Times are estimates.",
    )
    confirmed = Verification(
        VerificationStatus.CONFIRMED,
        seconds=BeforeAfter(2e-3, 1e-3),
        basis="compiler",
        coverage=0.75,
        peak_bytes=BeforeAfter(2e6, 1e6),
        ratio=1.5,
        agrees=True,
    )
    refuted = Verification(
        VerificationStatus.REFUTED,
        seconds=BeforeAfter(1e-3, 2e-3),
        basis="model",
        peak_bytes=BeforeAfter(2e6, 2e6),
        place="everywhere",
        reason=f"slower {HOSTILE}",
    )
    shown = (
        finding(),
        finding(severity=Severity.ERROR, verification=confirmed, remedy=("swap{old=sort}",)),
        finding(
            verification=replace(confirmed, agrees=None, reason="numbers not compared (no time)"),
            remedy=("swap", "drop-pairs"),
        ),
        finding(verification=refuted, remedy=(HOSTILE,)),
        finding(
            verification=Verification(VerificationStatus.FAILED, reason="it crashed"),
            remedy=("swap",),
        ),
        finding(verification=Verification(reason="the budget was spent")),
        finding(message=HOSTILE, where=Where(), advice="", estimate=Estimate()),
    )
    return Report(
        HOSTILE,
        (("module", "jit_step"), ("target", "cpu")),
        (
            Section("Summary", (KeyValues((("instructions", "43,714"), ("flops", "1.2 T"))),)),
            Section("Most time", (table,)),
            Section(
                "Findings",
                (
                    FindingsBlock(shown),
                    Paragraph("warning: the file is cut", "warning"),
                    Paragraph("x" * 100),
                ),
            ),
        ),
    )


def test_text(snapshot: SnapshotAssertion) -> None:
    assert text.to_string(report()) == snapshot


def test_text_keeps_to_the_width() -> None:
    for width in (60, 80, 120):
        lines = text.to_string(report(), width).splitlines()
        assert max(map(len, lines)) <= width


def test_advice_stands_once_until_it_changes() -> None:
    other = finding(code="FUS001", advice="Fuse it.")
    shown = [
        advice
        for _, advice in findings.with_advice(
            [finding(), finding(), other, finding(), finding(advice=""), finding(advice="No.")]
        )
    ]
    first = finding().advice
    assert shown == [first, "as above", "Fuse it.", "as for REM001 above", "", "No."]


def test_markdown(snapshot: SnapshotAssertion) -> None:
    assert markdown.render(report()) == snapshot


def test_every_table_row_of_markdown_has_the_same_cells() -> None:
    rows = [line for line in markdown.render(report()).splitlines() if line.startswith("|")]
    assert {row.replace("\\|", "").count("|") for row in rows} == {4}


@pytest.mark.parametrize("rendered", [text.to_string(report()), markdown.render(report())])
def test_nothing_steers_a_terminal(rendered: str) -> None:
    assert all(char.isprintable() or char == "\n" for char in rendered)


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def _on_terminal(monkeypatch: pytest.MonkeyPatch, **environment: str) -> str:
    for name in ("NO_COLOR", "FORCE_COLOR", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"TERM": "xterm-256color", **environment}.items():
        monkeypatch.setenv(name, value)
    stream = _Terminal()
    text.render(report(), stream)
    return stream.getvalue()


def test_a_terminal_gets_colour_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "\x1b[33mwarning" in _on_terminal(monkeypatch)
    assert "\x1b[33m" not in _on_terminal(monkeypatch, NO_COLOR="1")
    assert "[bold red]" in _on_terminal(monkeypatch, NO_COLOR="1")


def test_a_pipe_gets_80_plain_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    stream = io.StringIO()
    text.render(report(), stream)
    assert stream.getvalue() == text.to_string(report(), 80)


def test_json_finding(snapshot: SnapshotAssertion) -> None:
    assert json_.dumps(json_.finding(finding())) == snapshot


def test_json_has_no_nan_and_keeps_the_order() -> None:
    document = {"z": math.nan, "a": [np.float64(math.inf), np.int64(3)], "m": 2.0, "s": HOSTILE}
    written = json_.dumps(document)
    assert json.loads(written) == {"z": None, "a": [None, 3], "m": 2, "s": HOSTILE}
    assert list(json.loads(written)) == ["z", "a", "m", "s"]
    assert "\x1b" not in written
    with pytest.raises(TypeError, match="no JSON form"):
        json_.dumps({"x": object()})


def test_eight_columns_fit_in_eighty() -> None:
    long = ["1.23 us ±12%", "1.23 ms", "100.0%", "1,234", "overhead", *["x" * 40] * 3]
    columns = [Column(f"column {n}"[: len(cell)]) for n, cell in enumerate(long[:5])]
    columns += [Column("name", elide="middle")] * 3
    shown = text.to_string(Report("r", (), [Section("", [Table(tuple(columns), (long,))])]))
    assert max(map(len, shown.splitlines())) <= 80
