"""Memory: what a compiled program takes, by its compiler, and what this machine has free."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hlo_lab.lowering.bundle import Bundle


def compiled_memory(bundle: Bundle | None) -> dict[str, int] | None:
    """The compiled program's own figures in bytes; None without a bundle that has them.

    ``peak_bytes`` is arguments + outputs - aliased + temporaries, which is what the runtime
    allocates for a call.
    """
    if bundle is None or "analysis" not in bundle.stages:
        return None
    stats = bundle.analysis.get("memory_analysis")
    if not isinstance(stats, dict):
        return None
    parts = {
        name: int(stats.get(f"{key}_size_in_bytes", 0))
        for name, key in (
            ("argument_bytes", "argument"),
            ("output_bytes", "output"),
            ("alias_bytes", "alias"),
            ("temp_bytes", "temp"),
        )
    }
    peak = sum(parts.values()) - 2 * parts["alias_bytes"]
    return {"peak_bytes": peak, **parts}


def available_bytes() -> int | None:
    """Memory that is free for use; None where the system does not say."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        found = next(line for line in lines if line.startswith("MemAvailable"))
        return int(found.split()[1]) * 1024
    except (OSError, StopIteration, ValueError, IndexError):
        return None
