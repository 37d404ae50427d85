"""Running the examples of a pass, which are its tests and its documentation at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from hlo_lab.cost.machines import load
from hlo_lab.errors import HloLabError
from hlo_lab.ir.module import Module
from hlo_lab.ir.text import read_text
from hlo_lab.passkit.base import AnalysisPass, Example
from hlo_lab.passkit.context import Context
from hlo_lab.passkit.pipeline import run_passes

Lower = Callable[[Example], Module]
MACHINE = "tpu-v5e"  # a described machine, so that an example gives the same on every host


@dataclass(frozen=True)
class ExampleResult:
    """One example run with the default options; ``problem`` is empty when it holds."""

    pass_name: str
    title: str
    problem: str = ""


def run_examples(
    pass_class: type[AnalysisPass], *, lower: Lower | None = None
) -> Iterator[ExampleResult]:
    """Run each example of a pass, one after the other.

    Args:
        lower: compiles a JAX example into a module; ``hlo_lab.api.passes.lower_example`` does.
    """
    if not pass_class.examples:
        yield ExampleResult(pass_class.name, "", "has no examples; give it at least one")
    for example in pass_class.examples:
        try:
            problem = _problem(pass_class(), example, lower)
        except HloLabError as error:
            problem = str(error)
        yield ExampleResult(pass_class.name, example.title, problem)


def check_examples(pass_class: type[AnalysisPass], *, lower: Lower | None = None) -> None:
    """Raise ``AssertionError`` that names the examples that do not hold; for pytest."""
    failed = [one for one in run_examples(pass_class, lower=lower) if one.problem]
    if failed:
        lines = "; ".join(f"{one.title!r}: {one.problem}" for one in failed)
        raise AssertionError(f"examples of pass {pass_class.name}: {lines}")


def _problem(one: AnalysisPass, example: Example, lower: Lower | None) -> str:
    if example.hlo:
        module = read_text(example.hlo.splitlines(keepends=True), f"<example {example.title!r}>")
    elif lower is not None:
        module = lower(example)
    else:
        return "is a JAX example; give lower=hlo_lab.api.passes.lower_example"
    result = run_passes([one], module, Context(module, load(MACHINE)))
    if result.failures:
        return str(result.failures[0])
    if len(result.findings) != example.finds:
        said = "".join(f"; {finding.message}" for finding in result.findings[:3])
        return f"expected {example.finds} findings, got {len(result.findings)}{said}"
    return ""
