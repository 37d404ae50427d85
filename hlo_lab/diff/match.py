"""Which node of one flat graph is which node of the other.

1. Nodes whose whole operand tree is equal (a Merkle hash over exact labels) and unique,
   constants and what is built from them apart: those follow their users.
2. At three levels of detail (exact shapes, then rank alone, then without element type):
   neighbourhood labels of up to ``RADIUS`` hops in both directions, the widest first,
   where a label must be unique in both graphs. Pairs found so far are anchors: each has a
   label of its own that its neighbours take up, so that only the unmatched part is
   labelled again. Then pairs spread to their neighbours in the same slots.
3. What takes the same slot of a matched user in both graphs: a replaced operation.
4. Greedily, the same (opcode, rank, op_name) in order.
5. What was one node and is two, since equal operations no longer are (one constant
   broadcast to two shapes that used to be one): further pairs of a matched node.

op_name plays no part before the last step, so its agreement measures the match
(``Matching.agreement``). No step is more than linear times the logarithm of its input.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from hashlib import blake2b

import numpy as np

from hlo_lab.diff.flatten import REDUCER_SLOT, FlatGraph
from hlo_lab.diff.labels import Hashes
from hlo_lab.ir.module import Ints

RADIUS = 16
PAIRED_RADIUS = 8  # from here on equal numbers of equal labels are paired in order
ROUNDS = 3  # at most, per level, as long as a round finds more

_C1, _C2, _C3 = (np.uint64(c) for c in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))


@dataclass(eq=False)
class Matching:
    """``to_b`` int64[n_a] and ``to_a`` int64[n_b]: the partner of each node, -1 for none.

    ``structural`` is the number of pairs that were found without looking at op_names, and
    ``agreement`` the share of those (with an op_name on both sides) whose op_names agree;
    None where there are none. ``split`` has the pairs of nodes that were one and are
    several, or the other way round: one member of each has its own partner besides.
    """

    a: FlatGraph
    b: FlatGraph
    to_b: Ints
    to_a: Ints
    structural: int = 0
    agreement: float | None = None
    split: list[tuple[int, int]] = field(default_factory=list)

    @property
    def pairs(self) -> tuple[Ints, Ints]:
        """Matched nodes of a, and their partners in b; one to one, ``split`` left out."""
        found = np.nonzero(self.to_b >= 0)[0]
        return found, self.to_b[found]

    def unmatched(self) -> tuple[list[int], list[int]]:
        """Nodes of a and of b without any partner."""
        free_a, free_b = self.to_b < 0, self.to_a < 0
        for x, y in self.split:
            free_a[x] = free_b[y] = False
        return np.nonzero(free_a)[0].tolist(), np.nonzero(free_b)[0].tolist()


def match(a: FlatGraph, b: FlatGraph) -> Matching:
    """Match the nodes of two flat graphs."""
    matcher = _Matcher(a, b)
    matcher.run()
    out = Matching(a, b, matcher.to_b, matcher.to_a)
    found, partner = out.pairs
    out.structural = len(found)
    names_a, names_b = _op_names(a, found), _op_names(b, partner)
    both = [(x, y) for x, y in zip(names_a, names_b, strict=True) if x and y]
    out.agreement = sum(x == y for x, y in both) / len(both) if both else None
    matcher.leaves()
    matcher.greedy()
    out.split = _splits(a, b, out.to_b, out.to_a)
    out.split += [(x, y) for y, x in _splits(b, a, out.to_a, out.to_b)]
    return out


def _splits(a: FlatGraph, b: FlatGraph, to_b: Ints, to_a: Ints) -> list[tuple[int, int]]:
    """(x, y): y of b has no partner, and x has fewer instances in b than in a."""
    found = np.nonzero(to_b >= 0)[0]
    surplus = found[a.count[found] > b.count[to_b[found]]]
    left = np.nonzero((to_a < 0) & (np.diff(b.start) > 0))[0]  # every constant looks alike
    if not len(surplus) or not len(left):
        return []
    spare = (a.count - np.where(to_b >= 0, b.count[to_b], 0)).tolist()

    def key(graph: FlatGraph, node: int, operands: Ints) -> tuple[object, ...]:
        slots = graph.slot[graph.start[node] : graph.start[node + 1]].tolist()
        return (int(graph.rank[node]), *sorted(zip(operands.tolist(), slots, strict=True)))

    waiting: defaultdict[tuple[object, ...], list[int]] = defaultdict(list)
    for x in surplus.tolist():
        waiting[key(a, x, a.operand[a.start[x] : a.start[x + 1]])].append(x)
    partner = to_a.copy()
    out = []
    for y in left.tolist():
        operands = partner[b.operand[b.start[y] : b.start[y + 1]]]
        same = waiting.get(key(b, y, operands), [])
        x = next((x for x in same if spare[x] >= b.count[y]), -1)
        if x >= 0:
            spare[x] -= int(b.count[y])
            partner[y] = x
            out.append((x, y))
    return out


def merkle(graph: FlatGraph, label: Hashes) -> Hashes:
    """uint64[n]: each node's label with those of its whole operand tree."""
    raw, start, operand = label.tobytes(), graph.start.tolist(), graph.operand.tolist()
    commutes = (np.bincount(graph.consumer[graph.slot == 0], minlength=len(graph)) > 1).tolist()
    out = [b""] * len(graph)
    for node in range(len(graph)):
        below = [out[o] for o in operand[start[node] : start[node + 1]]]
        if commutes[node]:
            below.sort()
        own = raw[8 * node : 8 * node + 8]
        out[node] = blake2b(own + b"".join(below), digest_size=8).digest()
    return np.frombuffer(b"".join(out), np.uint64)


