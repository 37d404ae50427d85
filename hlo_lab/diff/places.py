"""Where a group of nodes is: names, source lines and op_names, for people to read."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence

from hlo_lab.diff.flatten import FlatGraph
from hlo_lab.diff.result import Side
from hlo_lab.ir.module import Module
from hlo_lab.ir.source import Frame

MOST = 8  # names and source lines kept per side of a change
_LIBRARY = re.compile(r"(?:^|[/\\])(?:site-packages|dist-packages|lib[/\\]python\d)")
_LOOKED_AT = 200  # nodes of a group whose source stacks are read


def side(graph: FlatGraph, nodes: Sequence[int]) -> Side:
    """The first names and source lines of ``nodes``."""
    module = graph.module
    instructions = [int(graph.instruction[node]) for node in nodes[:_LOOKED_AT]]
    lines: dict[Frame, None] = {}
    op_name = ""
    for at in instructions:
        frame = _own_line(module, at)
        if frame is not None:
            lines.setdefault(frame)
        op_name = op_name or module.metadatas[module.metadata[at]].op_name
    names = tuple(module.instruction_names[at] for at in instructions[:MOST])
    return Side(names, tuple(lines)[:MOST], op_name)


def first_line(graph: FlatGraph, node: int) -> str:
    """``file:line`` of a node, else its op_name, else nothing."""
    at = int(graph.instruction[node])
    frame = _own_line(graph.module, at)
    if frame is not None:
        return f"{frame.file}:{frame.line}"
    op_name: str = graph.module.metadatas[graph.module.metadata[at]].op_name
    return op_name


def _own_line(module: Module, at: int) -> Frame | None:
    """The innermost source line outside installed packages, else the innermost of all."""
    stack = module.source_stack(at)
    own = (frame for frame in stack if not _LIBRARY.search(frame.file))
    return next(own, stack[0] if stack else None)


def histogram(opcodes: Iterable[str], most: int = 4) -> str:
    """``2 dot, 1 add and 3 more``, the most frequent first."""
    counts = Counter(opcodes).most_common()
    shown = ", ".join(f"{count} {opcode}" for opcode, count in counts[:most])
    rest = sum(count for _, count in counts[most:])
    return shown + (f" and {rest} more" if rest else "")


def operations(count: int) -> str:
    """``1 operation``, ``2 operations``."""
    return "1 operation" if count == 1 else f"{count} operations"


def times(repeats: int) -> str:
    return f" (x {repeats})" if repeats > 1 else ""
