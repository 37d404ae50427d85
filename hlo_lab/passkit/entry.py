"""What main takes and gives, for rewrites: names, shardings and donation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hlo_lab.errors import UseError
from hlo_lab.passkit import mlir
from hlo_lab.passkit.mlir_module import main_block
from hlo_lab.passkit.rewriter import Rewriter, Value

ALIAS = "tf.aliasing_output"  # of an argument: the number of the result that is written over it
DONOR = "jax.buffer_donor"  # of an argument: XLA chooses the result
_NAMED = 5  # arguments in a message
LAYOUT = "mhlo.layout_mode"  # of an argument or a result: how its layout is found
_SHARDINGS = ("sdy.sharding", "mhlo.sharding")


@dataclass(frozen=True)
class Argument:
    """An argument of main.

    Attributes:
        number: among the arguments that the program uses.
        name: what JAX calls it, such as ``params['w']``; empty where it has no name.
        sharding: as MLIR writes it; empty where it has none.
        alias: number of the result that is written over it; None where none is named.
        donated: whether a call uses it up.
    """

    number: int
    name: str
    value: Value
    sharding: str
    alias: int | None
    donated: bool


@dataclass(frozen=True)
class Result:
    """A result of main; ``sharding`` as in ``Argument``."""

    number: int
    value: Value
    sharding: str


def arguments(module: Rewriter) -> list[Argument]:
    """The arguments of main, in their order."""
    block = main_block(module.raw)
    found = []
    for number, raw in enumerate(block.arguments):
        own = _attributes(module, "arg_attrs", number)
        found.append(
            Argument(
                number=number,
                name=mlir.name_and_place(raw.location)[0],
                value=Value(raw, module),
                sharding=_sharding(own),
                alias=mlir.plain(own[ALIAS]) if ALIAS in own else None,
                donated=ALIAS in own or DONOR in own,
            )
        )
    return found


def chosen(module: Rewriter, names: str) -> list[Argument]:
    """Those that are named, in the order of main; all for no name.

    Args:
        names: whole names, their beginnings (``params`` for ``params['w']``) or numbers, with
            ``+`` between them.

    Raises:
        UseError: there is no such argument.
    """
    known = arguments(module)
    wanted = [each.strip() for each in names.split("+") if each.strip()]
    for name in wanted:
        if not any(_is_named(each, name) for each in known):
            some = ", ".join(each.name or str(each.number) for each in known[:_NAMED])
            raise UseError(f"no argument is called {name!r}; the first are {some}")
    return [each for each in known if not wanted or any(_is_named(each, name) for name in wanted)]


def results(module: Rewriter) -> list[Result]:
    """The results of main, in their order."""
    *_, last = main_block(module.raw).operations
    return [
        Result(number, Value(raw, module), _sharding(_attributes(module, "res_attrs", number)))
        for number, raw in enumerate(last.operation.operands)
    ]


def donate(module: Rewriter, argument: Argument, result: Result | None) -> None:
    """Let a call use an argument up, for a result or for whichever XLA finds. Counts as a change.

    Raises:
        ValueError: the result is of another type.
    """
    if result is not None and result.value.raw.type != argument.value.raw.type:
        raise ValueError(
            f"result {result.number}, {result.value.raw.type}, cannot be written over argument "
            f"{argument.number}, {argument.value.raw.type}"
        )
    kinds = mlir.ir()
    main = main_block(module.raw).owner.operation
    own = [_attributes(module, "arg_attrs", each.number) for each in arguments(module)]
    if result is None:
        added = {DONOR: kinds.BoolAttr.get(True)}
    else:
        wide = kinds.IntegerType.get_signless(32)
        added = {ALIAS: kinds.IntegerAttr.get(wide, result.number)}
    own[argument.number] = {**own[argument.number], **added}
    main.attributes["arg_attrs"] = kinds.ArrayAttr.get([kinds.DictAttr.get(each) for each in own])
    module.changes += 1


def _is_named(argument: Argument, name: str) -> bool:
    if name.isdecimal():
        return argument.number == int(name)
    rest = argument.name.removeprefix(name)
    return argument.name.startswith(name) and rest[:1] in ("", "[", ".")


def choose_layouts(module: Rewriter) -> None:
    """Let XLA choose the layouts of all arguments and results. Each counts as a change."""
    kinds = mlir.ir()
    main = main_block(module.raw).owner.operation
    for side, count in (
        ("arg_attrs", len(arguments(module))),
        ("res_attrs", len(results(module))),
    ):
        own = [_attributes(module, side, number) for number in range(count)]
        module.changes += sum(LAYOUT not in each for each in own)
        chosen = [{LAYOUT: kinds.StringAttr.get("auto"), **each} for each in own]
        main.attributes[side] = kinds.ArrayAttr.get([kinds.DictAttr.get(each) for each in chosen])


def _attributes(module: Rewriter, side: str, number: int) -> dict[str, Any]:
    main = main_block(module.raw).owner.operation
    if side not in main.attributes:
        return {}
    own = main.attributes[side][number]
    return {each.name: each.attr for each in own}


def _sharding(own: Mapping[str, Any]) -> str:
    return next((str(own[name]) for name in _SHARDINGS if name in own), "")
