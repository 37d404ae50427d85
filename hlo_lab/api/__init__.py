"""One function per command, for notebooks and scripts: what the command line itself calls.

    >>> from hlo_lab import api
    >>> api.analyze("train.py:step").summary()["peak_bytes"]

Names are imported when they are first used, so ``import hlo_lab.api`` is cheap.
"""

from __future__ import annotations

import importlib
import sys
import types
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hlo_lab.api.analyze import Analysis as Analysis
    from hlo_lab.api.analyze import analyze as analyze
    from hlo_lab.api.calibrate import Calibrated as Calibrated
    from hlo_lab.api.calibrate import calibrate as calibrate
    from hlo_lab.api.compare import TargetComparison as TargetComparison
    from hlo_lab.api.compare import compare as compare
    from hlo_lab.api.diff import diff as diff
    from hlo_lab.api.doctor import doctor as doctor
    from hlo_lab.api.dump import dump as dump
    from hlo_lab.api.dump import dump_script as dump_script
    from hlo_lab.api.graph import graph as graph
    from hlo_lab.api.measure import Measured as Measured
    from hlo_lab.api.measure import measure as measure
    from hlo_lab.api.rewrite import Rewrite as Rewrite
    from hlo_lab.api.rewrite import rewrite as rewrite
    from hlo_lab.api.run import ScriptRewrite as ScriptRewrite
    from hlo_lab.api.run import run as run
    from hlo_lab.api.source import Loaded as Loaded
    from hlo_lab.api.source import load as load
    from hlo_lab.api.targets import targets as targets

_HOME = {
    "Analysis": "hlo_lab.api.analyze",
    "analyze": "hlo_lab.api.analyze",
    "Calibrated": "hlo_lab.api.calibrate",
    "calibrate": "hlo_lab.api.calibrate",
    "TargetComparison": "hlo_lab.api.compare",
    "compare": "hlo_lab.api.compare",
    "diff": "hlo_lab.api.diff",
    "doctor": "hlo_lab.api.doctor",
    "dump": "hlo_lab.api.dump",
    "dump_script": "hlo_lab.api.dump",
    "graph": "hlo_lab.api.graph",
    "Measured": "hlo_lab.api.measure",
    "measure": "hlo_lab.api.measure",
    "Rewrite": "hlo_lab.api.rewrite",
    "rewrite": "hlo_lab.api.rewrite",
    "ScriptRewrite": "hlo_lab.api.run",
    "run": "hlo_lab.api.run",
    "Loaded": "hlo_lab.api.source",
    "load": "hlo_lab.api.source",
    "targets": "hlo_lab.api.targets",
}

__all__ = [
    "Analysis",
    "Calibrated",
    "Loaded",
    "Measured",
    "Rewrite",
    "ScriptRewrite",
    "TargetComparison",
    "analyze",
    "calibrate",
    "compare",
    "diff",
    "doctor",
    "dump",
    "dump_script",
    "graph",
    "load",
    "measure",
    "rewrite",
    "run",
    "targets",
]


class _Api(types.ModuleType):
    """Importing ``hlo_lab.api.analyze`` would put that module where the function belongs."""

    def __getattr__(self, name: str) -> Any:
        home = _HOME.get(name)
        if home is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(importlib.import_module(home), name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in _HOME or not isinstance(value, types.ModuleType):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Api
