"""Added, removed and replaced operations, in connected groups; equal groups are folded."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from hlo_lab.diff.flatten import FlatGraph
from hlo_lab.diff.labels import Hashes
from hlo_lab.diff.match import Matching
from hlo_lab.diff.places import first_line, histogram, operations, short, side, times
from hlo_lab.diff.result import Change, Kind
from hlo_lab.ir.module import Ints, Module

COLLECTIVES = frozenset((
    "all-gather", "all-gather-start", "all-reduce", "all-reduce-start", "all-to-all",
    "collective-broadcast", "collective-permute", "collective-permute-start",
    "ragged-all-to-all", "reduce-scatter",
))  # fmt: skip
REMATERIALISATION = "rematerialisation (jax.checkpoint, or the compiler's own)"
_REMAT = ("rematted_computation", ".remat")
_CASTS = frozenset(("convert", "copy"))  # XLA puts them where it likes
_TWINS = 20_000  # matched nodes looked at for one group
_QUIET = frozenset(("parameter", "constant", "broadcast", "tuple", "get-tuple-element", "bitcast"))


@dataclass
class _Group:
    """One connected group: nodes that only a or only b has, replaced and rewired pairs."""

    removed: list[int] = field(default_factory=list)
    added: list[int] = field(default_factory=list)
    replaced: list[int] = field(default_factory=list)
    rewired: list[int] = field(default_factory=list)


def rewired_pairs(matching: Matching) -> tuple[list[int], list[int]]:
    """(rewired, attached), nodes of a whose operands are not the partners' operands.

    ``rewired`` take other operands although all of those are matched; the operands of
    ``attached`` were added or removed, which is a change of those and not of the pair.
    """
    a, b = matching.a, matching.b
    found, partner = matching.pairs
    same = _operand_sums(a, matching.to_b)[found] == _operand_sums(b, None)[partner]
    rewired, attached = [], []
    for node in found[~same].tolist():
        other = matching.to_b[node]
        mine = matching.to_b[a.operand[a.start[node] : a.start[node + 1]]]
        theirs = matching.to_a[b.operand[b.start[other] : b.start[other + 1]]]
        if (mine < 0).any() or (theirs < 0).any():
            attached.append(node)
        else:
            rewired.append(node)
    return rewired, attached


def _operand_sums(graph: FlatGraph, partner: Ints | None) -> Hashes:
    """uint64[n]: a sum over (slot, operand in b's numbering) that tells operand lists apart."""
    operand = graph.operand if partner is None else partner[graph.operand]
    value = (operand.astype(np.uint64) + np.uint64(3)) * np.uint64(0x9E3779B97F4A7C15)
    value ^= (graph.slot.astype(np.uint64) + np.uint64(1)) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(29))) * np.uint64(0x94D049BB133111EB)
    value ^= value >> np.uint64(32)
    total = np.concatenate((np.zeros(1, np.uint64), np.cumsum(value, dtype=np.uint64)))
    sums: Hashes = total[graph.start[1:]] - total[graph.start[:-1]]
    return sums


def structural_changes(
    matching: Matching, replaced: list[int], rewired: list[int], attached: list[int]
) -> Iterator[Change]:
    """The groups, equal ones folded."""
    folded: defaultdict[tuple[object, ...], list[_Group]] = defaultdict(list)
    for group in _groups(matching, replaced, rewired, attached):
        folded[_signature(matching, group)].append(group)
    for groups in folded.values():
        yield _change(matching, groups)


