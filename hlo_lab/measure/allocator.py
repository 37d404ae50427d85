"""What is asked of the C library's allocator where times are taken.

glibc gives large freed memory back to the system, and the system maps and zeroes it again, page
by page, in the kernel that writes it first. That can take longer than the kernel's own work, and
depends on what was freed before, so it is measured apart from kernels: by not letting it happen.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

# One arena: those of other threads unmap a heap as soon as it is empty, whatever the threshold.
# In large pages, as memory is mapped far faster then, and the order of small ones is chance.
# No lists of small freed blocks: what alignment leaves over of a large block would go there, and
# next into an event of the profiler; the block, freed, would then be too small for the next call's
# result, so that each profiled call would write to memory that no cache holds, or none had mapped.
KEEP_MEMORY = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(1 << 40),
    "MALLOC_TOP_PAD_": str(256 << 20),
    "GLIBC_TUNABLES": ":".join(
        f"glibc.malloc.{setting}" for setting in ("hugetlb=1", "tcache_count=0", "mxfast=0")
    ),
}


def keeping_memory(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment with ``KEEP_MEMORY``; as it is where it sets the allocator itself."""
    return {**environment} if _settings(environment) else {**KEEP_MEMORY, **environment}


def allocator() -> str:
    """What this process asks of its allocator: ``keeps memory``, its settings, or ``default``."""
    found = _settings(os.environ)
    if found == KEEP_MEMORY:
        return "keeps memory"
    return " ".join(f"{name}={value}" for name, value in sorted(found.items())) or "default"


def _settings(environment: Mapping[str, str]) -> dict[str, str]:
    return {
        name: value
        for name, value in environment.items()
        if name.startswith("MALLOC_") or name in ("GLIBC_TUNABLES", "LD_PRELOAD")
    }
