"""Changes within matched pairs: shape, element type, attributes, constants, layout."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction

import numpy as np

from hlo_lab.diff.flatten import FlatGraph
from hlo_lab.diff.labels import canonical_layout, canonical_literal, semantic_attributes
from hlo_lab.diff.match import Matching
from hlo_lab.diff.places import first_line, operations, short, side, user_lines
from hlo_lab.diff.result import Change, Kind
from hlo_lab.ir.module import Module
from hlo_lab.ir.shapes import Shape

_NUMBER = re.compile(r"\d+")
_SHOWN = 60  # characters of an attribute or a literal in a summary

Dims = frozenset[tuple[int, int]]


class PairChanges:
    """Sorts the matched pairs that differ, by what differs.

    ``differing`` holds the nodes of a in pairs with any difference of their own (not
    those that merely have other operands); ``replaced`` those whose opcode differs.
    """

    def __init__(self, matching: Matching):
        self.a, self.b = matching.a, matching.b
        x, y = matching.pairs
        if matching.split:
            more = np.array(matching.split, np.int64)
            x, y = np.concatenate((x, more[:, 0])), np.concatenate((y, more[:, 1]))
        self.x, self.y = x, y
        exact = self.a.exact[x] != self.b.exact[y]
        layout = self.a.layout[x] != self.b.layout[y]
        self.replaced: list[int] = []
        self._shape: defaultdict[frozenset[Fraction], list[int]] = defaultdict(list)
        self._dims: Counter[tuple[int, int]] = Counter()
        self._dtype: defaultdict[tuple[str, str], list[int]] = defaultdict(list)
        self._attribute: defaultdict[tuple[str, str, str, str], list[int]] = defaultdict(list)
        self._constant: defaultdict[tuple[str, str], list[int]] = defaultdict(list)
        self._layout: defaultdict[tuple[str, str], list[int]] = defaultdict(list)
        self.differing: set[int] = set()
        pending: list[int] = []
        for pair in np.nonzero(exact)[0].tolist():
            if self._by_shape(pair):
                pending.append(pair)
        for pair in pending:
            self._by_value(pair)
        for pair in np.nonzero(layout & ~exact)[0].tolist():
            self._by_layout(pair)
        numbers = [g.module.parameter_number[g.instruction] for g in (self.a, self.b)]
        replaced = set(self.replaced)
        for pair in np.nonzero(numbers[0][x] != numbers[1][y])[0].tolist():
            if int(x[pair]) not in replaced:
                self._attribute["parameter", "number", "", ""].append(pair)
                self.differing.add(int(x[pair]))

    def _instructions(self, pair: int) -> tuple[int, int]:
        return int(self.a.instruction[self.x[pair]]), int(self.b.instruction[self.y[pair]])

    def _by_shape(self, pair: int) -> bool:
        """Whether the pair is of one opcode, so that attributes can be compared."""
        at, bt = self._instructions(pair)
        a, b = self.a.module, self.b.module
        opcode = self._name(self.a, int(self.x[pair]))
        if opcode != self._name(self.b, int(self.y[pair])):
            self.replaced.append(int(self.x[pair]))
            return False
        before, after = a.shapes[a.shape[at]], b.shapes[b.shape[bt]]
        dims, dtypes = _compare(before, after)
        if dims is None:
            self.differing.add(int(self.x[pair]))
            self._attribute[opcode, "shape", str(before), str(after)].append(pair)
            return True
        for key in dtypes:
            self._dtype[key].append(pair)
        if dims:
            self._shape[frozenset(_ratio(p, q) for p, q in dims)].append(pair)
            self._dims.update(dims)
        if dims or dtypes:
            self.differing.add(int(self.x[pair]))
        return True

    @staticmethod
    def _name(graph: FlatGraph, node: int) -> str:
        opcode = graph.opcode[node]
        return "bitcast" if opcode == "reshape" else opcode

    def _by_value(self, pair: int) -> None:
        at, bt = self._instructions(pair)
        a, b = self.a.module, self.b.module
        explained = int(self.x[pair]) in self.differing
        for name, old, new in _attribute_differences(a, at, b, bt):
            ratio = self._explained(old, new)
            if ratio is None:
                self._attribute[self.a.opcode[self.x[pair]], name, old, new].append(pair)
            elif not explained:
                self._shape[frozenset((ratio,))].append(pair)
            explained = True
        if at in a.literals and bt in b.literals:
            old, new = (canonical_literal(m.literals[i]) for m, i in ((a, at), (b, bt)))
            dtypes = (m.shapes[m.shape[i]].dtype for m, i in ((a, at), (b, bt)))
            same = canonical_literal(old, next(dtypes)) == canonical_literal(new, next(dtypes))
            if not same and not (explained and "..." in old + new):
                ratio = self._explained(old, new)
                if ratio is None:
                    self._constant[old, new].append(pair)
                elif not explained:
                    self._shape[frozenset((ratio,))].append(pair)
                explained = True
        if explained:
            self.differing.add(int(self.x[pair]))

    def _explained(self, old: str, new: str) -> Fraction | None:
        """The ratio of the changed dimension, where that alone turns ``old`` into ``new``."""
        if len(old) > 4096 or _NUMBER.sub("#", old) != _NUMBER.sub("#", new):
            return None
        numbers = zip(_NUMBER.findall(old), _NUMBER.findall(new), strict=True)
        changed = {(int(p), int(q)) for p, q in numbers if p != q}
        if not changed or not all(pair in self._dims for pair in changed):
            return None
        ratios = {_ratio(p, q) for p, q in changed}
        return min(ratios)

    def _by_layout(self, pair: int) -> None:
        at, bt = self._instructions(pair)
        a, b = self.a.module, self.b.module
        key = canonical_layout(a.shapes[a.shape[at]]), canonical_layout(b.shapes[b.shape[bt]])
        self._layout[key].append(pair)
        self.differing.add(int(self.x[pair]))

    def changes(self) -> Iterator[Change]:
        for ratios, pairs in self._shape.items():
            yield self._shape_change(ratios, pairs)
        for (old, new), pairs in self._dtype.items():
            summary = f"{old} -> {new} in {operations(len(pairs))}"
            yield self._change(Kind.DTYPE, summary, pairs, self._origin(pairs))
        for (opcode, name, old, new), pairs in self._attribute.items():
            summary = f"{opcode}: {name} {_short(old)} -> {_short(new)}"
            if name == "number":
                noun = "1 argument" if len(pairs) == 1 else f"{len(pairs)} arguments"
                summary = f"{noun} at another position"
            elif len(pairs) > 1:
                summary += f" in {operations(len(pairs))}"
            yield self._change(Kind.ATTRIBUTE, summary, pairs)
        for (old, new), pairs in self._constant.items():
            summary = f"constant {_short(old)} -> {_short(new)}"
            if len(pairs) > 1:
                summary += f" in {operations(len(pairs))}"
            yield self._used(self._change(Kind.CONSTANT, summary, pairs))
        for (old, new), pairs in self._layout.items():
            summary = (
                f"layout {{{_short(old) or 'row-major'}}} -> {{{_short(new) or 'row-major'}}} "
                f"in {operations(len(pairs))}"
            )
            yield self._change(Kind.LAYOUT, summary, pairs)

    def _used(self, change: Change) -> Change:
        """Constants have no source line of their own: that of what uses them."""
        before = user_lines(self.a, change.nodes_before)
        after = user_lines(self.b, change.nodes_after)
        line = next(iter(after + before), None)
        return replace(
            change,
            summary=change.summary + (f", used at {short(line)}" if line else ""),
            before=replace(change.before, source=before or change.before.source),
            after=replace(change.after, source=after or change.after.source),
        )

    def _shape_change(self, ratios: frozenset[Fraction], pairs: list[int]) -> Change:
        seen: Counter[tuple[int, int]] = Counter()
        for pair in pairs:
            at, bt = self._instructions(pair)
            a, b = self.a.module, self.b.module
            dims, _ = _compare(a.shapes[a.shape[at]], b.shapes[b.shape[bt]])
            seen.update(dims or ())
        if not seen:
            seen.update(pair for pair in self._dims if _ratio(*pair) in ratios)
        named, rest = [], []
        for ratio in sorted(ratios):  # the smallest dimension of a ratio stands for it
            own = sorted(pair for pair in seen if _ratio(*pair) == ratio)
            named += own[:1]
            rest += own[1:]
        text = " and ".join(f"{p} -> {q}" for p, q in named)
        noun = "dimension" if len(named) == 1 else "dimensions"
        summary = f"{noun} {text} in {operations(len(pairs))}"
        if rest:
            more = ", ".join(f"{p} -> {q}" for p, q in rest[:4])
            summary += f" (also {more}{', ...' if len(rest) > 4 else ''})"
        return self._change(Kind.SHAPE, summary, pairs, self._origin(pairs))

    def _origin(self, pairs: list[int]) -> str:
        """The arguments of the program that changed, or where the first change is."""
        module = self.b.module
        arguments = []
        for pair in pairs:
            at, bt = self._instructions(pair)
            if module.parameter_number[bt] >= 0 and module.computation_of[bt] == module.entry:
                before = self.a.module.shapes[self.a.module.shape[at]].without_layout()
                after = module.shapes[module.shape[bt]].without_layout()
                if before == after:
                    continue
                arguments.append(f"{module.parameter_number[bt]} ({before} -> {after})")
        if arguments:
            more = f" and {len(arguments) - 1} more" if len(arguments) > 1 else ""
            return f"the program's argument {arguments[0]}{more}"
        line = first_line(self.b, int(self.y[min(pairs)]))
        return f"begins at {line}" if line else ""

    def _change(self, kind: Kind, summary: str, pairs: list[int], cause: str = "") -> Change:
        nodes = sorted(self.x[pairs].tolist())
        partners = sorted(self.y[pairs].tolist())
        return Change(
            kind=kind,
            summary=summary,
            count=len(pairs),
            before=side(self.a, nodes),
            after=side(self.b, partners),
            cause=cause,
            nodes_before=tuple(nodes),
            nodes_after=tuple(partners),
        )


def _ratio(p: int, q: int) -> Fraction:
    return Fraction(q, p) if p else Fraction(q - p)


def _compare(a: Shape, b: Shape) -> tuple[Dims | None, set[tuple[str, str]]]:
    """(changed dimensions, changed element types); None dimensions: another structure."""
    leaves_a, leaves_b = list(a.leaves()), list(b.leaves())
    if [path for path, _ in leaves_a] != [path for path, _ in leaves_b]:
        return None, set()
    dims: set[tuple[int, int]] = set()
    dtypes: set[tuple[str, str]] = set()
    for (_, x), (_, y) in zip(leaves_a, leaves_b, strict=True):
        if len(x.dims) != len(y.dims):
            return None, set()
        dims.update((p, q) for p, q in zip(x.dims, y.dims, strict=True) if p != q)
        if x.dtype != y.dtype:
            dtypes.add((x.dtype, y.dtype))
    return frozenset(dims), dtypes


def _attribute_differences(
    a: Module, at: int, b: Module, bt: int
) -> Iterator[tuple[str, str, str]]:
    old = semantic_attributes(a.attributes[a.attribute[at]])
    new = semantic_attributes(b.attributes[b.attribute[bt]])
    for name in sorted(old.keys() | new.keys()):
        if old.get(name, "") != new.get(name, ""):
            yield name, old.get(name, ""), new.get(name, "")


def _short(text: str) -> str:
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."