def _op_names(graph: FlatGraph, nodes: Ints) -> list[str]:
    module = graph.module
    names = [meta.op_name for meta in module.metadatas]
    return [names[number] for number in module.metadata[graph.instruction[nodes]].tolist()]


def _mix(x: Hashes) -> Hashes:
    """The finaliser of splitmix64."""
    x = (x ^ (x >> np.uint64(30))) * _C2
    x = (x ^ (x >> np.uint64(27))) * _C3
    return x ^ (x >> np.uint64(31))


class _Rows:
    """The edges at some nodes, on one side: the sum of a value over each node's edges."""

    def __init__(self, nodes: Ints, start: Ints, target: Ints, slot: Ints, salt: np.uint64):
        sizes = start[nodes + 1] - start[nodes]
        ends = np.cumsum(sizes)
        rows = np.arange(int(ends[-1]) if len(ends) else 0)
        rows += np.repeat(start[nodes] - (ends - sizes), sizes)
        # a reducer's label must not depend on who else uses it
        seen = slot[rows] < REDUCER_SLOT if salt == _C3 else np.ones(len(rows), bool)
        owner = np.repeat(np.arange(len(nodes)), sizes)[seen]
        self.start = np.searchsorted(owner, np.arange(len(nodes) + 1))
        self.target = target[rows][seen]
        self.slot = _mix(slot[rows][seen].astype(np.uint64) + salt)

    def sums(self, label: Hashes) -> Hashes:
        values = _mix(label[self.target] ^ self.slot)
        total = np.concatenate((np.zeros(1, np.uint64), np.cumsum(values, dtype=np.uint64)))
        out: Hashes = total[self.start[1:]] - total[self.start[:-1]]
        return out


def _neighbourhoods(
    graph: FlatGraph, label: Hashes, partner: Ints, anchor: Hashes, frozen: bool
) -> tuple[Ints, list[Hashes]]:
    """(unmatched nodes, their label at radius 0, 1, ... RADIUS).

    ``anchor`` uint64[n]: the label of each matched node, which does not change.
    """
    nodes = np.nonzero(partner < 0)[0]
    current = np.where(partner < 0, _mix(label), anchor)
    moving = ~graph.constant[nodes] if frozen else np.ones(len(nodes), bool)
    up = _Rows(nodes, graph.start, graph.operand, graph.slot, _C1)
    down = _Rows(nodes, *graph.users, _C3)
    out = [current[nodes]]
    for _ in range(RADIUS):
        new = _mix(out[-1] * _C1 + up.sums(current) * _C2 + down.sums(current) * _C3)
        new = np.where(moving, new, out[-1])
        out.append(new)
        current[nodes] = new
    return nodes, out


