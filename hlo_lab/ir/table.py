"""A table of distinct raw values that are decoded when they are first looked at."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
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


class LazyMap(Mapping[int, T], Generic[T]):
    """A value by instruction index, decoded from its raw form each time it is asked for."""

    def __init__(self, raw: dict[int, Any], decode: Callable[[Any], T]):
        self.raw = raw
        self._decode = decode

    def __getitem__(self, index: int) -> T:
        return self._decode(self.raw[index])

    def __iter__(self) -> Iterator[int]:
        return iter(self.raw)

    def __len__(self) -> int:
        return len(self.raw)

    def renumbered(self, new_of: Mapping[int, int]) -> LazyMap[T]:
        """The same values under new indices; those without one are dropped."""
        raw = {new_of[old]: value for old, value in self.raw.items() if old in new_of}
        return LazyMap(raw, self._decode)
