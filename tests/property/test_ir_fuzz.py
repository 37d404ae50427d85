"""Damaged files are read or refused; nothing else comes out of the readers."""

from __future__ import annotations

import random

import pytest

from hlo_lab.errors import HloLabError
from hlo_lab.ir import print_module, read_module

TOKENS = [
    *(bytes([byte]) for byte in b'{}(["\n,=%\\\x00\xff'),
    *(b"-1", b"9" * 30, b"/*", b"ROOT ", b"<=", b"ENTRY ", b"HloModule x\n", b"}\n"),
]


def damaged(data: bytes, rng: random.Random) -> bytes:
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8))):
        at, kind = rng.randrange(len(out) + 1), rng.randrange(6)
        if kind == 0:
            out[at:at] = rng.choice(TOKENS)
        elif kind == 1:
            del out[at : at + rng.randrange(1, 30)]
        elif kind == 2:
            other = rng.randrange(len(out) + 1)
            out[at:at] = out[other : other + rng.randrange(1, 200)]
        elif kind == 3 and rng.random() < 0.3:
            del out[at:]
        elif at < len(out):
            out[at] = rng.randrange(256) if kind == 4 else out[at] ^ (1 << rng.randrange(8))
    return bytes(out)


def use(path) -> None:
    module = read_module(path)
    for table in (module.shapes, module.attributes, module.metadatas):
        list(table)
    for shape in module.shapes:
        assert shape.bytes >= 0 and shape.padded_bytes >= 0
    module.shape_values("padded_bytes")
    module.shape_values("memory_space")
    for row in range(0, len(module), 7):
        module.source_stack(row)
        _ = module.instruction(row).backend_config
    print_module(module)


@pytest.mark.parametrize("kind", ["text", "proto"])
def test_damaged_files(kind, fixtures, tmp_path):
    text = (fixtures / "hlo" / "every_attribute.hlo").read_text()
    data = text.encode()
    if kind == "proto":
        hlo = pytest.importorskip("jaxlib._hlo")
        data = hlo.hlo_module_from_text(text).as_serialized_hlo_module_proto()
    rng = random.Random(20)
    path = tmp_path / "damaged"
    read = 0
    for _ in range(400):
        path.write_bytes(damaged(data, rng))
        try:
            use(path)
            read += 1
        except HloLabError as error:
            assert "\n" not in str(error)
    assert read > 20, "damage this small is often harmless"
