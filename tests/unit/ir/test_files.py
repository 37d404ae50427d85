"""Any file is read for what it is, or refused with a reason."""

from __future__ import annotations

import gzip
import io
import sys
import time
import tracemalloc

import pytest

from hlo_lab.errors import HloLabError, NotFoundError, ReadError
from hlo_lab.ir import read_module


def test_plain_and_gzipped_text(tmp_path, small, small_text):
    plain, packed = tmp_path / "a.hlo", tmp_path / "a.hlo.gz"
    plain.write_text(small_text)
    packed.write_bytes(gzip.compress(small_text.encode()))
    assert small.difference(read_module(plain)) is None
    assert small.difference(read_module(str(packed))) is None


def test_windows_line_ends(tmp_path, small, small_text):
    path = tmp_path / "a.hlo"
    path.write_bytes(small_text.replace("\n", "\r\n").encode())
    assert small.difference(read_module(path)) is None


def test_standard_input(monkeypatch, small, small_text):
    stream = io.TextIOWrapper(io.BytesIO(small_text.encode()))
    monkeypatch.setattr(sys, "stdin", stream)
    assert small.difference(read_module("-")) is None


def test_proto_file(tmp_path, every_attribute):
    path = tmp_path / "module.pb"
    path.write_bytes(every_attribute.as_serialized_hlo_module_proto())
    module = read_module(path)
    path.with_suffix(".gz").write_bytes(gzip.compress(path.read_bytes()))
    assert module.difference(read_module(path.with_suffix(".gz"))) is None


def test_cut_proto_is_refused(tmp_path, every_attribute):
    data = every_attribute.as_serialized_hlo_module_proto()
    path = tmp_path / "cut.pb"
    for size in range(0, len(data) - 1, len(data) // 40):
        path.write_bytes(data[:size])
        with pytest.raises(ReadError):
            read_module(path)


def test_picking_one_of_several(tmp_path, small_text):
    path = tmp_path / "two.hlo"
    path.write_text(small_text + small_text.replace("HloModule small", "HloModule other"))
    assert read_module(f"{path}#2").name == "other"
    assert read_module(f"{path}#small").name == "small"
    for wrong in ("0", "3", "none", "99999999999999999999"):
        with pytest.raises(ReadError, match="holds 2 modules"):
            read_module(f"{path}#{wrong}")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty"),
        (bytes(range(256)) * 40, "neither HLO text nor an HLO proto"),
        (b"some words\n", "not HLO text"),
        (b"#loc = loc(unknown)\nmodule @jit_f {\n", "StableHLO"),
        (b"ML\xefR\x0dStableHLO_v1.0.0", "MLIR bytecode"),
        (b"PK\x03\x04zip", "zip archive"),
        (b"\x1f\x8b\x08\x00broken", "cannot be read"),
        (b"\x1f\x8b", "cannot be read"),
        (gzip.compress(b"\x00" * 100, mtime=0), "neither"),
        (gzip.compress(b"x" * 1000, mtime=0)[:-9], "not HLO text|cannot be read"),
        (b"\n\xff\xff\xff\xff\x07", "not an HLO proto"),
    ],
)
def test_refused_with_a_reason(tmp_path, content, reason):
    path = tmp_path / "bad"
    path.write_bytes(content)
    with pytest.raises(ReadError, match=reason) as caught:
        read_module(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_no_file_and_no_ordinary_file(tmp_path):
    with pytest.raises(NotFoundError, match="no such file"):
        read_module(tmp_path / "absent.hlo")
    with pytest.raises(ReadError, match="is a folder"):
        read_module(tmp_path)
    with pytest.raises(HloLabError):
        read_module("a\0b")


def braces(path, head: bytes, unit: bytes) -> None:
    """A sparse-looking gigabyte would take time to write; 64 MB shows the bound as well."""
    with path.open("wb") as file:
        file.write(head)
        for _ in range(64):
            file.write(unit * ((1 << 20) // len(unit)))


@pytest.mark.parametrize("unit", [b"{", b"{\n", b"{}", b"{ x\n", b"(\n"])
@pytest.mark.parametrize(
    "head",
    [b"", b"HloModule m\n\n", b"HloModule m, x=", b"HloModule m\nENTRY e {\n  a = f32[] constant("],
)
def test_endless_braces_take_little_memory_and_time(tmp_path, head, unit):
    path = tmp_path / "braces.hlo"
    braces(path, head, unit)
    start = time.process_time()
    tracemalloc.start(1)
    with pytest.raises(ReadError):
        read_module(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 400 << 20
    assert time.process_time() - start < 20


def test_gzip_bomb(tmp_path, monkeypatch):
    from hlo_lab.ir import files

    monkeypatch.setattr(files, "_BOMB_BYTES", 4 << 20)
    path = tmp_path / "bomb.gz"
    path.write_bytes(gzip.compress(b"HloModule m\n" + b" \n" * (32 << 20)))
    with pytest.raises(ReadError, match="300 times"):
        read_module(path)
