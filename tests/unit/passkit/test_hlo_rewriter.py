"""Rewriting HLO: what a pass sees, what its edits make, and what is refused."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from typing import ClassVar

import pytest

from hlo_lab.errors import PassError
from hlo_lab.ir.module import Module
from hlo_lab.ir.printer import print_module
from hlo_lab.ir.text import read_text
from hlo_lab.ir.verifier import verify
from hlo_lab.passkit.base import HloRewritePass
from hlo_lab.passkit.hlo_rewriter import HloRewriter
from hlo_lab.passkit.place import Place
from hlo_lab.passkit.rewriting import apply_to_hlo
from hlo_lab.passkit.stablehlo_patterns import capture, op, splat

TEXT = """
    HloModule jit_f, entry_computation_layout={(f32[8,4]{1,0})->f32[8]{0}}

    FileNames
    1 "model.py"

    FunctionNames
    1 "f"

    FileLocations
    1 {file_name_id=1 function_name_id=1 line=3 end_line=3 column=4 end_column=9}
    2 {file_name_id=1 function_name_id=1 line=4 end_line=4 column=4 end_column=9}

    StackFrames
    1 {file_location_id=1 parent_frame_id=1}
    2 {file_location_id=2 parent_frame_id=1}

    %plus (a: f32[], b: f32[]) -> f32[] {
      %a = f32[] parameter(0)
      %b = f32[] parameter(1)
      ROOT %add.1 = f32[] add(%a, %b)
    }

    %other (c: f32[]) -> f32[] {
      ROOT %c = f32[] parameter(0)
    }

    ENTRY %main (x: f32[8,4]) -> f32[8] {
      %x = f32[8,4]{1,0} parameter(0), metadata={op_name="x"}
      %one = f32[] constant(1)
      %ones = f32[8,4]{1,0} broadcast(%one), dimensions={}
      %multiply.1 = f32[8,4] multiply(%x, %ones), metadata={op_name="f/mul" stack_frame_id=1}
      %zero = f32[] constant(0)
      %two = f32[] constant(2)
      %twice = f32[] call(%two), to_apply=%other
      %2s = f32[8,4] broadcast(%twice), dimensions={}
      %multiply.2 = f32[8,4] multiply(%multiply.1, %2s), metadata={op_name="f/mul" stack_frame_id=2}
      %tanh.1 = f32[8,4]{1,0} tanh(%multiply.2)
      ROOT %reduce.1 = f32[8]{0} reduce(%tanh.1, %zero), dimensions={1}, to_apply=%plus
    }
