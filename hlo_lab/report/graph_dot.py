"""A drawing as DOT source."""

from __future__ import annotations

from typing import Any

import graphviz

from hlo_lab.report.graph import Drawing, Node
from hlo_lab.report.graph_fold import Path
from hlo_lab.report.names import clean

_FONT = "Helvetica"
_CLUSTER_FILLS = ("#f7f7f7", "#eeeeee", "#f7f7f7", "#eeeeee")


def to_dot(drawing: Drawing) -> str:
    """DOT source; every name is escaped, so none can add attributes or markup."""
    title = "\n".join([drawing.title, *drawing.notes])
    dot = graphviz.Digraph(
        "hlo",
        graph_attr={
            "label": _text(title),
            "labelloc": "t",
            "labeljust": "l",
            "fontname": _FONT,
            "fontsize": "16",
            "compound": "true",
            "nodesep": "0.2",
            "ranksep": "0.35",
            "rankdir": "TB",
            "bgcolor": "white",
        },
        node_attr={
            "shape": "box",
            "style": "filled,rounded",
            "fontname": _FONT,
            "fontsize": "10",
            "height": "0.3",
            "margin": "0.08,0.04",
            "color": "#555555",
        },
        edge_attr={"color": "#777777", "arrowsize": "0.6"},
    )
    inside: dict[Path, list[int]] = {}
    below: dict[Path, list[Path]] = {}
    for number, node in enumerate(drawing.nodes):
        inside.setdefault(node.cluster, []).append(number)
        for depth in range(1, len(node.cluster) + 1):
            siblings = below.setdefault(node.cluster[: depth - 1], [])
            if node.cluster[:depth] not in siblings:
                siblings.append(node.cluster[:depth])
    _fill(dot, drawing, (), inside, below, [0])
    for (a, b), count in drawing.edges.items():
        dot.edge(f"n{a}", f"n{b}", **_edge(drawing, (a, b), count))
    _legend(dot, drawing)
    return str(dot.source)


def _fill(
    dot: graphviz.Digraph,
    drawing: Drawing,
    path: Path,
    inside: dict[Path, list[int]],
    below: dict[Path, list[Path]],
    number: list[int],
) -> None:
    for index in inside.get(path, ()):
        dot.node(f"n{index}", **_node(drawing.nodes[index]))
    for child in below.get(path, ()):
        number[0] += 1
        with dot.subgraph(name=f"cluster_{number[0]}") as cluster:
            cluster.attr(
                label=_text(drawing.titles[child]),
                style="filled,rounded",
                fillcolor=_CLUSTER_FILLS[len(path) % len(_CLUSTER_FILLS)],
                color="#aaaaaa",
                fontsize="11",
                tooltip=_text(child[-1]),
            )
            _fill(cluster, drawing, child, inside, below, number)


def _node(node: Node) -> dict[str, Any]:
    out = {
        "label": _text("\n".join(node.lines)),
        "tooltip": _text(node.tooltip),
        "fillcolor": node.fill,
    }
    if node.output:
        out["penwidth"] = "2.5"
    if node.several:
        out["peripheries"] = "2"
    return out


def _edge(drawing: Drawing, pair: tuple[int, int], count: int) -> dict[str, Any]:
    a, b = (_text(drawing.nodes[end].lines[0]) for end in pair)
    out = {"tooltip": f"{a} -> {b}" + (f", {count} values" if count > 1 else "")}
    if count > 1:
        out["penwidth"] = f"{min(1 + 0.4 * count**0.5, 4):.1f}"
    if pair in drawing.loops:
        out |= {"style": "dashed", "constraint": "false", "color": "#9467bd"}
    return out


def _legend(dot: graphviz.Digraph, drawing: Drawing) -> None:
    """One row of coloured boxes below the drawing."""
    with dot.subgraph(name="cluster_legend") as legend:
        legend.attr(label="", color="#cccccc", style="rounded")
        entries = [*drawing.legend]
        for number, (text, fill) in enumerate(entries):
            legend.node(f"legend{number}", label=_text(text), fillcolor=fill, tooltip=_text(text))
        if any(node.several for node in drawing.nodes):
            legend.node(
                "legend_several", label="several in one", peripheries="2", fillcolor="white"
            )
        if any(node.output for node in drawing.nodes):
            legend.node("legend_output", label="output", penwidth="2.5", fillcolor="white")


def _text(text: str) -> Any:
    """A label that shows ``text`` as it stands: no escapes, no markup, line breaks kept."""
    lines = (clean(line).replace("\\", "\\\\") for line in text.split("\n"))
    return graphviz.nohtml("\\n".join(lines))
