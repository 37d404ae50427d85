"""Changes within matched pairs: shape, element type, attributes, constants, layout."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from fractions import Fraction

import numpy as np

from hlo_lab.diff.flatten import FlatGraph
from hlo_lab.diff.labels import canonical_layout, canonical_literal, semantic_attributes
from hlo_lab.diff.match import Matching
from hlo_lab.diff.places import first_line, operations, side
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
        self.to_b = matching.to_b
        x, y = matching.pairs
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
        for node in x[exact].tolist():
            if self._by_shape(node):
                pending.append(node)
        for node in pending:
            self._by_value(node)
        for node in x[layout & ~exact].tolist():
            self._by_layout(node)

    def _instructions(self, node: int) -> tuple[int, int]:
        return int(self.a.instruction[node]), int(self.b.instruction[self.to_b[node]])

    def _by_shape(self, node: int) -> bool:
        """Whether the pair is of one opcode, so that attributes can be compared."""
        at, bt = self._instructions(node)
        a, b = self.a.module, self.b.module
        if self._name(self.a, node) != self._name(self.b, int(self.to_b[node])):
            self.replaced.append(node)
            return False
        before, after = a.shapes[a.shape[at]], b.shapes[b.shape[bt]]
        dims, dtypes = _compare(before, after)
        if dims is None:
            self.differing.add(node)
            self._attribute[self._name(self.a, node), "shape", str(before), str(after)].append(node)
            return True
        for key in dtypes:
            self._dtype[key].append(node)
        if dims:
            self._shape[frozenset(_ratio(p, q) for p, q in dims)].append(node)
            self._dims.update(dims)
        if dims or dtypes:
            self.differing.add(node)
        return True

    @staticmethod
    def _name(graph: FlatGraph, node: int) -> str:
        opcode = graph.opcode[node]
        return "bitcast" if opcode == "reshape" else opcode

    def _by_value(self, node: int) -> None:
        at, bt = self._instructions(node)
        a, b = self.a.module, self.b.module
        explained = node in self.differing
        for name, old, new in _attribute_differences(a, at, b, bt):
            ratio = self._explained(old, new)
            if ratio is None:
                self._attribute[self.a.opcode[node], name, old, new].append(node)
            elif not explained:
                self._shape[frozenset((ratio,))].append(node)
            explained = True
        if at in a.literals and bt in b.literals:
            old, new = (canonical_literal(m.literals[i]) for m, i in ((a, at), (b, bt)))
            if old != new and not (explained and "..." in old + new):
                ratio = self._explained(old, new)
                if ratio is None:
                    self._constant[old, new].append(node)
                elif not explained:
                    self._shape[frozenset((ratio,))].append(node)
                explained = True
        elif a.parameter_number[at] != b.parameter_number[bt]:
            self._attribute["parameter", "number", "", ""].append(node)
            explained = True
        if explained:
            self.differing.add(node)

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

    def _by_layout(self, node: int) -> None:
        at, bt = self._instructions(node)
        a, b = self.a.module, self.b.module
        key = canonical_layout(a.shapes[a.shape[at]]), canonical_layout(b.shapes[b.shape[bt]])
        self._layout[key].append(node)
        self.differing.add(node)

    def changes(self) -> Iterator[Change]:
        for ratios, nodes in self._shape.items():
            yield self._shape_change(ratios, nodes)
        for (old, new), nodes in self._dtype.items():
            yield self._change(
                Kind.DTYPE, f"{old} -> {new} in {operations(len(nodes))}", nodes, self._origin(nodes)
            )
        for (opcode, name, old, new), nodes in self._attribute.items():
            summary = f"{opcode}: {name} {_short(old)} -> {_short(new)}"
            if name == "number":
                summary = f"{operations(len(nodes))} with another parameter number"
            elif len(nodes) > 1:
                summary += f" in {operations(len(nodes))}"
            yield self._change(Kind.ATTRIBUTE, summary, nodes)
        for (old, new), nodes in self._constant.items():
            summary = f"constant {_short(old)} -> {_short(new)}"
            if len(nodes) > 1:
                summary += f" in {operations(len(nodes))}"
            yield self._change(Kind.CONSTANT, summary, nodes)
        for (old, new), nodes in self._layout.items():
            summary = (
                f"layout {{{_short(old) or 'row-major'}}} -> {{{_short(new) or 'row-major'}}} "
                f"in {operations(len(nodes))}"
            )
            yield self._change(Kind.LAYOUT, summary, nodes)

    def _shape_change(self, ratios: frozenset[Fraction], nodes: list[int]) -> Change:
        seen: Counter[tuple[int, int]] = Counter()
        for node in nodes:
            at, bt = self._instructions(node)
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
        summary = f"{noun} {text} in {operations(len(nodes))}"
        if rest:
            more = ", ".join(f"{p} -> {q}" for p, q in rest[:4])
            summary += f" (also {more}{', ...' if len(rest) > 4 else ''})"
        return self._change(Kind.SHAPE, summary, nodes, self._origin(nodes))

    def _origin(self, nodes: list[int]) -> str:
        """The arguments of the program that changed, or where the first change is."""
        module = self.b.module
        arguments = []
        for node in nodes:
            at, bt = self._instructions(node)
            if module.parameter_number[bt] >= 0 and module.computation_of[bt] == module.entry:
                before = self.a.module.shapes[self.a.module.shape[at]].without_layout()
                after = module.shapes[module.shape[bt]].without_layout()
                arguments.append(f"{module.parameter_number[bt]} ({before} -> {after})")
        if arguments:
            more = f" and {len(arguments) - 1} more" if len(arguments) > 1 else ""
            return f"the program's argument {arguments[0]}{more}"
        line = first_line(self.b, int(self.to_b[min(nodes)]))
        return f"begins at {line}" if line else ""

    def _change(self, kind: Kind, summary: str, nodes: list[int], cause: str = "") -> Change:
        nodes = sorted(nodes)
        partners = [int(self.to_b[node]) for node in nodes]
        return Change(
            kind=kind,
            summary=summary,
            count=len(nodes),
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


def _attribute_differences(a: Module, at: int, b: Module, bt: int) -> Iterator[tuple[str, str, str]]:
    old = semantic_attributes(a.attributes[a.attribute[at]])
    new = semantic_attributes(b.attributes[b.attribute[bt]])
    for name in sorted(old.keys() | new.keys()):
        if old.get(name, "") != new.get(name, ""):
            yield name, old.get(name, ""), new.get(name, "")


def _short(text: str) -> str:
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."


def unmatched(matching: Matching) -> tuple[list[int], list[int]]:
    """Nodes of a and of b without a partner."""
    left_a: list[int] = np.nonzero(matching.to_b < 0)[0].tolist()
    left_b: list[int] = np.nonzero(matching.to_a < 0)[0].tolist()
    return left_a, left_b
