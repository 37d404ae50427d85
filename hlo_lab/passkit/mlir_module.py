"""An MLIR module as a whole: its operations, its main function, and numbers on its values.

The numbers say which results of the original a value of a rewritten module stands for.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from hlo_lab.passkit import mlir

DIALECT = "stablehlo."
MARK = "hlo_lab.stands_for"  # attribute: which results of the original an operation gives
_PURE_DIALECTS = (DIALECT, "chlo.")
# they give the same whatever is around them, but something else sees that they ran
_EFFECTS = frozenset(
    f"{DIALECT}{name}" for name in ("infeed", "outfeed", "send", "recv", "return", "rng")
)


def walk(raw: Any) -> Iterator[Any]:
    """What is inside of an operation, in program order."""
    for region in raw.regions:
        for block in region.blocks:
            for each in block.operations:
                yield each.operation
                yield from walk(each.operation)


def identity(raw: Any) -> Any:
    """What stands for an operation in a set: its own hash changes with its operands."""
    return raw.results[0] if len(raw.results) else raw


def is_pure(raw: Any) -> bool:
    """Whether an operation may go when nobody takes its results."""
    name = raw.name
    if not name.startswith(_PURE_DIALECTS) or name in _EFFECTS:
        return False
    if name == f"{DIALECT}custom_call" and "has_side_effect" in raw.attributes:
        return not mlir.plain(raw.attributes["has_side_effect"])
    return all(is_pure(each) or each.name == f"{DIALECT}return" for each in walk(raw))


def mark(raw_module: Any) -> dict[int, Any]:
    """Number the results of main's own operations, so that they are known after a rewrite.

    Returns:
        The results by number, in program order.
    """
    found: dict[int, Any] = {}
    for operation in main_block(raw_module).operations:
        raw = operation.operation
        first = len(found)
        found.update(enumerate(raw.results, first))
        if len(raw.results):
            _write_marks(raw, [(at, first + at) for at in range(len(raw.results))])
    return found


def marked(raw_module: Any) -> dict[int, Any]:
    """Values of main by the number that ``mark`` gave to what they stand for."""
    found: dict[int, Any] = {}
    for operation in main_block(raw_module).operations:
        raw = operation.operation
        for result, number in _marks(raw):
            found[number] = raw.results[result]
    return found


def unmark(raw_module: Any) -> None:
    """Remove every number again."""
    for raw in walk(raw_module.operation):
        forget(raw)


def forget(raw: Any, *results: int) -> None:
    """Let an operation, or some of its results, stand for nothing of the original."""
    kept = [(at, number) for at, number in _marks(raw) if results and at not in results]
    if kept:
        _write_marks(raw, kept)
    elif MARK in raw.attributes:
        del raw.attributes[MARK]


def main_block(raw_module: Any) -> Any:
    """The block of the function that XLA enters. Raises ``ValueError`` where there is none."""
    for each in raw_module.body.operations:
        raw = each.operation
        if raw.name == "func.func" and mlir.plain(raw.attributes["sym_name"]) == "main":
            return raw.regions[0].blocks[0]
    raise ValueError("it has no function named main")


def returned(raw_module: Any) -> list[Any]:
    """The values that main gives."""
    *_, last = main_block(raw_module).operations
    return list(last.operation.operands)


def taken(raw: Any) -> list[Any]:
    """The values that an operation takes, each once, and what is inside of it."""
    inside = (value for each in walk(raw) for value in each.operands)
    return list(dict.fromkeys([*raw.operands, *inside]))


def count_ops(raw_module: Any) -> dict[str, int]:
    """How many operations of each name there are, functions and terminators left out."""
    counts: dict[str, int] = {}
    for raw in walk(raw_module.operation):
        name = str(raw.name).removeprefix(DIALECT)
        if name not in ("func.func", "func.return", "return"):
            counts[name] = counts.get(name, 0) + 1
    return counts


def _marks(raw: Any) -> list[tuple[int, int]]:
    if MARK not in raw.attributes:
        return []
    pairs: Sequence[str] = mlir.plain(raw.attributes[MARK]).split()
    return [(int(at), int(number)) for at, _, number in (pair.partition(":") for pair in pairs)]


def _write_marks(raw: Any, marks: Sequence[tuple[int, int]]) -> None:
    text = " ".join(f"{at}:{number}" for at, number in marks)
    raw.attributes[MARK] = mlir.ir().StringAttr.get(text)


def take_marks(old: Any, new: Any) -> None:
    """Let a new value stand for what the old one stood for."""
    source, target = old.owner, new.owner
    if not hasattr(source, "operation") or not hasattr(target, "operation"):
        return
    numbers = [number for at, number in _marks(source.operation) if at == old.result_number]
    if not numbers:
        return
    raw = target.operation
    added = [(new.result_number, number) for number in numbers]
    _write_marks(raw, [*_marks(raw), *added])
