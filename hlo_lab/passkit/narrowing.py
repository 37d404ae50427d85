"""Part of a program in narrower element types, with conversions where it meets the rest."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from hlo_lab.passkit import mlir
from hlo_lab.passkit.mlir_module import forget, main_block, take_marks, walk
from hlo_lab.passkit.rewriter import Op, Rewriter

# what they do depends on the width, or somebody else says what they take and give
_AS_THEY_ARE = frozenset((
    "bitcast_convert", "composite", "count_leading_zeros", "custom_call", "infeed", "outfeed",
    "popcnt", "recv", "reduce_precision", "rng", "rng_bit_generator", "send", "shift_left",
    "shift_right_arithmetic", "shift_right_logical",
))  # fmt: skip
_DIALECTS = ("stablehlo.", "chlo.")


def narrow(module: Rewriter, begins: Iterable[Op], types: Mapping[str, str]) -> None:
    """Give narrower types to what is computed from what some operations begin.

    Loops and other operations with regions are narrowed as a whole, conditions and bodies
    included. Operations that depend on the width stay as they are, between conversions.
    All of it counts as one change.

    Args:
        types: the element types to replace, as MLIR calls them, and by which.
    """
    known = {mlir.ir().Type.parse(wide): mlir.ir().Type.parse(to) for wide, to in types.items()}
    block = main_block(module.raw)
    chosen = _reached(block, begins, known)
    wide_types: dict[Any, Any] = {}  # of values that are narrow now: the type that they had
    for top in chosen:
        for raw in (top, *walk(top)):
            if not _stays(raw):
                _retype(raw, known, wide_types)
    inside = {raw for top in chosen for raw in (top, *walk(top)) if not _stays(raw)}
    for raw in list(walk(main_block(module.raw).owner.operation)):
        _meet(module, raw, raw in inside, known, wide_types)
    module.changes += bool(wide_types)
    for top in chosen:
        # none of them gives what the original gave
        forget(top)


def _reached(block: Any, begins: Iterable[Op], known: Mapping[Any, Any]) -> list[Any]:
    """Main's own operations that begin it, or compute with what does, in program order."""
    first = {_top(op.raw, block) for op in begins}
    carriers: set[Any] = set()
    found = []
    for operation in block.operations:
        raw = operation.operation
        inner = [value for each in walk(raw) for value in each.operands]
        if not _stays(raw) and (
            raw in first or any(value in carriers for value in (*raw.operands, *inner))
        ):
            found.append(raw)
            carriers |= {value for value in raw.results if _narrow_type(value, known)}
    return found


def _top(raw: Any, block: Any) -> Any:
    """The operation of a block that something is, or is inside of."""
    while raw.block != block:
        raw = raw.parent.operation
    return raw


def _stays(raw: Any) -> bool:
    name = str(raw.name)
    prefix = next((each for each in _DIALECTS if name.startswith(each)), None)
    return prefix is None or name.removeprefix(prefix) in _AS_THEY_ARE


def _narrow_type(value: Any, known: Mapping[Any, Any]) -> Any:
    """None where the type of a value is not to be replaced."""
    kinds = mlir.ir()
    if type(value.type).__name__ != "RankedTensorType":
        return None
    tensor = kinds.RankedTensorType(value.type)
    to = known.get(tensor.element_type)
    return None if to is None else kinds.RankedTensorType.get(tensor.shape, to, tensor.encoding)


def _retype(raw: Any, known: Mapping[Any, Any], wide_types: dict[Any, Any]) -> None:
    """Narrow what an operation gives, and the arguments of its regions."""
    arguments = [
        value for region in raw.regions for block in region.blocks for value in block.arguments
    ]
    results = [value for value in raw.results if _narrow_type(value, known)]
    if raw.name == "stablehlo.constant" and results and not _narrow_constant(raw, known):
        return
    for value in (*arguments, *results):
        narrow_type = _narrow_type(value, known)
        if narrow_type is not None:
            wide_types[value] = value.type
            value.set_type(narrow_type)


def _narrow_constant(raw: Any, known: Mapping[Any, Any]) -> bool:
    """False where it has several values, which are converted instead."""
    kinds = mlir.ir()
    number = mlir.splat_of(raw.attributes["value"])
    if number is None:
        return False
    tensor = kinds.RankedTensorType(_narrow_type(raw.results[0], known))
    if isinstance(number, int):
        # what begins a maximum is the least there is
        most = 2 ** (kinds.IntegerType(tensor.element_type).width - 1)
        number = max(-most, min(most - 1, number))
    raw.attributes["value"] = mlir.dense_splat(tensor.shape, str(tensor.element_type), number)
    return True


def _meet(
    module: Rewriter,
    raw: Any,
    is_narrow: bool,
    known: Mapping[Any, Any],
    wide_types: Mapping[Any, Any],
) -> None:
    """Convert what an operation takes to the width that it has."""
    op = Op(raw, module)
    for number, value in enumerate(raw.operands):
        wanted = _narrow_type(value, known) if is_narrow else wide_types.get(value)
        if wanted is None:
            continue
        dtype = str(mlir.ir().RankedTensorType(wanted).element_type)
        converted = module.before(op).convert(op.operands[number], dtype)
        if raw.name == "func.return":
            take_marks(value, converted.raw)
        raw.operands[number] = converted.raw
