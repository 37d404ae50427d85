"""Fusion boundaries: the same operations in other kernels, or in more of them."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator

import numpy as np

from hlo_lab.diff.flatten import FREE, FlatGraph
from hlo_lab.diff.labels import canonical_attributes
from hlo_lab.diff.match import Matching
from hlo_lab.diff.places import first_line, histogram, operations, side, times
from hlo_lab.diff.result import Change, Kind
from hlo_lab.diff.structure import REMATERIALISATION, is_rematerialised

_SHOWN = 3  # fusions named on each side of a summary
# (the matched nodes it computes, how the compiler configured it)
Kernel = tuple[frozenset[int], str]


def fusion_changes(matching: Matching) -> Iterator[Change]:
    """Kernels that no longer compute the same set of matched operations, in overlapping groups.

    Operations without a partner are left out here: they are changes of their own, and a
    kernel that merely gained or lost one is the same kernel. So are constants and what
    is built from them, which compilers copy into any kernel.
    """
    if not any(graph.module.opcode_mask("fusion").any() for graph in (matching.a, matching.b)):
        return
    kernels_a = _kernels(matching.a, matching.to_b, is_a=True)
    kernels_b = _kernels(matching.b, matching.to_a, is_a=False)
    left_a, left_b = _cancel(kernels_a, kernels_b)
    config: list[tuple[int, int]] = []
    by_nodes: defaultdict[frozenset[int], list[int]] = defaultdict(list)
    for group in left_b:
        by_nodes[kernels_b[group][0]].append(group)
    moved_a = []
    for group in left_a:
        same = by_nodes[kernels_a[group][0]]
        if same:
            config.append((group, same.pop()))
        else:
            moved_a.append(group)
    moved_b = [group for groups in by_nodes.values() for group in groups]
    yield from _config_changes(matching, config, kernels_a, kernels_b)
    yield from _moved(matching, moved_a, moved_b, kernels_a, kernels_b)


def _kernels(graph: FlatGraph, partner: np.ndarray, *, is_a: bool) -> dict[int, Kernel]:
    """Executed group to what it computes, in a's node numbers; empty ones left out."""
    module = graph.module
    quiet = np.array([opcode in FREE or opcode == "reshape" for opcode in graph.opcode], bool)
    keep = (partner >= 0) & ~graph.constant & ~quiet
    rows = np.nonzero(keep[graph.instance_node])[0]
    nodes = graph.instance_node[rows]
    names = nodes if is_a else partner[nodes]
    members: defaultdict[int, set[int]] = defaultdict(set)
    for group, node in zip(graph.instance_group[rows].tolist(), names.tolist(), strict=True):
        members[group].add(node)
    fusion = module.opcode_mask("fusion")
    out: dict[int, Kernel] = {}
    for group, inside in members.items():
        at = graph.group_instruction[group]
        config = canonical_attributes(module.attributes[module.attribute[at]]) if fusion[at] else ""
        out[group] = (frozenset(inside), config)
    return out


def _cancel(a: dict[int, Kernel], b: dict[int, Kernel]) -> tuple[list[int], list[int]]:
    """The groups of each side that have no equal on the other."""
    waiting: defaultdict[Kernel, list[int]] = defaultdict(list)
    for group, kernel in b.items():
        waiting[kernel].append(group)
    left = []
    for group, kernel in a.items():
        if waiting[kernel]:
            waiting[kernel].pop()
        else:
            left.append(group)
    return left, [group for groups in waiting.values() for group in groups]


def _config_changes(
    matching: Matching,
    config: list[tuple[int, int]],
    kernels_a: dict[int, Kernel],
    kernels_b: dict[int, Kernel],
) -> Iterator[Change]:
    """The same operations in a kernel of another kind or configuration."""
    groups: defaultdict[tuple[str, str], list[tuple[int, int]]] = defaultdict(list)
    for x, y in config:
        groups[_settings(kernels_a[x][1], kernels_b[y][1])].append((x, y))
    for (old, new), found in groups.items():
        if old == new:
            continue
        nodes = sorted({node for x, _ in found for node in kernels_a[x][0]})
        count = "1 fusion" if len(found) == 1 else f"{len(found)} fusions"
        if not kernels_a[found[0][0]][1]:
            summary = f"{operations(len(nodes))} now in a fusion of their own ({new})"
        elif not kernels_b[found[0][1]][1]:
            summary = f"{operations(len(nodes))} no longer in a fusion of their own ({old})"
        else:
            summary = f"{count} compiled with {new or 'defaults'} instead of {old or 'defaults'}"
        yield _change(matching, summary, nodes, len(found))


def _settings(old: str, new: str) -> tuple[str, str]:
    """What differs between two attribute lists, shortened."""
    before, after = old.split("\x1e"), new.split("\x1e")
    gone = ", ".join(part[:60] for part in before if part not in after)
    come = ", ".join(part[:60] for part in after if part not in before)
    return gone, come


