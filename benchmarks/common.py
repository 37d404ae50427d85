"""CPU seconds and peak memory of one function, each in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass

_CODE = """
import gc, json, resource, sys, time
{setup}
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
gc.collect()
start = time.process_time()
{statement}
seconds = time.process_time() - start
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps([seconds, peak * 1024, (peak - before) * 1024]))
"""


@dataclass(frozen=True)
class Cost:
    """CPU ``seconds`` of the statement; ``peak`` bytes of the process; ``grown`` bytes by it."""

    seconds: float
    peak: int
    grown: int


def cost(statement: str, setup: str = "", repeat: int = 1) -> Cost:
    """Run ``statement`` after ``setup`` in a fresh Python; the fastest of ``repeat`` runs.

    Raises:
        subprocess.CalledProcessError: the code raised.
    """
    runs = []
    for _ in range(repeat):
        code = _CODE.format(setup=setup, statement=statement)
        done = subprocess.run(
            [sys.executable, "-c", code], check=True, stdout=subprocess.PIPE, text=True
        )
        runs.append(Cost(*json.loads(done.stdout.splitlines()[-1])))
    return min(runs, key=lambda run: run.seconds)
