"""Whether two modules are the same, and the first place where they are not."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np

from hlo_lab.ir.module import ROLES, Ints, Module

# what the proto carries; text also has what XLA keeps in the module's configuration
_HEADER = ("is_scheduled", "input_output_alias", "buffer_donor")
_UNSAID = {"has_dynamic_root": "false"}  # defaults that not every version prints
_STRING_OR_FILLER = re.compile(r'"(?:[^"\\]|\\.)*"|/\*.*?\*/|\s+', re.S)


def first_difference(a: Module, b: Module) -> str | None:
    """One line on the first difference, or None; see :meth:`Module.difference`."""
    if a.name != b.name:
        return f"module names differ: {a.name!r} and {b.name!r}"
    for key in _HEADER:
        if plain(a.header.get(key, "")) != plain(b.header.get(key, "")):
            return f"header attribute {key} differs"
    if a.computation_names != b.computation_names:
        if sorted(a.computation_names) != sorted(b.computation_names):
            pair = sorted(a.computation_names), sorted(b.computation_names)
            return _first_of_lists("computations", *pair)
        b = _in_order_of(a, b)
    if a.entry != b.entry:
        return "entry computations differ"
    if not np.array_equal(a.computation_start, b.computation_start):
        at = int((a.computation_start != b.computation_start).argmax()) - 1
        return f"computation {a.computation_names[at]!r} has another number of instructions"
    if a.instruction_names != b.instruction_names:
        return _first_of_lists("instructions", a.instruction_names, b.instruction_names)
    return _rows_difference(a, b) or _constants_difference(a, b)


def _in_order_of(a: Module, b: Module) -> Module:
    """``b`` with its computations in the order of ``a``: protos and text list them differently."""
    from hlo_lab.ir.edits import take_rows

    place = {name: number for number, name in enumerate(b.computation_names)}
    start = b.computation_start
    order = [place[name] for name in a.computation_names]
    return take_rows(b, np.concatenate([np.arange(start[i], start[i + 1]) for i in order]))


def _first_of_lists(what: str, a: list[str], b: list[str]) -> str:
    for number, (left, right) in enumerate(zip(a, b, strict=False)):
        if left != right:
            return f"{what} {number} differ: {left!r} and {right!r}"
    return f"{len(a)} and {len(b)} {what}"


def _rows_difference(a: Module, b: Module) -> str | None:
    if not np.array_equal(a.computation_root, b.computation_root):
        return "roots differ"
    if not np.array_equal(a.parameter_number, b.parameter_number):
        return "parameter numbers differ"
    for what, left, right in (
        ("operands", (a.operand_start, a.operand), (b.operand_start, b.operand)),
        ("control predecessors", (a.control_start, a.control), (b.control_start, b.control)),
        ("called computations", (a.callee_start, _calls(a)), (b.callee_start, _calls(b))),
    ):
        at = _edge_difference(left, right)
        if at is not None:
            return f"{a.instruction_names[at]!r} has other {what}"
    for what, index_a, index_b, table_a, table_b, same in (
        ("opcode", a.opcode, b.opcode, a.opcodes, b.opcodes, _same),
        ("shape", a.shape, b.shape, a.shapes, b.shapes, _same),
        ("attributes", a.attribute, b.attribute, a.attributes, b.attributes, _same_attributes),
        ("metadata", a.metadata, b.metadata, a.metadatas, b.metadatas, _same_metadata(a, b)),
    ):
        pair = _pair_difference(index_a, index_b, table_a, table_b, same)
        if pair is not None:
            at, left, right = pair
            return f"{what} of {a.instruction_names[at]!r} differs: {left} and {right}"
    return None


def _calls(module: Module) -> Ints:
    return module.callee * len(ROLES) + module.callee_role


def _edge_difference(a: tuple[Ints, Ints], b: tuple[Ints, Ints]) -> int | None:
    """First row whose targets differ."""
    if not np.array_equal(a[0], b[0]):
        return int((np.diff(a[0]) != np.diff(b[0])).argmax())
    differ = a[1] != b[1]
    if not differ.any():
        return None
    return int(np.searchsorted(a[0], int(differ.argmax()), "right")) - 1


def _pair_difference(
    index_a: Ints, index_b: Ints, table_a: Any, table_b: Any, same: Callable[[Any, Any], bool]
) -> tuple[int, Any, Any] | None:
    """First row whose table entries differ; each distinct pair is compared once."""
    key = index_a * (len(table_b) + 1) + index_b
    _, first = np.unique(key, return_index=True)
    for at in np.sort(first).tolist():
        left, right = table_a[index_a[at]], table_b[index_b[at]]
        if not same(left, right):
            return at, left, right
    return None


def _same(a: Any, b: Any) -> bool:
    return bool(a == b)


def _same_attributes(a: dict[str, str], b: dict[str, str]) -> bool:
    if a == b:
        return True
    a, b = (
        {key: value for key, value in one.items() if _UNSAID.get(key) != value} for one in (a, b)
    )
    return a.keys() == b.keys() and all(plain(a[key]) == plain(b[key]) for key in a)


def _same_metadata(a: Module, b: Module) -> Callable[[Any, Any], bool]:
    stacks: dict[tuple[int, int], bool] = {}

    def same(left: Any, right: Any) -> bool:
        ids = (left.stack_frame_id, right.stack_frame_id)
        if ids not in stacks:
            stacks[ids] = a.frames.stack(ids[0]) == b.frames.stack(ids[1])
        return (
            stacks[ids]
            and (left.op_name, left.op_type, left.source_file, left.source_line)
            == (right.op_name, right.op_type, right.source_file, right.source_line)
            and sorted(left.extra) == sorted(right.extra)
        )

    return same


def _constants_difference(a: Module, b: Module) -> str | None:
    if a.literals.keys() != b.literals.keys():
        return "constants differ"
    for at in a.literals:
        left, right = a.literals[at], b.literals[at]
        if left != right and "{...}" not in (left, right) and plain(left) != plain(right):
            name = a.instruction_names[at]
            return f"constant {name!r} differs: {left[:40]!r} and {right[:40]!r}"
    return None


def plain(text: str) -> str:
    """Without comments and spaces outside strings, which printers place differently."""
    return _STRING_OR_FILLER.sub(lambda m: m.group() if m.group()[0] == '"' else "", text)
