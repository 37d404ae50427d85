"""Machines: what an estimate needs to know of a device, from data files with their sources."""

from __future__ import annotations

import functools
import re
import tomllib
from dataclasses import dataclass
from importlib import resources
from typing import Any

from hlo_lab.errors import NotFoundError

# A vector unit computes what it has no type for in its f32 lanes.
_DEFAULT_VECTOR = "f32"
_CLOUD_COUNT = re.compile(r"-\d+$")  # v6e-8: eight of them, as Google Cloud names slices


@dataclass(frozen=True, eq=False)
class Machine:
    """One device, as a roofline sees it. Figures are peaks of the vendor or measured.

    Attributes:
        name: short name, as ``load`` takes it; title: the full one.
        kind: ``tpu``, ``gpu`` or ``cpu``.
        matrix_flops: dot and convolution flop/s by operand type, dense.
        vector_flops: all other flop/s by type; ``transcendental`` is calls per second.
        bandwidth: (bytes that fit, bytes/s) by memory level, smallest first; the last
            level holds everything. A kernel is charged the level its bytes fit in.
        launch_overhead: seconds added per executed kernel.
        memory_bytes: capacity of the device's main memory.
        interconnect_bandwidth: bytes/s per device and direction, all links together.
        interconnect_latency: seconds per hop.
        clock: hertz of the core whose cycles the compiler estimates; 0 where it estimates none.
        sources: where each figure comes from.
    """

    name: str
    title: str
    kind: str
    matrix_flops: dict[str, float]
    vector_flops: dict[str, float]
    bandwidth: tuple[tuple[float, float], ...]
    launch_overhead: float
    memory_bytes: int
    interconnect_bandwidth: float
    interconnect_latency: float
    sources: tuple[str, ...]
    aliases: tuple[str, ...] = ()
    clock: float = 0.0

    @property
    def memory_bandwidth(self) -> float:
        """Bytes/s of main memory."""
        return self.bandwidth[-1][1]

    def matrix_peak(self, dtype: str) -> float:
        """Dot flop/s for operands of ``dtype``; the vector units' where none is listed."""
        if dtype in self.matrix_flops:
            return self.matrix_flops[dtype]
        if dtype.startswith("f8") or dtype in ("u8", "s8"):
            # an 8-bit type without units of its own is widened to bf16 or f16
            for wide in ("s8", "bf16", "f16"):
                if wide in self.matrix_flops:
                    return self.matrix_flops[wide]
        if dtype in ("f64", "c128", "f32", "c64"):
            real = {"c64": "f32", "c128": "f64"}.get(dtype, dtype)
            return self.matrix_flops.get(real, self.vector_peak(real))
        return max(self.matrix_flops.get("bf16", 0.0), self.vector_peak(dtype))

    def vector_peak(self, dtype: str) -> float:
        """Elementwise flop/s for results of ``dtype``."""
        return self.vector_flops.get(dtype, self.vector_flops[_DEFAULT_VECTOR])

    @property
    def transcendental_peak(self) -> float:
        """Transcendental calls per second."""
        return self.vector_flops.get("transcendental", self.vector_flops[_DEFAULT_VECTOR] / 8)


@functools.cache
def _table() -> dict[str, Machine]:
    """Every shipped machine by name and by alias."""
    table: dict[str, Machine] = {}
    folder = resources.files("hlo_lab.cost") / "data"
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if entry.name.endswith(".toml"):
            machine = from_mapping(tomllib.loads(entry.read_text(encoding="utf-8")))
            table[machine.name] = machine
            table.update((alias, machine) for alias in machine.aliases)
    return table


def from_mapping(data: dict[str, Any]) -> Machine:
    """A machine from the decoded TOML of a data file; ``data/h100.toml`` shows the keys."""
    return Machine(
        name=data["name"],
        title=data["title"],
        kind=data["kind"],
        matrix_flops={k: float(v) for k, v in data["matrix_flops"].items()},
        vector_flops={k: float(v) for k, v in data["vector_flops"].items()},
        bandwidth=tuple((float(fits), float(rate)) for fits, rate in data["bandwidth"]),
        launch_overhead=float(data["launch_overhead"]),
        memory_bytes=int(data["memory_bytes"]),
        interconnect_bandwidth=float(data["interconnect_bandwidth"]),
        interconnect_latency=float(data["interconnect_latency"]),
        sources=tuple(data["sources"]),
        aliases=tuple(data.get("aliases", ())),
        clock=float(data.get("clock", 0.0)),
    )


@functools.cache
def _cpu() -> Machine:
    from hlo_lab.cost.probe import this_cpu

    return this_cpu(_table()["cpu-reference"])


def names() -> list[str]:
    """The names that ``load`` takes, without aliases."""
    return ["cpu", *sorted({machine.name for machine in _table().values()})]


def load(name: str) -> Machine:
    """The machine of that name or alias; ``cpu`` is the one at hand, measured roughly.

    Raises:
        NotFoundError: no such machine; the message lists the names.
    """
    key = re.sub(r"[\s_]+", "-", name.strip().lower())
    if key == "cpu":
        return _cpu()
    if key in _table():
        return _table()[key]
    raise NotFoundError(f"no machine {name!r}; there are {', '.join(names())}")


def for_target(target: str) -> Machine:
    """The machine behind a target such as ``cpu:8``, ``tpu:v5e:2x2`` or ``gpu:h100:8``.

    Raises:
        NotFoundError: the target names a device there is no description of.
    """
    kind, _, rest = target.strip().lower().partition(":")
    model = rest.partition(":")[0]
    if kind == "cpu":
        return load("cpu")
    if kind in ("tpu", "gpu", "cuda"):
        return load(_CLOUD_COUNT.sub("", model) if kind == "tpu" else model)
    return load(target)