class _Matcher:
    def __init__(self, a: FlatGraph, b: FlatGraph):
        self.a, self.b = a, b
        self.to_b = np.full(len(a), -1, np.int64)
        self.to_a = np.full(len(b), -1, np.int64)

    @property
    def _open(self) -> bool:
        return bool((self.to_b < 0).any() and (self.to_a < 0).any())

    def run(self) -> None:
        a, b = self.a, self.b
        # constants are told apart by who uses them: halving 2 and 4 gives 1 and 2
        some_a, some_b = np.nonzero(~a.constant)[0], np.nonzero(~b.constant)[0]
        tree_a, tree_b = merkle(a, a.exact)[some_a], merkle(b, b.exact)[some_b]
        self._unique(some_a, tree_a, some_b, tree_b, paired=False)
        for name in ("exact", "rank", "kind"):
            label_a, label_b = getattr(a, name), getattr(b, name)
            for _ in range(ROUNDS):
                before = self._unmatched()
                # spreading from a gap in a chain of equal operations shifts the rest of the
                # chain by one, so that wide labels are used up first
                for _ in range(ROUNDS):
                    found = self._unmatched()
                    self._by_neighbourhood(label_a, label_b, PAIRED_RADIUS, name == "exact")
                    if self._unmatched() == found:
                        break
                self._spread(label_a, label_b)
                if not self._open or self._unmatched() == before:
                    break
            if self._open:
                self._by_neighbourhood(label_a, label_b, 1, name == "exact")
                self._spread(label_a, label_b)
            if not self._open:
                return
        self._replaced()

    def _unmatched(self) -> int:
        return int((self.to_b < 0).sum())

    def _by_neighbourhood(
        self, label_a: Hashes, label_b: Hashes, paired_from: int, frozen: bool
    ) -> None:
        if not self._open:
            return
        anchor_a = _mix(np.arange(len(self.a), dtype=np.uint64) ^ _C1)
        anchor_b = anchor_a[self.to_a]
        nodes_a, wide_a = _neighbourhoods(self.a, label_a, self.to_b, anchor_a, frozen)
        nodes_b, wide_b = _neighbourhoods(self.b, label_b, self.to_a, anchor_b, frozen)
        for radius in range(RADIUS, 0, -1):
            open_a, open_b = self.to_b[nodes_a] < 0, self.to_a[nodes_b] < 0
            if frozen:
                open_a &= ~self.a.constant[nodes_a]
                open_b &= ~self.b.constant[nodes_b]
            self._unique(
                nodes_a[open_a], wide_a[radius][open_a],
                nodes_b[open_b], wide_b[radius][open_b], paired=radius >= paired_from,
            )  # fmt: skip

    def _unique(
        self, nodes_a: Ints, label_a: Hashes, nodes_b: Ints, label_b: Hashes, *, paired: bool
    ) -> None:
        """Match equal labels that are unique; with ``paired`` equally frequent ones, in order."""
        va, ia, ca = np.unique(label_a, return_index=True, return_counts=True)
        vb, ib, cb = np.unique(label_b, return_index=True, return_counts=True)
        _, x, y = np.intersect1d(va, vb, assume_unique=True, return_indices=True)
        single = (ca[x] == 1) & (cb[y] == 1)
        self._pair(nodes_a[ia[x[single]]], nodes_b[ib[y[single]]])
        equal = (ca[x] == cb[y]) & (ca[x] > 1)
        if paired and equal.any():
            wanted = va[x[equal]]
            at_a = np.nonzero(np.isin(label_a, wanted))[0]
            at_b = np.nonzero(np.isin(label_b, wanted))[0]
            at_a = at_a[np.argsort(label_a[at_a], kind="stable")]
            at_b = at_b[np.argsort(label_b[at_b], kind="stable")]
            self._pair(nodes_a[at_a], nodes_b[at_b])

    def _pair(self, a: Ints, b: Ints) -> None:
        self.to_b[a], self.to_a[b] = b, a

    def _spread(self, label_a: Hashes, label_b: Hashes) -> None:
        """From each pair to the neighbours in the same slot with the same, unique label."""
        if not self._open:
            return
        near_a, near_b = _neighbour_lists(self.a), _neighbour_lists(self.b)
        names_a, names_b = label_a.tolist(), label_b.tolist()
        to_b, to_a = self.to_b.tolist(), self.to_a.tolist()
        work = self._frontier()
        while work:
            a = work.pop()
            b = to_b[a]
            for (start_a, far_a, slot_a), (start_b, far_b, slot_b) in zip(
                near_a, near_b, strict=True
            ):
                found_a: dict[tuple[int, int], int] = {}
                for row in range(start_a[a], start_a[a + 1]):
                    node = far_a[row]
                    if to_b[node] < 0:
                        key = (names_a[node], slot_a[row])
                        found_a[key] = -1 if key in found_a and found_a[key] != node else node
                if not found_a:
                    continue
                found_b: dict[tuple[int, int], int] = {}
                for row in range(start_b[b], start_b[b + 1]):
                    node = far_b[row]
                    if to_a[node] < 0:
                        key = (names_b[node], slot_b[row])
                        found_b[key] = -1 if key in found_b and found_b[key] != node else node
                for key, x in found_a.items():
                    y = found_b.get(key, -1)
                    if x >= 0 and y >= 0 and to_b[x] < 0 and to_a[y] < 0:
                        to_b[x], to_a[y] = y, x
                        work.append(x)
        self.to_b, self.to_a = np.array(to_b, np.int64), np.array(to_a, np.int64)

    def _frontier(self) -> list[int]:
        """Matched nodes of a with an unmatched neighbour."""
        graph, free = self.a, self.to_b < 0
        used = graph.consumer[free[graph.operand]]
        given = graph.operand[free[graph.consumer]]
        near = np.unique(np.concatenate((used, given)))
        out: list[int] = near[~free[near]].tolist()
        return out

    def _replaced(self) -> None:
        """Unmatched nodes that feed the same slot of a matched user, with the same dimensions."""
        a, b = self.a, self.b
        (start_a, user_a, slot_a), _ = _neighbour_lists(a)
        start_b, operand_b, slot_b = b.start.tolist(), b.operand.tolist(), b.slot.tolist()
        by_slot: dict[int, defaultdict[int, list[int]]] = {}  # user of b to slot to operands

        def operands_at(user: int, slot: int) -> list[int]:
            if user not in by_slot:
                slots = by_slot[user] = defaultdict(list)
                for edge in range(start_b[user], start_b[user + 1]):
                    slots[slot_b[edge]].append(operand_b[edge])
            return [node for node in by_slot[user][slot] if self.to_a[node] < 0]

        shapes_a, shapes_b = a.module.shapes, b.module.shapes
        for x in np.nonzero(self.to_b < 0)[0].tolist()[::-1]:
            for row in range(start_a[x], start_a[x + 1]):
                user = int(self.to_b[user_a[row]])
                if user < 0 or slot_a[row] >= REDUCER_SLOT:
                    continue
                free = operands_at(user, slot_a[row])
                if len(free) != 1:
                    continue
                y = free[0]
                shape_x = shapes_a[a.module.shape[a.instruction[x]]]
                shape_y = shapes_b[b.module.shape[b.instruction[y]]]
                replaced = a.opcode[user_a[row]] != b.opcode[user]
                if a.constant[x] and (replaced or a.constant[user_a[row]]):
                    continue  # the constants of another formula, not other values
                if (
                    shape_x.dims == shape_y.dims
                    and shape_x.is_tuple == shape_y.is_tuple
                    and (not replaced or a.opcode[x] == b.opcode[y])
                ):
                    self.to_b[x], self.to_a[y] = y, x
                    break

    def leaves(self) -> None:
        """Pair equal constants and parameters that are left, in order."""
        waiting: defaultdict[int, list[int]] = defaultdict(list)
        left_a, left_b = np.nonzero(self.to_b < 0)[0], np.nonzero(self.to_a < 0)[0]
        for y in left_b[np.diff(self.b.start)[left_b] == 0].tolist()[::-1]:
            waiting[int(self.b.exact[y])].append(y)
        for x in left_a[np.diff(self.a.start)[left_a] == 0].tolist():
            same = waiting.get(int(self.a.exact[x]))
            if same:
                self._pair(np.array([x]), np.array([same.pop()]))

    def greedy(self) -> None:
        """Pair what is left by (opcode, rank, op_name), in order."""
        left_a, left_b = np.nonzero(self.to_b < 0)[0], np.nonzero(self.to_a < 0)[0]
        waiting: defaultdict[tuple[int, str], list[int]] = defaultdict(list)
        names_b = _op_names(self.b, left_b)
        for y, rank, name in zip(
            left_b.tolist()[::-1], self.b.rank[left_b].tolist()[::-1], names_b[::-1], strict=True
        ):
            waiting[rank, name].append(y)
        names_a = _op_names(self.a, left_a)
        for x, rank, name in zip(left_a.tolist(), self.a.rank[left_a].tolist(), names_a,
                                 strict=True):  # fmt: skip
            if name and waiting[rank, name]:
                self._pair(np.array([x]), np.array([waiting[rank, name].pop()]))


Lists = tuple[list[int], list[int], list[int]]


def _neighbour_lists(graph: FlatGraph) -> tuple[Lists, Lists]:
    """(users, operands), each as (start, other node, slot) lists."""
    users = [array.tolist() for array in graph.users]
    operands = graph.start.tolist(), graph.operand.tolist(), graph.slot.tolist()
    return (users[0], users[1], users[2]), operands
