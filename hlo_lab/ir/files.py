"""Opening an HLO file of any kind: text or proto, plain or gzipped, or standard input."""

from __future__ import annotations

import codecs
import gzip
import io
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

from hlo_lab.errors import NotFoundError, ReadError
from hlo_lab.ir.module import Module
from hlo_lab.ir.text import pick_module, read_text_modules

_CHUNK = 1 << 20
_HEAD = 1 << 16
MAX_PROTO = (2 << 30) - 1  # bytes: protobuf's own limit
# gzip reaches 1032:1 on zeros; the most repetitive real module stays far below 300:1
_BOMB_BYTES, _BOMB_RATIO = 256 << 20, 300
_MAGIC = {
    b"ML\xefR": "MLIR bytecode, not HLO: give the HLO stage, or the program itself",
    b"PK\x03\x04": "a zip archive: unpack it first",
    b"\x28\xb5\x2f\xfd": "compressed with zstd: decompress it first",
    b"\xfd7zXZ": "compressed with xz: decompress it first",
    b"BZh": "compressed with bzip2: decompress it first",
    b"\x7fELF": "an ELF object, not HLO",
}
# every byte that text may hold below space
_TEXT_CONTROLS = b"\t\n\r\f\v\b\x1b"
_CONTROLS = bytes(set(range(32)) - set(_TEXT_CONTROLS))


def read_module(path: str | Path) -> Module:
    """Read an HLO module from a text or proto file, gzipped or not; ``-`` is standard input.

    ``PATH#2`` or ``PATH#NAME`` picks one module of a text that holds several.

    Raises:
        NotFoundError: no such file.
        ReadError: the file is not an HLO module.
    """
    name, which = _split_choice(path)
    shown = "<stdin>" if name == "-" else name
    try:
        with _open(name) as stream:
            return _read(stream, shown, which)
    except FileNotFoundError:
        raise NotFoundError(f"{shown}: no such file") from None
    except IsADirectoryError:
        raise ReadError("is a folder: give an HLO file or a bundle", shown) from None
    except (OSError, EOFError, zlib.error) as error:
        raise ReadError(f"cannot be read: {error}", shown) from None
    except ValueError as error:  # a NUL in the path
        raise ReadError(f"cannot be read: {error}", shown) from None
    except MemoryError:
        raise ReadError("does not fit into memory", shown) from None


def begins_scheduled(path: Path) -> bool:
    """Whether a text says in its first line that it is scheduled; no more of it is read.

    False of what cannot be read, and of protos, which do not begin with that.
    """
    try:
        with _open(str(path)) as stream:
            return b"is_scheduled=true" in stream.read(_HEAD).partition(b"\n")[0]
    except (OSError, EOFError, zlib.error):
        return False


def _split_choice(path: str | Path) -> tuple[str, str | None]:
    text = str(path)
    if "#" not in text or "\0" in text or Path(text).exists():
        return text, None
    name, _, which = text.rpartition("#")
    return name, which


def _read(stream: BinaryIO, name: str, which: str | None) -> Module:
    head = stream.read(_HEAD)
    if not head:
        raise ReadError("the file is empty", name)
    for magic, what in _MAGIC.items():
        if head.startswith(magic):
            raise ReadError(f"this is {what}", name)
    chunks = _chunks(head, stream)
    if _is_text(head):
        return pick_module(read_text_modules(_decoded(chunks), name), which, name)
    from hlo_lab.ir.proto import read_proto
    from hlo_lab.ir.proto_wire import check_head

    check_head(head, name)
    parts: list[bytes] = []
    size = 0
    for chunk in chunks:
        parts.append(chunk)
        size += len(chunk)
        if size > MAX_PROTO:
            raise ReadError("larger than the 2 GiB that a proto can hold", name)
    data = b"".join(parts)
    parts.clear()
    return pick_module([read_proto(data, name)], which, name)


def _is_text(head: bytes) -> bool:
    return len(head.translate(None, _CONTROLS)) == len(head)


def _chunks(head: bytes, stream: BinaryIO) -> Iterator[bytes]:
    yield head
    while chunk := stream.read(_CHUNK):
        yield chunk


def _decoded(chunks: Iterator[bytes]) -> Iterator[str]:
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    for chunk in chunks:
        yield decoder.decode(chunk)
    yield decoder.decode(b"", final=True)


def _open(name: str) -> BinaryIO:
    raw: BinaryIO = sys.stdin.buffer if name == "-" else Path(name).open("rb")  # noqa: SIM115
    buffered = raw if isinstance(raw, io.BufferedReader) else io.BufferedReader(raw)  # type: ignore[type-var]
    if buffered.peek(2)[:2] == b"\x1f\x8b":
        return cast(BinaryIO, _Gunzip(buffered))
    return buffered


class _Gunzip(gzip.GzipFile):
    """A gzip stream that refuses to swell without bound."""

    def __init__(self, packed: BinaryIO):
        super().__init__(fileobj=packed)
        self._packed = packed
        self._unpacked = 0

    def read(self, size: int | None = -1) -> bytes:
        data = super().read(size)
        self._unpacked += len(data)
        if self._unpacked > _BOMB_BYTES:
            read = max(self._packed.tell(), 1) if self._packed.seekable() else self._unpacked
            if self._unpacked / read > _BOMB_RATIO:
                raise OSError("its gzip unpacks to more than 300 times its size")
        return data

    def close(self) -> None:
        super().close()
        if self._packed is not sys.stdin.buffer:
            self._packed.close()
