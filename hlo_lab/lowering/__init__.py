"""From a program to its stages: naming it, lowering it in a process of its own, bundles.

This package imports without JAX; only ``lowering.worker`` and ``lowering.adapter`` need it.
"""

from __future__ import annotations

from hlo_lab.lowering.bundle import HLO_STAGES, STAGES, Bundle
from hlo_lab.lowering.dumping import dump
from hlo_lab.lowering.reference import ProgramReference
from hlo_lab.lowering.scripts import ScriptRun, dump_script, open_index
from hlo_lab.lowering.target import Target

__all__ = [
    "HLO_STAGES",
    "STAGES",
    "Bundle",
    "ProgramReference",
    "ScriptRun",
    "Target",
    "dump",
    "dump_script",
    "open_index",
]
