"""Shapes: element type, dimensions, layout, tuples; and their sizes in bytes."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache

# Bits per element: xla/primitive_util.h (BitWidth). A pred takes a byte in memory.
BITS: dict[str, int] = {
    "pred": 8, "s1": 1, "u1": 1, "s2": 2, "u2": 2, "s4": 4, "u4": 4, "f4e2m1fn": 4,
    "s8": 8, "u8": 8, "f8e3m4": 8, "f8e4m3": 8, "f8e4m3fn": 8, "f8e4m3fnuz": 8,
    "f8e4m3b11fnuz": 8, "f8e5m2": 8, "f8e5m2fnuz": 8, "f8e8m0fnu": 8,
    "s16": 16, "u16": 16, "f16": 16, "bf16": 16,
    "s32": 32, "u32": 32, "f32": 32, "s64": 64, "u64": 64, "f64": 64, "c64": 64, "c128": 128,
    "token": 0, "opaque": 0,
}  # fmt: skip

_ARRAY = re.compile(r"([a-z][a-z0-9_]*)\[([\d,<=? ]*)\](?:\{([^}]*)\})?")
_TILE = re.compile(r"\(([\d,*]+)\)")
_SPACE = re.compile(r"S\((\d+)\)")
_COMMENT = re.compile(r"/\*.*?\*/")
_ORDER = re.compile(r"(?:\d{1,4}(?:,\d{1,4})*)?(?::|$)")
_TOO_LARGE = 1 << 56  # elements; XLA refuses what does not fit an int64 of bytes
MAX_TUPLE_DEPTH = 64  # XLA's own modules stay below five; deeper text is hostile


@dataclass(frozen=True)
class Shape:
    """One array, tuple, token or opaque shape.

    ``dtype`` is XLA's lower-case name (``f32``, ``tuple``, ``token``); ``dims`` the
    dimensions (upper bounds where ``dynamic`` is true); ``layout`` the text between
    the braces as XLA prints it (``1,0:T(8,128)S(1)``), empty when there is none;
    ``elements`` the members of a tuple.
    """

    dtype: str
    dims: tuple[int, ...] = ()
    layout: str = ""
    elements: tuple[Shape, ...] = ()
    dynamic: tuple[bool, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Shape:
        """Read a shape as XLA prints it. Raises ``ValueError`` on anything else."""
        if "/*" in text:
            text = _COMMENT.sub("", text)
        shape, end = _parse(text, 0, 0)
        if text[end:].strip():
            raise ValueError(f"unexpected {text[end:][:20]!r} after shape")
        return shape.checked()

    def checked(self) -> Shape:
        """Itself. Raises ``ValueError`` when its layout or size cannot be that of a real array."""
        if self._problem:
            raise ValueError(self._problem)
        return self

    @cached_property
    def _problem(self) -> str:
        if self.layout and _ORDER.match(self.layout) is None:
            return f"not a layout: {self.layout[:40]!r}"
        if self.layout and any(dim >= self.rank for dim in self.minor_to_major):
            return f"a layout of other dimensions: {self.layout[:40]!r}"
        if self.element_count > _TOO_LARGE:
            return f"a shape of more than 2**56 elements: {str(self)[:40]!r}"
        return next((element._problem for element in self.elements if element._problem), "")

    @property
    def is_tuple(self) -> bool:
        return self.dtype == "tuple"

    @property
    def is_array(self) -> bool:
        return self.dtype not in ("tuple", "token", "opaque")

    @property
    def rank(self) -> int:
        return len(self.dims)

    @cached_property
    def element_count(self) -> int:
        """Number of elements; a tuple counts the elements of all its members."""
        if self.is_tuple:
            return sum(shape.element_count for shape in self.elements)
        return math.prod(self.dims)

    @cached_property
    def bytes(self) -> int:
        """Bytes of data, without padding. Unknown element types count as 4 bytes."""
        if self.is_tuple:
            return sum(shape.bytes for shape in self.elements)
        return (self.element_count * BITS.get(self.dtype, 32) + 7) // 8

    @cached_property
    def padded_bytes(self) -> int:
        """Bytes in memory once the dimensions are rounded up to the layout's first tile."""
        if self.is_tuple:
            return sum(shape.padded_bytes for shape in self.elements)
        if not self.tile or not self.minor_to_major:
            return self.bytes
        dims = list(self.dims)
        for tile, dim in zip(reversed(self.tile), self.minor_to_major, strict=False):
            dims[dim] = -(-dims[dim] // tile) * tile
        return (math.prod(dims) * BITS.get(self.dtype, 32) + 7) // 8

    @cached_property
    def minor_to_major(self) -> tuple[int, ...]:
        """Dimension numbers, fastest varying first; row-major when no layout is given."""
        order = self.layout.split(":", 1)[0]
        if not order:
            return tuple(reversed(range(len(self.dims))))
        return tuple(int(part) for part in order.split(","))

    @cached_property
    def tile(self) -> tuple[int, ...]:
        """The layout's outermost tile, empty when the layout is not tiled."""
        at = self.layout.find("T(")
        match = _TILE.match(self.layout, at + 1) if at >= 0 else None
        if match is None or "*" in match.group(1):
            return ()
        return tuple(max(int(part), 1) for part in match.group(1).split(",") if part)

    @cached_property
    def memory_space(self) -> int:
        """XLA's memory space: 0 is the device's main memory, 5 the host's, 1 is VMEM on TPU."""
        match = _SPACE.search(self.layout)
        return int(match.group(1)) if match else 0

    def leaves(self) -> Iterator[tuple[tuple[int, ...], Shape]]:
        """Every non-tuple member with its index path; ``((), self)`` for an array."""
        if not self.is_tuple:
            yield (), self
            return
        for number, element in enumerate(self.elements):
            for path, leaf in element.leaves():
                yield (number, *path), leaf

    def without_layout(self) -> Shape:
        if self.is_tuple:
            return Shape("tuple", elements=tuple(s.without_layout() for s in self.elements))
        return Shape(self.dtype, self.dims, dynamic=self.dynamic)

    @cached_property
    def _text(self) -> str:
        if self.is_tuple:
            return f"({', '.join(map(str, self.elements))})"
        flags = self.dynamic or (False,) * len(self.dims)
        dims = ",".join(
            f"<={d}" if dyn else str(d) for d, dyn in zip(self.dims, flags, strict=True)
        )
        layout = f"{{{self.layout}}}" if self.layout else ""
        return f"{self.dtype}[{dims}]{layout}"

    def __str__(self) -> str:
        return self._text


@lru_cache(maxsize=20_000)
def _array(text: str) -> Shape:
    """One array shape; tuples of thousands repeat a few of them."""
    match = _ARRAY.fullmatch(text)
    if match is None:
        raise ValueError(f"not a shape: {text[:40]!r}")
    dtype, dims_text, layout = match.groups()
    parts = [part.strip() for part in dims_text.split(",")] if dims_text.strip() else []
    if any(len(part) > 24 for part in parts):
        raise ValueError(f"a dimension is too large: {text[:40]!r}")
    dynamic = tuple(part[:1] in "<?" for part in parts)
    dims = tuple(0 if part == "?" else int(part.removeprefix("<=")) for part in parts)
    flags = dynamic if any(dynamic) else ()
    return Shape(dtype, dims, (layout or "").replace(" ", ""), dynamic=flags)


def _parse(text: str, at: int, depth: int) -> tuple[Shape, int]:
    if depth > MAX_TUPLE_DEPTH:
        raise ValueError(f"shape nested deeper than {MAX_TUPLE_DEPTH}")
    while text[at : at + 1] == " ":
        at += 1
    if text[at : at + 1] != "(":
        match = _ARRAY.match(text, at)
        if match is None:
            raise ValueError(f"not a shape: {text[at : at + 40]!r}")
        return _array(match.group()), match.end()
    elements: list[Shape] = []
    at += 1
    while True:
        while text[at : at + 1] in (" ", ","):
            at += 1
        if text[at : at + 1] == ")":
            return Shape("tuple", elements=tuple(elements)), at + 1
        element, at = _parse(text, at, depth + 1)
        elements.append(element)