def _moved(
    matching: Matching,
    moved_a: list[int],
    moved_b: list[int],
    kernels_a: dict[int, Kernel],
    kernels_b: dict[int, Kernel],
) -> Iterator[Change]:
    """Groups of kernels that share operations, folded by what they hold."""
    owner: dict[int, int] = {}
    parent: dict[int, int] = {}

    def find(group: int) -> int:
        while parent[group] != group:
            parent[group] = parent[parent[group]]
            group = parent[group]
        return group

    sides = [(group, kernels_a[group][0]) for group in moved_a]
    sides += [(~group, kernels_b[group][0]) for group in moved_b]
    for key, nodes in sides:
        parent[key] = key
        for node in nodes:
            parent[find(key)] = find(owner.setdefault(node, key))
    parts: defaultdict[int, tuple[list[int], list[int]]] = defaultdict(lambda: ([], []))
    for key, _ in sides:
        parts[find(key)][key < 0].append(key if key >= 0 else ~key)

    folded: defaultdict[tuple[object, ...], list[tuple[list[int], list[int]]]] = defaultdict(list)
    for before, after in parts.values():
        inside = {node for group in before for node in kernels_a[group][0]}
        inside |= {node for group in after for node in kernels_b[group][0]}
        if not before or not after:
            # its operations are partly in kernels that kept their set: seen there
            continue
        opcodes = Counter(matching.a.opcode[node] for node in inside)
        folded[len(before), len(after), tuple(sorted(opcodes.items()))].append((before, after))
    for found in folded.values():
        moved = {node for before, _ in found for group in before for node in kernels_a[group][0]}
        moved |= {node for _, after in found for group in after for node in kernels_b[group][0]}
        yield _change(
            matching,
            _moved_summary(matching, found, kernels_a, kernels_b),
            sorted(moved),
            len(found),
        )


def _moved_summary(
    matching: Matching,
    found: list[tuple[list[int], list[int]]],
    kernels_a: dict[int, Kernel],
    kernels_b: dict[int, Kernel],
) -> str:
    before, after = found[0]
    if len(before) == len(after) == 1:
        old, new = kernels_a[before[0]][0], kernels_b[after[0]][0]
        parts = [
            f"{verb} {histogram([matching.a.opcode[node] for node in nodes])}"
            for verb, nodes in (("also computes", new - old), ("no longer computes", old - new))
            if nodes
        ]
        text = f"{_names(matching.b, after)} {' and '.join(parts)}"
    else:
        text = f"{_kernels_text(matching.a, before)} -> {_kernels_text(matching.b, after)}"
    return f"fusion boundaries moved: {text}{times(len(found))}"


def _kernels_text(graph: FlatGraph, groups: list[int]) -> str:
    return f"{len(groups)} kernel{'s' if len(groups) > 1 else ''} ({_names(graph, groups)})"


def _names(graph: FlatGraph, groups: list[int]) -> str:
    names = [graph.module.instruction_names[i] for i in graph.group_instruction[sorted(groups)]]
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")


def _change(matching: Matching, summary: str, nodes: list[int], repeats: int) -> Change:
    partners = matching.to_b[nodes].astype(int).tolist()
    line = first_line(matching.b, partners[0])
    return Change(
        kind=Kind.FUSION,
        summary=summary + (f" at {line}" if line else ""),
        count=len(nodes),
        repeats=repeats,
        before=side(matching.a, nodes),
        after=side(matching.b, partners),
        cause="the compiler drew the kernels differently around the same operations",
        nodes_before=tuple(nodes),
        nodes_after=tuple(partners),
    )


def repeat_change(matching: Matching) -> Change | None:
    """Matched operations that are computed more, or less, often than before.

    In a scheduled module that is work: one operation recomputed in several fusions.
    Before optimisation it is a duplicate that the compiler merges by itself.
    """
    a, b = matching.a, matching.b
    found, partner = matching.pairs
    keep = np.array([a.opcode[node] not in FREE for node in found.tolist()], bool)
    keep &= ~a.constant[found]
    before, after = a.count.copy(), b.count.copy()
    for x, y in matching.split:  # several nodes that stand for one
        if matching.to_b[x] >= 0:
            after[matching.to_b[x]] += b.count[y]
        else:
            before[matching.to_a[y]] += a.count[x]
    delta = np.where(keep, after[partner] - before[found], 0)
    nodes = found[delta != 0].tolist()
    if not nodes:
        return None
    scheduled = a.module.is_scheduled or b.module.is_scheduled
    more, less = int(delta[delta > 0].sum()), -int(delta[delta < 0].sum())
    opcodes = histogram(a.opcode[node] for node in nodes)
    verb = "computed" if scheduled else "written"
    parts = [f"{verb} {n} times {word}" for n, word in ((more, "more"), (less, "less")) if n]
    partners = matching.to_b[nodes].astype(int).tolist()
    cause = "copied into more or fewer fusions" if scheduled else "duplicates that merge again"
    if scheduled and more > less:
        again = _rematerialised_more(a, b, {a.opcode[node] for node in nodes})
        cause = REMATERIALISATION if 2 * again >= more else cause
    return Change(
        kind=Kind.RECOMPUTE if scheduled else Kind.NO_EFFECT,
        summary=f"{operations(len(nodes))} {' and '.join(parts)}: {opcodes}",
        count=len(nodes),
        before=side(a, nodes),
        after=side(b, partners),
        cause=cause,
        nodes_before=tuple(nodes),
        nodes_after=tuple(partners),
    )


def _rematerialised_more(a: FlatGraph, b: FlatGraph, opcodes: set[str]) -> int:
    """How many more instructions of these opcodes are rematerialised in b than in a."""
    count = [0, 0]
    for side_of, module in enumerate((a.module, b.module)):
        for at in np.nonzero(module.opcode_mask(*opcodes))[0].tolist():
            count[side_of] += is_rematerialised(module, at)
    return count[1] - count[0]
