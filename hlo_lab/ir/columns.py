"""The columns of a module as the text reader fills them, and edges as compressed rows."""

from __future__ import annotations

import re
from array import array
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import accumulate
from pathlib import Path
from typing import NoReturn

import numpy as np

from hlo_lab.errors import ReadError
from hlo_lab.ir.attributes import parse_attributes, split_top_level
from hlo_lab.ir.module import ROLES, Ints, Module, compressed_rows
from hlo_lab.ir.reading import NAME, as_ints, guarded, numbering
from hlo_lab.ir.shapes import Shape
from hlo_lab.ir.source import StackFrames, parse_metadata
from hlo_lab.ir.table import LazyTable
from hlo_lab.ir.tails import Tails

_COMMENT = re.compile(r"/\*.*?\*/")
_SIGIL_NAME = re.compile(rf"%{NAME}")
_LAST_NAME = re.compile(rf"({NAME})\s*$")
_LEAVES = frozenset(("parameter", "constant"))
_BATCH = 4096  # instructions turned into columns at once


class Columns:
    """The growing columns of one module; ``module()`` turns them into arrays."""

    def __init__(self, path: str | Path | None):
        self.path = path
        self.name = ""
        self.header: dict[str, str] = {}
        self.frames = StackFrames()
        self.warnings: list[str] = []
        self.computation_names: list[str] = []
        self._computation_set: set[str] = set()
        self.threads: dict[int, str] = {}
        self.entry = -1
        self._computation_start = [0]
        self._computation_root: list[int] = []
        self._names: list[str] = []
        self._opcodes: dict[str, int] = numbering()
        self._opcode = array("q")
        self._shapes: dict[str, int] = numbering()
        self._shape = array("q")
        self._tails = Tails()
        self._tail = array("q")
        self._operand_count = array("q")
        self._operand = array("q")
        self._controls: list[tuple[int, int]] = []
        self._callees: list[tuple[int, str, str]] = []
        self._parameter_numbers: dict[int, int] = {}
        self._literals: dict[int, str] = {}
        self._rows: list[tuple[str, ...]] = []  # that are not in columns yet
        self._waiting: list[tuple[int, int]] = []  # (row count, last line) of closed computations
        self._open_from = 0  # first instruction of the open computation
        self._resolved = 0  # instructions whose operands are in columns
        # of the instructions after those, by name as the text has them
        self._raw_names: list[str] = []
        self._arguments: list[str] = []
        self._open_controls: list[tuple[int, str]] = []
        self._marked: list[int] = []  # the ROOT instructions

    def fail(self, message: str) -> NoReturn:
        raise ReadError(message, self.path)

    # ---- computations

    @property
    def open_count(self) -> int:
        """Instructions of the open computation."""
        return len(self._names) + len(self._rows) - self._open_from

    def open(self, name: str, is_entry: bool) -> None:
        if is_entry:
            self.entry = len(self.computation_names)
        if name in self._computation_set:
            self.fail(f"two computations are named {name[:60]!r}")
        self._computation_set.add(name)
        self.computation_names.append(name)

    def drop_open(self) -> None:
        """Forget the open computation, which has no instruction."""
        self.computation_names.pop()
        if self.entry == len(self.computation_names):
            self.entry = -1

    def add_rows(self, rows: Sequence[tuple[str, ...]]) -> None:
        """Append instructions: (root, name, shape, opcode, arguments, attributes) each."""
        for low in range(0, len(rows), _BATCH):
            self._rows += rows[low : low + _BATCH]
            if len(self._rows) > _BATCH:
                self._drain()

    def close(self, line: int) -> None:
        self._waiting.append((self.open_count, line))
        self._open_from += self.open_count
        if len(self._names) > self._resolved:
            self._resolve()

    # ---- from rows to columns, a batch at a time

    def _drain(self) -> None:
        """Move rows into columns; names and operands wait until their computation closes."""
        if not self._rows:
            return
        roots, names, shapes, opcodes, arguments, rests = zip(*self._rows, strict=True)
        first = len(self._names)
        self._names += [name.removeprefix("%") for name in names]
        self._shape.extend(map(self._shapes.__getitem__, shapes))
        self._opcode.extend(map(self._opcodes.__getitem__, opcodes))
        self._add_tails(rests, first)
        if "parameter" in opcodes or "constant" in opcodes:
            arguments = self._take_leaves(first, opcodes, arguments)
        self._raw_names += names
        self._arguments += arguments
        self._marked += [first + row for row, root in enumerate(roots) if root]
        self._rows = []

    def _resolve(self) -> None:
        """Operands, roots and control edges of the computations that closed."""
        self._drain()
        first = self._resolved
        names, arguments = tuple(self._raw_names), self._arguments
        starts = [0, *accumulate(count for count, _ in self._waiting)]
        self._computation_start += [first + start for start in starts[1:]]
        self._add_roots([row - first for row in self._marked], starts, first)
        self._add_operands(names, arguments, starts, first)
        for at, name in self._open_controls:
            which = bisect_right(starts, at - first) - 1
            span = range(starts[which], starts[which + 1])
            self._controls += [
                (at, first + row) for row in span if names[row].removeprefix("%") == name
            ]
        self._resolved = len(self._names)
        self._waiting, self._marked, self._open_controls = [], [], []
        self._raw_names, self._arguments = [], []

    def _add_roots(self, marked: list[int], starts: list[int], first: int) -> None:
        """The last ROOT of each computation, or its last instruction."""
        roots = [end - 1 for end in starts[1:]]
        for row in marked:
            roots[bisect_right(starts, row) - 1] = row
        self._computation_root += [first + row for row in roots]

    def _add_operands(
        self, names: tuple[str, ...], arguments: Sequence[str], starts: list[int], first: int
    ) -> None:
        index = dict(zip(names, range(first, first + len(names)), strict=True))
        counts = [text.count(",") + 1 if text else 0 for text in arguments]
        try:
            flat = _ints(map(index.__getitem__, _listed(arguments)))
        except KeyError:
            flat = _ints(())
        owner = np.repeat(np.arange(len(starts) - 1), np.diff(starts))
        same = (
            len(index) == len(names)
            and len(flat) == sum(counts)
            and np.array_equal(owner[flat - first], np.repeat(owner, counts))
        )
        if same:
            self._operand.frombytes(flat.tobytes())
            self._operand_count.extend(counts)
            return
        # names that repeat, or operands with their shapes in front
        for number, (_, line) in enumerate(self._waiting):
            part = slice(starts[number], starts[number + 1])
            operands, counts = self._computation_operands(
                names[part], arguments[part], first + starts[number], line
            )
            self._operand.extend(operands)
            self._operand_count.extend(counts)

    def _computation_operands(
        self, names: tuple[str, ...], arguments: Sequence[str], first: int, line: int
    ) -> tuple[list[int], list[int]]:
        index = dict(zip(names, range(first, first + len(names)), strict=True))
        if len(index) != len(names):
            twice = next(name for name, count in Counter(names).items() if count > 1)
            message = f"two instructions of the computation ending here are named {twice[:60]!r}"
            raise ReadError(message, self.path, line)
        try:
            flat = list(map(index.__getitem__, _listed(arguments)))
        except KeyError:
            return self._slow_operands(index, names, arguments, line)
        return flat, [text.count(",") + 1 if text else 0 for text in arguments]

    def _slow_operands(
        self,
        index: dict[str, int],
        raw_names: tuple[str, ...],
        arguments: Sequence[str],
        line: int,
    ) -> tuple[list[int], list[int]]:
        flat: list[int] = []
        counts: list[int] = []
        sigil = raw_names[0][:1] == "%"
        for row, text in enumerate(arguments):
            text = _COMMENT.sub("", text) if "/*" in text else text
            names = _SIGIL_NAME.findall(text) if sigil and "%" in text else _operand_names(text)
            counts.append(len(names))
            for name in names:
                at = index.get(name)
                if at is None:
                    user = raw_names[row]
                    message = (
                        f"unknown operand {name[:60]!r} of {user!r}, in the computation ending here"
                    )
                    raise ReadError(message, self.path, line)
                flat.append(at)
        return flat, counts

    def looks_cut(self, named: bool) -> bool:
        """Whether the text must have had more computations than it has.

        Without ENTRY the last computation stands for it, as in XLA; a printer always
        writes ENTRY, so a printed header or several computations tell of a cut.
        """
        if self.entry >= 0:
            return False
        printed = "entry_computation_layout" in self.header
        return len(self.computation_names) > 1 or (named and printed)

    # ---- instructions

    def _add_tails(self, texts: tuple[str, ...], first: int) -> None:
        """Columns that the text after the operands makes; callees and control edges by name."""
        tails = self._tails.of(texts)
        self._tail.frombytes(tails.tobytes())
        for row in self._tails.calling(tails):
            callees, controls = self._tails.calls[tails[row]]
            self._callees += [(first + row, role, name) for role, name in callees]
            self._open_controls += [(first + row, name) for name in controls]

    def _take_leaves(
        self, first: int, opcodes: tuple[str, ...], arguments: Sequence[str]
    ) -> tuple[str, ...]:
        """Set parameter numbers and literals aside; what is left are operands."""
        left = list(arguments)
        for row in [row for row, opcode in enumerate(opcodes) if opcode in _LEAVES]:
            text, left[row] = left[row].strip(), ""
            if opcodes[row] == "constant":
                self._literals[first + row] = text
                continue
            if not text.isdecimal() or len(text) > 9:
                self.fail(f"parameter number {text[:20]!r} of {self._names[first + row]!r}")
            self._parameter_numbers[first + row] = int(text)
        return tuple(left)

    # ---- the end

    def module(self, tolerant: bool) -> Module:
        """The finished module. A ``tolerant`` one drops calls of computations it lacks."""
        self._resolve()
        count = len(self._names)
        parameter_number = np.full(count, -1, np.int64)
        parameter_number[list(self._parameter_numbers)] = list(self._parameter_numbers.values())
        by_name = {name: index for index, name in enumerate(self.computation_names)}
        callees = []
        for at, role, name in self._callees:
            if name in by_name:
                callees.append((at, ROLES.index(role), by_name[name]))
            elif not tolerant:
                self.fail(f"{self._names[at]!r} calls {name!r}, which is not in the file")
        callee_start, (callee_role, callee) = compressed_rows(callees, count)
        control_start, (control, _) = compressed_rows(self._controls, count)
        operand_start = np.array([0, *accumulate(self._operand_count)], np.int64)
        operand = as_ints(self._operand)
        late = operand >= np.repeat(np.arange(count), np.diff(operand_start))
        if late.any():
            edge = int(late.argmax())
            user = self._names[int(np.searchsorted(operand_start, edge, "right")) - 1]
            self.fail(f"{user!r} uses {self._names[operand[edge]]!r} before it is defined")
        tail = as_ints(self._tail)
        shapes = LazyTable(list(self._shapes), guarded(Shape.parse, "shape", self.path))
        for _ in shapes:  # few are distinct: refuse a damaged one now
            pass
        return Module(
            name=self.name,
            header=self.header,
            computation_names=self.computation_names,
            computation_start=np.array(self._computation_start, np.int64),
            computation_root=np.array(self._computation_root, np.int64),
            entry=self.entry if self.entry >= 0 else len(self.computation_names) - 1,
            instruction_names=self._names,
            opcodes=list(self._opcodes),
            opcode=as_ints(self._opcode),
            shapes=shapes,
            shape=as_ints(self._shape),
            operand_start=operand_start,
            operand=operand,
            control_start=control_start,
            control=control,
            callee_start=callee_start,
            callee=callee,
            callee_role=callee_role,
            parameter_number=parameter_number,
            attributes=LazyTable(
                list(self._tails.attributes), guarded(parse_attributes, "attribute list", self.path)
            ),
            attribute=as_ints(self._tails.attribute)[tail],
            metadatas=LazyTable(
                list(self._tails.metadatas), guarded(parse_metadata, "metadata", self.path)
            ),
            metadata=as_ints(self._tails.metadata)[tail],
            literals=self._literals,
            frames=self.frames,
            warnings=self.warnings,
            execution_threads=self.threads,
        )


def _listed(arguments: Sequence[str]) -> list[str]:
    """All operands of the instructions, one after the other."""
    joined = ", ".join(filter(None, arguments))
    if "/*" in joined:
        joined = _COMMENT.sub("", joined)
    return joined.split(", ") if joined else []


def _ints(values: Iterable[int]) -> Ints:
    return np.fromiter(values, np.int64)


def _operand_names(text: str) -> list[str]:
    names = []
    for part in split_top_level(text):
        match = _LAST_NAME.search(part)
        names.append(match.group(1) if match else part)
    return names
