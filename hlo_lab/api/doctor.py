"""``doctor``: what is installed, what can be compiled for, and where things are kept."""

from __future__ import annotations

import platform
import shutil
import subprocess
import sys
from dataclasses import asdict, dataclass
from importlib import metadata, util
from pathlib import Path
from typing import Any

from hlo_lab import __version__
from hlo_lab.lowering.availability import Availability, of_gpus, of_tpu
from hlo_lab.report.document import Column, KeyValues, Paragraph, Report, Section, Table
from hlo_lab.report.units import format_bytes

SCHEMA = "hlo-lab/doctor/1"
PACKAGES = ("jax", "jaxlib", "numpy", "protobuf", "networkx", "graphviz", "pydot", "typer", "rich")
REQUIRED = ("jax", "jaxlib", "numpy", "protobuf")


@dataclass(frozen=True)
class TargetState:
    """Whether a target can be compiled for, and why not."""

    name: str
    usable: bool
    reason: str


@dataclass(frozen=True)
class Store:
    """A folder where hlo-lab keeps things: how many files, and bytes in all."""

    name: str
    path: str
    files: int
    bytes: int


@dataclass(frozen=True)
class Diagnosis:
    """What ``doctor`` found. ``problems`` are lines with what to do; empty when all is well.

    ``versions`` maps packages and programs to versions, None where not installed;
    ``protobuf_implementation`` is ``upb`` (fast) or ``python`` (slow).
    """

    versions: dict[str, str | None]
    protobuf_implementation: str | None
    targets: list[TargetState]
    stores: list[Store]
    problems: list[str]

    @property
    def document(self) -> dict[str, Any]:
        """For ``--format json``."""
        return {"schema": SCHEMA, **asdict(self)}

    @property
    def report(self) -> Report:
        """For people."""
        return _report(self)


def doctor() -> Diagnosis:
    """Look around. Does not import JAX, and compiles nothing."""
    versions: dict[str, str | None] = {
        "hlo-lab": __version__,
        "python": platform.python_version(),
        **{name: _version(name) for name in PACKAGES},
        "dot": _dot_version(),
    }
    implementation = _protobuf_implementation() if versions["protobuf"] else None
    targets = _targets(versions)
    return Diagnosis(
        versions, implementation, targets, _stores(), _problems(versions, implementation)
    )


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _dot_version() -> str | None:
    """The version of graphviz' ``dot`` program; None where it is missing or does not run."""
    program = shutil.which("dot")
    if program is None:
        return None
    try:
        done = subprocess.run(
            [program, "-V"], capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    words = (done.stderr or done.stdout).split()  # dot - graphviz version 2.43.0 (0)
    return words[words.index("version") + 1] if "version" in words[:-1] else "unknown"


def _protobuf_implementation() -> str:
    from google.protobuf.internal import api_implementation

    return str(api_implementation.Type())


def _targets(versions: dict[str, str | None]) -> list[TargetState]:
    both = versions["jax"] and versions["jaxlib"]
    cpu = TargetState(
        "cpu",
        bool(both),
        f"jax {versions['jax']}; cpu:N gives N devices"
        if both
        else "jax is not installed: pip install jax",
    )
    return [cpu, *(_state(name, found) for name, found in (("tpu", of_tpu()), ("gpu", of_gpus())))]


def _state(name: str, found: Availability) -> TargetState:
    reason = f"{found.reason}: {found.command}" if found.command else found.reason
    return TargetState(name, found.usable, reason)


def _stores() -> list[Store]:
    from hlo_lab.lowering.logs import cache_folder, log_folder

    return [_store("cache", cache_folder()), _store("logs", log_folder())]


def _store(name: str, folder: Path) -> Store:
    sizes = []
    for path in folder.rglob("*") if folder.is_dir() else ():
        try:
            if path.is_file() and not path.is_symlink():
                sizes.append(path.stat().st_size)
        except OSError:  # another hlo-lab may be cleaning up
            continue
    return Store(name, str(folder), len(sizes), sum(sizes))


def _problems(versions: dict[str, str | None], implementation: str | None) -> list[str]:
    missing = [name for name in REQUIRED if versions[name] is None]
    problems = [
        f"{name} is not installed: {sys.executable} -m pip install {name}" for name in missing
    ]
    if implementation not in (None, "upb"):
        problems.append(
            f"protobuf uses its slow {implementation} implementation: reinstall it from a "
            f"wheel, and unset PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION"
        )
    if versions["dot"] is None:
        problems.append(
            "graphviz' dot program is missing, so `hlo-lab graph` writes only .dot files: "
            "apt install graphviz, or brew install graphviz"
        )
    if util.find_spec("jax") is None and "jax" not in missing:
        problems.append("jax is installed but cannot be found: reinstall it")
    return problems


def _report(found: Diagnosis) -> Report:
    versions = [(name, version or "not installed") for name, version in found.versions.items()]
    if found.protobuf_implementation:
        versions = [
            (name, f"{text} ({found.protobuf_implementation})" if name == "protobuf" else text)
            for name, text in versions
        ]
    targets = Table(
        [Column("target"), Column("usable"), Column("")],
        [(each.name, "yes" if each.usable else "no", each.reason) for each in found.targets],
    )
    stores = [
        (each.name, f"{each.path} ({each.files} files, {format_bytes(each.bytes)})")
        for each in found.stores
    ]
    sections = [
        Section("Versions", [KeyValues(versions)]),
        Section("Targets", [targets]),
        Section("Folders", [KeyValues(stores)]),
    ]
    if found.problems:
        sections.append(
            Section("Problems", [Paragraph(text, "warning") for text in found.problems])
        )
    where = [("python", sys.executable), ("hlo-lab", str(Path(__file__).parents[1]))]
    return Report("hlo-lab doctor", where, sections)
