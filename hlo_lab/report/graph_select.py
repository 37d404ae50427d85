"""Which instructions a drawing shows, and the edges between them with control flow laid open."""

from __future__ import annotations

from dataclasses import dataclass, field

from hlo_lab.ir.module import ROLES, Module

_OPEN_ROLES = {
    "while": ("body",),
    "conditional": ("branch_computations",),
    "call": ("to_apply",),
}
_SMALL_CALL = 3  # a call of this many instructions is drawn as one


@dataclass
class Selection:
    """Instructions to draw.

    Attributes:
        computations: shown ones, callers first; ``caller`` gives the instruction that a
            body belongs to.
        rows: instruction indices in table order.
        edges: (producer, consumer) pairs. A call's operands go to its body's parameters; a
            while loop stands for its body's parameter.
        loops: (what a body hands to the next round, while loop) pairs.
        stands_for: parameters of loop bodies and the loops that stand for them.
        home: the computation in which an instruction is drawn: for a loop its body.
        position: the order in which instructions run, bodies after their callers' operands.
    """

    computations: list[int]
    caller: dict[int, int] = field(default_factory=dict)
    rows: list[int] = field(default_factory=list)
    edges: list[tuple[int, int]] = field(default_factory=list)
    loops: list[tuple[int, int]] = field(default_factory=list)
    stands_for: dict[int, int] = field(default_factory=dict)
    home: dict[int, int] = field(default_factory=dict)
    position: dict[int, float] = field(default_factory=dict)


def select(module: Module, computation: int) -> Selection:
    """A computation with the bodies of its loops, calls and conditionals."""
    selection = Selection([computation])
    bodies: dict[int, list[int]] = {}
    for current in selection.computations:
        for row in module.computation(current).rows:
            opened = _bodies(module, row)
            if opened:
                bodies[row] = opened
            for body in opened:
                if body not in selection.caller and body != computation:
                    selection.caller[body] = row
                    selection.computations.append(body)
    for current in sorted(selection.computations):
        selection.rows.extend(module.computation(current).rows)
    _connect(module, selection, bodies)
    _place(module, selection)
    return selection


def _place(module: Module, selection: Selection) -> None:
    steps: dict[int, float] = {}
    for computation in selection.computations:
        rows = module.computation(computation).rows
        caller = selection.caller.get(computation)
        first, step = 0.0, 1.0
        if caller is not None:
            first = selection.position[caller]
            step = steps[int(module.computation_of[caller])] / (len(rows) + 2)
        steps[computation] = step
        for number, row in enumerate(rows, 1):
            selection.position[row] = first + number * step
            selection.home[row] = computation
    for parameter, loop in selection.stands_for.items():
        selection.home[loop] = int(module.computation_of[parameter])


def restrict(selection: Selection, rows: set[int]) -> Selection:
    """The part of a selection between some instructions."""
    kept = [row for row in selection.rows if row in rows]
    return Selection(
        computations=selection.computations,
        caller=selection.caller,
        rows=kept,
        edges=[(a, b) for a, b in selection.edges if a in rows and b in rows],
        loops=[(a, b) for a, b in selection.loops if a in rows and b in rows],
        home=selection.home,
        position=selection.position,
    )


def around(module: Module, selection: Selection, centre: int, hops: int) -> set[int]:
    """The instructions at most ``hops`` edges from ``centre``, in either direction.

    Constants and parameters are ends: two instructions that read the same zero have
    nothing to do with each other.
    """
    beside: dict[int, list[int]] = {}
    for a, b in selection.edges:
        beside.setdefault(a, []).append(b)
        beside.setdefault(b, []).append(a)
    ends = module.opcode_mask("constant", "iota", "parameter")
    found = {centre}
    edge = [centre]
    for _ in range(hops):
        onwards = [a for a in edge if a == centre or not ends[a]]
        edge = list(dict.fromkeys(b for a in onwards for b in beside.get(a, ()) if b not in found))
        if not edge:
            break
        found.update(edge)
    return found


def _bodies(module: Module, row: int) -> list[int]:
    opcode = module.opcodes[module.opcode[row]]
    roles = _OPEN_ROLES.get(opcode)
    if roles is None:
        return []
    span = range(module.callee_start[row], module.callee_start[row + 1])
    found = [int(module.callee[k]) for k in span if ROLES[module.callee_role[k]] in roles]
    if opcode == "call":
        parameters = module.parameter_number
        sizes = [sum(parameters[i] < 0 for i in module.computation(c).rows) for c in found]
        if max(sizes, default=0) <= _SMALL_CALL:
            return []
    return found


def _connect(module: Module, selection: Selection, bodies: dict[int, list[int]]) -> None:
    parameters = {
        body: {
            int(module.parameter_number[p.index]): p.index
            for p in module.computation(body).parameters
        }
        for opened in bodies.values()
        for body in opened
    }
    for row in selection.rows:
        operands = module.operand[
            module.operand_start[row] : module.operand_start[row + 1]
        ].tolist()
        opened = bodies.get(row)
        opcode = module.opcodes[module.opcode[row]]
        for position, operand in enumerate(operands):
            target = row
            if opened and opcode == "call":
                target = parameters[opened[0]].get(position, row)
            elif opened and opcode == "conditional" and 0 < position <= len(opened):
                target = parameters[opened[position - 1]].get(0, row)
            selection.edges.append((operand, target))
        for body in opened or ():
            root = int(module.computation_root[body])
            if opcode == "while":
                selection.loops.append((root, row))
                selection.stands_for.update((p, row) for p in parameters[body].values())
            else:
                selection.edges.append((root, row))
