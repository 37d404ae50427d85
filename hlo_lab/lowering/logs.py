"""Log files of workers: what the user's program and the compiler printed."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

import platformdirs

KEEP = 50


def log_folder() -> Path:
    """Where the logs are; not necessarily there yet."""
    return Path(platformdirs.user_log_dir("hlo-lab", appauthor=False))


def cache_folder() -> Path:
    """Where anything that can be made again is kept; not necessarily there yet."""
    return Path(platformdirs.user_cache_dir("hlo-lab", appauthor=False))


def new_log() -> Path:
    """A new log file's path; the oldest ones beyond ``KEEP`` are removed.

    Falls back to the temporary folder where the user's log folder cannot be written.
    """
    folder = log_folder()
    name = f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}-{time.monotonic_ns() % 10**9}.log"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        old = sorted(folder.glob("*.log"))[: -KEEP + 1]
        (folder / name).touch()
    except OSError:
        import tempfile

        return Path(tempfile.gettempdir(), f"hlo-lab-{name}")
    for path in old:
        with contextlib.suppress(OSError):
            path.unlink()
    return folder / name


def last_lines(path: Path, count: int = 5) -> list[str]:
    """The last lines with text in a log, each cut to 200 characters."""
    with contextlib.suppress(OSError):
        with path.open("rb") as stream:
            stream.seek(max(0, path.stat().st_size - 65536))
            text = stream.read().decode("utf-8", "replace")
        return [line[:200] for line in text.splitlines() if line.strip()][-count:]
    return []
