"""Which values of a module share a buffer: leaves of instruction shapes in a union-find.

Every array inside an instruction's shape is a leaf. The walk visits the instructions that
execute, in program order, with callees inlined at their call site, and unites the
leaves that XLA gives one buffer: what tuples, get-tuple-elements, bitcasts and barriers pass
on, what loops carry, what branches and calls return, updates in place, the two halves of
asynchronous pairs, and donated arguments with the outputs that replace them.
"""

from __future__ import annotations

from dataclasses import dataclass

from hlo_lab.cost.aliasing import Aliasing, Path, parse_aliases
from hlo_lab.cost.callgraph import callees_first
from hlo_lab.cost.tables import attributes_at, shape_at
from hlo_lab.errors import ReadError
from hlo_lab.ir.module import ROLES, Module
from hlo_lab.ir.shapes import Shape

MAX_DEPTH = 100  # nested calls; real programs stay below twenty
_PASS_WHOLE = frozenset(
    ("bitcast", "opt-barrier", "optimization-barrier", "add-dependency", "domain", "async-update")
)
# pass their operands on without touching the data
_NO_USE = frozenset(("tuple", "get-tuple-element", "while", "call", "conditional")) | _PASS_WHOLE


@dataclass
class Layout:
    """The leaves of one distinct shape: padded bytes, memory space, first leaf per member."""

    bytes: list[int]
    spaces: list[int]
    members: list[int]

    @classmethod
    def of(cls, shape: Shape) -> Layout:
        leaves = [leaf for _, leaf in shape.leaves()]
        members = [0]
        for element in shape.elements:
            members.append(members[-1] + sum(1 for _ in element.leaves()))
        return cls(
            [leaf.padded_bytes for leaf in leaves], [leaf.memory_space for leaf in leaves], members
        )


