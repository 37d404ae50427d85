"""The columns of a module as the text reader fills them, and edges as compressed rows."""

from __future__ import annotations

import gc
import re
from array import array
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate
from pathlib import Path
from typing import NoReturn

import numpy as np

from hlo_lab.errors import ReadError
from hlo_lab.ir.attributes import parse_attributes, split_top_level
from hlo_lab.ir.module import ROLES, Ints, Module
from hlo_lab.ir.shapes import Shape
from hlo_lab.ir.source import StackFrames, parse_metadata
from hlo_lab.ir.table import LazyTable

_NAME = r"[\w.\-<>~:@/$+]+"
_METADATA = re.compile(r', metadata=\{((?:[^"{}]|"(?:[^"\\]|\\.)*"|\{[^{}]*\})*)\}')
_ROLE_OF = {role: role for role in ROLES} | {
    "true_computation": "branch_computations",
    "false_computation": "branch_computations",
}
_CALLEE = re.compile(rf", ({'|'.join(_ROLE_OF)})=(\{{[^{{}}\"]*\}}|%?{_NAME})")
_CONTROL = re.compile(r", control-predecessors=\{([^{}\"]*)\}")
_COMMENT = re.compile(r"/\*.*?\*/")
_SIGIL_NAME = re.compile(rf"%{_NAME}")
_LAST_NAME = re.compile(rf"({_NAME})\s*$")
_CACHED_RESTS = 200_000  # distinct attribute texts remembered; bounds memory

Row = tuple[str, str, str, str, str, str]
_Split = tuple[int, int, list[tuple[str, str]], list[str]]


