"""Scalars of a loop by symbolic look-up: where a counter starts, steps and ends."""

from __future__ import annotations

from dataclasses import dataclass

from hlo_lab.cost.tables import attributes_at
from hlo_lab.ir.module import ROLES, Module

# A value: a constant, a member of the loop's carried tuple (path), a sum of one with a
# constant, a comparison, or unknown (None).
_TRANSPARENT = frozenset(("copy", "bitcast", "convert", "reshape", "opt-barrier"))
_CALLS = frozenset(("fusion", "call"))
_MAX_STEPS = 300  # instructions looked at per loop; real loops take a few dozen


@dataclass(frozen=True)
class Carried:
    """Member ``path`` of the carried tuple plus ``offset``."""

    path: tuple[int, ...]
    offset: int = 0


@dataclass(frozen=True)
class Compare:
    """``left direction right``."""

    left: Carried | int | None
    right: Carried | int | None
    direction: str


Value = Carried | Compare | int | None
# operands of the callers that the look-up has entered, innermost last
Stack = tuple[tuple[int, ...], ...]


class Resolver:
    """Look-ups in one module. Every look-up is bounded, whatever the module holds."""

    def __init__(self, module: Module):
        self.module = module
        self._steps = 0

    def trip_count(self, loop: int) -> int | None:
        """Iterations of a while instruction, or None when they depend on data."""
        self._steps = 0
        body, condition = self._callee(loop, "body"), self._callee(loop, "condition")
        if body is None or condition is None:
            return None
        test = self._value(int(self.module.computation_root[condition]), (), ())
        if not isinstance(test, Compare):
            return None
        left, right, direction = test.left, test.right, test.direction
        if isinstance(left, int):
            left, right, direction = right, left, _FLIPPED.get(direction, direction)
        if not isinstance(left, Carried):
            return None
        if isinstance(right, Carried):  # a bound that the loop carries along unchanged
            if self._carried(body, right.path) != Carried(right.path):
                return None
            bound = self._initial(loop, right.path)
            right = None if bound is None else bound + right.offset
        step = self._carried(body, left.path)
        start = self._initial(loop, left.path)
        if (
            right is None
            or start is None
            or not isinstance(step, Carried)
            or step.path != left.path
        ):
            return None
        return _count(start + left.offset, step.offset, right, direction)

    def _callee(self, at: int, role: str) -> int | None:
        module = self.module
        for row in range(module.callee_start[at], module.callee_start[at + 1]):
            if ROLES[module.callee_role[row]] == role:
                return int(module.callee[row])
        return None

    def _operands(self, at: int) -> tuple[int, ...]:
        module = self.module
        start, end = module.operand_start[at], module.operand_start[at + 1]
        return tuple(module.operand[start:end].tolist())

    def _carried(self, body: int, path: tuple[int, ...]) -> Value:
        """What the body leaves in that member, in terms of the tuple it was given."""
        return self._value(int(self.module.computation_root[body]), path, ())

    def _initial(self, loop: int, path: tuple[int, ...]) -> int | None:
        """The member's constant value before the loop."""
        operands = self._operands(loop)
        value = self._value(operands[0], path, ()) if operands else None
        return value if isinstance(value, int) else None

    def _value(self, at: int, path: tuple[int, ...], stack: Stack) -> Value:
        """The value of member ``path`` of instruction ``at``; parameters are ``Carried``."""
        while True:
            self._steps += 1
            if self._steps > _MAX_STEPS:
                return None
            opcode = self.module.opcodes[self.module.opcode[at]]
            operands = self._operands(at)
            if opcode == "parameter":
                number = int(self.module.parameter_number[at])
                if not stack:
                    return Carried(path) if number == 0 else None
                if number >= len(stack[-1]):
                    return None
                at, stack = stack[-1][number], stack[:-1]
            elif opcode == "get-tuple-element" and operands:
                index = self._attribute(at, "index")
                if not index.isdecimal():
                    return None
                at, path = operands[0], (int(index), *path)
            elif opcode == "tuple" and path and path[0] < len(operands):
                at, path = operands[path[0]], path[1:]
            elif opcode in _TRANSPARENT and operands:
                at = operands[0]
            elif opcode in _CALLS:
                callee = self._callee(at, "calls")
                callee = self._callee(at, "to_apply") if callee is None else callee
                if callee is None or len(stack) > 32:
                    return None
                at, stack = int(self.module.computation_root[callee]), (*stack, operands)
            else:
                return self._arithmetic(at, opcode, operands, stack)

    def _arithmetic(self, at: int, opcode: str, operands: tuple[int, ...], stack: Stack) -> Value:
        if opcode == "constant":
            return _integer(self.module.literals.get(at, ""))
        if len(operands) != 2 or opcode not in ("add", "subtract", "compare"):
            return None
        left, right = (self._value(operand, (), stack) for operand in operands)
        if opcode == "compare":
            if isinstance(left, Compare) or isinstance(right, Compare):
                return None
            return Compare(left, right, self._attribute(at, "direction"))
        if isinstance(left, int) and opcode == "add":
            left, right = right, left
        if not isinstance(right, int):
            return None
        offset = right if opcode == "add" else -right
        if isinstance(left, int):
            return left + offset
        return Carried(left.path, left.offset + offset) if isinstance(left, Carried) else None

    def _attribute(self, at: int, name: str) -> str:
        return attributes_at(self.module, int(self.module.attribute[at])).get(name, "")


_FLIPPED = {"LT": "GT", "GT": "LT", "LE": "GE", "GE": "LE"}


def _integer(literal: str) -> int | None:
    try:
        return int(literal.strip("{} "))
    except ValueError:
        return None


def _count(start: int, step: int, bound: int, direction: str) -> int | None:
    """Iterations of ``for (i = start; i <direction> bound; i += step)``; None when endless."""
    if direction in ("LE", "GE"):
        bound += 1 if direction == "LE" else -1
        direction = "LT" if direction == "LE" else "GT"
    if direction == "NE" and step and (bound - start) % step == 0:
        return max((bound - start) // step, 0) or None if bound != start else 0
    if direction == "LT" and step > 0:
        return max(-(-(bound - start) // step), 0)
    if direction == "GT" and step < 0:
        return max(-(-(start - bound) // -step), 0)
    return None
