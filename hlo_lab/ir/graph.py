"""Computations as networkx graphs, and neighbourhoods without building one."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from hlo_lab.ir.module import Module

if TYPE_CHECKING:
    import networkx as nx


def computation_graph(module: Module, computation: str | int) -> nx.DiGraph[int]:
    """One computation as a graph from operands to users.

    Nodes are instruction indices with ``name``, ``opcode`` and ``shape`` (text). Edges
    have ``positions``, the operand positions in order: ``multiply(x, x)`` is one edge
    with ``(0, 1)``; a control dependence has ``control=True`` and may have no position.

    Raises:
        NotFoundError: no such computation.
    """
    return subgraph(module, module.computation(computation).rows)


def subgraph(module: Module, indices: Iterable[int]) -> nx.DiGraph[int]:
    """The same over any set of instructions, with the edges among them."""
    import networkx as nx

    graph: nx.DiGraph[int] = nx.DiGraph()
    chosen = dict.fromkeys(int(index) for index in indices)
    shapes: dict[int, str] = {}
    for at in chosen:
        shape = int(module.shape[at])
        if shape not in shapes:
            shapes[shape] = str(module.shapes[shape])
        opcode = module.opcodes[module.opcode[at]]
        graph.add_node(at, name=module.instruction_names[at], opcode=opcode, shape=shapes[shape])
    for at in chosen:
        row = slice(module.operand_start[at], module.operand_start[at + 1])
        positions: dict[int, tuple[int, ...]] = {}
        for position, operand in enumerate(module.operand[row].tolist()):
            positions[operand] = (*positions.get(operand, ()), position)
        for operand, where in positions.items():
            if operand in chosen:
                graph.add_edge(operand, at, positions=where, control=False)
        row = slice(module.control_start[at], module.control_start[at + 1])
        for before in module.control[row].tolist():
            if before in chosen:
                graph.add_edge(before, at, positions=positions.get(before, ()), control=True)
    return graph


def neighbourhood(module: Module, name: str | int, hops: int) -> list[int]:
    """Indices within ``hops`` operand or user edges of an instruction, in program order.

    Raises:
        NotFoundError: no such instruction.
        ValueError: negative ``hops``.
    """
    if hops < 0:
        raise ValueError("hops must not be negative")
    start, user = module.users_csr
    frontier = {module.instruction(name).index}
    seen = set(frontier)
    for _ in range(hops):
        reached: set[int] = set()
        for at in frontier:
            row = slice(module.operand_start[at], module.operand_start[at + 1])
            reached.update(module.operand[row].tolist())
            reached.update(user[start[at] : start[at + 1]].tolist())
        frontier = reached - seen
        if not frontier:
            break
        seen |= frontier
    return sorted(seen)
