"""Readers against jaxlib's own text parser, on one module of about 100,000 instructions.

    python benchmarks/readers.py [--layers N] [--repeat 3]

CPU seconds and growth of peak memory, each in a fresh process, imports not counted.
"""

from __future__ import annotations

import argparse

from common import Cost, cost
from modules import LAYERS, modules

_READ = "from hlo_lab.ir.files import read_module\nimport hlo_lab.ir.proto"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layers", type=int, default=LAYERS)
    parser.add_argument("--repeat", type=int, default=3)
    options = parser.parse_args()
    paths = modules(options.layers)
    text, proto = str(paths["train.hlo"]), str(paths["train.pb"])
    theirs = cost(
        f"module = hlo_module_from_text(open({text!r}).read())",
        "from jaxlib._hlo import hlo_module_from_text",
        options.repeat,
    )
    rows = {
        "jaxlib, text": theirs,
        "hlo-lab, text": cost(f"module = read_module({text!r})", _READ, options.repeat),
        "hlo-lab, proto": cost(f"module = read_module({proto!r})", _READ, options.repeat),
    }
    for name, run in rows.items():
        print(_line(name, run, theirs))


def _line(name: str, run: Cost, theirs: Cost) -> str:
    return (
        f"{name:<16}{run.seconds:7.3f} s ({run.seconds / theirs.seconds:4.2f}x)"
        f"{run.grown / 2**20:8.0f} MB ({run.grown / theirs.grown:4.2f}x)"
    )


if __name__ == "__main__":
    main()
