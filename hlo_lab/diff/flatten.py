"""The flat view of a module that is matched: fusions and calls inlined, equal nodes merged.

A node is one operation applied to one list of operand nodes (hash-consing): the same
operation that several fusions compute, or that was never merged by the compiler, is one
node with a ``count``. Computations that are not inlined (loop bodies, branches,
reducers) are regions: equal ones are flattened once, and the root of a region is one
more operand of its caller, so that a change inside is found at its own instruction.

Free of effect, and therefore dropped: a tuple whose element is taken again, a bitcast or
row-major reshape of another one, one that gives back the shape it was given.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt

from hlo_lab.diff.digest import computation_digests
from hlo_lab.diff.labels import COMMUTATIVE, Hashes, Labels, canonical_layout, hash64
from hlo_lab.diff.order import callees_first, inlined_callee
from hlo_lab.ir.module import ROLES, Ints, Module

Mask = npt.NDArray[np.bool_]

CALLEE_SLOT = 1 << 20  # slots from here on are roots of called regions
REDUCER_SLOT = 1 << 21  # the same for computations that never run as kernels of their own
INLINE_FACTOR, INLINE_FREE = 4, 200_000  # instances allowed: factor * instructions + free

_RUNNING_ROLES = frozenset(("body", "condition", "branch_computations", "calls"))
_SIDE_EFFECTS = frozenset((
    "infeed", "outfeed", "send", "send-done", "recv", "recv-done", "rng",
    "rng-get-and-update-state", "after-all", "add-dependency",
))  # fmt: skip
# They move no data and start no kernel, so that their number does not count.
FREE = frozenset(("parameter", "constant", "tuple", "get-tuple-element", "bitcast"))


@dataclass(eq=False)
class FlatGraph:
    """Nodes in topological order, and the instances that they stand for.

    Attributes:
        module, labels: what was flattened.
        instruction: int64[n], the first instruction that each node stands for.
        count: int64[n], how many instances it has.
        exact, rank, kind, layout: uint64[n], the labels of ``Labels``, per node.
        start, operand, slot: int64[n + 1], int64[e], int64[e]: operand nodes by position
            (slot 0 throughout where operands commute), then the roots of called regions.
        constant: bool[n], built from constants alone.
        roots: the root node of each region, the entry's last.
        instance_node, instance_group: int64[k], which executed group (a fusion or a
            single instruction) computes which node.
        group_instruction: int64[g], the fusion or instruction behind each group.
        notes: what the user should know of this view.
    """

    module: Module
    labels: Labels
    instruction: Ints
    count: Ints
    exact: Hashes
    rank: Hashes
    kind: Hashes
    layout: Hashes
    start: Ints
    operand: Ints
    slot: Ints
    constant: Mask
    roots: list[int]
    instance_node: Ints
    instance_group: Ints
    group_instruction: Ints
    notes: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.instruction)

    @cached_property
    def consumer(self) -> Ints:
        """int64[e]: the node at the using end of each edge."""
        return np.repeat(np.arange(len(self)), np.diff(self.start))

    @cached_property
    def users(self) -> tuple[Ints, Ints, Ints]:
        """(start int64[n + 1], user int64[e], slot int64[e]): edges turned round."""
        order = np.argsort(self.operand, kind="stable")
        count = np.bincount(self.operand, minlength=len(self))
        start = np.concatenate(([0], np.cumsum(count))).astype(np.int64)
        return start, self.consumer[order], self.slot[order]

    @cached_property
    def opcode(self) -> list[str]:
        """The opcode of each node."""
        names = self.module.opcodes
        return [names[number] for number in self.module.opcode[self.instruction].tolist()]


def flatten(module: Module, labels: Labels, digests: list[bytes] | None = None) -> FlatGraph:
    """The flat view of ``module``; ``digests`` as :func:`computation_digests` gives them.

    Where inlining would repeat shared computations until the view is many times the
    module (``INLINE_FACTOR``), shared ones stay regions, and a note says so.

    Raises:
        InputError: a computation that calls itself.
    """
    digests = computation_digests(module, labels) if digests is None else digests
    return _Flattener(module, labels, digests).run()


class _Flattener:
    def __init__(self, module: Module, labels: Labels, digests: list[bytes]):
        self.module, self.labels, self.digests = module, labels, digests
        self.notes: list[str] = []
        self.order = callees_first(module)
        self.inline = self._bounded(inlined_callee(module))
        self.nodes: dict[tuple[int, ...], int] = {}
        self.instruction: list[int] = []
        self.count: list[int] = []
        self.edges: list[tuple[int, ...]] = []
        self.callees: list[int] = []  # how many of a node's edges are roots of regions
        self.constant: list[bool] = []
        self.instance_node: list[int] = []
        self.instance_group: list[int] = []
        self.group_instruction: list[int] = []
        self.region_root: dict[bytes, int] = {}

    def _bounded(self, inline: Ints) -> Ints:
        """``inline`` itself, or without the shared computations where it grows too far."""
        module = self.module
        rows = np.nonzero(inline >= 0)[0]
        inside: dict[int, list[int]] = {}
        for row, comp in zip(rows.tolist(), module.computation_of[rows].tolist(), strict=True):
            inside.setdefault(comp, []).append(int(inline[row]))
        limit = INLINE_FACTOR * len(module) + INLINE_FREE
        size = np.diff(module.computation_start).tolist()
        for comp in self.order:
            size[comp] = min(size[comp] + sum(size[c] for c in inside.get(comp, ())), limit + 1)
        called = np.bincount(inline[rows], minlength=len(size))
        if sum(s for comp, s in enumerate(size) if not called[comp]) <= limit:
            return inline
        self.notes.append(
            f"{module.name}: shared computations are compared by themselves, since inlining "
            f"them would give more than {limit} operations"
        )
        shared = np.nonzero(called > 1)[0]
        return np.where(np.isin(inline, shared), -1, inline)

    def run(self) -> FlatGraph:
        module = self.module
        self._columns()
        running = self._regions()
        roots = []
        for comp in self.order:
            if comp in running and self.digests[comp] not in self.region_root:
                root = self._walk(comp, running[comp])
                self.region_root[self.digests[comp]] = root
                roots.append(root)
        entry_root = self.region_root[self.digests[module.entry]]
        roots = [root for root in roots if root != entry_root] + [entry_root]
        return self._graph(roots)

    def _columns(self) -> None:
        """Per-instruction facts as lists, since the walk looks at single members."""
        module, labels = self.module, self.labels
        plain = np.array([canonical_layout(shape) == "" for shape in module.shapes], bool)
        plain &= np.array([not any(shape.dynamic) and shape.is_array for shape in module.shapes])
        first_operand = np.zeros(len(module), np.int64)
        has_operand = np.diff(module.operand_start) > 0
        first_operand[has_operand] = module.operand[module.operand_start[:-1][has_operand]]
        reshape = module.opcode_mask("reshape") & has_operand
        free = reshape & plain[module.shape] & plain[module.shape[first_operand]]
        self.exact = labels.exact.copy()
        shape_text = [str(shape.without_layout()) for shape in module.shapes]
        for at in np.nonzero(free)[0].tolist():
            self.exact[at] = hash64("bitcast", shape_text[module.shape[at]], "")
        self.is_bitcast = (free | (module.opcode_mask("bitcast") & has_operand)).tolist()
        keys = [hash64(text, canonical_layout(shape))
                for text, shape in zip(shape_text, module.shapes, strict=True)]  # fmt: skip
        self.shape_key = np.array(keys, np.uint64)[module.shape].tolist()
        _, label_number = np.unique(
            np.stack([self.exact, labels.layout]), axis=1, return_inverse=True
        )
        self.label = label_number.ravel().tolist()
        special = ("get-tuple-element", "custom-call", "bitcast", *COMMUTATIVE, *_SIDE_EFFECTS)
        calls = np.diff(module.callee_start) > 0
        self.special = (module.opcode_mask(*special) | free | calls).tolist()
        self.runs = (~(module.opcode_mask(*FREE) | free)).tolist()
        self.opcode = [module.opcodes[number] for number in module.opcode.tolist()]
        self.operand_start = module.operand_start.tolist()
        self.operand = module.operand.tolist()
        self.inlined = self.inline.tolist()

    def _regions(self) -> dict[int, bool]:
        """The computations that are not inlined anywhere: do they run kernels of their own?

        One that nobody calls (the file is cut, or the code is dead) is a region as well.
        """
        module = self.module
        called = np.bincount(module.callee, minlength=len(module.computation_names))
        out = dict.fromkeys(np.nonzero(called == 0)[0].tolist(), False)
        out[module.entry] = True
        caller = np.repeat(np.arange(len(module)), np.diff(module.callee_start))
        kept = self.inline[caller] < 0
        for comp, role in zip(
            module.callee[kept].tolist(), module.callee_role[kept].tolist(), strict=True
        ):
            out[comp] = out.get(comp, False) or ROLES[role] in _RUNNING_ROLES
        return out

    def _walk(self, region: int, runs: bool) -> int:
        """Emit a region's nodes; returns its root. A stack, since inlining may nest deeply."""
        module = self.module
        comp_start, comp_root = module.computation_start, module.computation_root
        numbers = module.parameter_number
        first, last = int(comp_start[region]), int(comp_start[region + 1])
        # (next instruction, end, first, root, nodes so far, arguments, group)
        stack: list[list[int]] = [[first, last, first, int(comp_root[region])]]
        values: list[list[int]] = [[]]
        arguments: list[list[int] | None] = [None]
        groups = [-1 if runs else -2]
        while True:
            at, end, first, root = stack[-1]
            local, given, group = values[-1], arguments[-1], groups[-1]
            while at < end:
                target = self.inlined[at]
                operands = [
                    local[o - first]
                    for o in self.operand[self.operand_start[at] : self.operand_start[at + 1]]
                ]
                if target >= 0:
                    inner = group
                    if group == -1 and self.opcode[at] == "fusion":
                        inner = self._group(at)
                    stack[-1][0] = at + 1
                    begin = int(comp_start[target])
                    stack.append(
                        [begin, int(comp_start[target + 1]), begin, int(comp_root[target])]
                    )
                    values.append([])
                    arguments.append(operands)
                    groups.append(inner)
                    break
                if given is not None and 0 <= numbers[at] < len(given):
                    local.append(given[numbers[at]])
                else:
                    local.append(self._emit(at, operands, region, group))
                at += 1
            else:
                result = local[root - first]
                stack.pop(), values.pop(), arguments.pop(), groups.pop()
                if not stack:
                    return result
                values[-1].append(result)

    def _group(self, at: int) -> int:
        self.group_instruction.append(at)
        return len(self.group_instruction) - 1

    def _emit(self, at: int, operands: list[int], region: int, group: int) -> int:
        effect, called = -1, 0
        if self.special[at]:
            opcode = self.opcode[at]
            if opcode == "get-tuple-element":
                taken = self._taken(at, operands[0])
                if taken >= 0:
                    return taken
            elif self.is_bitcast[at]:
                if self.is_bitcast[self.instruction[operands[0]]]:
                    operands = [self.edges[operands[0]][0]]
                if self.shape_key[at] == self.shape_key[self.instruction[operands[0]]]:
                    return operands[0]
            elif opcode in COMMUTATIVE:
                operands.sort()
            elif opcode in _SIDE_EFFECTS or self._has_side_effect(at):
                effect = at  # never merged with another
            roots = self._called_roots(at)
            called = len(roots)
            operands += roots
        # leaves of different regions stay apart
        key = (self.label[at], effect, *operands) if operands else (self.label[at], effect, ~region)
        number = len(self.instruction)
        node = self.nodes.setdefault(key, number)
        if node == number:
            self.instruction.append(at)
            self.count.append(0)
            self.edges.append(tuple(operands))
            self.callees.append(called)
            self.constant.append(
                all(map(self.constant.__getitem__, operands))
                if operands
                else self.opcode[at] in ("constant", "iota")
            )
        self.count[node] += 1
        if group == -1 and self.runs[at]:
            group = self._group(at)
        if group >= 0:
            self.instance_node.append(node)
            self.instance_group.append(group)
        return node

    def _taken(self, at: int, operand: int) -> int:
        """The element that a get-tuple-element takes out of a tuple at hand, else -1."""
        if self.opcode[self.instruction[operand]] != "tuple":
            return -1
        index = self.module.attributes[self.module.attribute[at]].get("index", "")
        if not index.isdecimal() or int(index) >= len(self.edges[operand]):
            return -1
        return self.edges[operand][int(index)]

    def _has_side_effect(self, at: int) -> bool:
        if self.opcode[at] != "custom-call":
            return False
        attributes = self.module.attributes[self.module.attribute[at]]
        return bool(attributes.get("custom_call_has_side_effect") == "true")

    def _called_roots(self, at: int) -> list[int]:
        start = self.module.callee_start
        if start[at] == start[at + 1]:
            return []
        rows = sorted(range(start[at], start[at + 1]), key=self.module.callee_role.__getitem__)
        return [self.region_root[self.digests[self.module.callee[row]]] for row in rows]

    def _graph(self, roots: list[int]) -> FlatGraph:
        instruction = np.array(self.instruction, np.int64)
        sizes = np.array([len(edges) for edges in self.edges], np.int64)
        start = np.concatenate(([0], np.cumsum(sizes))).astype(np.int64)
        operand = np.array([o for edges in self.edges for o in edges], np.int64)
        slot = np.arange(len(operand)) - np.repeat(start[:-1], sizes)
        commutes = np.array([self.opcode[at] in COMMUTATIVE for at in self.instruction], bool)
        slot[np.repeat(commutes, sizes)] = 0
        called = np.array(self.callees, np.int64)
        runs = np.isin(self.module.opcode[instruction], _numbers(self.module, _CONTROL_FLOW))
        from_end = np.repeat(start[1:], sizes) - np.arange(len(operand))
        is_callee = from_end <= np.repeat(called, sizes)
        base = np.where(np.repeat(runs, sizes), CALLEE_SLOT, REDUCER_SLOT)
        slot = np.where(is_callee, base + np.repeat(called, sizes) - from_end, slot)
        keep = self._live(start, operand, roots)
        renumber = np.cumsum(keep) - 1
        kept_edges = np.repeat(keep, sizes)
        instance_node = np.array(self.instance_node, np.int64)
        instance_group = np.array(self.instance_group, np.int64)
        live = keep[instance_node] if len(instance_node) else np.zeros(0, bool)
        instruction = instruction[keep]
        labels = self.labels
        return FlatGraph(
            module=self.module,
            labels=labels,
            instruction=instruction,
            count=np.array(self.count, np.int64)[keep],
            exact=self.exact[instruction],
            rank=labels.rank[instruction],
            kind=labels.kind[instruction],
            layout=labels.layout[instruction],
            start=np.concatenate(([0], np.cumsum(sizes[keep]))).astype(np.int64),
            operand=renumber[operand[kept_edges]],
            slot=slot[kept_edges],
            constant=np.array(self.constant, bool)[keep],
            roots=[int(renumber[root]) for root in roots],
            instance_node=renumber[instance_node[live]],
            instance_group=instance_group[live],
            group_instruction=np.array(self.group_instruction, np.int64),
            notes=self.notes,
        )

    def _live(self, start: Ints, operand: Ints, roots: list[int]) -> Mask:
        """False for the effect-free nodes (tuples, bitcasts, constants) that nothing uses."""
        uses = np.bincount(operand, minlength=len(self.instruction)).tolist()
        for root in roots:
            uses[root] += 1
        keep = np.ones(len(uses), bool)
        for node in range(len(uses) - 1, -1, -1):
            at = self.instruction[node]
            if uses[node] or not (self.is_bitcast[at] or self.opcode[at] in ("tuple", "constant")):
                continue
            keep[node] = False
            for o in self.edges[node]:
                uses[o] -= 1
        return keep


_CONTROL_FLOW = frozenset(("while", "conditional", "async-start", "fusion", "call"))


def _numbers(module: Module, opcodes: frozenset[str]) -> list[int]:
    return [number for number, opcode in enumerate(module.opcodes) if opcode in opcodes]
