"""From a program to its stages: naming it, lowering it in a process of its own, bundles.

This package imports without JAX; only ``lowering.worker`` and ``lowering.adapter`` need it.
Names are imported when they are first used: a worker runs in another environment's Python,
which need not have what the rest of hlo-lab needs.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hlo_lab.lowering.bundle import HLO_STAGES, STAGES, Bundle
    from hlo_lab.lowering.cache import dump_cached
    from hlo_lab.lowering.dumping import dump
    from hlo_lab.lowering.reference import ProgramReference
    from hlo_lab.lowering.scripts import ScriptRun, dump_script, open_index
    from hlo_lab.lowering.target import Target

_HOME = {
    "HLO_STAGES": "bundle",
    "STAGES": "bundle",
    "Bundle": "bundle",
    "ProgramReference": "reference",
    "ScriptRun": "scripts",
    "Target": "target",
    "dump": "dumping",
    "dump_cached": "cache",
    "dump_script": "scripts",
    "open_index": "scripts",
}

__all__ = [
    "HLO_STAGES",
    "STAGES",
    "Bundle",
    "ProgramReference",
    "ScriptRun",
    "Target",
    "dump",
    "dump_cached",
    "dump_script",
    "open_index",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"hlo_lab.lowering.{_HOME[name]}"), name)
