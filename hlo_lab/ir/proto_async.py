"""Asynchronous pairs around one operation, brought to the form that text prints.

XLA prints ``async-start`` of a computation that holds one operation as that operation
with ``-start`` after its name, and does not print the computation.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from hlo_lab.ir.edits import callee_columns, take_rows
from hlo_lab.ir.module import Module
from hlo_lab.ir.table import LazyTable

_SUFFIX = {"async-start": "-start", "async-update": "-update", "async-done": "-done"}


def fold_async(module: Module) -> Module:
    """The same module with every simple asynchronous pair folded."""
    wrapped = _wrapped(module)
    if not wrapped:
        return module
    opcodes = {name: number for number, name in enumerate(module.opcodes)}
    opcode = module.opcode.copy()
    attribute = module.attribute.copy()
    attributes = list(module.attributes)
    edges: list[tuple[int, int, int]] = []
    start = module.callee_start
    for at in range(len(module)):
        rows = range(int(start[at]), int(start[at + 1]))
        name = module.opcodes[module.opcode[at]]
        if name in _SUFFIX and rows and int(module.callee[rows[0]]) in wrapped:
            root = wrapped[int(module.callee[rows[0]])]
            folded = module.opcodes[module.opcode[root]] + _SUFFIX[name]
            opcode[at] = opcodes.setdefault(folded, len(opcodes))
            if name == "async-start":
                attribute[at] = len(attributes)
                attributes.append(
                    {**module.attributes[module.attribute[root]], **module.attributes[module.attribute[at]]}
                )
                rows = range(int(start[root]), int(start[root + 1]))
            else:
                rows = range(0)
        edges += [(at, int(module.callee_role[row]), int(module.callee[row])) for row in rows]
    keep = ~np.isin(module.computation_of, list(wrapped))
    edited = replace(
        module,
        opcodes=list(opcodes),
        opcode=opcode,
        attributes=LazyTable.of(attributes),
        attribute=attribute,
        **callee_columns(edges, len(module)),
    )
    return take_rows(edited, np.nonzero(keep)[0])


def _wrapped(module: Module) -> dict[int, int]:
    """Root by wrapped computation, of those that hold one operation besides parameters."""
    out: dict[int, int] = {}
    for instruction in module.with_opcode(*_SUFFIX):
        for _, computation in instruction.callees[:1]:
            root = computation.root
            others = [i for i in computation.instructions if i.index != root.index]
            if all(i.opcode == "parameter" for i in others):
                out[computation.index] = root.index
    return out
