"""What a comparison of two modules says."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Any

from hlo_lab.diff.match import Matching
from hlo_lab.ir.source import Frame


class Verdict(enum.StrEnum):
    """``ADDED`` and ``REMOVED`` say that a program exists on one side alone."""

    IDENTICAL = "identical"
    EQUIVALENT = "equivalent"
    CHANGED = "changed"
    ADDED = "added"
    REMOVED = "removed"


class Kind(enum.StrEnum):
    """What happened to a group of operations."""

    ADDED = "added"
    REMOVED = "removed"
    REPLACED = "replaced"
    OPERANDS = "operands"
    SHAPE = "shape"
    DTYPE = "dtype"
    ATTRIBUTE = "attribute"
    CONSTANT = "constant"
    LAYOUT = "layout"
    COLLECTIVE = "collective"
    FUSION = "fusion"
    RECOMPUTE = "recompute"
    DONATION = "donation"
    MODULE = "module"
    NO_EFFECT = "no_effect"


@dataclass(frozen=True)
class Side:
    """A change in one of the modules: at most ``MOST`` names and source lines, the first ones.

    ``seconds`` is the estimated time per call of the kernels that the change touches;
    None where no cost model ran.
    """

    instructions: tuple[str, ...] = ()
    source: tuple[Frame, ...] = ()
    op_name: str = ""
    seconds: float | None = None

    def to_dict(self) -> dict[str, Any]:
        return {
            "instructions": list(self.instructions),
            "source": [
                {"file": frame.file, "line": frame.line, "function": frame.function}
                for frame in self.source
            ],
            "op_name": self.op_name,
            "seconds": self.seconds,
        }


@dataclass(frozen=True)
class Change:
    """One group of differences.

    ``count`` operations changed in all, as ``repeats`` equal groups (one per layer, say).
    ``cause`` says why, where that can be known; else it is empty.
    """

    kind: Kind
    summary: str
    count: int
    repeats: int = 1
    before: Side = field(default_factory=Side)
    after: Side = field(default_factory=Side)
    cause: str = ""
    # whether it merely hands values on: tuples, their elements, bitcasts
    plumbing: bool = field(default=False, repr=False)
    # the nodes behind it, for the estimate of its cost
    nodes_before: tuple[int, ...] = field(default=(), repr=False)
    nodes_after: tuple[int, ...] = field(default=(), repr=False)

    @property
    def seconds(self) -> float | None:
        """Estimated time after less time before."""
        if self.before.seconds is None or self.after.seconds is None:
            return None
        return self.after.seconds - self.before.seconds

    def to_dict(self) -> dict[str, Any]:
        return {
            "kind": str(self.kind),
            "summary": self.summary,
            "count": self.count,
            "repeats": self.repeats,
            "before": self.before.to_dict(),
            "after": self.after.to_dict(),
            "cause": self.cause,
        }


@dataclass
class DiffResult:
    """The comparison of two modules.

    ``matched`` operations stand on both sides, ``changed`` of them with a difference;
    ``added`` and ``removed`` stand on one side alone. Operations are counted in the flat
    view: fusions and calls inlined, equal operations once, tuples and reshapes without
    effect left out. ``matching`` has the pairs; None for identical modules, which are
    not matched one by one. With ``shares_kernels`` a kernel is in several changes, whose
    seconds then do not sum up to the difference.
    """

    verdict: Verdict
    deltas: dict[str, dict[str, float]]
    matched: int = 0
    changed: int = 0
    added: int = 0
    removed: int = 0
    changes: list[Change] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    matching: Matching | None = None
    shares_kernels: bool = False

    def to_dict(self) -> dict[str, Any]:
        """The members of the JSON document, without ``schema`` and ``budgets``."""
        return {
            "verdict": str(self.verdict),
            "matched": self.matched,
            "changed": self.changed,
            "added": self.added,
            "removed": self.removed,
            "changes": [change.to_dict() for change in self.changes],
            "deltas": self.deltas,
            "notes": self.notes,
        }
