"""What follows an instruction's operands in text: attributes, metadata, callees, control edges."""

from __future__ import annotations

import re
from array import array
from collections.abc import Sequence
from itertools import islice

import numpy as np

from hlo_lab.ir.module import ROLES, Ints
from hlo_lab.ir.reading import NAME, as_ints, numbering

_METADATA = re.compile(r', metadata=\{((?:[^"{}]|"(?:[^"\\]|\\.)*"|\{[^{}]*\})*)\}')
_ROLE_OF = {role: role for role in ROLES} | {
    "true_computation": "branch_computations",
    "false_computation": "branch_computations",
}
_CALLEE = re.compile(rf", ({'|'.join(_ROLE_OF)})=(\{{[^{{}}\"]*\}}|%?{NAME})")
_CONTROL = re.compile(r", control-predecessors=\{([^{}\"]*)\}")
_COMMENT = re.compile(r"/\*.*?\*/")
_CACHED = 200_000  # distinct texts recognised when they come again; bounds memory

Calls = tuple[list[tuple[str, str]], list[str]]  # (role, computation), control predecessors


class Tails:
    """A table of distinct tails, which grows by the ones shown to it.

    Attributes:
        attributes, metadatas: number of each distinct text; the metadata "" is 0.
        attribute, metadata: array("q") [T], those numbers by tail.
        calls: by tail, of those that call or have control predecessors; forgotten in time.
    """

    def __init__(self) -> None:
        self.attributes: dict[str, int] = numbering()
        self.metadatas: dict[str, int] = numbering()
        self._no_metadata = self.metadatas[""]
        self.attribute = array("q")
        self.metadata = array("q")
        self.calls: dict[int, Calls] = {}
        self._has_calls = array("q")
        self._numbers: dict[str, int] = numbering()
        self._split: dict[str, tuple[int, Calls | None]] = {}  # texts without metadata

    def of(self, texts: Sequence[str]) -> Ints:
        """int64[len(texts)]: the number of each tail."""
        if len(self._numbers) > _CACHED:
            for cache in (self._numbers, self._split, self.calls):
                cache.clear()  # the numbers go on counting
        known = len(self._numbers)
        tails = np.fromiter(map(self._numbers.__getitem__, texts), np.int64, len(texts))
        for text in list(islice(self._numbers, known, None)):
            self._add(text)
        return tails

    def calling(self, tails: Ints) -> list[int]:
        """Positions of the tails that call or have control predecessors."""
        rows: list[int] = np.nonzero(as_ints(self._has_calls)[tails])[0].tolist()
        return rows

    def _add(self, text: str) -> None:
        metadata = self._no_metadata
        rest = text.rstrip()
        before, found, after = rest.partition(", metadata={")
        if found and after.find("}") == len(after) - 1 and "{" not in after and _flat(before):
            metadata = self.metadatas[after[:-1]]
            rest = before
        elif found:
            match = _METADATA.search(rest)
            if match is not None and _top_level(rest, match.start()):
                metadata = self.metadatas[match.group(1)]
                rest = rest[: match.start()] + rest[match.end() :]
        if rest not in self._split:
            self._split[rest] = self._attributes_and_calls(rest)
        attribute, calls = self._split[rest]
        if calls is not None:
            self.calls[len(self.attribute)] = calls
        self._has_calls.append(calls is not None)
        self.attribute.append(attribute)
        self.metadata.append(metadata)

    def _attributes_and_calls(self, rest: str) -> tuple[int, Calls | None]:
        callees: list[tuple[str, str]] = []
        controls: list[str] = []
        found = [m for m in _CALLEE.finditer(rest) if _top_level(rest, m.start())]
        for match in found:
            names = _COMMENT.sub("", match.group(2)).strip("{}").split(",")
            role = _ROLE_OF[match.group(1)]
            callees += [(role, name.strip(" %")) for name in names if name.strip()]
        for match in reversed(found if callees else []):
            rest = rest[: match.start()] + rest[match.end() :]
        if ", control-predecessors=" in rest:
            control = _CONTROL.search(rest)
            if control is not None:
                names = control.group(1).split(",")
                controls = [name.strip(" %") for name in names if name.strip()]
                rest = rest[: control.start()] + rest[control.end() :]
        return self.attributes[rest], (callees, controls) if callees or controls else None


def _flat(text: str) -> bool:
    return '"' not in text and text.count("{") == text.count("}")


def _top_level(text: str, at: int) -> bool:
    """Whether position ``at`` stands outside braces and strings; cheap, for valid text."""
    before = text[:at]
    return before.count("{") == before.count("}") and before.count('"') % 2 == 0
