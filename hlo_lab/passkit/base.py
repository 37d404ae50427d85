"""What a pass is: a frozen dataclass whose fields are its options."""

from __future__ import annotations

import abc
import enum
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from hlo_lab.ir.module import Instruction, Module
from hlo_lab.passkit.context import Context
from hlo_lab.passkit.finding import Estimate, Finding, Severity, Where

if TYPE_CHECKING:
    from hlo_lab.passkit.hlo_rewriter import HloRewriter
    from hlo_lab.passkit.rewriter import Rewriter


@dataclass(frozen=True)
class Example:
    """A snippet that is both test and documentation.

    Exactly one of ``hlo`` (HLO text) and ``jax`` (Python source that defines ``f`` and
    ``example_args()``) is given. ``finds`` is how many findings the pass must give on it:
    0 makes a negative example. ``target`` is what a JAX example is compiled for, ``manifest``
    what the bundle says that the module is taken to come from.
    """

    title: str
    hlo: str = ""
    jax: str = ""
    finds: int = 1
    target: str = "cpu"
    manifest: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if bool(self.hlo) == bool(self.jax):
            raise ValueError(f"example {self.title!r}: give either hlo or jax")


@dataclass(frozen=True)
class RewriteExample:
    """A program before a rewrite: a test of numbers and structure, and documentation.

    ``jax`` is Python source that defines ``f`` and ``example_args()``. The pass must replace
    something ``changes`` times in it (0 makes a negative example); afterwards the StableHLO
    must have each operation of ``has`` and none of ``lacks``; and the results must be those
    of before. For a pass on HLO it is the HLO at its stage that must.
    """

    title: str
    jax: str
    changes: int = 1
    has: tuple[str, ...] = ()
    lacks: tuple[str, ...] = ()


class Pass(abc.ABC):
    """Of either kind: a frozen dataclass with ``code`` and ``name``.

    Its docstring has the headings that its kind names; its fields, each with a default, are
    options: ``--pass 'fusion{min_bytes=1MiB}'``.
    """

    kind: ClassVar[str]
    headings: ClassVar[tuple[str, ...]]
    example_type: ClassVar[type]
    code: ClassVar[str]
    name: ClassVar[str]


class AnalysisPass(Pass):
    """A pass that reads a module and yields findings."""

    kind: ClassVar[str] = "analysis"
    headings: ClassVar[tuple[str, ...]] = (
        "What it finds",
        "Why it matters",
        "Example",
        "What to do",
        "How it is verified",
    )
    example_type: ClassVar[type] = Example
    examples: ClassVar[tuple[Example, ...]] = ()

    @abc.abstractmethod
    def run(self, module: Module, context: Context) -> Iterator[Finding]:
        """Yield what it finds. ``context`` has the cost, memory and machine of the module."""

    def finding(
        self,
        instruction: Instruction,
        message: str,
        *,
        severity: Severity = Severity.WARNING,
        advice: str = "",
        remedy: tuple[str, ...] = (),
        seconds: float | None = None,
        bytes: int | None = None,
        context: Context | None = None,
    ) -> Finding:
        """A finding of this pass at ``instruction``; ``seconds`` and ``bytes`` are savings.

        ``remedy`` names rewrite passes that do what ``advice`` says; see ``Finding``.
        """
        machine = context.machine.name if context is not None else ""
        return Finding(
            code=self.code,
            pass_name=self.name,
            severity=severity,
            message=message,
            where=Where.of(instruction),
            advice=advice,
            remedy=remedy,
            estimate=Estimate(seconds, bytes, machine),
        )


class Stage(enum.StrEnum):
    """When a rewrite happens, on the way from JAX to the device."""

    STABLEHLO = "stablehlo"  # as JAX lowers it
    HLO = "hlo"  # as XLA gets it, before any of its passes
    PRE_SCHEDULER = "pre-scheduler"  # inside XLA, after fusion
    POST_SCHEDULER = "post-scheduler"  # the same with a schedule

    @property
    def is_inside(self) -> bool:
        """Whether it is while XLA compiles."""
        return self in (Stage.PRE_SCHEDULER, Stage.POST_SCHEDULER)


class RewritingPass(Pass):
    """A pass that changes a program: ``RewritePass`` and ``HloRewritePass``.

    Attributes:
        stage: when; see ``Stage``.
        relative_error: how far results may be off where the pass means to change more than
            the rounding; None for what rounding explains. See ``measure.numbers``.
        everywhere: it changes the whole program, whatever place it is given.
        changes_call: it changes what callers count on, donation or layouts, so that
            ``hlo-lab run`` refuses it.
    """

    kind: ClassVar[str] = "rewrite"
    headings: ClassVar[tuple[str, ...]] = (
        "What it rewrites",
        "Why it matters",
        "Example",
        "When it does not pay",
        "What changes in the numbers",
    )
    example_type: ClassVar[type] = RewriteExample
    examples: ClassVar[tuple[RewriteExample, ...]] = ()
    relative_error: ClassVar[float | None] = None
    everywhere: ClassVar[bool] = False
    changes_call: ClassVar[bool] = False
    stage: ClassVar[str] = Stage.STABLEHLO


class RewritePass(RewritingPass):
    """A pass that changes a program's StableHLO."""

    @abc.abstractmethod
    def rewrite(self, module: Rewriter) -> None:
        """Look through ``module`` and replace; calls of functions are inlined before."""


class HloRewritePass(RewritingPass):
    """A pass that changes a program's HLO: before XLA optimises it, or inside XLA.

    ``stage`` says when: ``"hlo"``, ``"pre-scheduler"`` or ``"post-scheduler"``.
    """

    stage: ClassVar[str] = Stage.HLO

    @abc.abstractmethod
    def rewrite(self, module: HloRewriter) -> None:
        """Look through ``module`` and replace."""
