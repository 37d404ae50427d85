"""What the text reader and the proto reader share."""

from __future__ import annotations

import gc
from array import array
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from hlo_lab.errors import ReadError
from hlo_lab.ir.module import Ints

# what XLA's printers and users' own files have in names; ranges first, for speed
NAME = r"[A-Za-z0-9_.\-<>~:@/$+\w]+"

T = TypeVar("T")


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


def numbering() -> dict[Any, int]:
    """A table that numbers each value it is asked for, from 0 in the order of asking."""
    return defaultdict(count().__next__)


def guarded(decode: Callable[[Any], T], what: str, path: str | Path | None) -> Callable[[Any], T]:
    """``decode`` of a table's raw entry, which tells a damaged one as a ``ReadError``."""

    def checked(raw: Any) -> T:
        try:
            return decode(raw)
        except (ValueError, IndexError, KeyError, RecursionError) as error:
            raise ReadError(f"a damaged {what}: {error}", path) from None

    return checked


def as_ints(column: array[int]) -> Ints:
    """The same memory as an int64 array."""
    return np.frombuffer(column, np.int64) if column else np.zeros(0, np.int64)
