"""Value numbers: which instructions compute the same values, whatever kernel they are in.

Names, metadata, layouts and copies do not matter, nor do views of the same elements in the
same order; a number is followed into fusions, calls, branches and what loops keep. What draws
random numbers, talks to others or is not opened here has a number of its own.
"""

from __future__ import annotations

from collections.abc import Hashable

from hlo_lab.cost.callgraph import callees_first
from hlo_lab.ir.module import Module
from hlo_lab.ir.shapes import Shape
from hlo_lab.passkit.patterns import ELEMENTWISE, HANDING_ON, Flow

_COMMUTATIVE = frozenset(("add", "multiply", "maximum", "minimum", "and", "or", "xor"))
_SAME = (HANDING_ON - {"bitcast", "get-tuple-element"}) | {"copy", "copy-start", "reshape"}
_KNOWN = ELEMENTWISE | frozenset((
    "bitcast", "bitcast-convert", "broadcast", "cholesky", "concatenate", "convolution", "dot",
    "dynamic-slice", "dynamic-update-slice", "fft", "gather", "get-tuple-element", "iota", "pad",
    "reduce", "reduce-window", "reverse", "scatter", "select-and-scatter", "slice", "sort", "topk",
    "transpose", "triangular-solve",
))  # fmt: skip
_IGNORED = frozenset(
    ("backend_config", "frontend_attributes", "sharding", "origin", "statistics", "index")
)
_DEEPEST = 64  # callees of callees; XLA nests a few


class Numbering:
    """``of[i]`` is the value number of instruction ``i``; one pass over the module.

    A computation that several instructions call is numbered for itself, as if it took
    parameters that nothing else has.
    """

    def __init__(self, flow: Flow):
        self._flow = flow
        self._module: Module = flow.module
        self._table: dict[Hashable, int] = {}
        self._members: dict[int, list[int]] = {}
        self._attributes: dict[int, str] = {}
        self._done: set[int] = set()
        self._fresh = -1
        self.of: list[int] = [0] * len(self._module)
        # callers come first, except that each computation is entered where it is called
        for computation in reversed(callees_first(self._module)):
            if computation not in self._done:
                self._enter(computation, [], 0)

    def _enter(self, computation: int, arguments: list[int], depth: int) -> int:
        """Number a computation; the number of its root."""
        start, numbers = self._module.computation_start, self._module.parameter_number
        self._done.add(computation)
        for at in range(int(start[computation]), int(start[computation + 1])):
            number = int(numbers[at])
            if 0 <= number < len(arguments):
                self.of[at] = arguments[number]
            else:
                self.of[at] = self._number(at, depth)
        return self.of[self._flow.root(computation)]

    def _number(self, at: int, depth: int) -> int:
        flow = self._flow
        opcode, operands = flow.opcode(at), flow.operands(at)
        inputs = [self.of[one] for one in operands]
        if opcode == "tuple":
            return self._tuple(inputs)
        if opcode == "get-tuple-element" and inputs[0] in self._members:
            members, number = self._members[inputs[0]], flow.member(at)
            return members[number] if number < len(members) else self._own()
        if opcode in _SAME and inputs:
            return inputs[0]
        if opcode in ("fusion", "call", "while", "conditional"):
            return self._called(at, opcode, inputs, depth)
        shape = flow.shape(at)
        if opcode == "constant":
            text = self._module.literals.get(at, "...")
            return self._own() if "..." in text else self._key("constant", shape.dtype, text)
        if opcode not in _KNOWN:
            return self._own()
        if opcode == "bitcast" and _is_view(shape, flow.shape(operands[0])):
            return inputs[0]
        if opcode == "broadcast" and flow.shape(operands[0]).element_count == 1:
            return inputs[0]
        attributes = self._attribute_text(int(self._module.attribute[at]))
        if opcode in ELEMENTWISE:
            ordered = sorted(inputs) if opcode in _COMMUTATIVE else inputs
            return self._key(opcode, shape.dtype, attributes, *ordered)
        layout = shape.layout if opcode == "bitcast" else ""
        sizes = tuple(flow.shape(one).dims if flow.shape(one).is_array else () for one in operands)
        form = (shape.dims, shape.dtype) if shape.is_array else str(shape.without_layout())
        bodies = tuple(self._body(one) for one in self._callees(at))
        number = flow.member(at) if opcode == "get-tuple-element" else 0
        return self._key(opcode, number, form, layout, attributes, bodies, sizes, *inputs)

    def _called(self, at: int, opcode: str, inputs: list[int], depth: int) -> int:
        flow = self._flow
        if depth > _DEEPEST:
            return self._own()
        if opcode == "while":
            return self._loop(at, inputs[0], depth)
        result = self._own()
        for number, computation in enumerate(self._callees(at)):
            if flow.caller(computation) != at or computation in self._done:
                continue
            if opcode == "conditional":  # the first operand chooses
                self._enter(computation, inputs[number + 1 : number + 2], depth + 1)
            else:
                result = self._enter(computation, inputs, depth + 1)
        return result

    def _loop(self, at: int, start: int, depth: int) -> int:
        """What a loop keeps has one number inside, before and after it."""
        flow, before = self._flow, self._members.get(start)
        shape = flow.shape(at)
        if before is None or not shape.is_tuple or len(before) != len(shape.elements):
            return self._own()
        kept = [flow.is_invariant(at, (number,)) for number in range(len(before))]
        for role in ("condition", "body"):
            computation = flow.callee(at, role)
            if computation is None or computation in self._done:
                continue
            if flow.caller(computation) == at:
                inside = [
                    one if same else self._own() for one, same in zip(before, kept, strict=True)
                ]
                self._enter(computation, [self._tuple(inside)], depth + 1)
        after = [one if same else self._own() for one, same in zip(before, kept, strict=True)]
        return self._tuple(after)

    def _body(self, computation: int) -> int:
        """The number of a reducer, comparator or the like."""
        if computation not in self._done:
            arguments = [self._key("argument", number) for number in range(8)]
            self._enter(computation, arguments, _DEEPEST)
        return self.of[self._flow.root(computation)]

    def _callees(self, at: int) -> list[int]:
        first, last = self._module.callee_start[at], self._module.callee_start[at + 1]
        callees: list[int] = self._module.callee[first:last].tolist()
        return callees

    def _attribute_text(self, number: int) -> str:
        text = self._attributes.get(number)
        if text is None:
            pairs = self._module.attributes[number].items()
            text = ";".join(sorted(f"{k}={v}" for k, v in pairs if k not in _IGNORED))
            self._attributes[number] = text
        return text

    def _tuple(self, inputs: list[int]) -> int:
        number = self._key("tuple", *inputs)
        self._members[number] = inputs
        return number

    def _key(self, *parts: Hashable) -> int:
        return self._table.setdefault(parts, len(self._table) + 1)

    def _own(self) -> int:
        self._fresh -= 1
        return self._fresh


def _is_view(one: Shape, other: Shape) -> bool:
    """Whether a bitcast between the two keeps the elements in their logical order."""
    if not one.is_array or not other.is_array or one.dtype != other.dtype:
        return False
    if one.dims == other.dims:
        return bool(one.minor_to_major == other.minor_to_major)
    return all(
        tuple(shape.minor_to_major) == tuple(range(shape.rank - 1, -1, -1))
        for shape in (one, other)
    )