def _groups(
    matching: Matching, replaced: list[int], rewired: list[int], attached: list[int]
) -> list[_Group]:
    a, b = matching.a, matching.b
    left_a, left_b = matching.unmatched()
    offset = len(a)
    parent: dict[int, int] = {}

    def find(node: int) -> int:
        while parent[node] != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    def union(x: int, y: int) -> None:
        parent[find(x)] = find(y)

    touched_a = np.zeros(len(a), bool)
    touched_b = np.zeros(len(b), bool)
    touched_a[left_a + replaced + rewired] = True
    touched_b[left_b] = True
    touched_b[matching.to_b[replaced + rewired]] = True
    parent.update((node, node) for node in np.nonzero(touched_a)[0].tolist())
    parent.update((offset + node, offset + node) for node in np.nonzero(touched_b)[0].tolist())
    for graph, touched, base in ((a, touched_a, 0), (b, touched_b, offset)):
        edges = touched[graph.operand] & touched[graph.consumer]
        for x, y in zip(graph.operand[edges].tolist(), graph.consumer[edges].tolist(), strict=True):
            union(base + x, base + y)
    for node in replaced + rewired:
        union(node, offset + int(matching.to_b[node]))
    for node in attached:  # what came and what went at one user belong together
        other = matching.to_b[node]
        mine = a.operand[a.start[node] : a.start[node + 1]]
        theirs = b.operand[b.start[other] : b.start[other + 1]]
        near = [n for n in mine.tolist() if touched_a[n]]
        near += [offset + n for n in theirs.tolist() if touched_b[n]]
        if len(near) <= 16:  # a wide tuple joins what has nothing to do with each other
            for x in near[1:]:
                union(near[0], x)

    out: defaultdict[int, _Group] = defaultdict(_Group)
    for node in replaced:
        out[find(node)].replaced.append(node)
    for node in rewired:
        out[find(node)].rewired.append(node)
    for node in left_a:
        out[find(node)].removed.append(node)
    for node in left_b:
        out[find(offset + node)].added.append(node)
    return list(out.values())


def _signature(matching: Matching, group: _Group) -> tuple[object, ...]:
    """Equal for the same edit in several layers."""
    a, b = matching.a, matching.b

    def ranks(graph: FlatGraph, nodes: list[int]) -> tuple[tuple[int, int], ...]:
        return tuple(sorted(Counter(graph.rank[nodes].tolist()).items()))

    return (
        ranks(a, group.removed),
        ranks(b, group.added),
        ranks(a, group.replaced),
        ranks(b, matching.to_b[group.replaced].tolist()),
        ranks(a, group.rewired),
    )


def _change(matching: Matching, groups: list[_Group]) -> Change:
    a, b = matching.a, matching.b
    removed = sorted(node for group in groups for node in group.removed)
    added = sorted(node for group in groups for node in group.added)
    replaced = sorted(node for group in groups for node in group.replaced)
    rewired = sorted(node for group in groups for node in group.rewired)
    before = sorted(removed + replaced + rewired)
    after = sorted(added + matching.to_b[replaced + rewired].astype(int).tolist())
    kind = _kind(matching, groups[0])
    side_a, side_b = side(a, before), side(b, after)
    lines = [short(frame) for frame in (*side_b.source, *side_a.source)]
    line = lines[0] if lines else first_line(b, after[0]) if after else first_line(a, before[0])
    summary = _summary(matching, groups[0], kind) + times(len(groups))
    return Change(
        kind=kind,
        summary=summary + (f" at {line}" if line else ""),
        count=len(removed) + len(added) + len(replaced) + len(rewired),
        repeats=len(groups),
        before=side_a,
        after=side_b,
        cause=_cause(matching, kind, removed, added),
        nodes_before=tuple(before),
        nodes_after=tuple(after),
    )


def _opcodes(graph: FlatGraph, nodes: list[int]) -> list[str]:
    return [graph.opcode[node] for node in nodes]


def _kind(matching: Matching, group: _Group) -> Kind:
    a, b = matching.a, matching.b
    removed = Counter(_opcodes(a, group.removed + group.replaced))
    added = Counter(_opcodes(b, group.added + matching.to_b[group.replaced].astype(int).tolist()))
    if any(removed[opcode] != added[opcode] for opcode in COLLECTIVES):
        return Kind.COLLECTIVE
    if _is_remat(a, group.removed) or _is_second(matching, group.added):
        return Kind.RECOMPUTE
    if group.replaced or (group.removed and group.added):
        return Kind.REPLACED
    if group.removed:
        return Kind.REMOVED
    return Kind.ADDED if group.added else Kind.OPERANDS


def _is_remat(graph: FlatGraph, nodes: list[int]) -> bool:
    """Whether most of the nodes are a second computation of something.

    Of those that do something: the slices and tuples that an unrolled layer's parameters
    come from belong to no layer, and neither do operations that XLA made and named nothing.
    """
    loud = [node for node in nodes if graph.opcode[node] not in _QUIET] or nodes
    named = [at for at in graph.instruction[loud].tolist() if _text(graph.module, at)]
    return 0 < len(named) <= 2 * sum(is_rematerialised(graph.module, at) for at in named)


