"""Reader for HLO text: tolerant of every printer since 2023, strict about the file itself.

One regular expression reads the common line; what it does not match is joined with the
next line or scanned bracket by bracket. Shapes, attributes and metadata are interned as
text and decoded when looked at. No jaxlib.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import NoReturn

import numpy as np

from hlo_lab.errors import ReadError
from hlo_lab.ir.attributes import closing_bracket, parse_attributes, split_top_level
from hlo_lab.ir.module import ROLES, Ints, Module
from hlo_lab.ir.shapes import Shape
from hlo_lab.ir.source import StackFrames, parse_metadata, unescape
from hlo_lab.ir.table import LazyTable

MAX_INSTRUCTION = 256 << 20  # characters: a folded 64 MB constant prints to about this many

_NAME = r"[\w.\-<>~:@/$+]+"
_HEAD = (
    rf"\s*(ROOT )?%?({_NAME}) = "
    r"([a-z]\w*\[[^\]]*\](?:\{[^}]*\})?|\(.*?\)) ([a-z][\w\-]*)\("
)
_INSTRUCTION = re.compile(_HEAD + r"([^()]*)\)(.*)", re.S)
_INSTRUCTION_HEAD = re.compile(_HEAD, re.S)
_STARTS_INSTRUCTION = re.compile(rf"\s*(?:ROOT )?%?{_NAME} = ")
_COMPUTATION = re.compile(rf"\s*(ENTRY )?%?({_NAME})?\s*(?:\(.*\)\s*->.*)?\{{\s*$", re.S)
_METADATA = re.compile(r', metadata=\{((?:[^"{}]|"(?:[^"\\]|\\.)*"|\{[^{}]*\})*)\}')
_ROLE_OF = {role: role for role in ROLES} | {
    "true_computation": "branch_computations",
    "false_computation": "branch_computations",
}
_CALLEE = re.compile(rf", ({'|'.join(_ROLE_OF)})=(\{{[^{{}}]*\}}|%?{_NAME})")
_CONTROL = re.compile(r", control-predecessors=\{([^{}]*)\}")
_COMMENT = re.compile(r"/\*.*?\*/")
_OPERAND = re.compile(rf"%?({_NAME})\s*$")
_FRAME_FIELD = re.compile(r"(\w+)=(\d+)")
_SECTIONS = frozenset(("FileNames", "FunctionNames", "FileLocations", "StackFrames"))
# The frequent opcodes that never call a computation, so that the search for one is saved.
_NO_CALLEE = frozenset(
    "parameter constant get-tuple-element tuple bitcast broadcast add multiply subtract divide "
    "convert copy reshape transpose dot convolution slice select compare iota negate exponential "
    "maximum minimum concatenate dynamic-slice dynamic-update-slice pad gather tanh rsqrt sqrt "
    "and or not xor abs power log".split()
)


def read_text(lines: Iterable[str], path: str | Path | None = None) -> Module:
    """Read the one module in ``lines``; see :func:`read_text_modules`.

    Raises:
        ReadError: also when the text holds more than one module.
    """
    modules = read_text_modules(lines, path)
    if len(modules) > 1:
        raise ReadError(f"holds {len(modules)} modules; split the file, one module each", path)
    return modules[0]


def read_text_modules(lines: Iterable[str], path: str | Path | None = None) -> list[Module]:
    """Read every module in lines of HLO text.

    A module that is cut inside a computation or before its ENTRY still reads, with a
    line in ``Module.warnings``; its last computation then stands for the entry.

    Raises:
        ReadError: no HLO in the text, or a line that is not HLO.
    """
    modules: list[Module] = []
    reader = _Reader(path)
    for number, line in enumerate(lines, 1):
        if line.startswith("HloModule") and (reader.named or reader.computation_names):
            modules.append(reader.finish())
            reader = _Reader(path)
        reader.line(line, number)
    if modules and not reader.computation_names and not reader.named:
        return modules
    modules.append(reader.finish())
    return modules


class _Reader:
    """The columns of one module, growing line by line."""

    def __init__(self, path: str | Path | None):
        self.path = path
        self.named = False
        self.name = ""
        self.header: dict[str, str] = {}
        self.frames = StackFrames()
        self.warnings: list[str] = []
        self.computation_names: list[str] = []
        self.computation_start = [0]
        self.computation_root: list[int] = []
        self.entry = -1
        self.names: list[str] = []
        self.opcodes: dict[str, int] = {}
        self.opcode: list[int] = []
        self.shapes: dict[str, int] = {}
        self.shape: list[int] = []
        self.attributes: dict[str, int] = {}
        self.attribute: list[int] = []
        self.metadatas: dict[str, int] = {"": 0}
        self.metadata: list[int] = []
        self.operand_start = [0]
        self.operand: list[int] = []
        self.controls: list[tuple[int, str]] = []
        self.callees: list[tuple[int, str, str]] = []
        self.parameter_numbers: dict[int, int] = {}
        self.literals: dict[int, str] = {}
        self._open = False  # inside a computation
        self._root = -1
        self._arguments: list[str] = []  # operand texts of the open computation
        self._line_numbers: list[int] = []
        self._pending = ""  # an instruction that goes on in the next line
        self._number = 0
        self._section = ""

    # ---- lines

    def line(self, line: str, number: int) -> None:
        self._number = number
        if self._open:
            self._line_of_computation(line)
            return
        text = line.strip()
        if not text or text.startswith("//"):
            return
        if text.startswith("HloModule"):
            self._module_line(text)
        elif text in _SECTIONS:
            self._section = text
        elif self._section and text[0].isdigit():
            self._section_line(text)
        else:
            self._section = ""
            self._pending += line
            match = _COMPUTATION.match(_COMMENT.sub("", self._pending))
            if match:
                self._pending = ""
                self._open_computation(match.group(2) or "entry", bool(match.group(1)))
            elif not self.named and not self.computation_names:
                raise ReadError(f"not HLO text: {text[:40]!r}", self.path, number)
            elif len(self._pending) > MAX_INSTRUCTION or self._pending.count("\n") > 10_000:
                raise ReadError("a computation header does not end", self.path, number)

    def _line_of_computation(self, line: str) -> None:
        if not self._pending and line[:1] == "}":
            self._close_computation()
            return
        text = self._pending + line if self._pending else line
        match = _INSTRUCTION.match(text)
        if match is not None:
            root, name, shape, opcode, arguments, rest = match.groups()
            if not rest.rstrip().endswith(","):
                self._pending = ""
                self._instruction(root, name, shape, opcode, arguments, rest.rstrip())
                return
        stripped = line.strip()
        if not stripped or stripped.startswith("//"):
            return
        if not self._pending and stripped == "}":
            self._close_computation()
            return
        if self._pending and (stripped == "}" or _STARTS_INSTRUCTION.match(line)):
            self._fail(f"not an instruction: {self._pending.strip()[:60]!r}")
        if not self._pending and not _STARTS_INSTRUCTION.match(line):
            self._fail(f"not an instruction: {stripped[:60]!r}")
        head = _INSTRUCTION_HEAD.match(text)
        if head is not None and not stripped.endswith(","):
            end = closing_bracket(text, head.end() - 1)
            if end >= 0:
                self._pending = ""
                self._instruction(*head.groups(), text[head.end() : end], text[end + 1 :].rstrip())
                return
        self._pending = text if text.endswith("\n") else text + "\n"
        if len(self._pending) > MAX_INSTRUCTION:
            self._fail("an instruction does not end")

    def _fail(self, message: str) -> NoReturn:
        raise ReadError(message, self.path, self._number)

    def _module_line(self, text: str) -> None:
        self.named = True
        name, _, rest = text.removeprefix("HloModule").strip().partition(",")
        self.name = name.strip()
        try:
            self.header = parse_attributes(_COMMENT.sub("", rest))
        except ValueError as error:
            self._fail(f"module header: {error}")

    def _section_line(self, text: str) -> None:
        number, _, rest = text.partition(" ")
        if self._section in ("FileNames", "FunctionNames"):
            table = self.frames.files if self._section == "FileNames" else self.frames.functions
            table.append(unescape(rest.strip().strip('"')))
            return
        value = {key: int(number) for key, number in _FRAME_FIELD.findall(rest)}
        get = value.get
        if self._section == "FileLocations":
            self.frames.locations.append((
                get("file_name_id", 0), get("function_name_id", 0), get("line", 0),
                get("end_line", 0), get("column", 0), get("end_column", 0),
            ))  # fmt: skip
        else:
            # text prints the parent plus one, so that 1 is the root
            parent = max(get("parent_frame_id", 1) - 1, 0)
            self.frames.frames.append((get("file_location_id", 0), parent))

    # ---- computations and instructions

    def _open_computation(self, name: str, is_entry: bool) -> None:
        if is_entry:
            self.entry = len(self.computation_names)
        self.computation_names.append(name)
        self._open, self._root = True, -1
        self._arguments, self._line_numbers = [], []

    def _close_computation(self) -> None:
        first, last = self.computation_start[-1], len(self.names)
        index = {name: first + i for i, name in enumerate(self.names[first:])}
        for row, arguments in enumerate(self._arguments):
            if arguments:
                self._resolve(arguments, index, self._line_numbers[row])
            self.operand_start.append(len(self.operand))
        self.computation_start.append(last)
        self.computation_root.append(self._root if self._root >= 0 else last - 1)
        if last == first:
            self._fail(f"computation {self.computation_names[-1]!r} is empty")
        self._open = False

    def _resolve(self, arguments: str, index: dict[str, int], line: int) -> None:
        if "/*" in arguments:
            arguments = _COMMENT.sub("", arguments)
        try:  # bare names
            self.operand += [index[part.strip().lstrip("%")] for part in arguments.split(",")]
            return
        except KeyError:
            pass
        for part in split_top_level(arguments):  # each with its shape in front
            match = _OPERAND.search(part)
            at = index.get(match.group(1)) if match else None
            if at is None:
                raise ReadError(f"unknown operand {part[:60]!r}", self.path, line)
            self.operand.append(at)

    def _instruction(
        self, root: str | None, name: str, shape: str, opcode: str, arguments: str, rest: str
    ) -> None:
        at = len(self.names)
        if root:
            self._root = at
        self.names.append(name)
        self.opcode.append(self.opcodes.setdefault(opcode, len(self.opcodes)))
        self.shape.append(self.shapes.setdefault(shape, len(self.shapes)))
        metadata = 0
        if ", metadata={" in rest:
            match = _METADATA.search(rest)
            if match is not None:
                text = match.group(1)
                metadata = self.metadatas.setdefault(text, len(self.metadatas))
                rest = rest[: match.start()] + rest[match.end() :]
        self.metadata.append(metadata)
        if rest and opcode not in _NO_CALLEE:
            rest = _CALLEE.sub(self._take_callee, rest)
        if ", control-predecessors=" in rest:
            rest = _CONTROL.sub(self._take_control, rest)
        self.attribute.append(self.attributes.setdefault(rest, len(self.attributes)))
        if opcode == "parameter":
            if not arguments.strip().isdecimal():
                self._fail(f"parameter number {arguments[:20]!r}")
            self.parameter_numbers[at] = int(arguments)
            arguments = ""
        elif opcode == "constant":
            self.literals[at] = arguments.strip()
            arguments = ""
        self._arguments.append(arguments)
        self._line_numbers.append(self._number)

    def _take_callee(self, match: re.Match[str]) -> str:
        role, names = match.groups()
        for name in names.strip("{}").split(","):
            if name.strip():
                self.callees.append((len(self.names) - 1, _ROLE_OF[role], name.strip(" %")))
        return ""

    def _take_control(self, match: re.Match[str]) -> str:
        self.controls += [
            (len(self.names) - 1, name.strip(" %")) for name in match.group(1).split(",") if name
        ]
        return ""

    # ---- the end

    def finish(self) -> Module:
        if not self.computation_names:
            if self.named:
                raise ReadError("cut before its first computation", self.path, self._number)
            raise ReadError("not HLO text: no module and no computation", self.path)
        cut = self._open or (self.entry < 0 and self.named)
        if self._open:
            self._pending = ""
            if len(self.names) == self.computation_start[-1]:  # cut right after its header
                self.computation_names.pop()
                self._open = False
                if not self.computation_names:
                    raise ReadError("cut before its first instruction", self.path, self._number)
            else:
                self._close_computation()
        if cut:
            last = self.computation_names[-1]
            self.warnings.append(
                f"the file is cut after line {self._number}, in computation {last!r}: "
                "figures cover only what is there"
            )
        entry = self.entry if 0 <= self.entry < len(self.computation_names) else -1
        return self._module(entry if entry >= 0 else len(self.computation_names) - 1)

    def _module(self, entry: int) -> Module:
        count = len(self.names)
        parameter_number = np.full(count, -1, np.int64)
        parameter_number[list(self.parameter_numbers)] = list(self.parameter_numbers.values())
        by_name = {name: index for index, name in enumerate(self.computation_names)}
        callees = []
        for at, role, name in self.callees:
            if name in by_name:
                callees.append((at, ROLES.index(role), by_name[name]))
            elif not self.warnings:
                self._fail(f"{self.names[at]!r} calls {name!r}, which is not in the file")
        callee_start, callee_columns = _rows(callees, count)
        controls = self._control_rows()
        control_start, control_columns = _rows(controls, count)
        return Module(
            name=self.name,
            header=self.header,
            computation_names=self.computation_names,
            computation_start=np.array(self.computation_start, np.int64),
            computation_root=np.array(self.computation_root, np.int64),
            entry=entry,
            instruction_names=self.names,
            opcodes=list(self.opcodes),
            opcode=np.array(self.opcode, np.int64),
            shapes=LazyTable(list(self.shapes), Shape.parse),
            shape=np.array(self.shape, np.int64),
            operand_start=np.array(self.operand_start, np.int64),
            operand=np.array(self.operand, np.int64),
            control_start=control_start,
            control=control_columns[0],
            callee_start=callee_start,
            callee=callee_columns[1],
            callee_role=callee_columns[0],
            parameter_number=parameter_number,
            attributes=LazyTable(list(self.attributes), parse_attributes),
            attribute=np.array(self.attribute, np.int64),
            metadatas=LazyTable(list(self.metadatas), parse_metadata),
            metadata=np.array(self.metadata, np.int64),
            literals=self.literals,
            frames=self.frames,
            warnings=self.warnings,
        )

    def _control_rows(self) -> list[tuple[int, int]]:
        if not self.controls:
            return []
        starts = self.computation_start
        rows: list[tuple[int, int]] = []
        for at, name in self.controls:
            comp = int(np.searchsorted(starts, at, "right")) - 1
            names = self.names[starts[comp] : starts[comp + 1]]
            if name in names:
                rows.append((at, starts[comp] + names.index(name)))
        return rows


def _rows(
    entries: list[tuple[int, int]] | list[tuple[int, int, int]], count: int
) -> tuple[Ints, list[Ints]]:
    """(start int64[count + 1], one column per further member), rows in instruction order."""
    if not entries:
        return np.zeros(count + 1, np.int64), [np.zeros(0, np.int64)] * 2
    table = np.array(entries, np.int64)
    start = np.concatenate(([0], np.cumsum(np.bincount(table[:, 0], minlength=count))))
    return start.astype(np.int64), [table[:, column] for column in range(1, table.shape[1])]
