"""``--pass 'fusion{min_bytes=1MiB}'``."""

from __future__ import annotations

from pathlib import Path

import pytest

from hlo_lab.errors import UseError
from hlo_lab.passkit.discovery import discover
from hlo_lab.passkit.options import parse_value
from hlo_lab.passkit.selection import select_passes


@pytest.fixture
def catalogue(tmp_path: Path, good: str):
    (tmp_path / "mine.py").write_text(good)
    return discover([tmp_path], start=tmp_path)


def test_no_selection_is_every_analysis_pass_with_its_defaults(catalogue) -> None:
    expected = [name for name, info in catalogue.items() if info.kind == "analysis"]
    assert [one.name for one in select_passes([], catalogue)] == expected


def test_options_are_set_by_name_or_code_with_either_dash(catalogue) -> None:
    (one,) = select_passes(["FUS001{min-bytes=2MiB, top=3}"], catalogue)
    assert (one.name, one.min_bytes, one.top) == ("fusion", 2 << 20, 3)
    (one,) = select_passes(["negations{share=5%,loud=yes,word=a}"], catalogue)
    assert (one.share, one.loud, one.word) == (0.05, True, "a")


def test_several_selections_keep_their_order(catalogue) -> None:
    names = [one.name for one in select_passes(["remat,fusion{top=1}", "neg001"], catalogue)]
    assert names == ["remat", "fusion", "negations"]


def test_a_quoted_value_may_hold_commas_and_braces(catalogue) -> None:
    (one,) = select_passes(['negations{word="a, {b}"}'], catalogue)
    assert one.word == "a, {b}"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("fuson", "did you mean 'fusion'"),
        ("zzz", "passes list"),
        ("fusion{min_byte=1}", "did you mean 'min_bytes'"),
        ("fusion{top}", "'top' has no value"),
        ("fusion{top=x}", "option 'top': 'x' is no whole number"),
        ("fusion{top=1.5}", "no whole number"),
        ("negations{loud=maybe}", "neither true nor false"),
        ("negations{share=1parsec}", "no number, share or time"),
        ("fusion{top=1,top=2}", "given twice"),
        ("fusion{min_bytes=1,min-bytes=2}", "given twice"),
        ("fusion{top=1", "missing '}'"),
        ("fusion}", "unexpected '}'"),
        ("=", "not of the form"),
        ("fusion,fusion", "names 'fusion' twice"),
    ],
)
def test_what_is_wrong_is_said_with_what_would_be_right(catalogue, text, problem) -> None:
    with pytest.raises(UseError, match=problem):
        select_passes([text], catalogue)


def test_a_pass_may_refuse_a_value(tmp_path: Path, good: str) -> None:
    check = "\n    def __post_init__(self):\n        if self.least < 1:\n"
    check += "            raise ValueError('least is below 1')\n"
    (tmp_path / "mine.py").write_text(good + check)
    with pytest.raises(UseError, match="least is below 1"):
        select_passes(["negations{least=0}"], discover([tmp_path], start=tmp_path))


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("1", int, 1), ("1_000", int, 1000), ("1.5KiB", int, 1536), ("2gb", int, 2 * 10**9),
        ("-3", int, -3), ("1e3", int, 1000),
        ("1ms", float, 1e-3), ("2.5us", float, 2.5e-6), ("3µs", float, 3e-6), ("7", float, 7.0),
        ("true", bool, True), ("0", bool, False), (" a ", str, "a"), ('""', str, ""),
    ],
)  # fmt: skip
def test_values(text: str, kind: type, value) -> None:
    read = parse_value(text, kind)
    assert read == pytest.approx(value) if kind is float else read == value
    assert type(read) is kind
