"""On random modules: renamed and reordered is identical; every single edit is found."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from hlo_lab.diff import Verdict, diff_modules
from hlo_lab.ir import edits
from hlo_lab.ir.module import Module
from hlo_lab.ir.text import read_text

UNARY = ("negate", "exponential", "tanh", "sine", "cosine", "sqrt")
BINARY = ("add", "subtract", "multiply", "divide")


@st.composite
def modules(draw: st.DrawFn) -> Module:
    """A straight-line program whose every operation reaches the root."""
    count = draw(st.integers(2, 40))
    lines = ["  v0 = f32[16,4]{1,0} parameter(0)", "  v1 = f32[16,4]{1,0} parameter(1)"]
    unused = {0, 1}
    for number in range(2, count + 2):
        operands = [draw(st.integers(0, number - 1))]
        opcode = draw(st.sampled_from(UNARY + BINARY))
        if opcode in BINARY:
            operands.append(draw(st.integers(0, number - 1)))
        unused -= set(operands)
        unused.add(number)
        names = ", ".join(f"v{o}" for o in operands)
        lines.append(f"  v{number} = f32[16,4]{{1,0}} {opcode}({names})")
    shapes = ", ".join("f32[16,4]{1,0}" for _ in unused)
    names = ", ".join(f"v{o}" for o in sorted(unused))
    lines.append(f"  ROOT out = ({shapes}) tuple({names})")
    return read_text(["HloModule m\n", "ENTRY e {\n", *(f"{line}\n" for line in lines), "}\n"])


def reordered(module: Module, seed: int) -> Module:
    """The entry's instructions in a random topological order."""
    draw = random.Random(seed)
    rows = list(module.entry_computation.rows)
    waiting = {row: len(set(_operands(module, row))) for row in rows}
    ready = [row for row in rows if not waiting[row]]
    order = []
    while ready:
        row = ready.pop(draw.randrange(len(ready)))
        order.append(row)
        for user in module.instruction(row).users:
            waiting[user.index] -= 1
            if not waiting[user.index]:
                ready.append(user.index)
    return edits.reorder(module, module.entry, order)


def _operands(module: Module, row: int) -> list[int]:
    return [operand.index for operand in module.instruction(row).operands]


@given(modules(), st.integers(0, 2**32))
@settings(max_examples=60, deadline=None)
def test_renamed_and_reordered_is_identical(module: Module, seed: int) -> None:
    other = edits.rename(reordered(module, seed), lambda name: f"other.{name}")
    result = diff_modules(module, other)
    assert result.verdict is Verdict.IDENTICAL
    assert diff_modules(other, module).verdict is Verdict.IDENTICAL


@given(modules(), st.data())
@settings(max_examples=60, deadline=None)
def test_a_changed_opcode_is_found_where_it_is(module: Module, data: st.DataObject) -> None:
    candidates = [i.index for i in module.instructions if i.opcode in UNARY]
    if not candidates:
        return
    at = data.draw(st.sampled_from(candidates))
    changed = edits.set_opcode(module, at, "logistic")
    changed = reordered(changed, data.draw(st.integers(0, 2**32)))
    result = diff_modules(module, changed)
    assert result.verdict is Verdict.CHANGED
    named = {name for change in result.changes for name in change.after.instructions}
    assert module.instruction_names[at] in named


@given(modules(), st.data())
@settings(max_examples=60, deadline=None)
def test_an_inserted_operation_is_found(module: Module, data: st.DataObject) -> None:
    users = [i for i in module.instructions if i.operands]
    user = data.draw(st.sampled_from(users))
    position = data.draw(st.integers(0, len(user.operands) - 1))
    operand = user.operands[position]
    changed = edits.insert(
        module, user.index, "inserted", "logistic", operand.shape, [operand.index]
    )
    changed = edits.replace_operand(changed, user.index + 1, position, user.index)
    result = diff_modules(module, changed)
    assert result.verdict is Verdict.CHANGED
    assert result.added >= 1
    named = {name for change in result.changes for name in change.after.instructions}
    assert "inserted" in named
    back = diff_modules(changed, module)
    assert back.verdict is Verdict.CHANGED
    assert back.removed >= 1


@given(modules())
@settings(max_examples=40, deadline=None)
def test_commuting_every_operand_is_equivalent_or_less(module: Module) -> None:
    changed = module
    for instruction in module.instructions:
        if instruction.opcode in ("add", "multiply"):
            first, second = (operand.index for operand in instruction.operands)
            changed = edits.replace_operand(changed, instruction.index, 0, second)
            changed = edits.replace_operand(changed, instruction.index, 1, first)
    assert diff_modules(module, changed).verdict in (Verdict.IDENTICAL, Verdict.EQUIVALENT)
