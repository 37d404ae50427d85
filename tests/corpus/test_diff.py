"""Comparing public modules: with each other, and with themselves by other routes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from hlo_lab.diff import Kind, Verdict, diff_modules
from hlo_lab.ir.files import read_module
from hlo_lab.ir.printer import print_module
from hlo_lab.ir.text import read_text

SMALL = (
    "openxla/diffrax.b380012920.hlo.gz",
    "openxla/hlo_llama31_405b_fp8_16x8.hlo.gz",
    "openxla/mobilenet_v2.hlo.gz",
    "versions/0.4.30_spmd_opt.hlo.gz",
    "versions/0.12.0.1_spmd_opt.hlo.gz",
    "versions/libtpu0.0.52_v5e_opt.hlo.gz",
)


def test_another_mesh_is_two_groups_of_dimensions(corpus: Path) -> None:
    a = read_module(corpus / "openxla/hlo_llama31_405b_bf16_16x8.hlo.gz")
    b = read_module(corpus / "openxla/hlo_llama31_405b_bf16_64x8.hlo.gz")
    result = diff_modules(a, b)
    assert result.verdict is Verdict.CHANGED
    assert (result.added, result.removed) == (0, 0)
    shapes = [change for change in result.changes if change.kind is Kind.SHAPE]
    assert [change.summary.split(" in ")[0] for change in shapes] == [
        "dimension 128 -> 32",
        "dimension 128 -> 512",
    ]
    assert sum(change.count for change in shapes) > 0.99 * result.changed


def test_releases_of_one_golden_file(corpus: Path) -> None:
    paths = sorted((corpus / "maxtext").iterdir())
    modules = [read_module(path) for path in paths]
    result = diff_modules(modules[0], modules[1])
    assert (result.added, result.removed) == (0, 0)
    assert {change.kind for change in result.changes} == {Kind.LAYOUT}
    assert all("cut" in note for note in result.notes)
    assert len(result.notes) == 2
    assert result.matching is not None
    assert result.matching.agreement is not None
    assert result.matching.agreement > 0.9


@pytest.mark.parametrize("name", SMALL)
def test_printed_again_it_is_identical(corpus: Path, name: str) -> None:
    module = read_module(corpus / name)
    text = print_module(module)
    again = read_text(text.splitlines(keepends=True))
    assert diff_modules(module, again).verdict is Verdict.IDENTICAL
    bare = re.sub(r', metadata=\{(?:[^"{}]|"(?:[^"\\]|\\.)*")*\}', "", text)
    assert len(bare) < len(text) or "metadata=" not in text
    without = read_text(bare.replace("%", "").splitlines(keepends=True))
    assert diff_modules(module, without).verdict is Verdict.IDENTICAL


@pytest.mark.parametrize("name", ["openxla/diffrax.b380012920.hlo.gz",
                                  "versions/0.10.2_spmd_opt.hlo.gz"])  # fmt: skip
def test_the_proto_of_the_compilers_own_parser_is_identical(
    corpus: Path, name: str, tmp_path: Path
) -> None:
    import gzip

    from jaxlib import _hlo

    text = gzip.decompress((corpus / name).read_bytes()).decode()
    parsed = _hlo.hlo_module_from_text(text)
    proto = tmp_path / "module.pb"
    proto.write_bytes(parsed.as_serialized_hlo_module_proto())
    mine, theirs = read_module(corpus / name), read_module(proto)
    assert diff_modules(mine, theirs).verdict is Verdict.IDENTICAL
    printed = read_text(parsed.to_string().splitlines(keepends=True))
    assert diff_modules(mine, printed).verdict is Verdict.IDENTICAL
