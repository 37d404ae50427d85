"""Random modules: print and read back, edit and compare."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from hlo_lab.ir import edits, print_module, read_text, verify
from hlo_lab.ir.source import escape, unescape

ELEMENTWISE = ("add", "multiply", "maximum")
words = st.text(st.characters(exclude_categories=("Cs",)), max_size=12)


@st.composite
def modules(draw):
    """A few computations, each calling some that come before it."""
    lines = ["HloModule random"]
    count = draw(st.integers(1, 4))
    for number in range(count):
        entry = number == count - 1
        lines.append(f"\n{'ENTRY ' if entry else ''}%c{number} {{")
        parameters = draw(st.integers(1, 2))
        names = [f"p{number}.{i}" for i in range(parameters)]
        lines += [f"  %{name} = f32[4]{{0}} parameter({i})" for i, name in enumerate(names)]
        size = draw(st.integers(1, 8))
        for i in range(size):
            name = f"i{number}.{i}"
            root = "ROOT " if i == size - 1 else ""
            kind = draw(st.integers(0, 3))
            one, two = (draw(st.sampled_from(names)) for _ in range(2))
            tail = ""
            if text := draw(words):
                tail = f', metadata={{op_name="{escape(text)}"}}'
            if kind == 0:
                body = f"constant({{{draw(st.integers(-9, 9))}, 1, 2, 3}})"
            elif kind == 1 and number:
                callee = draw(st.integers(0, number - 1))
                body = f"custom-call(%{one}), called_computations={{%c{callee}}}"
            elif kind == 2:
                body = f"negate(%{one}), control-predecessors={{%{two}}}"
            else:
                body = f"{draw(st.sampled_from(ELEMENTWISE))}(%{one}, %{two})"
            lines.append(f"  {root}%{name} = f32[4]{{0}} {body}{tail}")
            names.append(name)
        lines.append("}")
    return read_text("\n".join(lines) + "\n")


@given(modules())
@settings(max_examples=60, deadline=None)
def test_print_then_read_is_the_identity(module):
    verify(module)
    text = print_module(module)
    again = read_text(text)
    assert module.difference(again) is None
    assert print_module(again) == text


@given(modules(), st.integers(1, 1 << 16))
@settings(max_examples=40, deadline=None)
def test_chunks_may_end_anywhere(module, size):
    text = print_module(module)
    pieces = [text[i : i + size] for i in range(0, len(text), size)]
    assert module.difference(read_text(pieces)) is None


@given(modules(), st.randoms(use_true_random=False))
@settings(max_examples=40, deadline=None)
def test_reorder_and_rename_keep_the_structure(module, random):
    start = module.computation_start
    entry = module.entry
    order, ready = [], set()
    waiting = list(range(start[entry], start[entry + 1]))
    while waiting:  # a random topological order; control predecessors too
        free = [
            at
            for at in waiting
            if all(i.index in ready for i in module.instruction(at).operands)
            and all(i.index in ready for i in module.instruction(at).control_predecessors)
        ]
        order.append(random.choice(free))
        ready.add(order[-1])
        waiting.remove(order[-1])
    other = edits.rename(edits.reorder(module, entry, order), lambda name: f"new.{name}")
    verify(other)
    back = edits.rename(other, lambda name: name.removeprefix("new."))
    for instruction in module.instructions:
        same = back.instruction(instruction.name)
        assert [i.name for i in same.operands] == [i.name for i in instruction.operands]
        assert (same.opcode, same.literal, same.op_name) == (
            instruction.opcode, instruction.literal, instruction.op_name
        )  # fmt: skip
    first, last = start[entry], start[entry + 1]
    undo = np.argsort(order) + first
    assert last - first == len(undo)
    assert module.difference(edits.reorder(back, entry, undo.tolist())) is None


@given(st.text(st.characters(exclude_categories=("Cs",))))
def test_escapes_are_undone(text):
    assert unescape(escape(text)) == text
