"""Where in a program a rewrite applies: a source line, or an operation's name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any, TypeVar

from hlo_lab.errors import UseError
from hlo_lab.ir.source import Frame, user_frame
from hlo_lab.passkit import mlir

T = TypeVar("T")
_SHOWN = 3  # lines in an error


@dataclass(frozen=True)
class Place:
    """A source line; without one the name that JAX gives an operation.

    ``file`` may be the end of a path: ``train.py``, ``models/block.py``.
    """

    file: str = ""
    line: int = 0
    op_name: str = ""

    def __str__(self) -> str:
        return f"{self.file}:{self.line}" if self.file else self.op_name

    @classmethod
    def parse(cls, text: str) -> Place:
        """Read ``FILE:LINE``. Raises ``UseError``."""
        file, _, line = text.rpartition(":")
        if not file or not line.isdecimal():
            raise UseError(f"--at {text!r}: give FILE:LINE, such as train.py:12")
        return cls(file, int(line))

    def select(self, operations: Iterable[Any]) -> set[Any]:
        """The MLIR operations that are from here.

        Those whose innermost line outside of installed packages is this one; where there are
        none, those that were called from it.
        """
        return self.choose(
            operations,
            lambda raw: mlir.name_and_place(raw.location)[0],
            lambda raw: mlir.frames(raw.location),
        )

    def check(self, operations: Iterable[Any]) -> None:
        """Raises ``UseError``, with lines that do, where no MLIR operation is from here."""
        every = list(operations)
        if not self.file or self.select(every):
            return
        frames = (user_frame(mlir.frames(raw.location)) for raw in every)
        lines = dict.fromkeys((each.file, each.line) for each in frames if each is not None)
        own = [(file, line) for file, line in lines if _ends_with(file, self.file)]
        near = sorted(own, key=lambda one: abs(one[1] - self.line)) or list(lines)
        shown = ", ".join(f"{PurePath(file).name}:{line}" for file, line in near[:_SHOWN])
        hint = f"; there are some from {shown}" if shown else ", which has no source lines"
        raise UseError(f"no operation of the program is from {self}{hint}")

    def choose(
        self,
        operations: Iterable[T],
        name_of: Callable[[T], str],
        stack_of: Callable[[T], Sequence[Frame]],
    ) -> set[T]:
        """As ``select``, of operations of any kind, by what JAX calls them and their stacks."""
        if not self.file:
            return {each for each in operations if name_of(each) == self.op_name}
        stacks = [(each, stack_of(each)) for each in operations]
        own = {each for each, stack in stacks if self._is_at(user_frame(stack))}
        return own or {each for each, stack in stacks if any(map(self._is_at, stack))}

    def _is_at(self, frame: Frame | None) -> bool:
        if frame is None or frame.line != self.line:
            return False
        return frame.file == self.file or _ends_with(frame.file, self.file)


def _ends_with(path: str, end: str) -> bool:
    parts: Sequence[str] = PurePath(end).parts
    return bool(parts) and PurePath(path).parts[-len(parts) :] == tuple(parts)
