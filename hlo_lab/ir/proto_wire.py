"""Where a module stands in a proto's bytes: a scan of the outermost fields, not of the module.

Wire format: https://protobuf.dev/programming-guides/encoding
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from google.protobuf.message import DecodeError

from hlo_lab.errors import ReadError
from hlo_lab.ir import schema

_WIRE_SIZES = {0: 0, 1: 8, 2: 0, 5: 4}  # bytes after the tag, where fixed
_COMPUTATION = 3 << 3 | 2  # tag of HloModuleProto.computations
_INNER = 1 << 3 | 2  # tag of HloProto.hlo_module and HloSnapshot.hlo
_WRAPPINGS = 2  # a HloSnapshot holds a HloProto, which holds the module
_BATCH_BYTES = 4 << 20


class ModuleBytes(NamedTuple):
    """A HloModuleProto without its computations, and the stretches of bytes that hold them."""

    message: Any
    batches: list[bytes | memoryview]


def check_head(head: bytes, path: str | Path | None) -> None:
    """Refuse by its first bytes what cannot be a serialized message, before all of it is read.

    Raises:
        ReadError: not the fields of a message.
    """
    try:
        for _ in _fields(head, 0, len(head)):
            pass
    except IndexError:
        return  # the last field goes on after the head
    except ValueError:
        raise ReadError("neither HLO text nor an HLO proto", path) from None


def find_module(data: bytes, path: str | Path | None) -> ModuleBytes:
    """The module in a serialized HloModuleProto, HloProto or HloSnapshot.

    Raises:
        ReadError: none of these, or cut.
    """
    found = []
    span: tuple[int, int] | None = (0, len(data))
    for _ in range(_WRAPPINGS + 1):
        if span is None:
            break
        module = _module(data, *span)
        if module is not None:
            # one wrapper's bytes may pass for another's; only a module names its entry
            if module.message.entry_computation_name:
                return module
            found.append(module)
        span = _inner(data, *span)
    if not found:
        raise ReadError("not an HLO proto, or cut short", path)
    return found[0]


def _module(data: bytes, at: int, end: int) -> ModuleBytes | None:
    header = bytearray()
    batches: list[tuple[int, int]] = []
    try:
        for tag, begin, _, stop in _fields(data, at, end):
            if tag != _COMPUTATION:
                header += data[begin:stop]
            elif batches and begin - batches[-1][0] < _BATCH_BYTES:
                batches[-1] = (batches[-1][0], stop)  # with the header fields between, if any
            else:
                batches.append((begin, stop))
        message = schema.full("HloModuleProto").FromString(bytes(header))
    except (ValueError, IndexError, DecodeError, RecursionError):
        return None
    view = memoryview(data)
    return ModuleBytes(message, [view[a:b] for a, b in batches]) if batches else None


def _inner(data: bytes, at: int, end: int) -> tuple[int, int] | None:
    """Where the wrapped message stands in data[at:end]; None where there is none."""
    inner = None
    try:
        for tag, _, start, stop in _fields(data, at, end):
            if tag == _INNER:
                inner = start, stop
    except (ValueError, IndexError):
        return None
    return inner


def _fields(data: bytes, at: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """(tag, where the field begins, where its value does, where it ends) of each field.

    Raises:
        ValueError: a field number or wire type that no message has.
        IndexError: the data end inside a field.
    """
    while at < end:
        begin = at
        tag, at = _varint(data, at)
        wire = tag & 7
        if tag < 8 or wire not in _WIRE_SIZES:
            raise ValueError(f"tag {tag}")
        start = at
        if wire == 2:
            size, start = _varint(data, at)
            at = start + size
        elif wire == 0:
            _, at = _varint(data, at)
        else:
            at += _WIRE_SIZES[wire]
        if at > end:
            raise IndexError
        yield tag, begin, start, at


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A varint and where it ends. Raises ``IndexError`` at the end of the data."""
    byte = data[at]
    if byte < 128:
        return byte, at + 1
    value, shift = byte & 127, 7
    while True:
        at += 1
        byte = data[at]
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128 or shift > 63:
            return value, at + 1
