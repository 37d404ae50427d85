"""The buffers of a walk: one row per set of leaves that share memory."""

from __future__ import annotations

import numpy as np

from hlo_lab.cost.values import Walk
from hlo_lab.ir.module import Ints, Module

KINDS = ("temporary", "constant", "output", "argument")
TEMPORARY, CONSTANT, OUTPUT, ARGUMENT = range(4)
DEVICE_SPACE = 0  # XLA's default memory; S(1) is VMEM on a TPU, S(5) the host


class Buffers:
    """Rows of buffers in device memory, in order of their first leaf.

    Attributes:
        row: int64[leaves], each leaf's buffer.
        bytes, start, end, kind, instruction: int64[B]; a buffer outside device memory has
            0 bytes. ``instruction`` is the one that defines the first leaf.
        first_leaf: int64[B].
        reusable: buffers whose idle times temporaries may use: outputs, and arguments
            donated to one; use_row, use_start, use_end: when they are in use.
        argument_bytes, output_bytes, alias_bytes: see ``MemoryProfile``.
    """

    def __init__(self, module: Module, walk: Walk):
        leaf_bytes = np.array(walk.size, np.int64)
        leaf_bytes[np.array(walk.space, np.int64) != DEVICE_SPACE] = 0
        roots = _roots(walk.parent)
        _, self.first_leaf, self.row = np.unique(roots, return_index=True, return_inverse=True)
        count = len(self.first_leaf)
        self.bytes = np.zeros(count, np.int64)
        np.maximum.at(self.bytes, self.row, leaf_bytes)
        owner = np.array(walk.owner, np.int64)
        # a buffer is where its first leaf is
        outside = np.array(walk.space, np.int64)[self.first_leaf] != DEVICE_SPACE
        self.bytes[outside] = 0
        self.instruction = owner[self.first_leaf]
        self.start = np.full(count, len(walk.at_time), np.int64)
        np.minimum.at(self.start, self.row, np.array(walk.start, np.int64))
        self.end = np.zeros(count, np.int64)
        np.maximum.at(self.end, self.row, np.array(walk.end, np.int64))
        self.kind = np.full(count, TEMPORARY, np.int64)
        constants = module.opcode_mask("constant")[owner]
        self.kind[self.row[constants]] = CONSTANT
        results = walk.results
        self.kind[self.row[results]] = OUTPUT
        arguments = [
            leaf
            for at in range(
                int(module.computation_start[module.entry]),
                int(module.computation_start[module.entry + 1]),
            )
            if module.parameter_number[at] >= 0
            for leaf in walk.leaves_of(at)
        ]
        self.kind[self.row[arguments]] = ARGUMENT
        self.argument_bytes = int(leaf_bytes[arguments].sum())
        self.output_bytes = int(leaf_bytes[results].sum())
        self._uses(walk, arguments)
        aliased = [leaf for leaf in results if self.kind[self.row[leaf]] == ARGUMENT]
        self.alias_bytes = int(leaf_bytes[aliased].sum())

    def _uses(self, walk: Walk, arguments: list[int]) -> None:
        """When outputs and donated arguments are in use, as rows of (buffer, start, end)."""
        roots = _roots(walk.undonated)
        held, first, number = np.unique(roots, return_index=True, return_inverse=True)
        start = np.full(len(held), len(walk.at_time), np.int64)
        np.minimum.at(start, number, np.array(walk.start, np.int64))
        end = np.zeros(len(held), np.int64)
        np.maximum.at(end, number, np.array(walk.end, np.int64))
        start[number[arguments]] = 0
        kind = self.kind[self.row[first]]
        outputs = np.zeros(len(self.bytes), np.bool_)
        outputs[self.row[walk.results]] = True
        resident = outputs[self.row[first]] & (kind != CONSTANT)
        self.use_row, self.use_start, self.use_end = (
            self.row[first][resident], start[resident], end[resident]
        )  # fmt: skip
        self.reusable = np.unique(self.use_row)


def _roots(parent: list[int]) -> Ints:
    """Each leaf's representative."""
    roots = np.array(parent, np.int64)
    while True:
        further = roots[roots]
        if np.array_equal(further, roots):
            return roots
        roots = further
