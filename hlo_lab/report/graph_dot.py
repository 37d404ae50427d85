"""A drawing as DOT source."""

from __future__ import annotations

import html
from typing import Any

import graphviz

from hlo_lab.report.graph import Drawing, Node
from hlo_lab.report.graph_fold import Path
from hlo_lab.report.names import clean
from hlo_lab.report.units import format_bytes

_FONT = "Helvetica"
_SMALL = 1024  # bytes: loop counters and random keys, not the data of a program
_CLUSTER_FILLS = ("#f7f7f7", "#eeeeee", "#f7f7f7", "#eeeeee")


def to_dot(drawing: Drawing) -> str:
    """DOT source; every name is escaped, so none can add attributes or markup."""
    dot = graphviz.Digraph(
        "hlo",
        graph_attr={
            "label": _heading(drawing),
            "labelloc": "t",
            "labeljust": "l",
            "fontname": _FONT,
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
    for a, b in drawing.edges:
        if a < b or (b, a) not in drawing.edges:
            dot.edge(f"n{a}", f"n{b}", **_edge(drawing, (a, b)))
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
    if node.centre:
        out |= {"penwidth": "3", "color": "#d62728"}
    if node.several:
        out["peripheries"] = "2"
    return out


def _edge(drawing: Drawing, pair: tuple[int, int]) -> dict[str, Any]:
    """Wide for many bytes, pale for a few, dashed where it goes back to an earlier node."""
    count, size = drawing.edges[pair]
    a, b = (_text(drawing.nodes[end].lines[0]) for end in pair)
    amounts = [f"{count} values"] if count > 1 else []
    amounts += [format_bytes(size)] if size else []
    out = {"tooltip": graphviz.nohtml(f"{a} to {b}: {', '.join(amounts) or 'a tuple'}")}
    most = max(bytes_ for _, bytes_ in drawing.edges.values()) or 1
    if 0 < size < _SMALL:
        out |= {"color": "#cccccc", "penwidth": "0.7"}
    else:
        out["penwidth"] = f"{1 + 2 * (size / most) ** 0.5:.1f}"
    if (pair[1], pair[0]) in drawing.edges:
        out["dir"] = "both"
    elif pair in drawing.loops:
        out |= {"style": "dashed", "constraint": "false", "color": "#b39ddb"}
    return out


def _heading(drawing: Drawing) -> str:
    """Title, notes and legend as one table above the drawing, at its left."""
    lines = [f'<b><font point-size="16">{_markup(drawing.title)}</font></b>']
    lines += [_markup(note) for note in drawing.notes]
    rows = [f'<tr><td align="left">{line}</td></tr>' for line in lines]
    cells = [f'<td bgcolor="{fill}">{_markup(text)}</td>' for text, fill in drawing.legend]
    signs = [
        ("double border: several drawn as one", any(node.several for node in drawing.nodes)),
        ("red border: the instruction asked for", any(node.centre for node in drawing.nodes)),
        ("thick border: output", any(node.output for node in drawing.nodes)),
        ("dashed: to the next round or layer", bool(drawing.loops)),
    ]
    cells += [f"<td>{text}</td>" for text, used in signs if used]
    legend = f'<table border="0" cellspacing="3" cellpadding="4"><tr>{"".join(cells)}</tr></table>'
    rows.append(f'<tr><td align="left">{legend}</td></tr>')
    return f'<<table border="0" cellspacing="1">{"".join(rows)}</table>>'


def _markup(text: str) -> str:
    return html.escape(clean(text))


def _text(text: str) -> Any:
    """A label that shows ``text`` as it stands: no escapes, no markup, line breaks kept."""
    lines = (clean(line).replace("\\", "\\\\") for line in text.split("\n"))
    return graphviz.nohtml("\\n".join(lines))
