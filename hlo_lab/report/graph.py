"""A module, a computation or a neighbourhood as a drawing: nodes, edges and clusters."""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from hlo_lab.errors import UseError
from hlo_lab.ir.module import Module
from hlo_lab.ir.source import user_frame
from hlo_lab.report import graph_fold as folding
from hlo_lab.report.graph_fold import Path
from hlo_lab.report.graph_kinds import FILL, heat, instruction_kind
from hlo_lab.report.graph_names import find_computation, find_instruction
from hlo_lab.report.graph_plain import Plain, as_is, without_plumbing
from hlo_lab.report.graph_select import Selection, around, restrict, select
from hlo_lab.report.names import clean, elide, short_frame
from hlo_lab.report.units import format_count, format_seconds, format_share

if TYPE_CHECKING:
    from hlo_lab.cost.model import ModuleCost

MAX_NODES = 200
FOLDED_NODES = 60  # a folded drawing is an overview, which fewer boxes make better
COLOURS = ("kind", "cost")
_PRESENCE = 0.1  # all instructions together against all time, when choosing what to open
_NESTED = 6  # clusters of scopes inside one another
_NAME_WIDTH = 34
_SHAPE_WIDTH = 40


@dataclass
class Node:
    """One box: an instruction, or several drawn as one. ``cluster`` is where it stands."""

    lines: list[str]
    tooltip: str
    fill: str
    cluster: Path
    output: bool = False
    several: bool = False
    centre: bool = False


@dataclass
class Drawing:
    """What there is to draw.

    ``edges`` maps (from, to) to how many values flow and their bytes (0 when not known);
    ``loops`` holds those that go back to an earlier node. ``titles`` names clusters by their
    path. ``notes`` says what was folded.
    """

    title: str
    nodes: list[Node]
    edges: dict[tuple[int, int], tuple[int, int]]
    loops: set[tuple[int, int]]
    titles: dict[Path, str]
    legend: list[tuple[str, str]]
    notes: list[str] = field(default_factory=list)


def draw(
    module: Module,
    *,
    computation: str | None = None,
    focus: str | None = None,
    hops: int = 2,
    colour: str = "kind",
    cost: ModuleCost | None = None,
    max_nodes: int | None = None,
) -> Drawing:
    """Choose and fold what to draw.

    Args:
        computation: draw this one; the entry by default, or the one that holds ``focus``.
        focus, hops: draw what lies at most ``hops`` edges around this instruction.
        colour: ``kind`` of work, or ``cost``: share of the estimated time.
        cost: where given, nodes show their time, and what takes most is folded last.
        max_nodes: fold until no more nodes than this are left; by default what has more
            than ``MAX_NODES`` is folded into ``FOLDED_NODES``.

    Raises:
        NotFoundError: no such computation or instruction.
        UseError: an option that makes no sense.
    """
    if (max_nodes is not None and max_nodes < 1) or hops < 0:
        raise UseError("--max-nodes is at least 1 and --hops at least 0")
    if colour not in COLOURS:
        raise UseError(f"--color {colour!r} is none of {', '.join(COLOURS)}")
    centre = None if focus is None else find_instruction(module, focus)
    if computation is not None:
        start = find_computation(module, computation).index
    else:
        start = module.entry if centre is None else centre.computation.index
    selection, title = select(module, start), f"{module.name}: %{module.computation_names[start]}"
    if centre is not None:
        if centre.index not in selection.rows:
            raise UseError(f"%{centre.name} is not in computation {computation}; leave that out")
        selection = restrict(selection, around(module, selection, centre.index, hops))
        title = f"{module.name}: {hops} hops around %{centre.name}"
    builder = _Builder(module, selection, colour, cost, None if centre is None else centre.index)
    return builder.build(title, max_nodes or MAX_NODES, max_nodes or FOLDED_NODES)


