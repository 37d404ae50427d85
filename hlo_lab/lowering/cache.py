"""Bundles of programs, kept until something that they were made from changes.

A folder per program, target, arguments, flags, environment and versions (the key), and in
it a bundle per state of the program's files. Which files those are only a compile can tell
(``worker.inputs``): its bundle lists them, and a look-up compares them, so that nothing is
imported for a hit. Bundles are renamed in when they are complete, under a lock that the
system releases however its process ends.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from hlo_lab import __version__
from hlo_lab.errors import InputError, UseError
from hlo_lab.lowering import fingerprint
from hlo_lab.lowering.bundle import MANIFEST, Bundle
from hlo_lab.lowering.dumping import compile_environment, dump
from hlo_lab.lowering.flags import parse_flags
from hlo_lab.lowering.logs import cache_folder
from hlo_lab.lowering.process import DEFAULT_TIME_LIMIT, Progress
from hlo_lab.lowering.reference import ProgramReference
from hlo_lab.lowering.target import Target
from hlo_lab.passkit.options import parse_value

KEPT_SECONDS = 30 * 24 * 3600  # a bundle that nobody asked for in this time is removed
TIDY_TRIES = 20  # a tenth of a second apart
KEPT_STATES = 8  # of one program; older ones go, but not while somebody may be reading them
IN_USE_SECONDS = 3600
MAX_BYTES = "10GiB"  # of all bundles, unless HLO_LAB_CACHE_BYTES says other
_VARIABLES = ("JAX_", "XLA_", "LIBTPU_", "TPU_", "PYTHON", "CUDA_")


def program_cache() -> Path:
    """``programs`` in ``$HLO_LAB_CACHE_DIR`` or in the platform's place for caches."""
    chosen = os.environ.get("HLO_LAB_CACHE_DIR")
    return (Path(chosen) if chosen else cache_folder()) / "programs"


def dump_cached(
    reference: str,
    *,
    target: str = "cpu",
    args: str | None = None,
    mesh: str | None = None,
    xla_flags: Iterable[str] = (),
    time_limit: float = DEFAULT_TIME_LIMIT,
    memory_limit: int = 0,
    python: str = sys.executable,
    cwd: str | Path | None = None,
    env: Mapping[str, str] | None = None,
    progress: Progress | None = None,
) -> Bundle:
    """As ``dump``, with the bundle from the cache where nothing changed since.

    The bundle lies in the cache: read it, do not write to it. Processes that ask for the
    same program at once wait for the first.

    Raises:
        InputError: the cache cannot be written; and as ``dump``.
    """
    from filelock import FileLock

    chosen = Target.parse(target)
    start = Path.cwd() if cwd is None else Path(cwd).resolve()
    ProgramReference.parse(reference).check_file(start)  # what is refused is refused at once
    environment = compile_environment(chosen, env)
    flags = parse_flags(xla_flags)
    room = _room()
    key = _key(reference, chosen, args, mesh, flags, start, environment, python)
    folder = program_cache() / key
    if (found := _find(folder, environment)) is not None:
        return found
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"{folder}: cannot be written: {error.strerror}; "
            "set HLO_LAB_CACHE_DIR to another folder"
        ) from None
    with FileLock(folder / "lock"):
        if (found := _find(folder, environment)) is not None:
            return found
        _tidy(folder)
        bundle = dump(
            reference,
            out=folder / f"{time.time_ns():x}-{os.getpid():x}",
            target=target,
            args=args,
            mesh=mesh,
            xla_flags=[f"{name}={value}" for name, value in flags.items()],
            time_limit=time_limit,
            memory_limit=memory_limit,
            python=python,
            cwd=start,
            env=env,
            progress=progress,
        )
    _shrink(program_cache(), room)
    return bundle


def _room() -> int:
    """Bytes that all bundles may take. Raises ``UseError`` where the variable is no size."""
    text = os.environ.get("HLO_LAB_CACHE_BYTES") or MAX_BYTES
    try:
        return int(parse_value(text, int))
    except ValueError as error:
        raise UseError(f"HLO_LAB_CACHE_BYTES: {error}") from None


