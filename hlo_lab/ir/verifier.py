"""The rules that every module keeps; run after an edit or a rewrite."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np

from hlo_lab.errors import ReadError
from hlo_lab.ir.module import Instruction, Module

# opcodes whose operands are the called computation's parameters, one to one
_ONE_TO_ONE = ("fusion", "call", "async-start")
_OPERAND_COUNTS = {
    "get-tuple-element": 1, "transpose": 1, "reshape": 1, "broadcast": 1, "convert": 1,
    "bitcast": 1, "copy": 1, "negate": 1, "while": 1, "dot": 2, "add": 2, "multiply": 2,
    "subtract": 2, "divide": 2, "maximum": 2, "minimum": 2, "compare": 2, "select": 3, "clamp": 3,
    "pad": 2, "convolution": 2, "gather": 2, "slice": 1, "iota": 0, "constant": 0, "parameter": 0,
}  # fmt: skip
_SAME_SHAPE = frozenset(
    ["add", "subtract", "multiply", "divide", "maximum", "minimum", "negate", "copy"]
)


def verify(module: Module) -> None:
    """Check the module against the rules of HLO that hlo-lab relies on.

    Raises:
        ReadError: the first broken rule, with the instruction that breaks it.
    """
    problem = next(problems(module), None)
    if problem is not None:
        raise ReadError(f"module {module.name} is not valid: {problem}")


def problems(module: Module) -> Iterator[str]:
    """Every broken rule in one line each."""
    yield from _tables(module)
    yield from _edges(module)
    yield from _names(module)
    yield from _parameters(module)
    for instruction in module.instructions:
        yield from _instruction(instruction)


def _tables(module: Module) -> Iterator[str]:
    count, computations = len(module), len(module.computation_names)
    for name, column, size in (
        ("opcode", module.opcode, len(module.opcodes)),
        ("shape", module.shape, len(module.shapes)),
        ("attribute", module.attribute, len(module.attributes)),
        ("metadata", module.metadata, len(module.metadatas)),
    ):
        if len(column) != count or (count and not 0 <= column.min() <= column.max() < size):
            yield f"column {name!r} does not fit its table"
    start = module.computation_start
    if len(start) != computations + 1 or start[0] != 0 or start[-1] != count:
        yield "the computations do not cover the instructions"
    elif (np.diff(start) <= 0).any():
        empty = module.computation_names[int((np.diff(start) <= 0).argmax())]
        yield f"computation {empty!r} is empty"
    elif ((module.computation_root < start[:-1]) | (module.computation_root >= start[1:])).any():
        yield "a root lies outside its computation"
    if not 0 <= module.entry < computations:
        yield "there is no entry computation"


def _edges(module: Module) -> Iterator[str]:
    owner = module.computation_of
    for what, start, target in (
        ("operand", module.operand_start, module.operand),
        ("control predecessor", module.control_start, module.control),
    ):
        user = np.repeat(np.arange(len(module)), np.diff(start))
        bad = (target < 0) | (target >= user) | (owner[target] != owner[user])
        for edge in np.nonzero(bad)[0].tolist():
            names = module.instruction_names
            yield f"{names[user[edge]]!r}: {what} {names[target[edge]]!r} is not before it"
    caller = np.repeat(np.arange(len(module)), np.diff(module.callee_start))
    bad = (module.callee < 0) | (module.callee >= len(module.computation_names))
    bad |= module.callee == owner[caller]
    for edge in np.nonzero(bad)[0].tolist():
        yield f"{module.instruction_names[caller[edge]]!r} calls a computation that is not there"


def _names(module: Module) -> Iterator[str]:
    if len(set(module.computation_names)) < len(module.computation_names):
        yield "two computations have the same name"
    start = module.computation_start.tolist()
    for first, last in pairwise(start):
        names = module.instruction_names[first:last]
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            yield f"two instructions of one computation are named {twice!r}"


def _parameters(module: Module) -> Iterator[str]:
    is_parameter = module.opcode_mask("parameter")
    if (is_parameter != (module.parameter_number >= 0)).any():
        at = int((is_parameter != (module.parameter_number >= 0)).argmax())
        yield f"{module.instruction_names[at]!r}: opcode and parameter number disagree"
    start = module.computation_start.tolist()
    for number, (first, last) in enumerate(pairwise(start)):
        numbers = module.parameter_number[first:last]
        numbers = np.sort(numbers[numbers >= 0])
        if not np.array_equal(numbers, np.arange(len(numbers))):
            yield f"computation {module.computation_names[number]!r}: parameter numbers have gaps"


def _instruction(instruction: Instruction) -> Iterator[str]:
    opcode, name = instruction.opcode, instruction.name
    operands = instruction.operands
    wanted = _OPERAND_COUNTS.get(opcode)
    if wanted is not None and len(operands) != wanted:
        yield f"{name!r}: {opcode} takes {wanted} operands, not {len(operands)}"
        return
    if opcode in _ONE_TO_ONE or opcode == "while":
        yield from _called(instruction)
    elif opcode == "tuple":
        if instruction.shape.elements != tuple(operand.shape for operand in operands):
            members = tuple(operand.shape.without_layout() for operand in operands)
            if instruction.shape.without_layout().elements != members:
                yield f"{name!r}: shape {instruction.shape} is not that of its operands"
    elif opcode == "get-tuple-element":
        yield from _get_tuple_element(instruction)
    elif opcode in _SAME_SHAPE:
        dims = instruction.shape.dims
        if any(operand.shape.dims != dims for operand in operands):
            yield f"{name!r}: {opcode} of operands with other dimensions than {instruction.shape}"


def _called(instruction: Instruction) -> Iterator[str]:
    operands = len(instruction.operands)
    for role, computation in instruction.callees:
        parameters = len(computation.parameters)
        if parameters != operands:
            yield (
                f"{instruction.name!r} passes {operands} operands to {role}={computation.name}, "
                f"which has {parameters} parameters"
            )


def _get_tuple_element(instruction: Instruction) -> Iterator[str]:
    shape, index = instruction.operands[0].shape, instruction.attributes.get("index", "")
    if not shape.is_tuple:
        yield f"{instruction.name!r} takes an element of {shape}, which is no tuple"
    elif not index.isdecimal() or int(index) >= len(shape.elements):
        yield f"{instruction.name!r} takes element {index!r} of a tuple of {len(shape.elements)}"
    elif shape.elements[int(index)].without_layout() != instruction.shape.without_layout():
        yield f"{instruction.name!r}: shape {instruction.shape} is not that of element {index}"