@contextmanager
def pause_gc() -> Iterator[None]:
    """Millions of young tuples and strings would wake the collector for nothing."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def intern(table: dict[str, int], values: Sequence[str]) -> Iterable[int]:
    """Number of each value in ``table``, which grows by the values it does not hold."""
    for value in dict.fromkeys(values):
        if value not in table:
            table[value] = len(table)
    return map(table.__getitem__, values)


class Columns:
    """The growing columns of one module; ``module()`` turns them into arrays."""

    def __init__(self, path: str | Path | None):
        self.path = path
        self.name = ""
        self.header: dict[str, str] = {}
        self.frames = StackFrames()
        self.warnings: list[str] = []
        self.computation_names: list[str] = []
        self.threads: dict[int, str] = {}
        self.entry = -1
        self._computation_start = [0]
        self._computation_root: list[int] = []
        self._names: list[str] = []
        self._opcodes: dict[str, int] = {}
        self._opcode = array("q")
        self._shapes: dict[str, int] = {}
        self._shape = array("q")
        self._attributes: dict[str, int] = {}
        self._attribute = array("q")
        self._metadatas: dict[str, int] = {"": 0}
        self._metadata = array("q")
        self._operand_count = array("q")
        self._operand = array("q")
        self._controls: list[tuple[int, int]] = []
        self._callees: list[tuple[int, str, str]] = []
        self._parameter_numbers: dict[int, int] = {}
        self._literals: dict[int, str] = {}
        self._rests: dict[str, _Split] = {}
        self._root = -1  # of the open computation, as are the next three
        self._raw_names: list[str] = []
        self._arguments: list[str] = []
        self._open_controls: list[tuple[int, str]] = []

    def fail(self, message: str) -> NoReturn:
        raise ReadError(message, self.path)

    # ---- computations

    @property
    def open_count(self) -> int:
        """Instructions of the open computation."""
        return len(self._raw_names)

    def open(self, name: str, is_entry: bool) -> None:
        if is_entry:
            self.entry = len(self.computation_names)
        self.computation_names.append(name)
        self._root, self._raw_names, self._arguments = -1, [], []
        self._open_controls = []

    def drop_open(self) -> None:
        """Forget the open computation, which has no instruction."""
        self.computation_names.pop()
        if self.entry == len(self.computation_names):
            self.entry = -1

    def close(self, line: int) -> None:
        first, count = self._computation_start[-1], self.open_count
        index = dict(zip(self._raw_names, range(first, first + count), strict=True))
        if len(index) != count:
            seen: set[str] = set()
            twice = next(name for name in self._raw_names if name in seen or seen.add(name))
            self.fail(f"two instructions of {self.computation_names[-1]!r} are named {twice!r}")
        self._close_operands(index, first, line)
        for at, name in self._open_controls:
            if name in index:
                self._controls.append((at, index[name]))
        self._computation_start.append(first + count)
        self._computation_root.append(self._root if self._root >= 0 else first + count - 1)
        self._raw_names, self._arguments = [], []

    def _close_operands(self, index: dict[str, int], first: int, line: int) -> None:
        arguments = self._arguments
        joined = ", ".join(filter(None, arguments))
        if "/*" in joined:
            joined = _COMMENT.sub("", joined)
        before = len(self._operand)
        counts = [text.count(",") + 1 if text else 0 for text in arguments]
        try:
            flat = list(map(index.__getitem__, joined.split(", "))) if joined else []
        except KeyError:
            flat, counts = self._slow_operands(index, line)
        self._operand.extend(flat)
        self._operand_count.extend(counts)
        consumer = np.repeat(np.arange(first, first + len(counts)), counts)
        late = np.asarray(flat, np.int64) >= consumer
        if late.any():
            edge = int(late.argmax())
            self.fail(
                f"{self._names[consumer[edge]]!r} uses {self._names[self._operand[before + edge]]!r} "
                "before it is defined"
            )

    def _slow_operands(self, index: dict[str, int], line: int) -> tuple[list[int], list[int]]:
        flat: list[int] = []
        counts: list[int] = []
        sigil = self._raw_names[0][:1] == "%"
        for row, text in enumerate(self._arguments):
            text = _COMMENT.sub("", text) if "/*" in text else text
            names = _SIGIL_NAME.findall(text) if sigil and "%" in text else _operand_names(text)
            counts.append(len(names))
            for name in names:
                at = index.get(name)
                if at is None:
                    user = self._raw_names[row]
                    message = f"unknown operand {name[:60]!r} of {user!r}, in the computation ending here"
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

    def add_rows(self, rows: Sequence[tuple[str, ...]], _: object = None) -> None:
        """Append instructions: (root, name, shape, opcode, arguments, attributes) each."""
        roots, names, shapes, opcodes, arguments, rests = zip(*rows, strict=True)
        first = len(self._names)
        if "ROOT " in roots:
            self._root = first + roots.index("ROOT ")
        self._raw_names += names
        self._names += [name.removeprefix("%") for name in names]
        self._shape.extend(intern(self._shapes, shapes))
        self._opcode.extend(intern(self._opcodes, opcodes))
        known = self._rests
        if len(known) > _CACHED_RESTS:
            known.clear()
        for rest in dict.fromkeys(rests):
            if rest not in known:
                known[rest] = self._split_rest(rest)
        split = [known[rest] for rest in rests]
        self._attribute.extend([parts[0] for parts in split])
        self._metadata.extend([parts[1] for parts in split])
        for at, parts in enumerate(split, first):
            if parts[2]:
                self._callees += [(at, role, name) for role, name in parts[2]]
            if parts[3]:
                self._open_controls += [(at, name) for name in parts[3]]
        if "parameter" in opcodes or "constant" in opcodes:
            arguments = self._take_leaves(first, opcodes, arguments)
        self._arguments += arguments

    def _take_leaves(
        self, first: int, opcodes: tuple[str, ...], arguments: Sequence[str]
    ) -> tuple[str, ...]:
        """Set parameter numbers and literals aside; what is left are operands."""
        left = list(arguments)
        for row, opcode in enumerate(opcodes):
            if opcode == "constant":
                self._literals[first + row] = left[row].strip()
                left[row] = ""
            elif opcode == "parameter":
                text = left[row].strip()
                if not text.isdecimal() or len(text) > 9:
                    self.fail(f"parameter number {text[:20]!r} of {self._names[first + row]!r}")
                self._parameter_numbers[first + row] = int(text)
                left[row] = ""
        return tuple(left)

    def _split_rest(self, rest: str) -> _Split:
        metadata, callees, controls = 0, [], []
        rest = rest.rstrip()
        if ", metadata={" in rest:
            match = _METADATA.search(rest)
            if match is not None and _top_level(rest, match.start()):
                text = match.group(1)
                metadata = self._metadatas.setdefault(text, len(self._metadatas))
                rest = rest[: match.start()] + rest[match.end() :]
        if "=" in rest:
            for match in _CALLEE.finditer(rest):
                if _top_level(rest, match.start()):
                    role = _ROLE_OF[match.group(1)]
                    names = _COMMENT.sub("", match.group(2)).strip("{}").split(",")
                    callees += [(role, name.strip(" %")) for name in names if name.strip()]
            if callees:
                rest = _CALLEE.sub(lambda m: m.group() if not _top_level(rest, m.start()) else "", rest)
        if ", control-predecessors=" in rest:
            match = _CONTROL.search(rest)
            if match is not None:
                controls = [name.strip() for name in match.group(1).split(",") if name.strip()]
                rest = rest[: match.start()] + rest[match.end() :]
        attribute = self._attributes.setdefault(rest, len(self._attributes))
        return attribute, metadata, callees, controls

    # ---- the end

    def module(self, tolerant: bool) -> Module:
        """The finished module. A ``tolerant`` one drops calls of computations it lacks."""
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
        attributes = LazyTable(list(self._attributes), parse_attributes)
        return Module(
            name=self.name,
            header=self.header,
            computation_names=self.computation_names,
            computation_start=np.array(self._computation_start, np.int64),
            computation_root=np.array(self._computation_root, np.int64),
            entry=self.entry if self.entry >= 0 else len(self.computation_names) - 1,
            instruction_names=self._names,
            opcodes=list(self._opcodes),
            opcode=_ints(self._opcode),
            shapes=LazyTable(list(self._shapes), Shape.parse),
            shape=_ints(self._shape),
            operand_start=np.array([0, *accumulate(self._operand_count)], np.int64),
            operand=_ints(self._operand),
            control_start=control_start,
            control=control,
            callee_start=callee_start,
            callee=callee,
            callee_role=callee_role,
            parameter_number=parameter_number,
            attributes=attributes,
            attribute=_ints(self._attribute),
            metadatas=LazyTable(list(self._metadatas), parse_metadata),
            metadata=_ints(self._metadata),
            literals=self._literals,
            frames=self.frames,
            warnings=self.warnings,
            execution_threads=self.threads,
        )


def _ints(column: array[int]) -> Ints:
    return np.frombuffer(column, np.int64) if column else np.zeros(0, np.int64)


def _operand_names(text: str) -> list[str]:
    names = []
    for part in split_top_level(text):
        match = _LAST_NAME.search(part)
        names.append(match.group(1) if match else part)
    return names


def _top_level(text: str, at: int) -> bool:
    """Whether position ``at`` stands outside braces and strings; cheap, for valid text."""
    before = text[:at]
    return before.count("{") == before.count("}") and before.count('"') % 2 == 0


def compressed_rows(
    entries: Sequence[tuple[int, ...]], count: int
) -> tuple[Ints, list[Ints]]:
    """(start int64[count + 1], two columns), rows in instruction order."""
    if not entries:
        return np.zeros(count + 1, np.int64), [np.zeros(0, np.int64)] * 2
    table = np.array(entries, np.int64)
    table = table[np.argsort(table[:, 0], kind="stable")]
    start = np.concatenate(([0], np.cumsum(np.bincount(table[:, 0], minlength=count))))
    return start.astype(np.int64), [table[:, min(1, table.shape[1] - 1)], table[:, -1]]