class _Builder:
    def __init__(
        self,
        module: Module,
        selection: Selection,
        colour: str,
        cost: ModuleCost | None,
        centre: int | None,
    ):
        self.module, self.selection = module, selection
        self.colour, self.centre = colour, centre
        self.cost = cost
        self.kinds: Counter[str] = Counter()
        self.scopes: set[Path] = set()
        self.names: dict[int, str] = {}
        self.same: Counter[int] = Counter()

    def build(self, title: str, max_nodes: int, folded: int) -> Drawing:
        module, notes = self.module, []
        plain = as_is(module, self.selection)
        total = len(plain.rows)
        layers: dict[str, int] = {}
        place = self._one_each(plain)
        if total > max_nodes and self.centre is None:
            plain = without_plumbing(module, self.selection)
            place = self._one_each(plain)
        if len(plain.rows) > max_nodes:
            plain = without_plumbing(module, self.selection, shared=True)
            same = folding.alike(module, self.selection.computations)
            self.same = Counter(same.values())
            names = {one: module.computation_names[first] for one, first in same.items()}
            home = {row: names[self.selection.home[row]] for row in plain.rows}
            tree = folding.tree(module, plain, home)
            self.scopes, self.names, layers = tree.scopes, tree.names, tree.layers
            place = folding.fold(tree.paths, self._weights(plain.rows), folded)
            used = {part for path in place.values() for part in path}
            notes += [f"{star} stands for {n} layers" for star, n in layers.items() if star in used]
        if plain.left_out:
            left = format_count(plain.left_out)
            notes.append(f"{left} constants, tuples and parameters left out")
        groups: dict[Path, list[int]] = defaultdict(list)
        for row in plain.rows:
            groups[place[row]].append(row)
        if len(groups) < len(plain.rows):
            notes.insert(0, f"{format_count(total)} instructions folded into {len(groups)} nodes")
        elif notes:
            notes.insert(0, f"{len(groups)} of {format_count(total)} instructions")
        # by where a node's instructions stand on average, so that a stray one moves nothing
        paths = sorted(groups, key=lambda path: (self._position(groups[path]), path))
        numbers = {path: number for number, path in enumerate(paths)}
        clusters = self._clusters(paths)
        nodes = [self._node(path, groups[path], plain, clusters[path]) for path in paths]
        drawing = Drawing(title, nodes, {}, set(), {}, self._legend(), notes)
        self._edges(drawing, plain, {row: numbers[path] for row, path in place.items()})
        drawing.titles = self._titles(clusters.values(), layers)
        return drawing

    def _one_each(self, plain: Plain) -> dict[int, Path]:
        names, home = self.module.computation_names, self.selection.home
        return {row: (names[home[row]], f"{row:09}") for row in plain.rows}

    def _position(self, rows: list[int]) -> float:
        return sum(self.selection.position[row] for row in rows) / len(rows)

    def _weights(self, rows: list[int]) -> dict[int, float]:
        """Share of the time, and a little for being there at all."""
        return {row: self._share([row]) + _PRESENCE / len(rows) for row in rows}

    # ---- nodes

    def _node(self, path: Path, rows: list[int], plain: Plain, cluster: Path) -> Node:
        lines = self._one(rows[0]) if len(rows) == 1 else self._several(path, rows)
        readings = (row for reader in rows for row in plain.absorbed.get(reader, ()))
        absorbed = list(dict.fromkeys(readings))
        if absorbed:
            first = self.module.instruction(absorbed[0])
            named = elide(first.op_name or first.name, _NAME_WIDTH)
            more = f" and {len(absorbed) - 1} more" if len(absorbed) > 1 else ""
            lines.append(f"reads {named}{more}")
        share = self._share(rows)
        if self.cost is not None and share >= 0.0005:
            spent = share * self.cost.total_seconds
            lines.append(f"{format_seconds(spent)}, {format_share(share)}")
        kind = self._kind(rows)
        self.kinds[kind] += 1
        return Node(
            lines=[clean(line) for line in lines],
            tooltip=self._tooltip(rows),
            fill=FILL[kind] if self.colour == "kind" else heat(share),
            cluster=cluster,
            output=any(row in plain.outputs for row in rows),
            several=len(rows) > 1,
            centre=self.centre in rows,
        )

    def _one(self, row: int) -> list[str]:
        instruction = self.module.instruction(row)
        what = instruction.opcode
        if what == "fusion":
            body = instruction.callee("calls")
            what += f" of {body.root.opcode}" if body is not None else ""
        name = elide(instruction.name, _NAME_WIDTH)
        lines = [name] if instruction.name.startswith(instruction.opcode) else [name, what]
        lines.append(self._shape(row))
        if instruction.literal is not None:
            lines.append(elide(instruction.literal, _NAME_WIDTH))
        return lines

    def _several(self, path: Path, rows: list[int]) -> list[str]:
        shapes = {self._shape(row) for row in rows}
        if len(shapes) == 1 and len({int(self.module.opcode[row]) for row in rows}) == 1:
            opcode = self.module.instruction(rows[0]).opcode
            name = self.names.get(rows[0]) or opcode
            return [f"{elide(name, _NAME_WIDTH)}  ×{len(rows)}", opcode, *shapes]
        counts = folding.commonest(self.module, rows)
        return [elide(path[-1], _NAME_WIDTH), f"{format_count(len(rows))} instructions", counts]

    def _shape(self, row: int) -> str:
        shape = self.module.shapes[self.module.shape[row]].without_layout()
        return elide(str(shape), _SHAPE_WIDTH)

    def _tooltip(self, rows: list[int]) -> str:
        lines = []
        for row in rows[:3]:
            instruction = self.module.instruction(row)
            lines.append(f"%{instruction.name} {elide(instruction.op_name, 120)}".rstrip())
            stack = instruction.source
            own = user_frame(stack)
            frames = dict.fromkeys([own, *stack[:2]]) if own is not None else {}
            lines += [f"  {short_frame(frame)}" for frame in frames]
        if len(rows) > 3:
            lines.append(f"and {len(rows) - 3} more")
        return "\n".join(clean(line) for line in lines)

    def _share(self, rows: list[int]) -> float:
        if self.cost is None or not self.cost.total_seconds:
            return 0.0
        spent = float((self.cost.seconds[rows] * self.cost.executions[rows]).sum())
        return spent / self.cost.total_seconds

    def _kind(self, rows: list[int]) -> str:
        """The most telling kind among the instructions: one matmul makes a node a matmul."""
        found = {instruction_kind(self.module, row) for row in rows}
        return next(kind for kind in FILL if kind in found)

    def _legend(self) -> list[tuple[str, str]]:
        if self.colour == "kind":
            return [(kind, fill) for kind, fill in FILL.items() if self.kinds[kind]]
        shares = (0.0, 0.01, 0.05, 0.25)
        return [(f"{share:.0%} of the time", heat(share)) for share in shares]

    # ---- edges and clusters

    def _edges(self, drawing: Drawing, plain: Plain, number: dict[int, int]) -> None:
        values: dict[tuple[int, int], set[int]] = defaultdict(set)
        for a, b in (*plain.edges, *plain.loops):
            if number[a] != number[b]:
                values[number[a], number[b]].add(a)
        for pair, makers in sorted(values.items()):
            shapes = [self.module.shapes[self.module.shape[row]] for row in makers]
            # which member of a loop's state flows is not known any more
            size = sum(shape.bytes for shape in shapes if not shape.is_tuple)
            drawing.edges[pair] = (len(makers), size)
        # layers drawn once make what flows from one to the next go back
        drawing.loops |= {(a, b) for a, b in drawing.edges if a > b}
        drawing.loops |= {(number[a], number[b]) for a, b in plain.loops}

    def _clusters(self, paths: list[Path]) -> dict[Path, Path]:
        """Where each node stands: in its computation's callers, then in scopes it shares."""
        shared: Counter[Path] = Counter()
        for path in paths:
            shared.update(scope for scope in _above(path) if scope in self.scopes)
        homes = {
            self.module.computation_names[c]: self._home(c) for c in self.selection.computations
        }
        out = {}
        for path in paths:
            inner = [scope for scope in _above(path) if shared[scope] > 1]
            # a scope that holds nothing but another scope is no news
            telling = [
                scope
                for scope, deeper in itertools.pairwise(inner)
                if shared[deeper] < shared[scope]
            ] + inner[-1:]
            out[path] = (*homes[path[0]], *("/".join(scope[1:]) for scope in telling[:_NESTED]))
        return out

    def _home(self, computation: int) -> Path:
        caller = self.selection.caller.get(computation)
        if caller is None:
            return ()
        above = self._home(int(self.module.computation_of[caller]))
        return (*above, f"%{self.module.computation_names[computation]}")

    def _titles(self, clusters: object, layers: dict[str, int]) -> dict[Path, str]:
        titles: dict[Path, str] = {}
        by_name = {f"%{self.module.computation_names[c]}": c for c in self.selection.computations}
        for cluster in clusters:  # type: ignore[attr-defined]
            for depth in range(1, len(cluster) + 1):
                path = cluster[:depth]
                name = path[-1]
                if name in by_name:
                    titles[path] = self._body_title(by_name[name])
                else:
                    above = path[-2] + "/" if depth > 1 else ""
                    short = name.removeprefix(above)
                    count = max((layers.get(part, 0) for part in short.split("/")), default=0)
                    titles[path] = clean(elide(short, 60) + (f"  ×{count}" if count else ""))
        return titles

    def _body_title(self, computation: int) -> str:
        caller = self.module.instruction(self.selection.caller[computation])
        trips = caller.attributes.get("backend_config", "").partition("known_trip_count")[2]
        number = "".join(char for char in trips.partition("}")[0] if char.isdigit())
        runs = f", {number} times" if caller.opcode == "while" and number else ""
        alike = self.same[computation]
        also = f"  ×{alike}" if alike > 1 else ""
        return clean(f"{caller.opcode} %{elide(caller.name, _NAME_WIDTH)}{runs}{also}")


def _above(path: Path) -> list[Path]:
    """The branches that a tree node is in, outermost first."""
    return [path[:depth] for depth in range(2, len(path))]
