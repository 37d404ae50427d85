"""A selection with the plumbing taken out, so that what computes is next to what it computes."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

from hlo_lab.ir.module import Module
from hlo_lab.report.graph_select import Selection

_PLUMBING = frozenset(("get-tuple-element", "bitcast", "tuple", "opt-barrier", "after-all"))
_VALUES = frozenset(("constant", "iota", "partition-id", "replica-id"))
_SPREADING = frozenset(("broadcast", "reshape", "convert", "bitcast", "copy"))


@dataclass
class Plain:
    """A selection without plumbing.

    Attributes:
        rows: instructions that get drawn.
        edges, loops: between them.
        outputs: instructions whose value leaves the computation.
        absorbed: parameters that are not drawn, by the instructions that read them.
        left_out: how many instructions are not drawn.
    """

    rows: list[int]
    edges: list[tuple[int, int]]
    loops: list[tuple[int, int]]
    outputs: set[int] = field(default_factory=set)
    absorbed: dict[int, list[int]] = field(default_factory=lambda: defaultdict(list))
    left_out: int = 0


def as_is(module: Module, selection: Selection) -> Plain:
    """Every instruction of a selection."""
    own = selection.stands_for
    edges = [(own.get(a, a), b) for a, b in selection.edges if b not in own]
    rows = [row for row in selection.rows if row not in own]
    return Plain(rows, edges, list(selection.loops))


def without_plumbing(module: Module, selection: Selection, *, shared: bool = False) -> Plain:
    """Leave out constants and what spreads them, tuples and their elements, and parameters.

    Args:
        shared: also the parameters that several instructions read.
    """
    names, inputs = opcodes(module, selection.rows), defaultdict(list)
    for a, b in selection.edges:
        inputs[b].append(a)
    values = _values(module, selection, names, inputs)
    start = selection.computations[0]
    plain = Plain([], [], [], left_out=0)
    called = set(selection.caller)
    passing = {
        row
        for row in selection.rows
        if names[row] in _PLUMBING
        or (names[row] == "parameter" and int(module.computation_of[row]) in called)
    } - set(selection.stands_for)
    sources = _Sources(module, selection, names, inputs, values, passing)
    drawn = [
        row
        for row in selection.rows
        if row not in values and row not in passing and row not in selection.stands_for
    ]
    readers: dict[int, list[int]] = defaultdict(list)
    edges = []
    for row in drawn:
        for operand in inputs[row]:
            for source in sources.of(operand):
                edges.append((source, row))
                readers[source].append(row)
    for root, loop in selection.loops:
        plain.loops += [(source, loop) for source in sources.of(root)]
    plain.outputs.update(sources.of(int(module.computation_root[start])))
    absorbed = {
        row
        for row in drawn
        if names[row] == "parameter"
        and row not in plain.outputs
        and (shared or len(set(readers[row])) < 2)
    }
    for row in absorbed:
        for reader in set(readers[row]):
            plain.absorbed[reader].append(row)
    plain.rows = [row for row in drawn if row not in absorbed]
    kept = set(plain.rows)
    plain.edges = [(a, b) for a, b in dict.fromkeys(edges) if a in kept and b in kept]
    plain.loops = [(a, b) for a, b in dict.fromkeys(plain.loops) if a in kept and b in kept]
    plain.outputs &= kept
    plain.left_out = len(selection.rows) - len(plain.rows)
    return plain


class _Sources:
    """What a value is made from, once tuples and their elements are seen through."""

    def __init__(
        self,
        module: Module,
        selection: Selection,
        names: dict[int, str],
        inputs: dict[int, list[int]],
        values: set[int],
        passing: set[int],
    ):
        self.module, self.names, self.inputs = module, names, inputs
        self.values, self.passing = values, passing
        self.stands_for = selection.stands_for

    def of(self, row: int) -> list[int]:
        found: dict[int, None] = {}
        seen: set[int] = set()
        waiting = [row]
        while waiting:
            at = self.stands_for.get(waiting[-1], waiting[-1])
            waiting.pop()
            if at in seen or at in self.values:
                continue
            seen.add(at)
            if at not in self.passing:
                found[at] = None
            else:
                waiting += reversed(self._through(at))
        return list(found)

    def _through(self, row: int) -> list[int]:
        operands = self.inputs[row]
        if self.names[row] != "get-tuple-element" or not operands:
            return operands
        source = operands[0]
        if self.names.get(source) == "tuple":
            number = self.module.instruction(row).attributes.get("index", "")
            members = self.inputs[source]
            if number.isdecimal() and int(number) < len(members):
                return [members[int(number)]]
        return operands


def _values(
    module: Module, selection: Selection, names: dict[int, str], inputs: dict[int, list[int]]
) -> set[int]:
    """Constants, and what is made by spreading one."""
    found: set[int] = set()
    roots = {int(module.computation_root[c]) for c in selection.computations}
    for row in selection.rows:
        opcode, operands = names[row], inputs[row]
        spread = opcode in _SPREADING and operands and all(o in found for o in operands)
        if (opcode in _VALUES or spread) and row not in roots:
            found.add(row)
    return found


def opcodes(module: Module, rows: list[int]) -> dict[int, str]:
    return dict(
        zip(rows, (module.opcodes[code] for code in module.opcode[rows].tolist()), strict=True)
    )
