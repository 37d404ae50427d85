"""Comparing two modules: a verdict, what changed and where, and what it costs."""

from hlo_lab.diff.compare import diff_modules, one_sided
from hlo_lab.diff.result import Change, DiffResult, Kind, Side, Verdict

__all__ = ["Change", "DiffResult", "Kind", "Side", "Verdict", "diff_modules", "one_sided"]
