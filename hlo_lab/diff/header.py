"""Changes of the module itself: donation, entry layout, the number of devices."""

from __future__ import annotations

import re
from collections.abc import Iterator

from hlo_lab.diff.digest import semantic_header
from hlo_lab.diff.result import Change, Kind
from hlo_lab.ir.module import Module

_ALIAS = re.compile(r"\{([\d,]*)\}:\((\d+),\{([\d,]*)\}")
_DONOR = re.compile(r"\((\d+),\{([\d,]*)\}\)")
_DONATION = ("input_output_alias", "buffer_donor")


def header_changes(a: Module, b: Module) -> Iterator[Change]:
    """Donation as one change; every other attribute of the header as one each.

    An attribute that one side does not state is not compared: protos hold no
    ``num_partitions``. Parameter and result shapes are seen at the instructions, so that
    the entry layout counts only where nothing but layouts differ in it.
    """
    old, new = semantic_header(a), semantic_header(b)
    before, after = _donated(old), _donated(new)
    if before != after:
        parts = []
        for word, numbers in (("no longer donated", before - after), ("donated", after - before)):
            if numbers:
                shown = ", ".join(map(str, sorted(numbers)[:8]))
                more = f" and {len(numbers) - 8} more" if len(numbers) > 8 else ""
                noun = "argument" if len(numbers) == 1 else "arguments"
                parts.append(f"{noun} {shown}{more} {word}")
        yield Change(
            Kind.DONATION, "; ".join(parts), len(before ^ after),
            cause="jax.jit(donate_argnums=...), or outputs that no longer fit an argument",
        )  # fmt: skip
    elif any(old.get(name) != new.get(name) for name in _DONATION):
        yield Change(Kind.DONATION, "the same arguments are donated, to other results", 1)
    for name in sorted((old.keys() & new.keys()) - set(_DONATION)):
        x, y = old[name], new[name]
        if x == y or (name == "entry_computation_layout" and not _only_layouts(x, y)):
            continue
        if name == "entry_computation_layout":
            yield Change(Kind.LAYOUT, "the layout of an argument or result changed", 1)
        else:
            yield Change(Kind.MODULE, f"{name}: {x} -> {y}", 1)


def header_notes(a: Module, b: Module) -> list[str]:
    """What could not be compared, since one side does not state it."""
    old, new = semantic_header(a), semantic_header(b)
    return [
        f"{name} ({old.get(name) or new.get(name)}) is stated on one side alone: not compared"
        for name in ("num_partitions", "replica_count")
        if (name in old) != (name in new)
    ]


def _donated(header: dict[str, str]) -> set[int]:
    """Parameter numbers that are donated, by alias or as donors."""
    numbers = {int(n) for _, n, _ in _ALIAS.findall(header.get("input_output_alias", ""))}
    return numbers | {int(n) for n, _ in _DONOR.findall(header.get("buffer_donor", ""))}


_LAYOUT = re.compile(r"(?<=\])\{[^{}]*\}")


def _only_layouts(a: str, b: str) -> bool:
    """Whether two entry layouts differ in layouts that both state."""
    return _LAYOUT.sub("", a) == _LAYOUT.sub("", b) and bool(_LAYOUT.search(a[1:-1])) == bool(
        _LAYOUT.search(b[1:-1])
    )
