"""What `dump --target tpu:...` takes beyond a bare lower().compile() in a process of its own.

Needs the extra `tpu`. Each pair is run alternately, and the least of each is compared: CPU
seconds of the process and all its children, and elapsed seconds.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

REPEAT = 2
GOAL = 1.15
TARGET = "tpu:v5e:2x2"
FIXTURES = Path(__file__).parents[1] / "fixtures" / "programs"
PROGRAMS = ("moe.py:train_step", "sharded.py:train_step_tensor")

_BARE = """
import importlib.util, sys
import jax
from jax.experimental import topologies
file, name = sys.argv[1:]
topology = topologies.get_topology_desc(topology_name="v5e:2x2", platform="tpu")
mesh = topologies.make_mesh(topology, (4,), ("data",))
spec = importlib.util.spec_from_file_location("program", file)
program = importlib.util.module_from_spec(spec)
sys.modules["program"] = program
spec.loader.exec_module(program)
step = getattr(program, name)
example = getattr(step, "example_args", None) or program.example_args
args = example(mesh) if "mesh" in example.__code__.co_varnames[:1] else example()
one = jax.sharding.Mesh(mesh.devices.flatten()[:1], ("data",))
step = step if hasattr(step, "trace") else jax.jit(step)
if "mesh" in example.__code__.co_varnames[:1]:
    compiled = step.lower(*args).compile()
else:
    with jax.set_mesh(one):
        compiled = step.lower(*args).compile()
"""


def seconds(command: list[str]) -> tuple[float, float]:
    """(CPU, elapsed) of a command and all its children."""
    environment = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "TPU_SKIP_MDS_QUERY": "1",
        "JAX_ENABLE_COMPILATION_CACHE": "0",
    }
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    subprocess.run(
        command,
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=environment,
        cwd=FIXTURES,
    )
    elapsed, after = time.monotonic() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return cpu, elapsed


def main() -> None:
    if find_spec("libtpu") is None:
        raise SystemExit("libtpu is not installed: pip install 'hlo-lab[tpu]'")
    print(f"{TARGET:<32}{'bare':>18}{'dump':>18}  ratio (goal: at most {GOAL:g})")
    with tempfile.TemporaryDirectory() as folder:
        for program in sys.argv[1:] or PROGRAMS:
            dump = [sys.executable, "-m", "hlo_lab", "-q", "dump", program, "--target", TARGET]
            dump += ["-o", str(Path(folder, "out"))]
            bare = [sys.executable, "-c", _BARE, *program.split(":")]
            runs = [(seconds(bare), seconds(dump)) for _ in range(REPEAT)]
            for position, name in enumerate(("CPU", "elapsed")):
                least, ours = (min(run[side][position] for run in runs) for side in (0, 1))
                label = f"{program} {name}"
                print(f"{label:<38}{least:>10.2f} s{ours:>16.2f} s  {ours / least:.2f}")


if __name__ == "__main__":
    main()
