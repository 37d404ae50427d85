"""What a pass is: a frozen dataclass whose fields are its options."""

from __future__ import annotations

import abc
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from hlo_lab.ir.module import Instruction, Module
from hlo_lab.passkit.context import Context
from hlo_lab.passkit.finding import Estimate, Finding, Severity, Where


@dataclass(frozen=True)
class Example:
    """A snippet that is both test and documentation.

    Exactly one of ``hlo`` (HLO text) and ``jax`` (Python source that defines ``f`` and
    ``example_args()``) is given. ``finds`` is how many findings the pass must give on it:
    0 makes a negative example. ``target`` is what a JAX example is compiled for.
    """

    title: str
    hlo: str = ""
    jax: str = ""
    finds: int = 1
    target: str = "cpu"

    def __post_init__(self) -> None:
        if bool(self.hlo) == bool(self.jax):
            raise ValueError(f"example {self.title!r}: give either hlo or jax")


class AnalysisPass(abc.ABC):
    """A pass that reads a module and yields findings.

    A subclass is a frozen dataclass with ``code`` and ``name``; its docstring has the
    headings *What it finds*, *Why it matters*, *Example*, *What to do* and *How it is
    verified*; its fields, each with a default, are options:
    ``--pass 'fusion{min_bytes=1MiB}'``.
    """

    code: ClassVar[str]
    name: ClassVar[str]
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
        seconds: float | None = None,
        bytes: int | None = None,
        context: Context | None = None,
    ) -> Finding:
        """A finding of this pass at ``instruction``; ``seconds`` and ``bytes`` are savings."""
        machine = context.machine.name if context is not None else ""
        return Finding(
            code=self.code,
            pass_name=self.name,
            severity=severity,
            message=message,
            where=Where.of(instruction),
            advice=advice,
            estimate=Estimate(seconds, bytes, machine),
        )
