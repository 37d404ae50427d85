"""Where a group of nodes is: names, source lines and op_names, for people to read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import PurePath

from hlo_lab.diff.flatten import FlatGraph
from hlo_lab.diff.result import Side
from hlo_lab.ir.source import Frame, user_frame

MOST = 8  # names and source lines kept per side of a change
_LOOKED_AT = 200  # nodes of a group whose source stacks are read
_HOPS = 4  # from a constant through broadcasts to what uses it


def side(graph: FlatGraph, nodes: Sequence[int]) -> Side:
    """The first names and source lines of ``nodes``."""
    module = graph.module
    instructions = [int(graph.instruction[node]) for node in nodes[:_LOOKED_AT]]
    lines: dict[Frame, None] = {}
    op_name = ""
    for at in instructions:
        frame = user_frame(module.source_stack(at))
        if frame is not None:
            lines.setdefault(frame)
        op_name = op_name or module.metadatas[module.metadata[at]].op_name
    names = tuple(module.instruction_names[at] for at in instructions[:MOST])
    return Side(names, tuple(lines)[:MOST], op_name)


def first_line(graph: FlatGraph, node: int) -> str:
    """``file:line`` of a node, else its op_name, else nothing."""
    at = int(graph.instruction[node])
    frame = user_frame(graph.module.source_stack(at))
    if frame is not None:
        return short(frame)
    op_name: str = graph.module.metadatas[graph.module.metadata[at]].op_name
    return op_name


def short(frame: Frame) -> str:
    """``model.py:12``, without the folders of an absolute path."""
    path = PurePath(frame.file)
    return f"{path.name if path.is_absolute() else frame.file}:{frame.line}"


def user_lines(graph: FlatGraph, nodes: Sequence[int]) -> tuple[Frame, ...]:
    """Where ``nodes`` are used: for each the nearest user that has a source line."""
    start, users, _ = graph.users
    lines: dict[Frame, None] = {}
    for node in nodes[:MOST]:
        reached = [node]
        for _hop in range(_HOPS):
            reached = [
                user for at in reached for user in users[start[at] : start[at + 1]].tolist()
            ][:_LOOKED_AT]  # fmt: skip
            found = (
                user_frame(graph.module.source_stack(int(graph.instruction[user])))
                for user in reached
            )
            frame = next((frame for frame in found if frame is not None), None)
            if frame is not None:
                lines.setdefault(frame)
                break
    return tuple(lines)


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