class Walk:
    """One pass over what executes.

    Attributes:
        parent: the union-find over leaves.
        owner: the instruction that defines each leaf; size and space: its padded
            bytes and memory space.
        start, end: first and last time each leaf is defined or used.
        at_time: the instruction executed at each time.
        notes: what was not followed.
    """

    def __init__(self, module: Module):
        self.module = module
        callees_first(module)  # refuses cycles
        self.aliasing = Aliasing(module)
        self.layouts = [Layout.of(shape_at(module, n)) for n in range(len(module.shapes))]
        self.shape = module.shape.tolist()
        self.opcode = [module.opcodes[number] for number in module.opcode.tolist()]
        self.parent: list[int] = []
        self.owner: list[int] = []
        self.size: list[int] = []
        self.space: list[int] = []
        self.start: list[int] = []
        self.end: list[int] = []
        self.at_time: list[int] = []
        self.notes: list[str] = []
        # (time, first leaf of the result, first leaf of each operand) where the result may
        # overwrite an operand
        self.sharing: list[tuple[int, int, list[int]]] = []
        self._may_share = (
            self.aliasing.elementwise | module.opcode_mask("sort", "fusion")
        ).tolist()
        # instructions inlined more than once are bounded by this many in all
        self._budget = 4 * len(module) + 100_000
        self.entry_leaves = self._computation(module.entry, [], 0)
        self._hold_results()
        # buffers as they are before donation, which says when a donated one is idle
        self.undonated = list(self.parent)
        self._donate()

    # ---- union-find

    def find(self, leaf: int) -> int:
        parent = self.parent
        while parent[leaf] != leaf:
            parent[leaf] = parent[parent[leaf]]
            leaf = parent[leaf]
        return leaf

    def unite(self, a: int, b: int) -> None:
        self.parent[self.find(a)] = self.find(b)

    def _unite_rows(self, a: int, b: int, count: int) -> None:
        for offset in range(count):
            self.unite(a + offset, b + offset)

    # ---- leaves

    def layout(self, at: int) -> Layout:
        layout: Layout = self.layouts[self.shape[at]]
        return layout

    def _new_leaves(self, at: int) -> int:
        layout = self.layout(at)
        first, time = len(self.parent), len(self.at_time)
        count = len(layout.bytes)
        self.parent += range(first, first + count)
        self.owner += [at] * count
        self.size += layout.bytes
        self.space += layout.spaces
        self.start += [time] * count
        self.end += [time] * count
        return first

    def leaf_offset(self, at: int, path: Path) -> tuple[int, int]:
        """(first leaf, number of leaves) of a member of an instruction's shape.

        Raises:
            IndexError: the shape has no such member.
        """
        if not path:
            return 0, len(self.layout(at).bytes)
        members, (first, *rest) = self.layout(at).members, path
        offset, count = members[first], members[first + 1] - members[first]
        shape: Shape = self.module.shapes[self.shape[at]].elements[first]
        for number in rest:
            layout = Layout.of(shape)
            offset += layout.members[number]
            count = layout.members[number + 1] - layout.members[number]
            shape = shape.elements[number]
        return offset, count

    # ---- the walk

    def _computation(self, computation: int, arguments: list[int], depth: int) -> dict[int, int]:
        """Visit a computation; the first leaf of each of its instructions."""
        if depth > MAX_DEPTH:
            raise ReadError(f"module {self.module.name}: calls nest deeper than {MAX_DEPTH}")
        module = self.module
        first: dict[int, int] = {}
        rows = range(
            int(module.computation_start[computation]),
            int(module.computation_start[computation + 1]),
        )
        self._budget -= len(rows)
        for at in rows:
            opcode = self.opcode[at]
            operands = self.aliasing.operands(at)
            callees = self._callees(at, opcode)
            if callees:
                self._enter(at, opcode, operands, callees, first, depth)
            else:
                first[at] = self._new_leaves(at)
                self._pass_on(at, opcode, operands, first)
            if opcode == "parameter" and arguments:
                number = int(module.parameter_number[at])
                if number < len(arguments):
                    self._unite_rows(first[at], arguments[number], len(self.layout(at).bytes))
            if opcode not in _NO_USE:
                self._use(operands, first)
            if self._may_share[at] and operands:
                self.sharing.append((len(self.at_time), first[at], [first[o] for o in operands]))
            self.at_time.append(at)
        return first

    def _use(self, operands: list[int], first: dict[int, int]) -> None:
        time, end = len(self.at_time), self.end
        for operand in operands:
            leaf = first[operand]
            for number in range(leaf, leaf + len(self.layout(operand).bytes)):
                end[number] = time

    def _callees(self, at: int, opcode: str) -> list[tuple[str, int]]:
        if opcode not in ("while", "call", "conditional"):
            return []
        module = self.module
        rows = range(module.callee_start[at], module.callee_start[at + 1])
        callees = [(ROLES[module.callee_role[row]], int(module.callee[row])) for row in rows]
        starts = module.computation_start
        if self._budget < sum(int(starts[c + 1] - starts[c]) for _, c in callees):
            note = "a computation called from very many places was not followed at each of them"
            if note not in self.notes:
                self.notes.append(note)
            return []
        return callees

    def _enter(
        self, at: int, opcode: str, operands: list[int], callees: list[tuple[str, int]],
        first: dict[int, int], depth: int,
    ) -> None:  # fmt: skip
        """Inline the callees, then define the caller's result and unite it with theirs."""
        module = self.module
        given = [first[operand] for operand in operands]
        count = len(self.layout(at).bytes)
        results: list[tuple[int, int]] = []
        for role, callee in sorted(callees, key=lambda pair: pair[0] != "condition"):
            number = len(results) if opcode == "conditional" else 0
            taken = given[1 + number : 2 + number] if opcode == "conditional" else given
            inside = self._computation(callee, taken, depth + 1)
            root = int(module.computation_root[callee])
            if role != "condition":
                results.append((root, inside[root]))
            if opcode == "while" and role == "condition":
                self.end[inside[root]] = len(self.at_time)
        first[at] = self._new_leaves(at)
        for root, leaf in results:
            if len(self.layout(root).bytes) == count:
                self._unite_rows(first[at], leaf, count)
        if opcode == "while" and operands and len(self.layout(operands[0]).bytes) == count:
            self._unite_rows(first[at], given[0], count)

    def _pass_on(self, at: int, opcode: str, operands: list[int], first: dict[int, int]) -> None:
        """Unite the result's leaves with those of the operands that it shows or overwrites."""
        mine = first[at]
        count = len(self.layout(at).bytes)
        if opcode == "tuple":
            for operand in operands:
                size = len(self.layout(operand).bytes)
                self._unite_rows(mine, first[operand], size)
                mine += size
            return
        if not operands:
            return
        source = first[operands[0]]
        given = self.layout(operands[0])
        if opcode == "get-tuple-element":
            index = self._index(at)
            if index + 1 < len(given.members):
                self._unite_rows(mine, source + given.members[index], count)
        elif opcode in _PASS_WHOLE:
            if len(given.bytes) >= count:
                self._unite_rows(mine, source, count)
        elif opcode.endswith("-done"):
            self._done(mine, count, source, given, opcode)
        elif opcode.endswith("-start") or opcode == "send":
            self._start(mine, operands, first, opcode, self.layout(at))
        for path, number, operand_path in self.aliasing.in_place(at, opcode):
            self._in_place(at, mine, operands, first, path, number, operand_path)

    def _index(self, at: int) -> int:
        text = attributes_at(self.module, int(self.module.attribute[at])).get("index", "")
        return int(text) if text.isdecimal() else len(self.module.shapes)

    def _done(self, mine: int, count: int, source: int, given: Layout, opcode: str) -> None:
        # a start's tuple is (operands, results, context); copy-start's (to, from, context)
        member = 0 if opcode in ("copy-done", "recv-done", "send-done") else 1
        if len(given.members) > member + 1:
            offset = given.members[member]
            if given.members[member + 1] - offset >= count:
                self._unite_rows(mine, source + offset, count)
        elif len(given.bytes) >= count:
            self._unite_rows(mine, source, count)

    def _start(
        self, mine: int, operands: list[int], first: dict[int, int], opcode: str, layout: Layout
    ) -> None:
        if opcode == "all-reduce-start" or len(layout.members) < 2:
            return
        at = mine + (layout.members[1] if opcode == "copy-start" else 0)
        for operand in operands:
            size = len(self.layout(operand).bytes)
            if at + size > mine + len(layout.bytes):
                return
            self._unite_rows(at, first[operand], size)
            at += size

    def _in_place(
        self, at: int, mine: int, operands: list[int], first: dict[int, int],
        path: Path, number: int, operand_path: Path,
    ) -> None:  # fmt: skip
        if number >= len(operands):
            return
        try:
            offset, count = self.leaf_offset(at, path)
            given_offset, given_count = self.leaf_offset(operands[number], operand_path)
        except IndexError:
            return
        if count == given_count:
            self._unite_rows(mine + offset, first[operands[number]] + given_offset, count)

    def leaves_of(self, at: int) -> range:
        """The leaves of an instruction of the entry computation."""
        first = self.entry_leaves[at]
        return range(first, first + len(self.layout(at).bytes))

    @property
    def results(self) -> range:
        """The leaves of the entry's root."""
        return self.leaves_of(int(self.module.computation_root[self.module.entry]))

    def _hold_results(self) -> None:
        """The entry's results live to the end."""
        for leaf in self.results:
            self.end[leaf] = len(self.at_time) - 1

    def _donate(self) -> None:
        """Unite outputs with the arguments whose buffers they are given."""
        module = self.module
        root = int(module.computation_root[module.entry])
        rows = range(
            int(module.computation_start[module.entry]),
            int(module.computation_start[module.entry + 1]),
        )
        by_number = {int(module.parameter_number[at]): at for at in rows}
        for path, number, operand_path in parse_aliases(
            module.header.get("input_output_alias", "")
        ):
            if number not in by_number:
                continue
            parameter = by_number[number]
            try:
                offset, count = self.leaf_offset(root, path)
                given, _ = self.leaf_offset(parameter, operand_path)
            except IndexError:
                continue
            self._unite_rows(
                self.entry_leaves[root] + offset, self.entry_leaves[parameter] + given, count
            )
