"""Where an instruction comes from: its op_name and the stack of the user's source lines."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

_LIBRARY = re.compile(r"(?:^|[/\\])(?:site-packages|dist-packages|lib[/\\]python\d)")


@dataclass(frozen=True)
class Frame:
    """One source line: ``file:line in function``; ``column`` is 1-based, 0 when unknown."""

    file: str
    line: int
    function: str = ""
    column: int = 0

    def __str__(self) -> str:
        return f"{self.file}:{self.line}" + (f" in {self.function}" if self.function else "")


def user_frame(stack: Sequence[Frame]) -> Frame | None:
    """The innermost frame outside installed packages, else the innermost of all."""
    own = (frame for frame in stack if not _LIBRARY.search(frame.file))
    return next(own, stack[0] if stack else None)


@dataclass(frozen=True)
class Metadata:
    """What XLA keeps of an instruction's origin. ``extra`` holds the fields not named here."""

    op_name: str = ""
    op_type: str = ""
    source_file: str = ""
    source_line: int = 0
    stack_frame_id: int = 0
    extra: tuple[tuple[str, str], ...] = ()


@dataclass
class StackFrames:
    """The tables behind ``stack_frame_id``. All ids are 1-based; 0 means none.

    ``locations`` holds (file, function, line, end_line, column, end_column) and
    ``frames`` (location, parent frame), the parent as in the proto: 0 is the root.
    """

    files: list[str] = field(default_factory=list)
    functions: list[str] = field(default_factory=list)
    locations: list[tuple[int, int, int, int, int, int]] = field(default_factory=list)
    frames: list[tuple[int, int]] = field(default_factory=list)

    def stack(self, frame_id: int) -> tuple[Frame, ...]:
        """Innermost frame first; repeats dropped, dangling ids and cycles end the walk."""
        out: list[Frame] = []
        seen: set[int] = set()
        while 0 < frame_id <= len(self.frames) and frame_id not in seen:
            seen.add(frame_id)
            location, parent = self.frames[frame_id - 1]
            if 0 < location <= len(self.locations):
                frame = self._frame(*self.locations[location - 1])
                # jaxlib 0.11.2 repeats frames
                if not out or out[-1] != frame:
                    out.append(frame)
            frame_id = parent
        return tuple(out)

    def _frame(self, file: int, function: int, line: int, _: int, column: int, __: int) -> Frame:
        return Frame(_name(self.files, file), line, _name(self.functions, function), column)


def _name(table: list[str], number: int) -> str:
    return table[number - 1] if 0 < number <= len(table) else ""


_FIELD = re.compile(
    r'(\w+)=("(?:[^"\\]|\\.)*"|\{(?:[^{}"]|"(?:[^"\\]|\\.)*"|\{[^{}]*\})*\}|[^\s,{}]+)'
)
_ESCAPE = re.compile(rb"\\(x[0-9a-fA-F]{2}|[0-7]{3}|.)", re.S)
_SPECIAL = re.compile(r"[\"'\\]")
_ESCAPED = {b"n": b"\n", b"t": b"\t", b"r": b"\r"}


def unescape(text: str) -> str:
    """Undo XLA's C-style escapes (``\\'``, ``\\"``, ``\\n``, octal, hex), which stand for bytes."""
    if "\\" not in text:
        return text
    raw = _ESCAPE.sub(_unescape_one, text.encode("utf-8", "surrogatepass"))
    return raw.decode("utf-8", "replace")


def _unescape_one(match: re.Match[bytes]) -> bytes:
    code = match.group(1)
    if code[:1] == b"x" and len(code) == 3:
        return bytes((int(code[1:], 16),))
    if len(code) == 3:
        return bytes((int(code, 8) & 255,))
    return _ESCAPED.get(code, code)


_CHARACTER = {"\n": "\\n", "\r": "\\r", "\t": "\\t", '"': '\\"', "'": "\\'", "\\": "\\\\"}


def escape(text: str | bytes) -> str:
    """absl::CEscape: bytes outside printable ASCII become three octal digits."""
    if isinstance(text, str):
        if text.isascii() and text.isprintable() and not _SPECIAL.search(text):
            return text
        text = text.encode("utf-8", "surrogatepass")
    return "".join(
        _CHARACTER.get(chr(byte)) or (chr(byte) if 32 <= byte < 127 else f"\\{byte:03o}")
        for byte in text
    )


def quoted(text: str | bytes) -> str:
    return f'"{escape(text)}"'


def parse_metadata(text: str) -> Metadata:
    """Read the inside of ``metadata={...}``. Unknown fields are kept in ``extra``."""
    known: dict[str, str] = {}
    extra: list[tuple[str, str]] = []
    for key, value in _FIELD.findall(text):
        if key in ("op_name", "op_type", "source_file", "source_line", "stack_frame_id"):
            known[key] = unescape(value[1:-1]) if value[:1] == '"' else value
        else:
            extra.append((key, value))
    return Metadata(
        op_name=known.get("op_name", ""),
        op_type=known.get("op_type", ""),
        source_file=known.get("source_file", ""),
        source_line=_int(known.get("source_line")),
        stack_frame_id=_int(known.get("stack_frame_id")),
        extra=tuple(extra),
    )


def _int(text: str | None) -> int:
    return int(text) if text and text.isdecimal() else 0
