"""New modules from old ones: every function leaves its argument as it is.

Instructions are named by index into the module's table; indices of the result differ
where rows were removed, inserted or moved. Run ``verify`` on what several edits built.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from hlo_lab.ir.module import Ints, Module, compressed_rows
from hlo_lab.ir.shapes import Shape
from hlo_lab.ir.source import Metadata
from hlo_lab.ir.table import LazyMap, LazyTable

_SIDE_EFFECTS = frozenset(
    [
        "send",
        "send-done",
        "recv",
        "recv-done",
        "infeed",
        "outfeed",
        "rng",
        "rng-get-and-update-state",
        "domain",
        "partition-id",
        "replica-id",
        "async-start",
        "async-update",
        "async-done",
    ]
)


# ---- rows


def take_rows(module: Module, rows: Iterable[int]) -> Module:
    """Only these instructions, in this order; a computation left without any is dropped.

    The rows of one computation stand together; the result has the computations in the
    order of their rows.

    Raises:
        ValueError: an instruction that stays uses or calls one that does not.
    """
    rows = np.asarray(list(rows), np.int64)
    count = len(rows)
    new_of = np.full(len(module) + 1, -1, np.int64)
    new_of[rows] = np.arange(count)
    owner = module.computation_of[rows]
    first = np.nonzero(np.diff(owner, prepend=-1))[0]
    kept, sizes = owner[first], np.diff(np.append(first, count))
    if len(np.unique(kept)) < len(kept):
        raise ValueError("the rows of one computation must stand together")
    new_computation = np.full(len(module.computation_names), -1, np.int64)
    new_computation[kept] = np.arange(len(kept))
    operand_start, operand, _ = gather_rows(module.operand_start, module.operand, rows)
    operand = _renumber(new_of, operand, module, "operand")
    controls = []
    if len(module.control):
        controls = [
            (new, int(new_of[old]))
            for new, at in enumerate(rows.tolist())
            for old in module.control[module.control_start[at] : module.control_start[at + 1]]
            if new_of[old] >= 0
        ]
    control_start, (control, _) = compressed_rows(controls, count)
    callee_start, callee, edge = gather_rows(module.callee_start, module.callee, rows)
    callee = new_computation[callee]
    root = new_of[module.computation_root[kept]]
    if (callee < 0).any() or (root < 0).any() or new_computation[module.entry] < 0:
        raise ValueError("a root, the entry or a called computation would be removed")
    renumbered = {old: int(new_of[old]) for old in module.literals if new_of[old] >= 0}
    threads = module.execution_threads
    return replace(
        module,
        computation_names=[module.computation_names[i] for i in kept],
        computation_start=np.concatenate(([0], np.cumsum(sizes))).astype(np.int64),
        computation_root=root,
        entry=int(new_computation[module.entry]),
        instruction_names=[module.instruction_names[i] for i in rows],
        opcode=module.opcode[rows],
        shape=module.shape[rows],
        operand_start=operand_start,
        operand=operand,
        control_start=control_start,
        control=control,
        callee_start=callee_start,
        callee=callee,
        callee_role=module.callee_role[edge],
        parameter_number=module.parameter_number[rows],
        attribute=module.attribute[rows],
        metadata=module.metadata[rows],
        literals=_renumber_map(module.literals, renumbered),
        execution_threads={
            int(new_computation[old]): name
            for old, name in threads.items()
            if new_computation[old] >= 0
        },
        warnings=list(module.warnings),
    )


def gather_rows(start: Ints, target: Ints, rows: Ints) -> tuple[Ints, Ints, Ints]:
    """(new start, targets, old edge numbers) of the chosen rows."""
    sizes = start[rows + 1] - start[rows]
    new_start = np.concatenate(([0], np.cumsum(sizes))).astype(np.int64)
    edge = np.arange(new_start[-1]) + np.repeat(start[rows] - new_start[:-1], sizes)
    return new_start, target[edge], edge


def _renumber(new_of: Ints, old: Ints, module: Module, what: str) -> Ints:
    new: Ints = new_of[old]
    if (new < 0).any():
        name = module.instruction_names[old[int((new < 0).argmax())]]
        raise ValueError(f"{name!r} is still used as an {what}")
    return new


def _renumber_map(literals: Mapping[int, str], new_of: dict[int, int]) -> Mapping[int, str]:
    if isinstance(literals, LazyMap):
        return literals.renumbered(new_of)
    return {new_of[old]: text for old, text in literals.items() if old in new_of}


def callee_columns(edges: Sequence[tuple[int, int, int]], count: int) -> dict[str, Any]:
    """The three callee fields of ``Module`` from (instruction, role, computation) edges."""
    start, (role, callee) = compressed_rows(edges, count)
    return {"callee_start": start, "callee_role": role, "callee": callee}


# ---- removing


def remove(module: Module, indices: Iterable[int]) -> Module:
    """Without these instructions. Raises ``ValueError`` when one is still used."""
    keep = np.ones(len(module), bool)
    keep[list(indices)] = False
    return take_rows(module, np.nonzero(keep)[0])


def remove_dead(module: Module) -> Module:
    """Without instructions that no root needs, and computations that nobody calls.

    Parameters and operations with effects of their own stay.
    """
    live = np.zeros(len(module), bool)
    live[module.computation_root] = True
    live |= module.parameter_number >= 0
    live |= module.opcode_mask(*_SIDE_EFFECTS)
    for instruction in module.with_opcode("custom-call"):
        live[instruction.index] |= "custom_call_has_side_effect" in instruction.attributes
    for at in range(len(module) - 1, -1, -1):  # operands come before users
        if live[at]:
            live[module.operand[module.operand_start[at] : module.operand_start[at + 1]]] = True
            live[module.control[module.control_start[at] : module.control_start[at + 1]]] = True
    called = np.zeros(len(module.computation_names), bool)
    open_ = [module.entry]
    while open_:
        at_computation = open_.pop()
        if called[at_computation]:
            continue
        called[at_computation] = True
        first, last = module.computation_start[at_computation : at_computation + 2]
        for at in np.nonzero(live[first:last])[0] + first:
            open_ += module.callee[module.callee_start[at] : module.callee_start[at + 1]].tolist()
    return take_rows(module, np.nonzero(live & called[module.computation_of])[0])


# ---- changing in place


def replace_operand(module: Module, index: int, position: int, new: int) -> Module:
    """Instruction ``index`` takes ``new`` at operand ``position``.

    Raises:
        ValueError: no such position, or ``new`` does not come before it in its computation.
    """
    first, last = module.operand_start[index], module.operand_start[index + 1]
    if not 0 <= position < last - first:
        raise ValueError(f"{module.instruction_names[index]!r} has no operand {position}")
    if new >= index or module.computation_of[new] != module.computation_of[index]:
        name = module.instruction_names[new]
        raise ValueError(f"{name!r} does not come before {module.instruction_names[index]!r}")
    operand = module.operand.copy()
    operand[first + position] = new
    return replace(module, operand=operand)


def replace_all_uses(module: Module, old: int, new: int) -> Module:
    """Every user of ``old``, and its computation's root, take ``new``.

    Raises:
        ValueError: a user comes before ``new``.
    """
    operand = module.operand.copy()
    users = np.repeat(np.arange(len(module)), np.diff(module.operand_start))
    hit = (operand == old) & (users != new)
    if (users[hit] <= new).any() or module.computation_of[old] != module.computation_of[new]:
        raise ValueError(f"a user of {module.instruction_names[old]!r} comes before the new value")
    operand[hit] = new
    root = module.computation_root.copy()
    root[root == old] = new
    return replace(module, operand=operand, computation_root=root)


def set_opcode(module: Module, index: int, opcode: str) -> Module:
    opcodes = list(module.opcodes)
    if opcode not in opcodes:
        opcodes.append(opcode)
    column = module.opcode.copy()
    column[index] = opcodes.index(opcode)
    return replace(module, opcodes=opcodes, opcode=column)


def set_attributes(module: Module, index: int, attributes: dict[str, str]) -> Module:
    table, column = _with_value(module.attributes, module.attribute, index, dict(attributes))
    return replace(module, attributes=table, attribute=column)


def set_shape(module: Module, index: int, shape: Shape) -> Module:
    table, column = _with_value(module.shapes, module.shape, index, shape)
    return replace(module, shapes=table, shape=column)


def _with_value(
    table: LazyTable[Any], column: Ints, index: int, value: Any
) -> tuple[LazyTable[Any], Ints]:
    column = column.copy()
    column[index] = len(table)
    return LazyTable.of([*table, value]), column


def rename(module: Module, new_name: Callable[[str], str] | Mapping[str, str]) -> Module:
    """Instructions under new names. Raises ``ValueError`` when two of a computation collide."""
    mapping = new_name.get if isinstance(new_name, Mapping) else new_name
    names = [mapping(name) or name for name in module.instruction_names]
    for first, last in zip(module.computation_start, module.computation_start[1:], strict=False):
        if len(set(names[first:last])) < last - first:
            raise ValueError("two instructions of one computation would have the same name")
    return replace(module, instruction_names=names)


# ---- order and growth


def reorder(module: Module, computation: int, order: Sequence[int]) -> Module:
    """The instructions of one computation in another topological order, given as indices.

    Raises:
        ValueError: not a permutation of its rows, or an operand after its user.
    """
    first, last = (int(n) for n in module.computation_start[computation : computation + 2])
    if sorted(order) != list(range(first, last)):
        raise ValueError("the order must list each instruction of the computation once")
    rows = np.arange(len(module))
    rows[first:last] = order
    out = take_rows(module, rows)
    consumer = np.repeat(np.arange(len(out)), np.diff(out.operand_start))
    if (out.operand >= consumer).any():
        raise ValueError("an operand would come after its user")
    return out


def insert(
    module: Module,
    before: int,
    name: str,
    opcode: str,
    shape: Shape,
    operands: Sequence[int],
    attributes: dict[str, str] | None = None,
    metadata: Metadata | None = None,
) -> Module:
    """With a new instruction at index ``before``; what stood there and after moves by one.

    Raises:
        ValueError: an operand does not come before it in its computation, or the name is taken.
    """
    owner = int(module.computation_of[before])
    first, last = (int(n) for n in module.computation_start[owner : owner + 2])
    if any(not first <= operand < before for operand in operands):
        raise ValueError(f"the operands of {name!r} must come before it in its computation")
    if name in module.instruction_names[first:last]:
        raise ValueError(f"the name {name!r} is taken")

    def moved(indices: Ints) -> Ints:
        return indices + (indices >= before)

    def grown(column: Ints, value: int) -> Ints:
        return np.insert(column, before, value)

    def grown_start(start: Ints, size: int) -> Ints:
        return np.concatenate((start[: before + 1], start[before:] + size))

    opcodes = [*module.opcodes] if opcode in module.opcodes else [*module.opcodes, opcode]
    at_edge = int(module.operand_start[before])
    names = [*module.instruction_names]
    names.insert(before, name)
    start = module.computation_start
    return replace(
        module,
        computation_start=start + (np.arange(len(start)) > owner),
        computation_root=moved(module.computation_root),
        instruction_names=names,
        opcodes=opcodes,
        opcode=grown(module.opcode, opcodes.index(opcode)),
        shapes=LazyTable.of([*module.shapes, shape]),
        shape=grown(module.shape, len(module.shapes)),
        operand_start=grown_start(module.operand_start, len(operands)),
        operand=np.insert(moved(module.operand), at_edge, list(operands)).astype(np.int64),
        control_start=grown_start(module.control_start, 0),
        control=moved(module.control),
        callee_start=grown_start(module.callee_start, 0),
        parameter_number=grown(module.parameter_number, -1),
        attributes=LazyTable.of([*module.attributes, dict(attributes or {})]),
        attribute=grown(module.attribute, len(module.attributes)),
        metadatas=LazyTable.of([*module.metadatas, metadata or Metadata()]),
        metadata=grown(module.metadata, len(module.metadatas)),
        literals=_renumber_map(
            module.literals, {at: at + (at >= before) for at in module.literals}
        ),
    )
