"""Names that a user gave for what to draw, with a suggestion where there is no such name."""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Iterator, Sequence

from hlo_lab.errors import NotFoundError
from hlo_lab.ir.module import Computation, Instruction, Module
from hlo_lab.report.names import clean

_COMPARED = 2000  # names that difflib looks at: each takes some microseconds
_SUGGESTED = 3


def find_instruction(module: Module, name: str) -> Instruction:
    """The instruction of that name. Raises ``NotFoundError`` that names the nearest."""
    try:
        return module.instruction(name)
    except NotFoundError as error:
        raise NotFoundError(f"{error}{_hint(name, module.instruction_names)}") from None


def find_computation(module: Module, name: str) -> Computation:
    """The computation of that name. Raises ``NotFoundError`` that names the nearest."""
    try:
        return module.computation(name)
    except NotFoundError as error:
        raise NotFoundError(f"{error}{_hint(name, module.computation_names)}") from None


def _hint(name: str, names: Sequence[str]) -> str:
    near = list(dict.fromkeys(itertools.islice(_near(name.removeprefix("%"), names), 50)))
    shown = ", ".join(clean(text) for text in near[:_SUGGESTED])
    return f"; did you mean {shown}?" if shown else ""


def _near(name: str, names: Sequence[str]) -> Iterator[str]:
    """``main`` suggests ``main.45``, then what holds the name, then what is spelled alike."""
    yield from (other for other in names if other.startswith(f"{name}."))
    if len(name) > 2:
        yield from (other for other in names if name in other)
    alike = [n for n in names if n[:1] == name[:1] and abs(len(n) - len(name)) <= 3]
    others = (n for n in names if n[:1] != name[:1] and abs(len(n) - len(name)) <= 1)
    candidates = itertools.islice(itertools.chain(alike, others), _COMPARED)
    yield from difflib.get_close_matches(name, candidates, n=_SUGGESTED, cutoff=0.6)
