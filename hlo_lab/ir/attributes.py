"""Attribute lists as XLA prints them: split, read and written with brackets and quotes in mind."""

from __future__ import annotations

import re
from collections.abc import Iterator

_KEY = re.compile(r"\s*([\w\-.]+)\s*=\s*")
_CLOSING = {"{": "}", "(": ")", "[": "]"}
_INTERESTING = re.compile(r'["{}()\[\],]')
_STRING_END = re.compile(r'(?:[^"\\]|\\.)*"', re.S)
MAX_DEPTH = 1000


def split_top_level(text: str) -> Iterator[str]:
    """Split at the commas that stand outside every bracket and string.

    Raises:
        ValueError: brackets that do not close, or nest deeper than ``MAX_DEPTH``.
    """
    start = at = 0
    closing: list[str] = []
    while match := _INTERESTING.search(text, at):
        char, at = match.group(), match.end()
        if char == ",":
            if not closing:
                yield text[start : match.start()].strip()
                start = at
        elif char == '"':
            end = _STRING_END.match(text, at)
            if end is None:
                raise ValueError("a string does not end")
            at = end.end()
        elif char in _CLOSING:
            closing.append(_CLOSING[char])
            if len(closing) > MAX_DEPTH:
                raise ValueError(f"brackets nested deeper than {MAX_DEPTH}")
        elif not closing or closing.pop() != char:
            raise ValueError(f"unexpected {char!r}")
    if closing:
        raise ValueError(f"missing {closing[-1]!r}")
    last = text[start:].strip()
    if last:
        yield last


def closing_bracket(text: str, at: int) -> int:
    """Index of the bracket that closes the one at ``at``; -1 when the text ends before it."""
    depth = 0
    while match := _INTERESTING.search(text, at):
        char, at = match.group(), match.end()
        if char == '"':
            end = _STRING_END.match(text, at)
            if end is None:
                return -1
            at = end.end()
        elif char in "{([":
            depth += 1
        elif char != ",":
            depth -= 1
            if depth == 0:
                return match.start()
    return -1


def parse_attributes(text: str) -> dict[str, str]:
    """Read ``, dimensions={0,1}, direction=LT`` into name and value; order kept.

    A word without ``=`` is kept with an empty value. Raises ``ValueError``.
    """
    out: dict[str, str] = {}
    for part in split_top_level(text.lstrip(", ")):
        match = _KEY.match(part)
        if match is None:
            out[part] = ""
        else:
            out[match.group(1)] = part[match.end() :]
    return out


def print_attributes(attributes: dict[str, str]) -> str:
    """The inverse of :func:`parse_attributes`, without a leading comma."""
    return ", ".join(f"{key}={value}" if value else key for key, value in attributes.items())
