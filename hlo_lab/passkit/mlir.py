"""The MLIR bindings that JAX exports, for rewrites of StableHLO: nothing else here imports them.

Only what ``ir`` itself has is used, with operations made by name, so that nothing depends on
the builders that jaxlib generates for a dialect. A module, and the context it lives in, come
from ``lowering``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hlo_lab.ir.source import Frame

_ENUM = re.compile(r"#\w+<\w+ (\w+)>")
_DIMENSIONS = re.compile(r"(\w+) = \[([\d, ]*)\]")
_SYMBOL = re.compile(r'@(?:([\w$.-]+)|"([^"]*)")')
_DENSE_ARRAYS = ("DenseI64ArrayAttr", "DenseI32ArrayAttr", "DenseBoolArrayAttr", "ArrayAttr")


def ir() -> Any:
    """``jax.extend.mlir.ir``."""
    import jax.extend.mlir.ir

    return jax.extend.mlir.ir


@dataclass(frozen=True)
class DotDimensions:
    """Which dimensions a dot sums over and which it runs along on both sides."""

    lhs_batch: tuple[int, ...]
    rhs_batch: tuple[int, ...]
    lhs_contracting: tuple[int, ...]
    rhs_contracting: tuple[int, ...]

    @classmethod
    def of(cls, operation: Any) -> DotDimensions:
        text = str(operation.attributes["dot_dimension_numbers"])
        found = {
            name: tuple(int(number) for number in numbers.split(",") if number.strip())
            for name, numbers in _DIMENSIONS.findall(text)
        }
        return cls(
            *(
                found.get(f"{side}_{kind}_dimensions", ())
                for kind in ("batching", "contracting")
                for side in ("lhs", "rhs")
            )
        )

    def attribute(self) -> Any:
        return ir().Attribute.parse(
            f"#stablehlo.dot<lhs_batching_dimensions = {list(self.lhs_batch)}, "
            f"rhs_batching_dimensions = {list(self.rhs_batch)}, "
            f"lhs_contracting_dimensions = {list(self.lhs_contracting)}, "
            f"rhs_contracting_dimensions = {list(self.rhs_contracting)}>"
        )


def plain(attribute: Any) -> Any:
    """An attribute as a Python value where it has one: int, float, bool, str or a tuple."""
    kind = type(attribute).__name__
    if kind in ("IntegerAttr", "BoolAttr", "FloatAttr", "StringAttr"):
        return attribute.value
    if kind in _DENSE_ARRAYS:
        return tuple(plain(each) if kind == "ArrayAttr" else each for each in attribute)
    match = _ENUM.fullmatch(str(attribute))
    return match[1] if match else attribute


def splat_of(attribute: Any) -> float | int | bool | None:
    """The one number that a constant is full of; None where it has several."""
    if not getattr(attribute, "is_splat", False):
        return None
    value = attribute.get_splat_value()
    if type(value).__name__ not in ("FloatAttr", "IntegerAttr", "BoolAttr"):
        return None  # complex numbers
    number: float | int | bool = value.value
    return number


def bits(dtype: str) -> int:
    """Of an element; a boolean takes a byte."""
    if dtype == "i1":
        return 8
    (first, *_) = re.findall(r"\d+", dtype)
    return int(first) * (2 if dtype.startswith("complex") else 1)


def tensor_type(shape: Sequence[int], dtype: str) -> Any:
    return ir().RankedTensorType.get(list(shape), ir().Type.parse(dtype))


def dense_splat(shape: Sequence[int], dtype: str, value: float) -> Any:
    """A constant full of one number."""
    element = ir().Type.parse(dtype)
    if dtype.startswith(("f", "bf")):
        one = ir().FloatAttr.get(element, float(value))
    else:
        one = ir().IntegerAttr.get(element, int(value))
    return ir().DenseElementsAttr.get_splat(tensor_type(shape, dtype), one)


def attribute_of(value: Any) -> Any:
    """An attribute from Python: numbers are 64 bits wide, lists of them are dense arrays."""
    kinds = ir()
    if isinstance(value, bool):
        return kinds.BoolAttr.get(value)
    if isinstance(value, int):
        return kinds.IntegerAttr.get(kinds.IntegerType.get_signless(64), value)
    if isinstance(value, str):
        return (
            kinds.Attribute.parse(value) if value.startswith("#") else kinds.StringAttr.get(value)
        )
    if isinstance(value, list | tuple) and all(isinstance(each, bool) for each in value) and value:
        return kinds.DenseBoolArrayAttr.get(list(value))
    if isinstance(value, list | tuple) and all(isinstance(each, int) for each in value):
        return kinds.DenseI64ArrayAttr.get(list(value))
    if isinstance(value, list | tuple):
        return kinds.ArrayAttr.get([attribute_of(each) for each in value])
    return value


def create(
    name: str,
    results: Sequence[Any],
    operands: Sequence[Any],
    attributes: Mapping[str, Any],
    before: Any,
    location: Any,
) -> Any:
    """A new operation in front of another; operations, types and values of MLIR."""
    kinds = ir()
    with before.context, location:
        return kinds.Operation.create(
            name,
            results=list(results),
            operands=list(operands),
            attributes={key: attribute_of(value) for key, value in attributes.items()},
            loc=location,
            ip=kinds.InsertionPoint(before),
        )


def copy(operation: Any, operands: Sequence[Any], before: Any, location: Any) -> Any:
    """An operation once more, in front of another, with operands of the same types."""
    made = operation.clone(ip=ir().InsertionPoint(before))
    for number, value in enumerate(operands):
        made.operands[number] = value
    made.location = location
    return made


def clone(operations: Sequence[Any], known: dict[Any, Any], before: Any) -> None:
    """Operations of a block once more, in front of another, with other values for some.

    Args:
        known: values by those that they take the place of; results of the copies are added.
    """
    point = ir().InsertionPoint(before)
    for operation in operations:
        made = operation.clone(ip=point)
        _replace_operands(made, known)
        known.update(zip(operation.results, made.results, strict=True))


def _replace_operands(operation: Any, known: Mapping[Any, Any]) -> None:
    """Here and inside."""
    for number, value in enumerate(operation.operands):
        if value in known:
            operation.operands[number] = known[value]
    for region in operation.regions:
        for block in region.blocks:
            for each in block.operations:
                _replace_operands(each.operation, known)


# ---- inlining


def inline_calls(module: Any) -> int:
    """Replace each call of a function by what it does, as XLA does first of all; how many.

    JAX makes functions of ``jnp`` helpers and of jitted callees, and a pattern may reach
    across them. Names and source lines of what is inlined begin with those of the call.
    """
    functions = {
        plain(each.attributes["sym_name"]): each.operation
        for each in module.body.operations
        if each.operation.name == "func.func"
    }
    main = functions.get("main")
    if main is None:
        return 0
    count = 0
    pending = _calls(main)
    while pending:
        call = pending.pop()
        callee = functions.get(str(call.attributes["callee"]).removeprefix("@"))
        if callee is None or callee == main or len(list(callee.regions[0].blocks)) != 1:
            continue
        pending += _inline(call, callee)
        count += 1
    if count:
        _erase_unused(module, functions)
    return count


def _calls(operation: Any) -> list[Any]:
    found: list[Any] = []
    for region in operation.regions:
        for block in region.blocks:
            for each in block.operations:
                if each.operation.name == "func.call":
                    found.append(each.operation)
                else:
                    found += _calls(each.operation)
    return found


def _erase_unused(module: Any, functions: Mapping[str, Any]) -> None:
    """Drop functions that nothing names from main on: no call, no attribute of an operation."""
    every = [each.operation for each in module.body.operations]
    pending = [raw for raw in every if raw.name != "func.func" or raw == functions["main"]]
    used = {"main"}
    while pending:
        text = pending.pop().get_asm(large_elements_limit=8)
        named = {first or second for first, second in _SYMBOL.findall(text)} - used
        used |= named
        pending += [functions[name] for name in named if name in functions]
    for name in functions.keys() - used:
        functions[name].erase()


def _inline(call: Any, callee: Any) -> list[Any]:
    """Copy the callee's body in front of the call and drop the call; calls that came with it."""
    (block,) = callee.regions[0].blocks
    known = dict(zip(block.arguments, call.operands, strict=True))
    point = ir().InsertionPoint(call)
    calls: list[Any] = []
    for each in block.operations:
        operation = each.operation
        if operation.name == "func.return":
            returned = [known[value] for value in operation.operands]
            break
        copy = operation.clone(ip=point)
        _replace_operands(copy, known)
        _rename(copy, call)
        known.update(zip(operation.results, copy.results, strict=True))
        calls += [copy] if copy.name == "func.call" else _calls(copy)
    for result, value in zip(call.results, returned, strict=True):
        result.replace_all_uses_with(value)
    call.erase()
    return calls


