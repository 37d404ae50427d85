"""Which results must live in an operand's buffer, and which may.

Read from the HLO as XLA's buffer assignment reads it: in-place pairs are those of
``HloDataflowAnalysis::GetInPlaceInputOutputPairs``, sharing that of
``CanShareOperandBufferWithUser`` (xla/hlo/analysis/hlo_dataflow_analysis.cc).
"""

from __future__ import annotations

import re
from functools import cached_property

import numpy as np

from hlo_lab.cost.flops import ELEMENTWISE, TRANSCENDENTAL
from hlo_lab.cost.tables import Bools, attributes_at, shape_at
from hlo_lab.ir.module import Module

Path = tuple[int, ...]
# (path in the result, operand number, path in the operand)
Pair = tuple[Path, int, Path]

_ALIASING = re.compile(r"\{([\d, ]*)\}:\s*\((\d+),\s*\{([\d, ]*)\}")
_DONOR = re.compile(r"\((\d+),")
# XLA:TPU fetches an array in slices that it puts one after the other, and calls them one array
_JOINED = "ConcatBitcast"
_PASSED_ON = frozenset(("copy", "bitcast", "tuple"))


def parse_aliases(text: str) -> list[Pair]:
    """Read ``{ {0}: (1, {}, may-alias) }``, as input_output_alias and custom calls print it."""
    return [(_path(a), int(number), _path(b)) for a, number, b in _ALIASING.findall(text)]


def donated(module: Module) -> set[int]:
    """Numbers of the entry's parameters whose buffers the program may write over."""
    aliases = parse_aliases(module.header.get("input_output_alias", ""))
    donors = _DONOR.findall(module.header.get("buffer_donor", ""))
    return {number for _, number, _ in aliases} | {int(number) for number in donors}


def _path(text: str) -> Path:
    return tuple(int(part) for part in text.split(",") if part.strip())


class Aliasing:
    """In-place pairs and sharing in one module, remembered per fused computation."""

    def __init__(self, module: Module):
        self.module = module
        # lists, as one element of an array takes several times as long
        self._operand = module.operand.tolist()
        self._operand_start = module.operand_start.tolist()
        self._attribute = module.attribute.tolist()
        self._shape = module.shape.tolist()
        self._in_place: dict[int, list[Pair]] = {}
        self._shared: dict[int, dict[int, bool]] = {}
        self._from_attribute: dict[int, list[Pair]] = {}

    def operands(self, at: int) -> list[int]:
        taken: list[int] = self._operand[self._operand_start[at] : self._operand_start[at + 1]]
        return taken

    def in_place(self, at: int, opcode: str) -> list[Pair]:
        """Results of ``at`` that live in an operand's buffer."""
        pairs = self._attribute_pairs(at)
        if opcode == "dynamic-update-slice":
            return [*pairs, ((), 0, ())]
        if opcode == "scatter":
            arrays = len(self.operands(at)) // 2
            if arrays <= 1:
                return [*pairs, ((), 0, ())]
            return [*pairs, *(((number,), number, ()) for number in range(arrays))]
        if opcode == "fusion":
            body = self.body(at)
            if body is not None:
                if body not in self._in_place:
                    self._in_place[body] = list(self._fusion_pairs(body))
                return pairs + self._in_place[body]
        if opcode == "custom-call" and self._target(at) == _JOINED:
            return [*pairs, *(((), number, ()) for number in range(len(self.operands(at))))]
        return pairs

    def _target(self, at: int) -> str:
        """Of a custom call, its target."""
        text = attributes_at(self.module, self._attribute[at]).get("custom_call_target", "")
        return text.strip('"')

    def body(self, at: int) -> int | None:
        first = self.module.callee_start[at]
        return int(self.module.callee[first]) if first < self.module.callee_start[at + 1] else None

    def _attribute_pairs(self, at: int) -> list[Pair]:
        number: int = self._attribute[at]
        if number not in self._from_attribute:
            text = attributes_at(self.module, number).get("output_to_operand_aliasing", "")
            self._from_attribute[number] = parse_aliases(text)
        return self._from_attribute[number]

    def _fusion_pairs(self, body: int) -> list[Pair]:
        """Roots that update a parameter in place, seen through bitcasts."""
        module = self.module
        root = int(module.computation_root[body])
        opcode = self._opcode(root)
        leaves: list[tuple[Path, int]] = [((), root)]
        if opcode == "tuple":
            leaves = [((n,), leaf) for n, leaf in enumerate(self.operands(root))]
        pairs: list[Pair] = []
        for path, leaf in leaves:
            update = self._behind_bitcasts(leaf)
            if self._opcode(update) in ("dynamic-update-slice", "scatter"):
                target = self._behind_bitcasts(self.operands(update)[0])
                number = int(module.parameter_number[target])
                if number >= 0:
                    pairs.append((path, number, ()))
        return pairs

    def _opcode(self, at: int) -> str:
        return str(self.module.opcodes[self.module.opcode[at]])

    def _behind_bitcasts(self, at: int) -> int:
        while self._opcode(at) == "bitcast":
            source = self.operands(at)[:1]
            if not source or source[0] >= at:  # operands come first, but for hostile files
                break
            at = source[0]
        return at

    @cached_property
    def elementwise(self) -> Bools:
        """bool[N]: computes each result element from the operands' elements at its index."""
        return self.module.opcode_mask(*ELEMENTWISE, *TRANSCENDENTAL, "copy", "map")

    @cached_property
    def _freely(self) -> list[bool]:
        """Per instruction: its result may overwrite any of its operands."""
        found: list[bool] = (self.elementwise | self.module.opcode_mask("sort")).tolist()
        return found

    def may_share(self, at: int, number: int) -> bool:
        """Whether the result of ``at`` may overwrite operand ``number`` when it dies there."""
        if not self._same_order(at, number):
            return False
        if self._freely[at]:
            return True
        body = self.body(at) if self._opcode(at) == "fusion" else None
        if body is None:
            return False
        if body not in self._shared:
            self._shared[body] = self._used_elementwise(body)
        return self._shared[body].get(number, False)

    def _same_order(self, at: int, number: int) -> bool:
        """Whether elements of an operand and of a result lie in the same places.

        A copy to another layout is elementwise, and reads what it would overwrite.
        """
        given = shape_at(self.module, self._shape[self.operands(at)[number]])
        results = shape_at(self.module, self._shape[at])
        return any(
            leaf.dims != given.dims
            or not (leaf.layout and given.layout)
            or (leaf.minor_to_major == given.minor_to_major and leaf.tile == given.tile)
            for _, leaf in results.leaves()
        )

    def _used_elementwise(self, body: int) -> dict[int, bool]:
        """By parameter: all its uses, and those of what is computed from it, are elementwise.

        One pass from the results backwards, as a fusion may have hundreds of parameters.
        """
        module = self.module
        first, last = (int(at) for at in module.computation_start[body : body + 2])
        elementwise = self.elementwise[first:last].tolist()
        used_so = [True] * (last - first)
        for row in range(last - first - 1, -1, -1):
            at = first + row
            if used_so[row] and (elementwise[row] or self._opcode(at) in _PASSED_ON):
                continue
            for operand in self.operands(at):
                if first <= operand < at:  # they come first, but for hostile files
                    used_so[operand - first] = False
        numbers = module.parameter_number[first:last]
        rows = np.nonzero(numbers >= 0)[0].tolist()
        return {int(numbers[row]): used_so[row] for row in rows}
