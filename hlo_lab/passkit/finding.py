"""What a pass reports."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from hlo_lab.ir.module import Instruction
from hlo_lab.ir.source import Frame


class Severity(enum.IntEnum):
    """Ordered, so that ``--fail-on warning`` is a comparison."""

    NOTE = 0
    WARNING = 1
    ERROR = 2

    def __str__(self) -> str:
        return self.name.lower()

    @classmethod
    def parse(cls, text: str) -> Severity:
        """Raises ``ValueError`` that lists the names."""
        try:
            return cls[text.strip().upper()]
        except KeyError:
            raise ValueError(f"severity {text!r} is none of note, warning, error") from None


@dataclass(frozen=True)
class Where:
    """The place of a finding: an instruction and the user's source lines behind it."""

    computation: str = ""
    instruction: str = ""
    op_name: str = ""
    source: tuple[Frame, ...] = ()

    @classmethod
    def of(cls, instruction: Instruction) -> Where:
        return cls(
            computation=instruction.computation.name,
            instruction=instruction.name,
            op_name=instruction.op_name,
            source=instruction.source,
        )


@dataclass(frozen=True)
class Estimate:
    """What acting on a finding would save: ``seconds`` and ``bytes`` per step on ``machine``.

    None means not estimated. ``machine`` is the name of the machine description.
    """

    seconds: float | None = None
    bytes: int | None = None
    machine: str = ""


class VerificationStatus(enum.StrEnum):
    NOT_TRIED = "not_tried"
    CONFIRMED = "confirmed"
    REFUTED = "refuted"


@dataclass(frozen=True)
class Verification:
    """Whether the advice was tried by recompiling: ``metric`` before and after."""

    status: VerificationStatus = VerificationStatus.NOT_TRIED
    metric: str = ""
    before: float | None = None
    after: float | None = None


@dataclass(frozen=True)
class Finding:
    """One piece of advice. ``code`` is stable (``FUS001``); ``advice`` is what to do next.

    ``remedy`` is the advice as rewrite passes, each as ``hlo-lab rewrite`` takes it, so that
    it can be tried without a change of the source; empty where no pass does it.
    """

    code: str
    pass_name: str
    severity: Severity
    message: str
    where: Where
    advice: str = ""
    remedy: tuple[str, ...] = ()
    estimate: Estimate = field(default_factory=Estimate)
    verification: Verification = field(default_factory=Verification)