def _key(
    reference: str,
    target: Target,
    args: str | None,
    mesh: str | None,
    xla_flags: Mapping[str, str],
    cwd: Path,
    environment: Mapping[str, str],
    python: str,
) -> str:
    parts = {
        "code": [__version__, fingerprint.of_own_code()],
        "program": [reference, str(target), args, mesh, str(cwd)],
        "flags": dict(sorted(xla_flags.items())),
        "python": fingerprint.of_interpreter(python, environment),
        "environment": {
            name: value
            for name, value in sorted(environment.items())
            if name.startswith(_VARIABLES) or name == "LD_LIBRARY_PATH"
        },
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


def _find(folder: Path, environment: Mapping[str, str]) -> Bundle | None:
    """The bundle that was made from what there is now."""
    for entry in _entries(folder):
        with contextlib.suppress(InputError, OSError, KeyError, TypeError):
            bundle = Bundle.open(entry)
            if fingerprint.still_holds(bundle.manifest.get("inputs"), environment):
                (entry / MANIFEST).touch()  # the time of its last use
                return bundle
    return None


def _entries(folder: Path) -> Iterator[Path]:
    """Bundles of one key, the last used one first."""
    used: list[tuple[float, Path]] = []
    for manifest in folder.glob(f"*/{MANIFEST}"):
        with contextlib.suppress(OSError):  # somebody else removed it
            if not manifest.parent.name.startswith("."):
                used.append((manifest.stat().st_mtime, manifest.parent))
    yield from (path for _, path in sorted(used, reverse=True))


def _tidy(folder: Path) -> None:
    """Remove what a killed process left of this key, and bundles that nobody wants any more."""
    now = time.time()
    for left in folder.glob(".*.tmp"):  # this process holds the lock, so nobody wants it
        for _ in range(TIDY_TRIES):  # the worker of a killed process may write a moment longer
            shutil.rmtree(left, ignore_errors=True)
            if not left.exists():
                break
            time.sleep(0.1)
    for entry in list(_entries(folder))[KEPT_STATES:]:
        with contextlib.suppress(OSError):
            if now - (entry / MANIFEST).stat().st_mtime > IN_USE_SECONDS:
                _remove(entry)
    for manifest in folder.parent.glob(f"*/*/{MANIFEST}"):
        with contextlib.suppress(OSError):
            if now - manifest.stat().st_mtime > KEPT_SECONDS:
                _remove(manifest.parent)


def _shrink(cache: Path, room: int) -> None:
    """Remove bundles, the longest unused first, until those left fit into ``room`` bytes.

    One that was used within ``IN_USE_SECONDS`` stays: somebody may be reading it.
    """
    found: list[tuple[float, int, Path]] = []
    for manifest in cache.glob(f"*/[!.]*/{MANIFEST}"):
        with contextlib.suppress(OSError):  # somebody else removed it
            used = manifest.stat().st_mtime
            size = sum(path.stat().st_size for path in manifest.parent.rglob("*"))
            found.append((used, size, manifest.parent))
    total = sum(size for _, size, _ in found)
    for used, size, entry in sorted(found):
        if total <= room or time.time() - used <= IN_USE_SECONDS:
            return
        if _remove(entry):
            total -= size


def _remove(entry: Path) -> bool:
    """Remove a bundle unless it is in use; whether it went.

    It is renamed first: whoever looks it up meanwhile finds all of it or nothing.
    """
    aside = entry.with_name(f".{entry.name}.tmp")
    try:
        entry.rename(aside)
    except OSError:  # another process was first
        return False
    with contextlib.suppress(OSError):
        if time.time() - (aside / MANIFEST).stat().st_mtime <= IN_USE_SECONDS:
            aside.rename(entry)  # somebody found it a moment ago
            return False
    shutil.rmtree(aside, ignore_errors=True)
    return True
