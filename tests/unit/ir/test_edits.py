"""Edits build new modules and leave the old one alone; the verifier finds the bad ones."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from hlo_lab.errors import ReadError
from hlo_lab.ir import Shape, edits, print_module, read_text, verify
from hlo_lab.ir.verifier import problems


def index(module, name):
    return module.instruction(name).index


def checked(module):
    verify(module)
    assert module.difference(read_text(print_module(module))) is None
    return module


def test_remove_dead_takes_what_no_root_needs(small):
    without_control = replace(
        small, control=np.zeros(0, np.int64), control_start=np.zeros(9, np.int64)
    )
    out = checked(edits.remove_dead(without_control))
    assert "dead" not in out.instruction_names and len(out) == len(small) - 1
    assert len(edits.remove_dead(small)) == len(small), "a control edge keeps it"
    assert "dead" in small.instruction_names


def test_remove_dead_takes_computations_that_nobody_calls(small):
    out = edits.replace_all_uses(small, index(small, "fusion"), index(small, "x"))
    out = checked(edits.remove_dead(out))
    assert out.computation_names == ["main"] and out.entry == 0
    assert [i.name for i in out.instruction("product").operands] == ["x", "ones"]


def test_remove_refuses_what_is_used(small):
    with pytest.raises(ValueError, match="'ones' is still used"):
        edits.remove(small, [index(small, "ones")])
    with pytest.raises(ValueError, match="root"):
        edits.remove(small, [index(small, "product")])


def test_replace_operand(small):
    out = checked(edits.replace_operand(small, index(small, "product"), 1, index(small, "x")))
    assert [i.name for i in out.instruction("product").operands] == ["fusion", "x"]
    with pytest.raises(ValueError, match="does not come before"):
        edits.replace_operand(small, index(small, "ones"), 0, index(small, "product"))
    with pytest.raises(ValueError, match="no operand 5"):
        edits.replace_operand(small, index(small, "product"), 5, index(small, "x"))


def test_set_opcode_attributes_and_shape(small):
    at = index(small, "product")
    out = edits.set_attributes(edits.set_opcode(small, at, "divide"), at, {"note": "1"})
    out = checked(edits.set_shape(out, at, Shape.parse("f32[4]{0:T(4)}")))
    row = out.instruction("product")
    assert (row.opcode, row.attributes, str(row.shape)) == (
        "divide",
        {"note": "1"},
        "f32[4]{0:T(4)}",
    )
    assert small.instruction("product").opcode == "multiply"


def test_insert(small):
    at = index(small, "product")
    out = edits.insert(small, at, "new", "negate", Shape.parse("f32[4]{0}"), [index(small, "x")])
    out = checked(edits.replace_operand(out, at + 1, 0, at))
    assert [i.name for i in out.instruction("product").operands] == ["new", "ones"]
    assert out.instruction("one").literal == "1" and out.entry_computation.root.name == "product"
    with pytest.raises(ValueError, match="taken"):
        edits.insert(small, at, "x", "negate", Shape.parse("f32[4]{0}"), [])


def test_rename(small):
    out = checked(edits.rename(small, {"product": "p2"}))
    assert out.entry_computation.root.name == "p2"
    with pytest.raises(ValueError, match="same name"):
        edits.rename(small, lambda name: "same")


def test_reorder(small):
    names = ["one", "ones", "dead", "x", "fusion", "product"]
    order = [index(small, name) for name in names]
    out = checked(edits.reorder(small, 1, order))
    assert out.instruction_names[2:] == names
    with pytest.raises(ValueError, match="after its user"):
        edits.reorder(small, 1, order[::-1])
    with pytest.raises(ValueError, match="each instruction"):
        edits.reorder(small, 1, order[1:])


@pytest.mark.parametrize(
    ("edit", "problem"),
    [
        (lambda m: edits.set_opcode(m, index(m, "ones"), "add"), "add takes 2 operands, not 1"),
        (lambda m: edits.set_opcode(m, index(m, "x"), "iota"), "opcode and parameter number"),
        (lambda m: replace(m, parameter_number=m.parameter_number + 1), "opcode and parameter"),
        (lambda m: replace(m, operand=m.operand[::-1]), "is not before it"),
        (lambda m: replace(m, computation_root=m.computation_root[::-1]), "root lies outside"),
        (lambda m: replace(m, entry=9), "no entry"),
        (lambda m: replace(m, shape=m.shape + 50), "does not fit its table"),
        (lambda m: replace(m, callee=m.callee + 7), "calls a computation that is not there"),
        (lambda m: replace(m, instruction_names=["n"] * 8), "are named 'n'"),
        (
            lambda m: edits.set_shape(m, index(m, "product"), Shape.parse("f32[5]{0}")) and
            edits.set_shape(m, index(m, "p"), Shape.parse("f32[5]{0}")),
            "add of operands with other dimensions",
        ),
    ],
)  # fmt: skip
def test_verifier_names_the_broken_rule(small, edit, problem):
    with pytest.raises(ReadError, match=problem):
        verify(edit(small))


def test_verifier_checks_calls_and_tuples():
    module = read_text(
        "HloModule m\nf {\n  p = f32[] parameter(0)\n  q = f32[] parameter(2)\n"
        "  ROOT s = f32[] add(p, q)\n}\nENTRY e {\n  x = f32[] parameter(0)\n"
        "  c = f32[] call(x), to_apply=f\n  t = (f32[], s32[]) tuple(x, c)\n"
        "  ROOT g = f32[] get-tuple-element(t), index=4\n}\n"
    )
    found = list(problems(module))
    assert len(found) == 4
    for text in (
        "numbers have gaps",
        "passes 1 operands",
        "not that of its operands",
        "element '4'",
    ):
        assert any(text in problem for problem in found), text
