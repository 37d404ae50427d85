"""Attribute lists as XLA prints them: split, read and written with brackets and quotes in mind."""

from __future__ import annotations

import re
from collections.abc import Iterator

_KEY = re.compile(r"\s*([\w\-.]+)\s*=\s*")
_CLOSING = {"{": "}", "(": ")", "[": "]"}
_INTERESTING = re.compile(r'["{}()\[\],]')
_BRACKET = re.compile(r'["{}()\[\]]')
_STRING_END = re.compile(r'(?:[^"\\]|\\.)*"', re.S)
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"', re.S)
_DIVIDER = re.compile(r",\s*(?=[\w\-.]+=)")
_LONG = 2000  # characters
MAX_DEPTH = 1000
MAX_BRACKETS = 2_000_000  # in one instruction: seconds of work


def split_top_level(text: str) -> Iterator[str]:
    """Split at the commas that stand outside every bracket and string.

    Raises:
        ValueError: brackets that do not close, or nest deeper than ``MAX_DEPTH``.
    """
    if len(text) > _LONG:
        yield from _split_long(text)
        return
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


def _split_long(text: str) -> list[str]:
    """Fast split of ``a={...}, b=...`` by counting brackets between the places that may divide.

    Raises:
        ValueError: the counts do not come out even.
    """
    bare = _STRING.sub(lambda match: "_" * len(match.group()), text) if '"' in text else text
    parts: list[str] = []
    start = counted = depth = 0
    for match in _DIVIDER.finditer(bare):
        depth += _depth(bare[counted : match.start()])
        counted = match.start()
        if depth == 0:
            parts.append(text[start : match.start()].strip())
            start = match.end()
    if depth + _depth(bare[counted:]) or '"' in bare:
        raise ValueError("brackets or strings that do not close")
    parts.append(text[start:].strip())
    return parts


def _depth(text: str) -> int:
    opened = text.count("{") + text.count("(") + text.count("[")
    return opened - text.count("}") - text.count(")") - text.count("]")


class BracketState:
    """Brackets and strings left open by the text fed so far, in any number of pieces."""

    def __init__(self) -> None:
        self._open: list[str] = []
        self._seen = 0
        self.in_string = False

    @property
    def depth(self) -> int:
        return len(self._open)

    def feed(self, text: str, at: int = 0, *, stop_at_zero: bool = False) -> int:
        """Read ``text`` from ``at``; with ``stop_at_zero``, index where depth returned to 0.

        Returns -1 when it read to the end of the text.

        Raises:
            ValueError: a bracket that closes another one, too deep a nest, or too many in all.
        """
        if self.in_string:
            match = _STRING_END.match(text, at)
            if match is None:
                return -1
            self.in_string, at = False, match.end()
        self._seen += text.count("{") + text.count("(") + text.count("[")
        if self._seen > MAX_BRACKETS:
            raise ValueError(f"more than {MAX_BRACKETS} brackets")
        while match := _BRACKET.search(text, at):
            char, at = match.group(), match.end()
            if char == '"':
                end = _STRING_END.match(text, at)
                if end is None:
                    self.in_string = True
                    return -1
                at = end.end()
            elif char in _CLOSING:
                self._open.append(_CLOSING[char])
                if len(self._open) > MAX_DEPTH:
                    raise ValueError(f"brackets nested deeper than {MAX_DEPTH}")
            elif not self._open or self._open.pop() != char:
                raise ValueError(f"unexpected {char!r}")
            elif stop_at_zero and not self._open:
                return match.start()
        return -1

    @classmethod
    def closing(cls, text: str, at: int) -> int:
        """Index of the bracket that closes the one at ``at``; -1 when there is none."""
        return cls().feed(text, at, stop_at_zero=True)


def parse_attributes(text: str) -> dict[str, str]:
    """Read ``, dimensions={0,1}, direction=LT`` into name and value; order kept.

    A word without ``=`` is kept with an empty value. Raises ``ValueError``.
    """
    out: dict[str, str] = {}
    for part in split_top_level(text.lstrip(", ")):
        match = _KEY.match(part)
        if match is None:
            out[part] = ""
        elif match.group(1) == "device_ids" and "replica_groups" in out:
            out["replica_groups"] += (
                f", {part}"  # of its mesh: replica_groups=mesh[..], device_ids=..
            )
        else:
            out[match.group(1)] = part[match.end() :]
    return out


def print_attributes(attributes: dict[str, str]) -> str:
    """The inverse of :func:`parse_attributes`, without a leading comma."""
    return ", ".join(f"{key}={value}" if value else key for key, value in attributes.items())