"""


@pytest.fixture
def module() -> Module:
    found = read_text(textwrap.dedent(TEXT).lstrip().splitlines(keepends=True), "test")
    verify(found)
    return found


def body(module: Module) -> list[str]:
    return [each.name for each in module.entry_computation.instructions]


def test_views_say_what_an_instruction_is(module: Module) -> None:
    rewriter = HloRewriter(module)
    first, second = rewriter.ops("multiply")
    assert [first.label, second.label] == ["multiply.1", "multiply.2"]
    assert (first.shape, first.rank, first.size, first.dtype) == ((8, 4), 2, 32, "f32")
    assert first.is_float and not first.is_root
    assert [each.splat for each in first.operands] == [None, 1.0]
    assert (first.place, str(first.source[0])) == ("f/mul", "model.py:3 in f")
    assert [each.label for each in first.users] == ["multiply.2"]
    (reduce,) = rewriter.ops("reduce")
    assert reduce.is_root and reduce.attribute("dimensions") == "{1}"
    assert (reduce.computation, rewriter.computations[-1]) == ("main", "main")


def test_a_pattern_is_replaced_and_what_is_unused_goes(module: Module) -> None:
    rewriter = HloRewriter(module)
    (match,) = rewriter.matches(op("multiply", capture("x"), splat(1)))
    rewriter.replace(match.root, match["x"])
    changed = rewriter.finish()
    assert rewriter.changes == 1
    assert body(changed) == [
        "x", "zero", "two", "twice", "2s", "multiply.2", "tanh.1", "reduce.1",
    ]  # fmt: skip
    assert [each.name for each in changed.instruction("multiply.2").operands] == ["x", "2s"]
    assert len(module) == len(changed) + 3
    again = read_text(print_module(changed).splitlines(keepends=True), "again")
    assert changed == again


def test_a_computation_that_nothing_calls_any_more_goes(module: Module) -> None:
    rewriter = HloRewriter(module)
    (_, second) = rewriter.ops("multiply")
    rewriter.replace(second, rewriter.before(second).full_like(second, 0.5))
    changed = rewriter.finish()
    assert changed.computation_names == ["plus", "main"]
    built = next(each for each in changed.instructions if each.literal == "0.5")
    assert built.op_name == "f/mul" and built.source[0].line == 4


def test_what_is_built_stands_where_it_was_asked_for(module: Module) -> None:
    rewriter = HloRewriter(module)
    (tanh,) = rewriter.ops("tanh")
    (reduce,) = rewriter.ops("reduce")
    behind = rewriter.after(tanh)
    rewriter.replace(tanh, behind.barrier(tanh))
    rewriter.replace(reduce, rewriter.after(reduce).elementwise("negate", reduce))
    before = rewriter.before(tanh)
    narrow = before.convert(before.convert(tanh.operands[0], "bf16"), "f32")
    rewriter.set_operand(tanh, 0, narrow)
    rewriter.set_attribute(reduce, "frontend_attributes", '{mark="1"}')
    changed = rewriter.finish()
    assert body(changed)[-6:] == [
        "convert.new.1", "convert.new.2", "tanh.1", "opt-barrier.new.1", "reduce.1", "negate.new.1",
    ]  # fmt: skip
    assert changed.entry_computation.root.name == "negate.new.1"
    assert 'frontend_attributes={mark="1"}' in print_module(changed)
    assert rewriter.changes == 4


def test_an_order_is_a_change_only_where_it_is_another(module: Module) -> None:
    rewriter = HloRewriter(module)
    order = rewriter.order("main")
    rewriter.set_order("main", order)
    assert (rewriter.changes, rewriter.finish() is module) == (0, True)
    late = [order[0], *order[4:7], *order[1:4], *order[7:]]
    rewriter.set_order("main", late)
    assert body(rewriter.finish())[1:4] == ["zero", "two", "twice"]
    with pytest.raises(ValueError, match=r"multiply\.1 would come before x, which it takes"):
        rewriter.set_order("main", [*order[1:4], order[0], *order[4:]])
    with pytest.raises(ValueError, match="must list each instruction of main once"):
        rewriter.set_order("main", order[1:])


def test_a_place_limits_what_is_looked_at(module: Module) -> None:
    rewriter = HloRewriter(module, Place("model.py", 4))
    assert [each.label for each in rewriter.ops()] == ["multiply.2"]
    named = HloRewriter(module, Place(op_name="f/mul"))
    assert [each.label for each in named.ops()] == ["multiply.1", "multiply.2"]


@dataclass(frozen=True)
class Bad(HloRewritePass):
    code: ClassVar[str] = "BAD001"
    name: ClassVar[str] = "bad"
    how: str = "shape"

    def rewrite(self, module: HloRewriter) -> None:
        (tanh,) = module.ops("tanh")
        (reduce,) = module.ops("reduce")
        if self.how == "shape":
            module.replace(tanh, reduce)
        elif self.how == "late":
            module.set_operand(tanh, 0, module.after(reduce).full_like(tanh, 1))
        else:
            build = module.before(tanh)
            module.replace(tanh, build.op("add", tanh.operands, tanh.type))


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("shape", r"raised ValueError: f32\[8,4\].* cannot be replaced by f32\[8\]"),
        ("late", r"left a module that is not valid: .*; mend the pass"),
        ("count", r"left a module that is not valid: .*; mend the pass"),
    ],
)
def test_a_bad_pass_is_named(module: Module, how: str, said: str) -> None:
    with pytest.raises(PassError, match=rf"pass bad \(BAD001\) {said}"):
        apply_to_hlo(Bad(how=how), module)
