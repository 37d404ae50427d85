"""A rough roofline of the CPU at hand: a quick measurement, kept in the user's cache."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import math
import os
import platform
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from hlo_lab.cost.machines import Machine

SCHEMA = 1
_LEVELS = (128 << 10, 2 << 20, 32 << 20)  # bytes of the arrays copied: L1/L2, L3, memory


def this_cpu(reference: Machine) -> Machine:
    """The machine at hand: from the cache, else measured (under a second) and cached.

    ``reference`` gives the figures that are not measured, and all of them when the
    measurement fails. Figures of numpy, not of XLA's own kernels: hence *rough*.
    """
    path = _cache_file()
    figures = _read(path)
    if figures is None:
        figures = measure()
        if not _usable(figures):
            return reference
        _write(path, figures)
    rates = figures["copy"]
    limits = [float(2 * size) for size in _LEVELS[:-1]] + [math.inf]
    f32, f64 = figures["dot_f32"], figures["dot_f64"]
    return dataclasses.replace(
        reference,
        name="cpu (this machine, rough)",
        title=f"{_model_name()}, {os.cpu_count()} cores, measured",
        # narrow types are widened to f32 on most CPUs
        matrix_flops={"f32": f32, "f64": f64, "bf16": f32, "f16": f32, "s8": f32},
        vector_flops={
            "f32": figures["add_f32"],
            "f64": figures["add_f32"] / 2,
            "transcendental": figures["exp_f32"],
        },
        bandwidth=tuple(zip(limits, rates, strict=True)),
        memory_bytes=_memory_bytes(reference.memory_bytes),
        interconnect_bandwidth=rates[-1],
        sources=(
            f"numpy {np.__version__} on this machine: f32 and f64 matrix products, "
            "f32 additions and exponentials in cache, copies of "
            + ", ".join(f"{size >> 10} KiB" for size in _LEVELS),
            f"kept in {path}; delete the file to measure again",
            "launch overhead: assumed",
        ),
    )


def measure() -> dict[str, Any]:
    """Flop/s, calls/s and bytes/s (read plus written) of a few numpy kernels; best of several."""
    small = np.full(16384, 0.5, np.float32)
    into = np.empty_like(small)
    copies = []
    for size in _LEVELS:
        source = np.ones(size // 4, np.float32)
        target = np.zeros_like(source)
        copies.append(_rate(functools.partial(np.copyto, target, source), 2.0 * size))
    return {
        "schema": SCHEMA,
        "dot_f32": _dot_rate(np.float32),
        "dot_f64": _dot_rate(np.float64),
        "add_f32": _rate(lambda: np.add(small, small, out=into), small.size),
        "exp_f32": _rate(lambda: np.exp(small, out=into), small.size),
        "copy": copies,
    }


def _dot_rate(dtype: type[np.floating[Any]]) -> float:
    """Flop/s of a matrix product: on every core, but at least what one core does.

    Where other work keeps a core busy, the threads of a large product wait for each other
    and are up to a hundred times too slow; a small one runs on one thread.
    """
    rates = []
    for size in (96, 384):
        ones = np.ones((size, size), dtype)
        rates.append(_rate(functools.partial(np.matmul, ones, ones), 2.0 * size**3))
    return max(rates)


def _rate(kernel: Callable[[], object], work: float, budget: float = 0.06) -> float:
    kernel()
    best, end = math.inf, time.perf_counter() + budget
    while time.perf_counter() < end:
        start = time.perf_counter()
        kernel()
        best = min(best, time.perf_counter() - start)
    return work / max(best, 1e-9)


def _usable(figures: Any) -> bool:
    try:
        rates = [figures[key] for key in ("dot_f32", "dot_f64", "add_f32", "exp_f32")]
        rates += figures["copy"]
        return (
            figures["schema"] == SCHEMA
            and len(figures["copy"]) == len(_LEVELS)
            and all(math.isfinite(rate) and rate > 0 for rate in rates)
        )
    except (KeyError, TypeError):
        return False


def _cache_file() -> Path:
    import platformdirs

    identity = repr((_model_name(), os.cpu_count(), np.__version__, SCHEMA))
    digest = hashlib.sha256(identity.encode()).hexdigest()[:16]
    return Path(platformdirs.user_cache_dir("hlo-lab")) / "machines" / f"cpu-{digest}.json"


def _model_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _memory_bytes(default: int) -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return default


def _read(path: Path) -> dict[str, Any] | None:
    try:
        figures = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return figures if _usable(figures) else None


def _write(path: Path, figures: dict[str, Any]) -> None:
    """Under a temporary name, then renamed. A cache that cannot be written is no error."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=path.parent, suffix=".tmp", delete=False) as file:
            json.dump(figures, file)
        Path(file.name).replace(path)
    except OSError:
        return
