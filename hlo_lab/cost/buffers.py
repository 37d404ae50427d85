"""The buffers of a walk: one row per set of values that share memory."""

from __future__ import annotations

import numpy as np

from hlo_lab.cost.tables import Bools
from hlo_lab.cost.walk import Walk
from hlo_lab.ir.module import Ints, Module

KINDS = ("temporary", "constant", "output", "argument")
TEMPORARY, CONSTANT, OUTPUT, ARGUMENT = range(4)
DEVICE_SPACE = 0  # XLA's default memory; S(1) is VMEM on a TPU, S(5) the host


class Buffers:
    """Rows of buffers, in order of the value that stands for them.

    Attributes:
        row: int64[V], each value's buffer.
        value_start, value_end: int64[V], first and last time of each value.
        bytes: int64[B]; 0 for a buffer outside device memory.
        padding: int64[B], the part of ``bytes`` that tiles add to the largest value in it.
        kind: int64[B], an index into ``KINDS``; instruction: the one that defines the
            first value.
        host: bool[B], whether temporaries may use it while it is idle: outputs, and arguments
            donated to one; none in a module for a TPU.
        argument_bytes, output_bytes, alias_bytes: see ``MemoryProfile``.
    """

    def __init__(self, module: Module, walk: Walk):
        values = walk.values
        size, owner = np.array(values.size, np.int64), np.array(values.owner, np.int64)
        outside = np.array(values.space, np.int64) != DEVICE_SPACE
        size[outside] = 0
        _, first, self.row = np.unique(
            _representatives(values.parent), return_index=True, return_inverse=True
        )
        self.value_start = np.array(values.start, np.int64)
        self.value_end = np.array(values.end, np.int64)
        self.value_start[walk.arguments] = 0
        self.bytes = np.zeros(len(first), np.int64)
        np.maximum.at(self.bytes, self.row, size)
        self.bytes[outside[first]] = 0
        data = np.zeros(len(first), np.int64)
        np.maximum.at(data, self.row, size - np.where(outside, 0, np.array(values.padding)))
        self.padding = np.maximum(self.bytes - data, 0)
        self.instruction = owner[first]
        self.kind = np.full(len(first), TEMPORARY, np.int64)
        self.kind[self.row[module.opcode_mask("constant")[owner]]] = CONSTANT
        self.kind[self.row[walk.results]] = OUTPUT
        self.kind[self.row[walk.arguments]] = ARGUMENT
        self.host: Bools = self.kind == OUTPUT
        donated = [argument for _, argument in walk.donated]
        self.host[self.row[donated]] = True
        if any(layout.tiled for layout in walk.layouts):
            # XLA:TPU keeps temporaries out of them
            self.host[:] = False
        self.argument_bytes = int(size[walk.arguments].sum())
        self.output_bytes = int(size[walk.results].sum())
        own = int(self.bytes[self.kind == OUTPUT].sum())
        self.alias_bytes = self.output_bytes - own


def _representatives(parent: list[int]) -> Ints:
    """The root of each value in a union-find."""
    roots = np.array(parent, np.int64)
    while True:
        further = roots[roots]
        if np.array_equal(further, roots):
            return roots
        roots = further
