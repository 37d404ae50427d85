"""What each rewrite pass does to a program: numbers, time and peak, before and after.

Each is tried on a fixture program that it changes, or else on its own first example, for CPU,
TPU and GPU. Nothing runs on a TPU or GPU: time there is the compiler's or the model's estimate.

    python benchmarks/rewrites.py --keep results                # resumes where it stopped
    python benchmarks/rewrites.py --keep results --measure      # calls on this CPU, in pairs
    python benchmarks/rewrites.py --keep results --out docs/rewrite-table.md
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hlo_lab.api.rewrite import rewrite
from hlo_lab.errors import HloLabError
from hlo_lab.passkit.base import RewriteExample
from hlo_lab.passkit.discovery import BUNDLED, bundled_folder, folder_passes
from hlo_lab.passkit.loading import PassInfo
from hlo_lab.passkit.wording import bytes_text, seconds_text

ROOT = Path(__file__).resolve().parents[1]
PROGRAMS_FOLDER = ROOT / "fixtures" / "programs"
TARGETS = ("cpu", "tpu:v5e", "gpu:h100")
PROGRAMS = {
    "sort-to-top-k": "rewrites.py:sample",
    "one-hot-to-gather": "rewrites.py:embed",
    "gather-to-one-hot": "rewrites.py:pick",
    "batch-products": "rewrites.py:heads",
    "concatenate-to-update": "rewrites.py:append",
    "one-pass-norm": "rewrites.py:normalise",
    "reassociate-products": "rewrites.py:chain",
    "drop-pairs": "rewrites.py:turns",
    "lower-precision": "rewrites.py:precise",
    "donate-arguments": "rewrites.py:descend",
    "unroll-loop": "rewrites.py:smooth",
    "drop-callbacks": "rewrites.py:watched",
    "narrow-types": "rewrites.py:grid",
    "recompute": "rewrites.py:deep",
    "depth-first": "rewrites.py:ensemble",
}
SECONDS = 1.0  # of calls, where they are timed
BASES = {"compiler": "compiler's cycles", "model": "model", "structure": "", "numbers": ""}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--keep", type=Path, required=True, help="folder of results")
    parser.add_argument("--measure", action="store_true", help="time the fixture programs on CPU")
    parser.add_argument("--out", type=Path, help="write the table there, of what is in --keep")
    options = parser.parse_args()
    options.keep.mkdir(parents=True, exist_ok=True)
    passes = [each for each in folder_passes(bundled_folder(), BUNDLED) if each.kind == "rewrite"]
    passes.sort(key=lambda each: (each.name not in PROGRAMS, each.name))
    if options.out is not None:
        options.out.write_text("\n".join(page(passes, options.keep)) + "\n")
        return
    if options.measure:
        jobs = [(info, "cpu", measured_at(info, options.keep)) for info in passes]
        jobs = [job for job in jobs if job[0].name in PROGRAMS]
    else:
        jobs = [
            (each, target, kept_at(each, target, options.keep))
            for each in passes
            for target in TARGETS
        ]
    for info, target, place in jobs:
        if not place.exists():
            print(info.name, target, file=sys.stderr, flush=True)
            place.write_text(json.dumps(tried(info, target, options.keep, options.measure)))


def kept_at(info: PassInfo, target: str, folder: Path) -> Path:
    return folder / f"{info.name}.{target.replace(':', '-')}.json"


def measured_at(info: PassInfo, folder: Path) -> Path:
    return folder / f"{info.name}.measured.json"


def tried(info: PassInfo, target: str, folder: Path, measure: bool = False) -> dict[str, Any]:
    """The document of ``rewrite``, or why there is none."""
    try:
        program = program_of(info, folder)
        done = rewrite(
            info.name, program, target=target, measure=measure, seconds=SECONDS
        ).to_dict()
    except HloLabError as error:
        return {"error": str(error).splitlines()[0]}
    return {**done, "deltas": done.pop("diff")["deltas"]}


def program_of(info: PassInfo, folder: Path) -> str:
    if info.name in PROGRAMS:
        return str(PROGRAMS_FOLDER / PROGRAMS[info.name])
    place = folder / f"{info.name.replace('-', '_')}.py"
    example: RewriteExample = next(
        each for each in vars(info.pass_class)["examples"] if each.changes
    )
    place.write_text(example.jax)
    return f"{place}:f"


def page(passes: list[PassInfo], folder: Path) -> Iterator[str]:
    versions = ", ".join(
        f"{name} {importlib.metadata.version(name)}" for name in ("jax", "jaxlib", "libtpu")
    )
    yield "# What the rewrite passes do"
    yield ""
    yield (
        f"Written by `benchmarks/rewrites.py` with {versions}. Programs ran on this machine's CPU "
        "alone, nothing on a TPU or GPU. A time is measured on one core of it, in pairs of calls, "
        "where the verdict says so; others are estimates, by the model of the machine or by the "
        "cycles of the TPU compiler. The peak "
        "is arguments, results and temporaries of the compiled program. A pass that has no "
        "fixture program is tried on its own example, which is small: its times say little."
    )
    yield ""
    yield "| pass | program | target | changes | largest error | verdict | time | peak |"
    yield "|---|---|---|---|---|---|---|---|"
    for info in passes:
        for target in TARGETS:
            place = kept_at(info, target, folder)
            if target == "cpu" and measured_at(info, folder).exists():
                place = measured_at(info, folder)
            if place.exists():
                yield row(info, target, json.loads(place.read_text()))


def row(info: PassInfo, target: str, found: dict[str, Any]) -> str:
    program = f"`{PROGRAMS.get(info.name, 'its example')}`"
    if "error" in found:
        return f"| `{info.name}` | {program} | {target} | | | {found['error']} | | |"
    if found["time"] is not None:
        found = {**found, "basis": "measured"}
    numbers, seconds, peak = found["numbers"], found["seconds"], found["deltas"]["peak_bytes"]
    error = "not run"
    if numbers is not None:
        worst = max((each["max_rel"] for each in numbers["outputs"]), default=0.0)
        error = f"{worst:.1e}" if worst else "0"
    basis = BASES.get(found["basis"], found["basis"])
    verdict = "refuted: slower" if found["verdict"] == "slower" else found["verdict"]
    changes = sum(each["changes"] for each in found["passes"])
    cells = [
        f"`{info.name}`",
        program,
        target,
        str(changes),
        error,
        f"{verdict} ({basis})" if basis else verdict,
        f"{seconds_text(seconds['before'])} → {seconds_text(seconds['after'])}",
        f"{bytes_text(peak['before'])} → {bytes_text(peak['after'])}",
    ]
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