def _rename(operation: Any, call: Any) -> None:
    """Let a copy, and what is inside of it, be called as at its new place."""
    operation.location = _within(operation.location, call.location)
    for region in operation.regions:
        for block in region.blocks:
            for each in block.operations:
                _rename(each.operation, call)


def _within(inner: Any, outer: Any) -> Any:
    """The location of something in a function that was called from ``outer``."""
    kinds = ir()
    names, places = zip(*(name_and_place(each) for each in (outer, inner)), strict=True)
    known = [place for place in reversed(places) if place is not None]
    place = kinds.Location.callsite(known[0], known[1:]) if len(known) > 1 else (known or [None])[0]
    name = "/".join(filter(None, names))
    return kinds.Location.name(name, place) if name else place or kinds.Location.unknown()


def name_and_place(location: Any) -> tuple[str, Any]:
    """What JAX calls it, and where that is; empty and None where a location has none."""
    if type(location).__name__ == "UnknownLoc":
        return "", None
    if type(location).__name__ != "NameLoc":
        return "", location
    child = location.child_loc
    return location.name_str, None if type(child).__name__ == "UnknownLoc" else child


def frames(location: Any) -> tuple[Frame, ...]:
    """The source lines of a location, innermost first."""
    found: list[Frame] = []
    pending = [location]
    while pending:
        one = pending.pop()
        kind = type(one).__name__
        if kind == "NameLoc":
            pending.append(one.child_loc)
        elif kind == "CallSiteLoc":
            pending += [one.caller, one.callee]
        elif kind == "FusedLoc":
            pending += reversed(one.locations)
        elif kind == "FileLineColLoc":
            found.append(Frame(str(one.filename), int(one.start_line)))
    return tuple(found)
