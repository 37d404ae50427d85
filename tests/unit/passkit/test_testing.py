"""Examples as tests: what a result says."""

from __future__ import annotations

from pathlib import Path

import pytest

from hlo_lab.errors import UseError
from hlo_lab.ir.text import read_text
from hlo_lab.passkit.base import Example
from hlo_lab.passkit.discovery import discover
from hlo_lab.passkit.scaffold import free_code, new_pass
from hlo_lab.passkit.testing import check_examples, run_examples


def load(tmp_path: Path, text: str):
    (tmp_path / "mine.py").write_text(text)
    return discover([tmp_path], start=tmp_path)["negations"].pass_class


def test_good_examples_pass(tmp_path: Path, good: str) -> None:
    check_examples(load(tmp_path, good))


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("finds=0", "finds=1", "'none': expected 1 findings, got 0"),
        ("len(found) >=", "self.gone >=", "raised AttributeError"),
        ("%y = f32[4]", "%y = ", "not an instruction"),
        ("examples = (Ex", "examples = (); old = (Ex", "has no examples"),
    ],
)
def test_what_fails_is_said(tmp_path: Path, good: str, old: str, new: str, problem: str) -> None:
    assert old in good
    with pytest.raises(AssertionError, match="examples of pass negations") as caught:
        check_examples(load(tmp_path, good.replace(old, new)))
    assert problem in str(caught.value)


def test_a_jax_example_is_lowered_by_what_is_given(tmp_path: Path, good: str) -> None:
    pass_class = load(tmp_path, good.replace("hlo=TEXT)", "jax='f = 1')"))
    problems = [one.problem for one in run_examples(pass_class)]
    assert "is a JAX example" in problems[0]
    text = pass_class.examples[1].hlo.replace("sine", "negate")
    seen = []

    def lower(example):
        seen.append(example.jax)
        return read_text(text.splitlines(keepends=True))

    check_examples(pass_class, lower=lower)
    assert seen == ["f = 1"]


@pytest.mark.parametrize("sources", [{}, {"hlo": "a", "jax": "b"}])
def test_an_example_is_either_hlo_or_jax(sources) -> None:
    with pytest.raises(ValueError, match="give either hlo or jax"):
        Example("title", **sources)


def test_a_free_code_is_taken_from_the_name(tmp_path: Path) -> None:
    catalogue = discover(start=tmp_path)
    assert free_code("big-copy", catalogue) == "BIG001"
    taken = {info.code for info in catalogue.values()}
    first = next(code for n in range(1, 1000) if (code := f"FUS{n:03d}") not in taken)
    assert free_code("fusion-two", catalogue) == first != "FUS001"
    assert free_code("x-1", catalogue) == "XXX001"


def test_a_new_pass_has_to_be_named_well(tmp_path: Path) -> None:
    with pytest.raises(UseError, match="lower-case words"):
        new_pass("../evil", tmp_path, {})
