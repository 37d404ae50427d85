"""Write ``hlo_lab/ir/hlo_descriptors.binpb``: HLO's protobuf schema, as jaxlib carries it.

    python tools/extract_descriptors.py

The C++ library embeds each .proto file as a serialized FileDescriptorProto; this finds
them by name and stores the set of xla/service/hlo.proto and all that it imports. Run it
after a jaxlib upgrade; the reader keeps fields that its schema does not know.

What is stored now is of jaxlib 0.12.0.1. XLA adds fields and does not give their numbers
to others, so that the newest schema reads the protos of all versions before it.
"""

from __future__ import annotations

import importlib
import importlib.util
import mmap
from pathlib import Path

from google.protobuf import descriptor_pb2
from google.protobuf.message import DecodeError

OUT = Path(__file__).resolve().parents[1] / "hlo_lab" / "ir" / "hlo_descriptors.binpb"
ROOT = "xla/service/hlo.proto"
_SYNTAX_FIELD, _LAST_FIELD = 12, 14


def embedded(library: mmap.mmap, name: str) -> descriptor_pb2.FileDescriptorProto:
    """The longest FileDescriptorProto of that file name in the library."""
    key = b"\n" + bytes([len(name)]) + name.encode()
    best = b""
    at = library.find(key)
    while at >= 0:
        end = _message_end(library[at : at + 400_000])
        if end > max(len(best), len(key) + 10):
            best = library[at : at + end]
        at = library.find(key, at + 1)
    if not best:
        raise SystemExit(f"{name} is not in the library")
    return descriptor_pb2.FileDescriptorProto.FromString(best)


def _message_end(data: bytes) -> int:
    """Where the fields of a FileDescriptorProto stop making sense."""
    at = end = 0
    try:
        while at < len(data):
            tag, at = _varint(data, at)
            field, wire = tag >> 3, tag & 7
            if not 1 <= field <= _LAST_FIELD or (field == 1 and end) or wire not in (0, 2):
                break
            size, at = _varint(data, at)
            at += size if wire == 2 else 0
            if at > len(data):
                break
            end = at
            if field == _SYNTAX_FIELD:
                break
        descriptor_pb2.FileDescriptorProto.FromString(data[:end])
    except (IndexError, DecodeError):
        return 0
    return end


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if not byte & 128:
            return value, at


def main() -> None:
    package = importlib.util.find_spec("jaxlib")
    if package is None or package.origin is None:
        raise SystemExit("jaxlib is not installed")
    out = descriptor_pb2.FileDescriptorSet()
    done: set[str] = set()
    with (Path(package.origin).parent / "libjax_common.so").open("rb") as file:
        library = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)

        def add(name: str) -> None:
            if name in done:
                return
            done.add(name)
            if name.startswith("google/protobuf/"):
                module = importlib.import_module(name[:-6].replace("/", ".") + "_pb2")
                descriptor = descriptor_pb2.FileDescriptorProto()
                module.DESCRIPTOR.CopyToProto(descriptor)
            else:
                descriptor = embedded(library, name)
            for dependency in descriptor.dependency:
                add(dependency)
            out.file.append(descriptor)

        add(ROOT)
    OUT.write_bytes(out.SerializeToString(deterministic=True))
    print(f"{OUT}: {OUT.stat().st_size} bytes, {len(out.file)} files")


if __name__ == "__main__":
    main()
