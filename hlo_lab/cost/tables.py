"""Sizes per distinct shape, and what instructions look like to a cost function."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from hlo_lab.errors import ReadError
from hlo_lab.ir.module import Ints, Module
from hlo_lab.ir.shapes import Shape

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

VECTOR_SPACE = 1  # S(1) in a layout: on-chip memory of a TPU (VMEM)
MAX_SHAPE_BYTES = 1 << 53  # 9 PB; keeps every sum of sizes exact in a float64


@dataclass
class Sizes:
    """Per distinct shape of a module: bytes and elements, tuples as the sum of their leaves."""

    bytes: Ints
    elements: Ints


def sizes(module: Module) -> Sizes:
    """The sizes of ``module.shapes``. Raises ``ReadError`` on a shape that is none."""
    byte_counts: list[int] = []
    element_counts: list[int] = []
    for number in range(len(module.shapes)):
        shape = shape_at(module, number)
        byte_counts.append(shape.bytes)
        element_counts.append(shape.element_count)
    return Sizes(np.array(byte_counts, np.int64), np.array(element_counts, np.int64))


def shape_at(module: Module, number: int) -> Shape:
    """The distinct shape of that number. Raises ``ReadError`` when it cannot be read."""
    try:
        shape: Shape = module.shapes[number]
        too_large = max(shape.bytes, shape.element_count) > MAX_SHAPE_BYTES
    except ValueError as error:
        raise ReadError(f"module {module.name}: a shape cannot be read: {error}") from None
    if too_large:
        raise ReadError(f"module {module.name}: shape {str(shape)[:60]} is too large")
    return shape


def attributes_at(module: Module, number: int) -> dict[str, str]:
    """The distinct attribute list of that number. Raises ``ReadError`` when it is none."""
    try:
        attributes: dict[str, str] = module.attributes[number]
    except ValueError as error:
        raise ReadError(f"module {module.name}: attributes cannot be read: {error}") from None
    return attributes


@dataclass(slots=True)
class Op:
    """One instruction as a cost function sees it.

    ``applied`` holds (flops, transcendentals) of one application of each called
    computation, in call order.
    """

    opcode: str
    shape: Shape
    operands: list[Shape]
    attributes: dict[str, str]
    applied: list[tuple[float, float]] = field(default_factory=list)

    @property
    def first_array(self) -> Shape:
        """The result, or the first member of a tuple result."""
        shape = self.shape
        while shape.is_tuple and shape.elements:
            shape = shape.elements[0]
        return shape

    def operand(self, number: int) -> Shape:
        """An operand's shape. Raises ``IndexError``, as malformed text may lack it."""
        return self.operands[number]


def words(text: str) -> frozenset[str]:
    """The set of names in a text, separated by white space."""
    return frozenset(text.split())


def integers(text: str) -> list[int]:
    """``{1,0}`` as numbers; empty for an empty or missing list."""
    return [int(part) for part in text.strip("{} ").split(",") if part.strip()]
