"""Running the examples of a pass, which are its tests and its documentation at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hlo_lab.cost.machines import load
from hlo_lab.errors import HloLabError
from hlo_lab.ir.module import Module
from hlo_lab.ir.text import read_text
from hlo_lab.passkit.base import AnalysisPass, Example, Pass, RewriteExample, RewritingPass
from hlo_lab.passkit.context import Context
from hlo_lab.passkit.pipeline import run_passes

MACHINE = "tpu-v5e"  # a described machine, so that an example gives the same on every host


@dataclass(frozen=True)
class Trial:
    """What a rewrite pass did to an example.

    Attributes:
        changes: how often it replaced something.
        ops: operations by name afterwards.
        problem: why it could not be tried, or how the results differ; empty for neither.
    """

    changes: int = 0
    ops: Mapping[str, int] = field(default_factory=dict)
    problem: str = ""


@dataclass(frozen=True)
class _Bundle:
    """What an example is taken to come from."""

    after: Module
    manifest: Mapping[str, Any]

    def module(self, stage: str) -> Module:
        return self.after


Lower = Callable[[Example], Module]
Try = Callable[[type[RewritingPass]], Sequence[Trial]]


@dataclass(frozen=True)
class ExampleResult:
    """One example run with the default options; ``problem`` is empty when it holds."""

    pass_name: str
    title: str
    problem: str = ""


def run_examples(
    pass_class: type[Pass], *, lower: Lower | None = None, rewrite: Try | None = None
) -> Iterator[ExampleResult]:
    """Run each example of a pass, one after the other.

    Args:
        lower: compiles a JAX example into a module; ``hlo_lab.api.passes.lower_example`` does.
        rewrite: tries the examples of a rewrite pass; ``hlo_lab.api.passes.try_examples`` does.
    """
    if issubclass(pass_class, RewritingPass):
        yield from _rewrite_examples(pass_class, rewrite)
        return
    assert issubclass(pass_class, AnalysisPass)
    if not pass_class.examples:
        yield ExampleResult(pass_class.name, "", "has no examples; give it at least one")
    for example in pass_class.examples:
        try:
            problem = _problem(pass_class(), example, lower)
        except HloLabError as error:
            problem = str(error)
        yield ExampleResult(pass_class.name, example.title, problem)


def check_examples(
    pass_class: type[Pass], *, lower: Lower | None = None, rewrite: Try | None = None
) -> None:
    """Raise ``AssertionError`` that names the examples that do not hold; for pytest."""
    results = run_examples(pass_class, lower=lower, rewrite=rewrite)
    failed = [one for one in results if one.problem]
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
    bundle = _Bundle(module, example.manifest) if example.manifest else None
    result = run_passes([one], module, Context(module, load(MACHINE), bundle=bundle))
    if result.failures:
        return str(result.failures[0])
    if len(result.findings) != example.finds:
        said = "".join(f"; {finding.message}" for finding in result.findings[:3])
        return f"expected {example.finds} findings, got {len(result.findings)}{said}"
    return ""


def _rewrite_examples(
    pass_class: type[RewritingPass], rewrite: Try | None
) -> Iterator[ExampleResult]:
    if not pass_class.examples:
        yield ExampleResult(pass_class.name, "", "has no examples; give it at least one")
        return
    if rewrite is None:
        problem = "is of a rewrite pass; give rewrite=hlo_lab.api.passes.try_examples"
        for example in pass_class.examples:
            yield ExampleResult(pass_class.name, example.title, problem)
        return
    for example, trial in zip(pass_class.examples, rewrite(pass_class), strict=True):
        yield ExampleResult(pass_class.name, example.title, _wrong(example, trial))


def _wrong(example: RewriteExample, trial: Trial) -> str:
    if trial.problem:
        return trial.problem
    if trial.changes != example.changes:
        return f"expected {example.changes} changes, got {trial.changes}"
    missing = [name for name in example.has if name not in trial.ops]
    left = [name for name in example.lacks if name in trial.ops]
    said = [f"has no {', '.join(missing)} afterwards"] * bool(missing)
    said += [f"still has {', '.join(left)}"] * bool(left)
    return " and ".join(said)
