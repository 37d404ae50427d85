"""Programs that are files of their own: StableHLO, HLO, and what ``jax.export`` serialized."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hlo_lab.errors import InputError, MissingDependencyError, ReadError
from hlo_lab.lowering import adapter
from hlo_lab.lowering.reference import ProgramReference, optimised_already
from hlo_lab.lowering.worker.calling import Call
from hlo_lab.lowering.worker.devices import TargetDevices
from hlo_lab.lowering.worker.failure import first_line

if TYPE_CHECKING:
    from hlo_lab.ir.module import Module

_BYTECODE = b"ML\xefR"


def read_bytes(path: Path) -> bytes:
    """A file's content, unpacked where it is gzip.

    Raises:
        ReadError: it says that it is gzip, and is not.
    """
    data = path.read_bytes()
    if data[:2] != b"\x1f\x8b":
        return data
    try:
        return gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as error:
        raise ReadError(f"not whole gzip: {error}", path) from None


def read_module(reference: ProgramReference, cwd: Path) -> Any:
    """The MLIR module of a StableHLO or HLO file.

    Raises:
        InputError: it is neither, or HLO that a compiler already optimised.
    """
    path = cwd / reference.place
    return _of_hlo(path) if reference.kind == "hlo" else _of_stablehlo(path)


def _of_stablehlo(path: Path) -> Any:
    data = read_bytes(path)
    try:
        content = data if data.startswith(_BYTECODE) else data.decode()
        return adapter.parse_stablehlo(content)
    except Exception as error:  # MLIR's own error type is private
        detail = first_line(str(error).replace("Unable to parse module assembly:", ""))
        raise InputError(f"{path.name}: not a StableHLO module: {detail}") from None


def _of_hlo(path: Path) -> Any:
    from hlo_lab.ir.files import read_module as read_hlo

    module = read_hlo(path)
    if module.is_scheduled:
        raise optimised_already(path.name)
    return of_module(module, path.name)


def of_module(module: Module, name: str) -> Any:
    """The MLIR module of an HLO module from before optimisation.

    Raises:
        InputError: XLA does not take it.
    """
    from hlo_lab.ir.printer import print_module

    try:
        # our own reader takes every form of the file, XLA's only its text
        counts = (int(module.header.get(key, 1)) for key in ("replica_count", "num_partitions"))
        return adapter.stablehlo_of_hlo(print_module(module), *counts)
    except Exception as error:  # XLA's and MLIR's own error types
        raise InputError(f"{name}: XLA cannot take it back: {first_line(str(error))}") from None


def call_of_export(data: bytes, name: str, devices: TargetDevices) -> tuple[Any, Call, str]:
    """The function of a ``jax.export`` artifact, the call that it is for, and a note or "".

    Raises:
        InputError: it is none, or for another number of devices than the target has.
        MissingDependencyError: JAX reads them with a package that is not installed.
    """
    import jax

    try:
        exported, foreign = adapter.read_export(data, devices.platform)
    except ImportError:
        raise MissingDependencyError(
            "reading what jax.export serialized needs flatbuffers: pip install flatbuffers"
        ) from None
    except Exception as error:  # whatever flatbuffers trips over
        raise InputError(
            f"{name}: not what jax.export serializes: {first_line(str(error))}"
        ) from None
    count = exported.nr_devices
    if count > 1 and count != len(devices.devices):
        raise InputError(
            f"{name}: was exported for {count} devices, {devices.target} has {len(devices.devices)}"
        )
    shardings: Any = [None] * len(exported.in_avals)
    if count > 1:
        shardings = exported.in_shardings_jax(devices.mesh)
    if any(not isinstance(size, int) for aval in exported.in_avals for size in aval.shape):
        raise InputError(f"{name}: has symbolic shapes; export it with the shapes to compile for")
    leaves = [
        adapter.abstract_array(aval.shape, aval.dtype, sharding=sharding)
        for aval, sharding in zip(exported.in_avals, shardings, strict=True)
    ]
    args, kwargs = jax.tree_util.tree_unflatten(exported.in_tree, leaves)
    note = ""
    if foreign:
        note = f"{name} was exported for {', '.join(exported.platforms)}: its kernels stay in it"

    def call(*args: Any, **kwargs: Any) -> Any:
        return exported.call(*args, **kwargs)

    call.__name__ = exported.fun_name
    return call, Call(args, kwargs, (), (True,) * len(leaves)), note
