"""Names that came from files and programs, made fit to show: cleaned and shortened."""

from __future__ import annotations

import os
import re
from pathlib import PurePath

from hlo_lab.ir.source import Frame

_INSTALLED = re.compile(r"^.*[/\\](?:site|dist)-packages[/\\]")
_LINE = re.compile(r"^(.*?:\d+)(?: (?:in )?(\S.*))?$")
_SHORTEST = 8  # characters of a function's name that still tell
ELLIPSIS = "…"


def clean(text: str) -> str:
    """Replace what could steer a terminal (escapes, bidirectional marks) by ``?``."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else "?" for char in text)


def elide(text: str, width: int) -> str:
    """At most ``width`` characters, with the middle left out: both ends of a name tell most."""
    if len(text) <= width:
        return text
    if width <= 1:
        return ELLIPSIS[:width]
    tail = width // 2
    return text[: width - 1 - tail] + ELLIPSIS + text[len(text) - tail :]


def elide_source(text: str, width: int) -> str:
    """At most ``width`` characters of ``model.py:12 loss``: the function gives way first.

    Then the beginning of the path: the file and line tell most. What is no source line
    loses its middle.
    """
    match = _LINE.search(text)
    if len(text) <= width or not match:
        return elide(text, width)
    text, function = match.groups()
    room = width - len(text) - 1
    if function and room >= _SHORTEST:
        return f"{text} {elide(function, room)}"
    if len(text) <= width:
        return text
    return ELLIPSIS + text[len(text) - width + 1 :] if width > 1 else ELLIPSIS[:width]


def short_path(path: str) -> str:
    """Relative to the working folder, or to the folder of installed packages."""
    shorter = _INSTALLED.sub("", path)
    if shorter != path or not PurePath(path).is_absolute():
        return shorter
    try:
        relative = PurePath(path).relative_to(os.getcwd())  # noqa: PTH109 - no file is touched
    except (ValueError, OSError):
        return path
    return str(relative)


def short_frame(frame: Frame | None) -> str:
    """``model.py:12 in loss``; empty for None."""
    if frame is None:
        return ""
    where = f"{short_path(frame.file)}:{frame.line}"
    return clean(where + (f" in {frame.function}" if frame.function else ""))


def line_frame(frame: Frame | None) -> str:
    """``model.py:12 Model.loss`` without the folder, for a column; empty for None."""
    if frame is None:
        return ""
    where = f"{PurePath(frame.file).name}:{frame.line}"
    return clean(f"{where} {frame.function}".rstrip())
