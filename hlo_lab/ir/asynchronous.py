"""Asynchronous chains around one operation, in the one form that both readers give.

``async-start`` of a computation that holds a single operation stands as that operation
with ``-start`` after its name, the computation left out, and so do its ``-update`` and
``-done``: the way XLA prints them. Text of some versions and every proto spell it out.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from hlo_lab.ir.edits import callee_columns, take_rows
from hlo_lab.ir.module import Module
from hlo_lab.ir.table import LazyTable

_SUFFIX = {"async-start": "-start", "async-update": "-update", "async-done": "-done"}


def fold_async(module: Module) -> Module:
    """The same module with every simple asynchronous chain folded."""
    if not any(name in _SUFFIX for name in module.opcodes):
        return module
    operation = _operations(module)
    if not operation:
        return module
    opcodes = {name: number for number, name in enumerate(module.opcodes)}
    opcode, attribute = module.opcode.copy(), module.attribute.copy()
    attributes = list(module.attributes)
    start = module.callee_start
    rows_of = {}
    wrapped = set()
    for at, (name, root) in operation.items():
        old = module.opcodes[module.opcode[at]]
        opcode[at] = opcodes.setdefault(name + _SUFFIX[old], len(opcodes))
        wrapped.update(module.callee[start[at] : start[at + 1]].tolist())
        rows_of[at] = range(0)
        if old == "async-start" and root >= 0:
            attribute[at] = len(attributes)
            own = attributes[module.attribute[at]]
            attributes.append({**attributes[module.attribute[root]], **own})
            rows_of[at] = range(int(start[root]), int(start[root + 1]))
    edges = []
    for at in range(len(module)):
        for row in rows_of.get(at, range(int(start[at]), int(start[at + 1]))):
            edges.append((at, int(module.callee_role[row]), int(module.callee[row])))
    edited = replace(
        module,
        opcodes=list(opcodes),
        opcode=opcode,
        attributes=LazyTable.of(attributes),
        attribute=attribute,
        **callee_columns(edges, len(module)),
    )
    if not wrapped:
        return edited
    return take_rows(edited, np.nonzero(~np.isin(module.computation_of, list(wrapped)))[0])


def _operations(module: Module) -> dict[int, tuple[str, int]]:
    """By index of each foldable start, update and done: its operation's name, and root or -1."""
    out: dict[int, tuple[str, int]] = {}
    for instruction in module.with_opcode(*_SUFFIX):
        called = [computation for _, computation in instruction.callees]
        if called:
            root = called[0].root
            others = [i for i in called[0].instructions if i.index != root.index]
            if len(called) == 1 and all(i.opcode == "parameter" for i in others):
                out[instruction.index] = (root.opcode, root.index)
        elif instruction.opcode != "async-start" and instruction.operands:
            before = instruction.operands[0]
            if before.index in out:
                out[instruction.index] = (out[before.index][0], -1)
            elif before.opcode.endswith(("-start", "-update")) and before.opcode not in _SUFFIX:
                out[instruction.index] = (before.opcode.rpartition("-")[0], -1)
    return out
