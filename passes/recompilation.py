"""CMP002: functions that a script compiles again and again."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from hlo_lab.ir.module import Module
from hlo_lab.passkit.base import AnalysisPass, Example
from hlo_lab.passkit.context import Context
from hlo_lab.passkit.finding import Finding, Severity
from hlo_lab.passkit.recompiling import advice, story

_TEXT = """HloModule jit_step

ENTRY %main (x: f32[16]) -> f32[16] {
  %x = f32[16]{0} parameter(0)
  ROOT %y = f32[16]{0} tanh(%x)
}
"""


def _manifest(place: str, *sizes: int) -> Mapping[str, Any]:
    changes = [
        {
            "cause": "shape",
            "argument": "x",
            "before": f"f32[{before}]",
            "after": f"f32[{after}]",
            "times": 1,
        }
        for before, after in itertools.pairwise(sizes)
    ]
    programs = ["jit_step", *(f"jit_step.{number}" for number in range(2, len(sizes) + 1))]
    again = {
        "function": "step",
        "place": place,
        "programs": programs,
        "seconds": 2.5,
        "changes": changes,
    }
    return {"recompiled": again}


@dataclass(frozen=True)
class RecompilationPass(AnalysisPass):
    """A function that a script compiled several times, and which argument changed.

    What it finds
        In a bundle of ``hlo-lab dump --script``: a function of the user's that JAX traced or
        compiled again in the same run, with JAX's own reason: another shape, dtype, weak type
        (a Python number one time, an array another), sharding, static value or pytree, or a
        new function object, since a lambda or a nested function is jitted anew each time.

    Why it matters
        Each compilation takes seconds to minutes, in the middle of a run, and the device waits.

    Example
        ``for i in range(3): jax.jit(lambda x: x * i)(w)``, or a last batch that is smaller.

    What to do
        What the finding says for the most frequent cause: pad to a few sizes, convert before
        the call, jit once outside of the loop. Two or three programs may be what is wanted
        (a training and an evaluation batch): then it is as it should be.

    How it is verified
        Run the script again after the change: ``hlo-lab dump --script`` lists the function no
        more. Batches of 8, 16 and 24 rows: 3 programs, 0.35 s of XLA more than for one on cpu;
        padded to 24: one program. Scripts with one cause of each kind (shape, dtype, weak type,
        sharding, static value, structure, new function) gave each with its argument.
    """

    code: ClassVar[str] = "CMP002"
    name: ClassVar[str] = "recompilation"
    examples: ClassVar[tuple[Example, ...]] = (
        Example("three batch sizes", _TEXT, manifest=_manifest("train.py:8", 8, 16, 24)),
        Example("a bundle of one program", _TEXT, finds=0),
        Example("operations outside of jit", _TEXT, finds=0, manifest=_manifest("", 8, 16, 24)),
    )

    warn_programs: int = 8  # of one function, from which on it is a warning
    warn_seconds: float = 1.0  # of XLA for all but the first program, likewise

    def run(self, module: Module, context: Context) -> Iterator[Finding]:
        """Yield at most one finding, on the function that the module is of."""
        again = context.manifest.get("recompiled")
        if not again or not again["place"]:
            return
        many = len(again["programs"]) >= self.warn_programs
        file, _, line = again["place"].rpartition(":")
        yield self.finding(
            module.instruction(int(module.computation_root[module.entry])),
            f"{again['function']} ({file.rsplit('/', 1)[-1]}:{line}) was compiled {story(again)}",
            severity=Severity.WARNING
            if many or again["seconds"] >= self.warn_seconds
            else Severity.NOTE,
            advice=advice(again),
            context=context,
        )
