"""Public modules read, print and read back; jaxlib's proto of them gives the same module."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from hlo_lab.errors import ReadError
from hlo_lab.ir import print_module, read_module, read_proto, read_text
from hlo_lab.ir.text import read_text_modules
from hlo_lab.ir.verifier import problems

CORPUS = Path(__file__).resolve().parents[3] / "shared" / "corpus"
FILES = sorted(CORPUS.glob("*/*.gz"))
SEVERAL = "sorting.hlo.gz"
pytestmark = pytest.mark.skipif(not FILES, reason="no corpus beside this checkout")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_reads_and_round_trips(path):
    if path.name == SEVERAL:
        with pytest.raises(ReadError, match="holds 4 modules"):
            read_module(path)
        modules = [read_module(f"{path}#{number}") for number in (1, 2, 3, 4)]
    else:
        modules = [read_module(path)]
    for module in modules:
        assert bool(module.warnings) == (path.parent.name == "maxtext")
        for table in (module.shapes, module.attributes, module.metadatas):
            assert len(list(table)) == len(table)
        broken = list(problems(module))
        assert not broken or (module.warnings and "numbers have gaps" in broken[-1])
        text = print_module(module)
        again = read_text(text)
        assert module.difference(again) is None
        assert (again.header, again.frames) == (module.header, module.frames)
        assert print_module(again) == text


def reprinted(path):
    """What jaxlib makes of the text: its own print, and its proto."""
    hlo = pytest.importorskip("jaxlib._hlo")
    try:
        module = hlo.hlo_module_from_text(gzip.decompress(path.read_bytes()).decode())
    except Exception as error:
        pytest.skip(f"jaxlib does not parse it: {str(error)[:60]}")
    options = hlo.HloPrintOptions()
    options.print_large_constants = True
    return module.to_string(options), module.as_serialized_hlo_module_proto()


@pytest.mark.parametrize(
    "path", [p for p in FILES if p.parent.name != "maxtext"], ids=lambda path: path.name
)
def test_proto_equals_text(path):
    text, data = reprinted(path)
    a, b = read_text(text), read_proto(data)
    assert a.difference(b) is None
    assert b.difference(read_text(print_module(b))) is None
    (original, *_) = read_text_modules(gzip.decompress(path.read_bytes()).decode())
    assert len(original) == len(a), "jaxlib parsed the same module"


def test_a_profile_is_refused_with_a_reason():
    (path,) = CORPUS.glob("xplane/*.pb")
    with pytest.raises(ReadError, match="profile"):
        read_module(path)
