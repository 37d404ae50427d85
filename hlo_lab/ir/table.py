"""A table of distinct raw values that are decoded when they are first looked at."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class LazyTable(Sequence[T], Generic[T]):
    """Distinct ``raw`` entries (text or proto bytes) and the function that decodes one.

    Modules of a million instructions have a few thousand distinct shapes and
    attribute lists, so readers intern the raw form and pay for decoding once each.
    """

    def __init__(self, raw: Sequence[Any], decode: Callable[[Any], T]):
        self.raw = raw
        self._decode = decode
        self._cache: dict[int, T] = {}

    def __len__(self) -> int:
        return len(self.raw)

    def __getitem__(self, index: Any) -> Any:
        try:
            return self._cache[index]
        except KeyError:
            value = self._cache[index] = self._decode(self.raw[index])
            return value

    def __iter__(self) -> Iterator[T]:
        return (self[index] for index in range(len(self.raw)))

    @classmethod
    def of(cls, values: Sequence[T]) -> LazyTable[T]:
        """A table of values that are decoded already."""
        return cls(values, lambda value: value)
