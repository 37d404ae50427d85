"""Values: arrays that instructions define, when they live, and which share a buffer."""

from __future__ import annotations

from dataclasses import dataclass

from hlo_lab.ir.shapes import Shape


@dataclass
class Layout:
    """The leaves of one distinct shape: padded bytes, memory space, first leaf per member.

    ``padding`` is the part of ``bytes`` that holds no data. ``tiled`` is true when a leaf's
    layout has tiles, as only XLA:TPU gives them.
    """

    bytes: list[int]
    padding: list[int]
    spaces: list[int]
    members: list[int]
    tiled: bool

    @classmethod
    def of(cls, shape: Shape) -> Layout:
        leaves = [leaf for _, leaf in shape.leaves()]
        members = [0]
        for element in shape.elements:
            members.append(members[-1] + sum(1 for _ in element.leaves()))
        return cls(
            [leaf.padded_bytes for leaf in leaves],
            [leaf.padded_bytes - leaf.bytes for leaf in leaves],
            [leaf.memory_space for leaf in leaves],
            members,
            any(leaf.tile for leaf in leaves),
        )


def member(shape: Shape, path: tuple[int, ...]) -> tuple[int, int]:
    """(first leaf, number of leaves) of the member of a shape at ``path``.

    Raises:
        IndexError: the shape has no such member.
    """
    offset = 0
    for number in path:
        offset += sum(1 for element in shape.elements[:number] for _ in element.leaves())
        shape = shape.elements[number]
    return offset, sum(1 for _ in shape.leaves())


class Values:
    """Columns over values, and a union-find of those that share a buffer.

    Attributes:
        owner: the instruction that defines each value.
        size, padding, space: its padded bytes, those that hold no data, its memory space.
        start, end: time of its definition and of its last use.
        parent: the union-find.
    """

    def __init__(self) -> None:
        self.owner: list[int] = []
        self.size: list[int] = []
        self.padding: list[int] = []
        self.space: list[int] = []
        self.start: list[int] = []
        self.end: list[int] = []
        self.parent: list[int] = []

    def define(self, owner: int, layout: Layout, time: int) -> list[int]:
        """New values, one for each leaf of a shape."""
        first, count = len(self.owner), len(layout.bytes)
        self.owner += [owner] * count
        self.size += layout.bytes
        self.padding += layout.padding
        self.space += layout.spaces
        self.start += [time] * count
        self.end += [time] * count
        out = list(range(first, first + count))
        self.parent += out
        return out

    def drop(self, values: list[int]) -> None:
        """Values that stand for nothing after all."""
        for value in values:
            self.size[value] = self.padding[value] = 0

    def use(self, values: list[int], time: int) -> None:
        """Values live until ``time`` at least; calls come in order of time."""
        end = self.end
        for value in values:
            end[value] = time

    def find(self, value: int) -> int:
        """The value that stands for its buffer."""
        parent = self.parent
        while parent[value] != value:
            parent[value] = parent[parent[value]]
            value = parent[value]
        return value

    def unite(self, some: list[int], others: list[int]) -> None:
        """Give values the same buffers, pair by pair; what is left over stays apart."""
        for one, other in zip(some, others, strict=False):
            self.parent[self.find(one)] = self.find(other)