def _is_second(matching: Matching, added: list[int]) -> bool:
    """Whether what was added is rematerialised, or stands beside what is.

    The match may give the first computation's partner to the second one; then it is the
    first that seems to be new, and each of its operations has a rematerialised twin.
    """
    a, b = matching.a, matching.b
    if _is_remat(b, added):
        return True
    loud = [node for node in added if b.opcode[node] not in _QUIET | _CASTS]
    labels = b.exact[loud]
    alike = np.nonzero(np.isin(b.exact, labels) & (matching.to_a >= 0))[0][:_TWINS]
    twins = {
        int(b.exact[node])
        for node in alike.tolist()
        if is_rematerialised(b.module, b.instruction[node])
        and not is_rematerialised(a.module, a.instruction[matching.to_a[node]])
    }
    return 0 < len(loud) < 2 * sum(label in twins for label in labels.tolist())


def _text(module: Module, at: int) -> str:
    op_name: str = module.metadatas[module.metadata[at]].op_name
    return op_name or (".remat" if ".remat" in module.instruction_names[at] else "")


def is_rematerialised(module: Module, at: int) -> bool:
    """Whether jax.checkpoint or XLA computes this instruction a second time."""
    text = module.metadatas[module.metadata[at]].op_name + module.instruction_names[at]
    return any(mark in text for mark in _REMAT)


def _summary(matching: Matching, group: _Group, kind: Kind) -> str:
    a, b = matching.a, matching.b
    gone, new = _opcodes(a, group.removed), _opcodes(b, group.added)
    if kind is Kind.COLLECTIVE:
        return _collective_summary(matching, group)
    if kind is Kind.RECOMPUTE:
        if _is_second(matching, group.added):
            return f"{operations(len(new))} recomputed: {histogram(_loud(new))}"
        return f"{operations(len(gone))} no longer recomputed: {histogram(_loud(gone))}"
    if kind is Kind.OPERANDS:
        return f"other operands of {histogram(_opcodes(a, group.rewired))}"
    if kind is Kind.REMOVED:
        return f"{operations(len(gone))} removed: {histogram(_loud(gone))}"
    if kind is Kind.ADDED:
        return f"{operations(len(new))} added: {histogram(_loud(new))}"
    partner = matching.to_b
    swaps = Counter((a.opcode[x], b.opcode[partner[x]]) for x in group.replaced)
    parts = [f"{old} -> {new}" for (old, new), _ in swaps.most_common(3)]
    if gone:
        parts.append(f"{operations(len(gone))} removed: {histogram(_loud(gone))}")
    if new:
        parts.append(f"{operations(len(new))} added: {histogram(_loud(new))}")
    return "; ".join(parts)


def _collective_summary(matching: Matching, group: _Group) -> str:
    a, b = matching.a, matching.b
    gone = Counter(_opcodes(a, group.removed + group.replaced))
    new = Counter(_opcodes(b, group.added + matching.to_b[group.replaced].astype(int).tolist()))
    kept = gone & new
    parts = []
    for word, counts in (("added", new - kept), ("removed", gone - kept)):
        names = [name for name in counts.elements() if name in COLLECTIVES]
        if names:
            parts.append(f"{histogram(names)} {word}")
    others = (
        len(group.removed)
        + len(group.added)
        - sum(count for name, count in (gone + new - kept - kept).items() if name in COLLECTIVES)
    )
    return "; ".join(parts) + (f", with {operations(others)} around it" if others > 0 else "")


def _loud(opcodes: list[str]) -> list[str]:
    """The operations that do something, where there are any."""
    return [opcode for opcode in opcodes if opcode not in _QUIET] or opcodes


def _cause(matching: Matching, kind: Kind, removed: list[int], added: list[int]) -> str:
    if kind is Kind.RECOMPUTE:
        return REMATERIALISATION
    parts = []
    again = sum(is_rematerialised(matching.b.module, at) for at in matching.b.instruction[added])
    if again:
        parts.append(f"{again} of the {len(added)} added: {REMATERIALISATION}")
    for word, graph, nodes in (("new", matching.b, added), ("dropped", matching.a, removed)):
        module = graph.module
        arguments = [
            at for at in graph.instruction[nodes].tolist()
            if module.parameter_number[at] >= 0 and module.computation_of[at] == module.entry
        ]  # fmt: skip
        if arguments:
            shape = module.shapes[module.shape[arguments[0]]].without_layout()
            more = f" and {len(arguments) - 1} more" if len(arguments) > 1 else ""
            parts.append(f"{word} argument {module.parameter_number[arguments[0]]} ({shape}){more}")
    return "; ".join(parts)
