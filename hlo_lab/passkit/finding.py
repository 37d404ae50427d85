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
    UNDECIDED = "undecided"  # estimates contradict each other, or one gain has another's price
    FAILED = "failed"  # the rewrite or the compiler did


@dataclass(frozen=True)
class BeforeAfter:
    """One figure of the program without and with the advice."""

    before: float
    after: float

    @property
    def saved(self) -> float:
        """Negative where it grew."""
        return self.before - self.after


@dataclass(frozen=True)
class Verification:
    """What came of applying a finding's remedy at its place and compiling again.

    Attributes:
        seconds: of a call; None where there is no figure. ``basis`` says whose they are:
            ``measured``, ``compiler`` or ``model`` (see ``cost.judge``), ``coverage`` how much
            of them is the compiler's, 0 to 1.
        peak_bytes: arguments, outputs and temporaries, by the compiler.
        ratio: the finding's estimate of what counts, over what it came to; None where
            nothing was estimated, or nothing saved.
        agrees: whether the numbers are those of the program as it is; None for not compared.
        place: where the remedy was applied: a source line, the name of an operation, or
            ``everywhere``.
        reason: a line of why it is not tried, refuted, undecided or failed, or what else to
            know.
    """

    status: VerificationStatus = VerificationStatus.NOT_TRIED
    seconds: BeforeAfter | None = None
    basis: str = ""
    coverage: float = 0.0
    peak_bytes: BeforeAfter | None = None
    ratio: float | None = None
    agrees: bool | None = None
    place: str = ""
    reason: str = ""


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
