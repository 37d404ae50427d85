"""Reader for HLO text: tolerant of every printer since 2023, strict about the file itself.

The lines of a computation are read by one regular expression over the whole stretch of
text, column by column; a stretch with a line that does not fit is read line by line, its
long or folded instructions bracket by bracket. Shapes, attributes and metadata are
interned as text and decoded when looked at. No jaxlib.

An asynchronous pair around a single operation stands as ``slice-start``, ``slice-done``,
whether the text spells out its computation or not; the proto reader gives the same form.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NoReturn

from hlo_lab.errors import ReadError
from hlo_lab.ir.asynchronous import fold_async
from hlo_lab.ir.attributes import MAX_DEPTH, BracketState, parse_attributes
from hlo_lab.ir.columns import Columns
from hlo_lab.ir.module import Module
from hlo_lab.ir.reading import NAME, pause_gc
from hlo_lab.ir.source import unescape

MAX_INSTRUCTION = 256 << 20  # characters: a folded 64 MB constant prints to about this many
MAX_INSTRUCTION_LINES = 100_000
MAX_HEADER_LINES = 1000
MAX_PREAMBLE = 100_000  # lines of comments before a module
MAX_HEADER = 64 << 20

# possessive where what follows leaves no other way to match
_SHAPE = r"[a-z]\w*+\[[^\]\n]*+\](?:\{[^}\n]*+\})?+|\([^\n]*?\)"
_HEAD = rf"[ \t]*+(ROOT )?(%?{NAME}+) = ({_SHAPE}) ([a-z][a-z0-9_\-\w]*+)\("
_LINES = re.compile(rf"^{_HEAD}([^()\n]*+)\)([^\n]*+)\n", re.M)
_HEAD_START = re.compile(_HEAD)
_STARTS_INSTRUCTION = re.compile(rf"[ \t]*(?:ROOT )?%?{NAME} = ")
_COMPUTATION = re.compile(rf"(ENTRY\b\s*)?%?({NAME})?\s*(?:\(.*->.*)?\{{", re.S)
_COMPUTATION_TAIL = re.compile(r"\}[ \t]*(?:, execution_thread=\"([^\"]*)\")?[ \t]*(?://.*)?")
_COMMENT = re.compile(r"/\*.*?\*/")
_FRAME_FIELD = re.compile(r"(\w+)=(\d+)")
_HEADER_TABLE = re.compile(r"\w+=\{")  # a header attribute on lines of its own
_SECTIONS = frozenset(("FileNames", "FunctionNames", "FileLocations", "StackFrames"))


def read_text(text: str | Iterable[str], path: str | Path | None = None) -> Module:
    """Read the one module in ``text``; see :func:`read_text_modules`.

    Raises:
        ReadError: also when the text holds more than one module.
    """
    return pick_module(read_text_modules(text, path), None, path)


def pick_module(modules: list[Module], which: str | None, path: str | Path | None) -> Module:
    """The module of that name or 1-based number; without ``which``, the only one.

    Raises:
        ReadError: several modules and none picked, or no such module.
    """
    names = ", ".join(dict.fromkeys(module.name for module in modules[:5]))
    held = f"holds {len(modules)} module{'s' * (len(modules) > 1)} ({names})"
    if which is None:
        if len(modules) == 1:
            return modules[0]
        raise ReadError(f"{held}: pick one as {path or 'PATH'}#1 ... #{len(modules)}", path)
    if which.isdecimal() and len(which) < 10 and 1 <= int(which) <= len(modules):
        return modules[int(which) - 1]
    named = [module for module in modules if module.name == which]
    if len(named) == 1:
        return named[0]
    reason = f"{len(named)} of them are named" if named else "none is"
    raise ReadError(f"{held}; {reason} {which!r}: pick one by number, #1 is the first", path)


def read_text_modules(text: str | Iterable[str], path: str | Path | None = None) -> list[Module]:
    """Read every module in HLO text, given whole or in pieces (lines or chunks).

    A module that is cut inside a computation or before its ENTRY still reads, with a
    line in ``Module.warnings``; its last computation then stands for the entry.

    Raises:
        ReadError: no HLO in the text, or a line that is not HLO.
    """
    modules: list[Module] = []
    with pause_gc():
        reader = _Reader(path)
        for piece in _whole_lines([text] if isinstance(text, str) else text, path):
            at = 0
            while at < len(piece):
                if reader.inside and not reader.pending:
                    at = reader.body(piece, at)
                    continue
                end = piece.find("\n", at) + 1 or len(piece)
                line = piece[at:end]
                at = end
                if line.startswith("HloModule") and reader.begun and not reader.inside:
                    modules.append(reader.finish())
                    reader = _Reader(path, reader.number)
                reader.line(line)
        if not modules or reader.begun:
            modules.append(reader.finish())
    return modules


def _whole_lines(pieces: Iterable[str], path: str | Path | None) -> Iterator[str]:
    """The same text in pieces that end at line ends (but perhaps the last)."""
    rest: list[str] = []
    size = depth = 0
    for piece in pieces:
        cut = piece.rfind("\n") + 1
        if cut:
            yield "".join((*rest, piece[:cut]))
            rest, size, depth = [], 0, 0
        if cut < len(piece):
            tail = piece[cut:] if cut else piece
            rest.append(tail)
            size += len(tail)
            if size > MAX_INSTRUCTION:
                raise ReadError("a line is too long for HLO text", path)
            depth += _depth(tail)
            if depth > MAX_DEPTH:
                raise ReadError(f"not HLO text: brackets nested deeper than {MAX_DEPTH}", path)
    if rest:
        yield "".join(rest)


class _Reader:
    """Reads the text of one module into columns."""

    def __init__(self, path: str | Path | None, number: int = 0):
        self.path = path
        self.number = number  # lines read so far
        self.named = False
        self.inside = False  # a computation is open
        self.pending: list[str] = []  # lines of a header or instruction that goes on
        self.columns = Columns(path)
        self._state = BracketState()
        self._size = 0
        self._section = ""
        self._table: list[str] = []  # lines of a module header's table that goes on

    @property
    def begun(self) -> bool:
        return self.named or bool(self.columns.computation_names)

    def fail(self, message: str) -> NoReturn:
        raise ReadError(message, self.path, self.number)

    # ---- lines outside computations

    def line(self, line: str) -> None:
        self.number += 1
        if self.inside:
            self._instruction_line(line)
            return
        text = line.strip()
        if not text or text.startswith("//"):
            if not self.begun and self.number > MAX_PREAMBLE:
                self.fail(f"not HLO text: nothing but comments in {MAX_PREAMBLE} lines")
            return
        if self._table:
            self._table_line(line)
        elif self.pending:
            self._computation_line(line)
        elif text.startswith("HloModule"):
            self._module_line(text)
        elif text in _SECTIONS:
            self._section = text
        elif self._section and text[0].isdigit():
            self._section_line(text)
        elif self.named and not self._section and _HEADER_TABLE.fullmatch(text):
            self._table_line(line)
        else:
            self._section = ""
            self._computation_line(line)

    def _computation_line(self, line: str) -> None:
        self.pending.append(line)
        self._size += len(line)
        text = line.partition(" //")[0].rstrip()
        if text.endswith("{"):
            text = _COMMENT.sub("", "".join((*self.pending[:-1], text))).strip()
            match = _COMPUTATION.fullmatch(text)
            if match:
                self.pending, self._size = [], 0
                self.columns.open(match.group(2) or "entry", match.group(1) is not None)
                self.inside = True
                return
        if not self.begun:
            self._refuse("".join(self.pending))
        if len(self.pending) > 1 and _STARTS_INSTRUCTION.match(line):
            self.fail(f"not a computation: {self.pending[0].strip()[:60]!r}")
        if len(self.pending) > MAX_HEADER_LINES or self._size > MAX_HEADER:
            self.fail("a computation header does not end")

    def _refuse(self, text: str) -> NoReturn:
        head = text.strip()[:40]
        if head.startswith(("module", "#loc", "func.func")) or "stablehlo." in text:
            self.fail(
                "this is StableHLO (MLIR) text, not HLO: give the HLO stage, or the program itself"
            )
        self.fail(f"not HLO text: {head!r}")

    def _module_line(self, text: str) -> None:
        self.named = True
        name, _, rest = text.removeprefix("HloModule").strip().partition(",")
        self.columns.name = name.strip()
        if rest.endswith("={"):
            self._table_line(f"{rest}\n")
        else:
            self._add_header(rest)

    def _table_line(self, line: str) -> None:
        """One more line of the header, such as of ``debug_attributes={``, until that closes."""
        if not self._table:
            self._state, self._size = BracketState(), 0
        self._table.append(line)
        self._size += len(line)
        try:
            self._state.feed(line)
        except ValueError as error:
            self.fail(f"module header: {error}")
        if self._size > MAX_HEADER:
            self.fail("the module header does not end")
        if not self._state.depth and not self._state.in_string:
            text, self._table, self._size = "".join(self._table), [], 0
            self._add_header(text)

    def _add_header(self, text: str) -> None:
        try:
            self.columns.header |= parse_attributes(_COMMENT.sub("", text))
        except ValueError as error:
            self.fail(f"module header: {error}")

    def _section_line(self, text: str) -> None:
        frames = self.columns.frames
        _, _, rest = text.partition(" ")
        if self._section in ("FileNames", "FunctionNames"):
            table = frames.files if self._section == "FileNames" else frames.functions
            rest = rest.strip()
            quoted = len(rest) > 1 and rest[0] == rest[-1] == '"'
            table.append(unescape(rest[1:-1] if quoted else rest))
            return
        value = {key: int(number[:18]) for key, number in _FRAME_FIELD.findall(rest)}
        get = value.get
        if self._section == "FileLocations":
            frames.locations.append((
                get("file_name_id", 0), get("function_name_id", 0), get("line", 0),
                get("end_line", 0), get("column", 0), get("end_column", 0),
            ))  # fmt: skip
        else:
            # text prints the parent plus one, so that 1 is the root
            parent = max(get("parent_frame_id", 1) - 1, 0)
            frames.frames.append((get("file_location_id", 0), parent))

    # ---- lines of computations

    def body(self, text: str, at: int) -> int:
        """Read instructions from ``at`` to the end of the computation or of the text."""
        end = text.find("\n}\n", at - 1) + 1 if at else text.find("\n}\n") + 1
        closed = end > 0
        if not closed:
            end = len(text)
        stretch = text[at:end]
        found = _LINES.findall(stretch)
        lines = stretch.count("\n")
        if len(found) == lines and stretch[-1:] in ("\n", "") and _balanced(found):
            if found:
                self.columns.add_rows(found)
            self.number += lines
            if closed:
                self.number += 1
                self._close()
                return end + 2
            return end
        for line in stretch.splitlines(keepends=True) + ["}\n"] * closed:
            self.line(line)
        return end + 2 * closed

    def _instruction_line(self, line: str) -> None:
        if self.pending:
            self._more(line)
            return
        match = _LINES.match(line if line[-1:] == "\n" else line + "\n")
        if match is not None and _balanced([match.groups("")]):
            self.columns.add_rows([match.groups("")])
            return
        stripped = line.strip()
        if not stripped or stripped.startswith("//"):
            return
        if stripped[0] == "}" and (tail := _COMPUTATION_TAIL.fullmatch(stripped)):
            if tail.group(1):
                self.columns.threads[len(self.columns.computation_names) - 1] = tail.group(1)
            self._close()
            return
        if line[-1] != "\n":  # the text ends in the middle of it
            self.pending.append(line)
            return
        if not _STARTS_INSTRUCTION.match(line):
            self.fail(f"not an instruction: {stripped[:60]!r}")
        self._state, self._size = BracketState(), 0
        self._more(line)

    def _more(self, line: str) -> None:
        """One more line of an instruction that goes on until its brackets close."""
        self.pending.append(line)
        self._size += len(line)
        try:
            self._state.feed(line)
        except ValueError as error:
            self.fail(f"not an instruction: {error}")
        if self._size > MAX_INSTRUCTION or len(self.pending) > MAX_INSTRUCTION_LINES:
            self.fail("an instruction does not end")
        stripped = line.rstrip()
        if self._state.depth or self._state.in_string or stripped.endswith((",", "=")):
            return
        text = "".join(self.pending)
        head = _HEAD_START.match(text) or _HEAD_START.match(text.replace("\n", " "))
        if head is None:
            self.fail(f"not an instruction: {text.strip()[:60]!r}")
        end = BracketState.closing(text, head.end() - 1)
        if end < 0:
            self.fail(f"not an instruction: {text.strip()[:60]!r}")
        self.pending, self._size = [], 0
        row = (*head.groups(""), text[head.end() : end], text[end + 1 :].rstrip())
        self.columns.add_rows([row])

    def _close(self) -> None:
        self.inside = False
        if not self.columns.open_count:
            self.fail(f"computation {self.columns.computation_names[-1]!r} is empty")
        self.columns.close(self.number)

    # ---- the end

    def finish(self) -> Module:
        columns = self.columns
        if self._table:
            self.fail("the module header does not end")
        if not columns.computation_names:
            if self.named:
                raise ReadError("cut before its first computation", self.path, self.number)
            raise ReadError("not HLO text: no module and no computation", self.path)
        cut = self.inside or bool(self.pending) or columns.looks_cut(self.named)
        if self.inside:
            self.inside = False
            if columns.open_count:
                columns.close(self.number)
            else:  # cut right after its header
                columns.drop_open()
                if not columns.computation_names:
                    raise ReadError("cut before its first instruction", self.path, self.number)
        if cut:
            columns.warnings.append(
                f"the file is cut after line {self.number}, in or after computation "
                f"{columns.computation_names[-1]!r}: figures cover only what is there"
            )
        return fold_async(columns.module(tolerant=cut))


def _depth(text: str) -> int:
    return text.count("{") - text.count("}")


def _balanced(rows: list[tuple[str, ...]]) -> bool:
    """Whether the last instruction ends with its line."""
    if not rows:
        return True
    rest = rows[-1][5].rstrip()
    return rest.count("{") == rest.count("}") and not rest.endswith((",", "="))
