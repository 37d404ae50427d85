"""Opening an HLO file of any kind: text or proto, plain or gzipped, or standard input."""

from __future__ import annotations

import gzip
import io
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from hlo_lab.errors import NotFoundError, ReadError
from hlo_lab.ir.module import Module
from hlo_lab.ir.text import MAX_INSTRUCTION, read_text

_CHUNK = 4 << 20


def read_module(path: str | Path) -> Module:
    """Read an HLO module from a text or proto file, gzipped or not; ``-`` is standard input.

    Raises:
        NotFoundError: no such file.
        ReadError: the file is not an HLO module.
    """
    name = "<stdin>" if str(path) == "-" else str(path)
    try:
        with _open(path) as stream:
            head = stream.peek(4096)[:4096]
            if not head:
                raise ReadError("the file is empty", name)
            return read_text(_lines(stream, name), name)
    except FileNotFoundError:
        raise NotFoundError(f"{name}: no such file") from None
    except (OSError, EOFError) as error:
        raise ReadError(f"cannot be read: {error}", name) from None


def _open(path: str | Path) -> io.BufferedReader:
    raw: BinaryIO = sys.stdin.buffer if str(path) == "-" else open(path, "rb")  # noqa: SIM115
    buffered = io.BufferedReader(raw) if not isinstance(raw, io.BufferedReader) else raw
    if buffered.peek(2)[:2] == b"\x1f\x8b":
        return io.BufferedReader(gzip.GzipFile(fileobj=buffered))  # type: ignore[arg-type]
    return buffered


def _lines(stream: io.BufferedReader, name: str) -> Iterator[str]:
    """Lines of at most ``MAX_INSTRUCTION`` characters, so that memory stays bounded."""
    rest = b""
    while chunk := stream.read(_CHUNK):
        lines = (rest + chunk).splitlines(keepends=True)
        rest = lines.pop() if lines and not lines[-1].endswith(b"\n") else b""
        for line in lines:
            yield line.decode("utf-8", "replace")
        if len(rest) > MAX_INSTRUCTION:
            raise ReadError("a line is too long for HLO text", name)
    if rest:
        yield rest.decode("utf-8", "replace")
