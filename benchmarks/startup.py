"""CPU time of `hlo-lab --help` and of one command's help, as a ratio to bare Python."""

from __future__ import annotations

import resource
import shutil
import subprocess
import sys
from pathlib import Path

REPEAT = 15
GOAL = 6.0


def cpu_seconds(command: list[str]) -> float:
    """The least of ``REPEAT`` runs: what the command itself needs on a busy machine."""
    runs = []
    for _ in range(REPEAT):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        runs.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return min(runs)


def main() -> None:
    script = Path(sys.executable).with_name("hlo-lab")
    program = str(script) if script.exists() else shutil.which("hlo-lab")
    if program is None:
        raise SystemExit("hlo-lab is not installed beside this Python; run pip install -e .")
    bare = cpu_seconds([sys.executable, "-c", "pass"])
    print(f"{'python -c pass':<24}{bare * 1000:7.1f} ms")
    for words in (["--help"], ["--version"], ["analyze", "--help"]):
        seconds = cpu_seconds([program, *words])
        goal = f"  (goal: at most {GOAL:g})" if words == ["--help"] else ""
        name = " ".join(["hlo-lab", *words])
        print(f"{name:<24}{seconds * 1000:7.1f} ms  {seconds / bare:5.1f} times{goal}")


if __name__ == "__main__":
    main()
