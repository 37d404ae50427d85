"""A module put together anew from the instructions of another one and new ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from hlo_lab.ir.edits import callee_columns
from hlo_lab.ir.module import Module, compressed_rows
from hlo_lab.ir.shapes import Shape
from hlo_lab.ir.source import Metadata
from hlo_lab.ir.table import LazyTable


@dataclass(frozen=True)
class Row:
    """What an instruction is, without what it takes and calls."""

    name: str
    opcode: str
    shape: Shape
    attributes: Mapping[str, str]
    metadata: Metadata
    literal: str | None = None


def assemble(
    module: Module,
    order: Sequence[Sequence[int]],
    *,
    rows: Mapping[int, Row],
    operands: Mapping[int, Sequence[int]],
    roots: Mapping[int, int],
) -> Module:
    """A module of instructions of another one and of new ones.

    Args:
        order: the instructions of each computation, by index into ``module``, new ones by
            numbers from its length on; a computation left without any is dropped.
        rows: what new instructions are, and those of ``module`` that are to be otherwise.
        operands: what new instructions take, and those that take others than they did.
        roots: of computations that are to have another root.

    Raises:
        ValueError: an instruction takes or calls one that is not in the order.
    """
    count = len(module)
    sequence = [number for numbers in order for number in numbers]
    new_of = {number: at for at, number in enumerate(sequence)}
    kept = [at for at, numbers in enumerate(order) if numbers]
    computation = {old: new for new, old in enumerate(kept)}
    tables = _Tables(module)
    columns: dict[str, list[int]] = {
        name: [] for name in ("opcode", "shape", "attribute", "metadata")
    }
    edges: dict[str, list[tuple[int, ...]]] = {"operand": [], "control": []}
    callees: list[tuple[int, int, int]] = []
    names, literals = [], {}
    try:
        for at, number in enumerate(sequence):
            row = rows.get(number)
            for name, values in columns.items():
                old = getattr(module, name)
                values.append(int(old[number]) if row is None else tables.of(name, row))
            names.append(module.instruction_names[number] if row is None else row.name)
            literal = module.literals.get(number) if row is None else row.literal
            if literal is not None:
                literals[at] = literal
            taken = operands.get(number)
            given = _targets(module, "operand", number) if taken is None else taken
            edges["operand"] += [(at, new_of[each]) for each in given]
            if number < count:
                before = _targets(module, "control", number)
                edges["control"] += [(at, new_of[each]) for each in before if each in new_of]
                roles = _targets(module, "callee", number, "callee_role")
                called = _targets(module, "callee", number)
                pairs = zip(roles, called, strict=True)
                callees += [(at, role, computation[each]) for role, each in pairs]
        root = [new_of[roots.get(old, int(module.computation_root[old]))] for old in kept]
        entry = computation[module.entry]
    except KeyError:
        raise ValueError(
            f"what {names[-1]!r} takes or calls, or a root, would be removed"
        ) from None
    sizes = [len(order[old]) for old in kept]
    parameters = [int(module.parameter_number[n]) if n < count else -1 for n in sequence]
    operand_start, (operand, _) = compressed_rows(edges["operand"], len(sequence))
    control_start, (control, _) = compressed_rows(edges["control"], len(sequence))
    threads = module.execution_threads
    return replace(
        module,
        computation_names=[module.computation_names[old] for old in kept],
        computation_start=np.concatenate(([0], np.cumsum(sizes))).astype(np.int64),
        computation_root=np.array(root, np.int64),
        entry=entry,
        instruction_names=names,
        operand_start=operand_start,
        operand=operand,
        control_start=control_start,
        control=control,
        parameter_number=np.array(parameters, np.int64),
        literals=literals,
        execution_threads={computation[old]: t for old, t in threads.items() if old in computation},
        **tables.fields(columns),
        **callee_columns(callees, len(sequence)),
    )


class _Tables:
    """A module's tables of distinct values, and what rows add to them."""

    def __init__(self, module: Module):
        self.values: dict[str, list[Any]] = {
            "opcode": [*module.opcodes],
            "shape": [*module.shapes],
            "attribute": [*module.attributes],
            "metadata": [*module.metadatas],
        }

    def of(self, name: str, row: Row) -> int:
        value = dict(row.attributes) if name == "attribute" else getattr(row, name)
        values = self.values[name]
        if value not in values:
            values.append(value)
        return values.index(value)

    def fields(self, columns: Mapping[str, Sequence[int]]) -> dict[str, Any]:
        """The fields of a module that has them."""
        return {
            **{name: np.array(values, np.int64) for name, values in columns.items()},
            "opcodes": self.values["opcode"],
            "shapes": LazyTable.of(self.values["shape"]),
            "attributes": LazyTable.of(self.values["attribute"]),
            "metadatas": LazyTable.of(self.values["metadata"]),
        }


def _targets(module: Module, edge: str, at: int, column: str = "") -> list[int]:
    start = getattr(module, f"{edge}_start")
    targets: list[int] = getattr(module, column or edge)[start[at] : start[at + 1]].tolist()
    return targets
