"""Elements moved from one order in memory to another, and the cache lines that this takes."""

from __future__ import annotations

import math
from dataclasses import dataclass

from hlo_lab.cost.machines import Machine
from hlo_lab.ir.shapes import BITS, Shape

LINE = 64  # bytes of a cache line
PAGE = 4096  # bytes of a page, and of what a way of the first cache holds
PAGES = 1024  # of which the processor remembers the addresses, about
_WAYS = 16  # of the second cache
_RUN = 8  # elements beside each other from which a loop is worth calling contiguous


@dataclass(frozen=True)
class Caches:
    """The sizes at which a kernel's bytes stop fitting: bytes, smallest first."""

    limits: tuple[float, ...]

    @classmethod
    def of(cls, machine: Machine) -> Caches:
        """Those of the machine's first four levels of memory."""
        limits = [fits for fits, _ in machine.bandwidth if math.isfinite(fits)]
        while len(limits) < 4:
            limits.append(limits[-1] * 16 if limits else 32768.0)
        return cls(tuple(limits[:4]))

    def lines_fit(self, level: int, stride: int) -> float:
        """Lines a stride of bytes apart that a cache keeps: a large power of two uses few sets."""
        ways = max(self.limits[0] / PAGE, 1) if level == 0 else _WAYS
        span = self.limits[level] / ways
        sets = max(span / max(math.gcd(int(stride), int(span)), LINE), 1)
        return sets * ways


@dataclass(frozen=True)
class Place:
    """What an instruction stands in: a kernel of the library or a loop, on a machine.

    ``extra`` is the number of operations of a reducer beyond its one: XLA rounds narrow
    types at each step.
    """

    library: bool
    caches: Caches
    extra: int = 0


def moved(source: Shape, result: Shape, dims: tuple[int, ...], caches: Caches) -> dict[str, float]:
    """Work of copying ``source`` into the order of ``result``.

    ``dims`` says which dimension of the source each one of the result is. Where the order
    in memory stays, there is none beyond the bytes.
    """
    if not len(dims) == result.rank == source.rank or result.element_count <= 1:
        return {}
    strides, stride = {}, 1
    for dim in source.minor_to_major:
        strides[dim] = stride
        stride *= source.dims[dim]
    walk = [
        (result.dims[dim], strides[dims[dim]])
        for dim in result.minor_to_major
        if result.dims[dim] > 1
    ]
    run = 1
    while walk and walk[0][1] == run:
        run *= walk.pop(0)[0]
    if not walk:
        return {}
    count = result.element_count
    if run >= _RUN:
        return {"move.run": count / run}
    width = max(BITS.get(source.dtype, 32) // 8, 1)
    step = walk[0][1] * width
    touched, size = 1, 1  # lines touched before a line is touched again
    for size, apart in walk:
        if apart * width < LINE:
            break
        touched *= size
    units = {"move.element": float(count)}
    for level in (0, 1):
        if touched > caches.lines_fit(level, step):
            units[f"move.fused_beyond_{level}"] = float(count)
    return units


def resliced(source: Shape, result: Shape, text: str) -> dict[str, float]:
    """Work of a slice: elements, and more where its fastest dimension is taken with a step."""
    minor = source.minor_to_major[0] if source.rank else 0
    steps = [part.strip("[] ").split(":") for part in text.strip("{}").split(",")]
    strided = minor < len(steps) and len(steps[minor]) == 3 and int(steps[minor][2]) > 1
    return {"part.strided" if strided else "part.element": float(result.element_count)}
