"""Applying rewrite passes: in order, verified, and what a bad one is told."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import pytest

from hlo_lab.errors import InputError, PassError, UseError
from hlo_lab.passkit.base import RewritePass
from hlo_lab.passkit.discovery import discover
from hlo_lab.passkit.mlir_module import count_ops
from hlo_lab.passkit.rewriter import Rewriter
from hlo_lab.passkit.rewriting import PassSpec, apply
from hlo_lab.passkit.scaffold import new_pass
from hlo_lab.passkit.selection import select_passes, select_rewrites
from tests.unit.passkit.modules import traced

X = jax.ShapeDtypeStruct((4, 8), jnp.float32)


@dataclass(frozen=True)
class Swap(RewritePass):
    code: ClassVar[str] = "SWA001"
    name: ClassVar[str] = "swap"
    old: str = "sine"
    new: str = "cosine"

    def rewrite(self, module: Rewriter) -> None:
        for op in module.ops(self.old):
            module.replace(op, module.before(op).elementwise(self.new, *op.operands))


@dataclass(frozen=True)
class Invalid(Swap):
    def rewrite(self, module: Rewriter) -> None:
        for op in module.ops("sine"):
            built = module.before(op).op("transpose", op.operands, [((4, 8), "f32")])
            module.replace(op, built.result)


@dataclass(frozen=True)
class Raises(Swap):
    def rewrite(self, module: Rewriter) -> None:
        raise KeyError("gone")


def sines() -> Any:
    return traced(lambda x: jnp.sin(x) + jnp.sin(x * 2), X)


def test_passes_run_in_order() -> None:
    raw = sines()
    done = apply([Swap(), Swap(old="cosine", new="tanh")], raw)
    assert [each.changes for each in done] == [2, 2]
    assert count_ops(raw)["tanh"] == 2


def test_a_pass_that_raises_is_named() -> None:
    with pytest.raises(PassError, match=r"pass swap \(SWA001\) raised KeyError.*mend the pass"):
        apply([Raises()], sines())


def test_a_module_that_is_not_valid_is_the_fault_of_its_pass() -> None:
    with pytest.raises(PassError, match=r"pass swap \(SWA001\) .*; mend the pass"):
        apply([Invalid()], sines())


def test_selection_keeps_the_kinds_apart(tmp_path: Path) -> None:
    new_pass("my-sigmoid", tmp_path, {}, rewrite=True)
    catalogue = discover([tmp_path], start=tmp_path)
    ((info, one),) = select_rewrites(["my-sigmoid{min_elements=1KiB}"], catalogue)
    assert (info.kind, vars(one)) == ("rewrite", {"min_elements": 1024})
    again = PassSpec.of(info, one).make()
    assert (again.name, vars(again)) == ("my-sigmoid", {"min_elements": 1024})
    assert "my-sigmoid" not in [each.name for each in select_passes([], catalogue)]
    with pytest.raises(UseError, match="use it with `hlo-lab rewrite my-sigmoid PROGRAM`"):
        select_passes(["my-sigmoid"], catalogue)
    with pytest.raises(UseError, match=r"rewrites nothing; those that do: .*my-sigmoid"):
        select_rewrites(["fusion"], catalogue)
    (tmp_path / "my_sigmoid.py").write_text((tmp_path / "my_sigmoid.py").read_text() + "\n1/0\n")
    with pytest.raises(InputError, match="ZeroDivisionError"):
        PassSpec.of(info, one).make()
