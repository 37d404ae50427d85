"""CPU time and peak memory of `hlo-lab analyze` on modules of 43,714 and 992,324 instructions.

The whole process counts, from the shell's point of view: start-up, reading, costs, memory,
every bundled pass and the report.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import modules

CORPUS = Path(__file__).resolve().parents[2] / "shared" / "corpus" / "openxla"
MODULES = ("hlo_mixtral_8x7b_bf16_2x8.hlo.gz", "hlo_llama31_405b_bf16_16x8.hlo.gz")
REPEAT = 3


def measure(words: list[str], repeat: int = REPEAT) -> tuple[float, float]:
    """(CPU seconds, peak MB) of one `python -m hlo_lab` process: the fastest of some runs."""
    runs = []
    for _ in range(repeat):
        command = [sys.executable, "-m", "hlo_lab", *words]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise SystemExit(f"{' '.join(command)} exited with {process.returncode}")
        runs.append((usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1000))
    return min(runs)


def main() -> None:
    for name in MODULES:
        path = CORPUS / name
        if not path.exists():
            print(f"{name}: no corpus beside this checkout")
            continue
        for verb, goal in (("analyze", "goal: under 5 s and 500 MB"), ("graph", "to dot")):
            seconds, megabytes = measure(["-q", verb, str(path)])
            label = f"{verb} {name.removesuffix('.hlo.gz')}"
            print(f"{label:<46}{seconds:6.2f} s CPU {megabytes:6.0f} MB  ({goal})")
    seconds, megabytes = measure(["-q", "analyze", str(modules.million())], repeat=1)
    goal = "goal: under 90 s and 6000 MB"
    print(f"{'analyze 992,324 instructions':<46}{seconds:6.2f} s CPU {megabytes:6.0f} MB  ({goal})")


if __name__ == "__main__":
    main()
