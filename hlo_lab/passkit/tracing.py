"""Following values through fusions: what computes a value, and what computes with it.

:class:`~hlo_lab.passkit.patterns.Flow` stops at fusions, as it looks for what goes through
memory. Rules that look for a way of computing (a one-hot operand, a sort of which little is
used) do not care in which kernel an op ended up.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from hlo_lab.passkit.patterns import ELEMENTWISE, HANDING_ON, MOVES, Flow, Path, Source

_MAX_STEPS = 256  # of one walk
_MAX_SEEN = 4096  # instructions of one search
_MAX_VERSIONS = 512  # of one value; an optimiser's update takes some fifty
# Opcodes whose result holds the same elements in another order or form.
SAME_ELEMENTS = HANDING_ON | frozenset(("copy", "convert", "reshape", "transpose"))
_UNMOVED = HANDING_ON - {"bitcast"}  # a bitcast may transpose
# Opcodes that write into the value of operand 0 and leave the rest as it is.
UPDATES = frozenset(("dynamic-update-slice", "scatter"))


def definition(flow: Flow, at: int, path: Path = (), through: frozenset[str] = MOVES) -> Source:
    """What computes a value, past ``through``, into fusions and out of them again.

    Also past loops that hand it on unchanged. The answer is no fusion unless its body is missing.
    """
    for _ in range(_MAX_STEPS):
        at, path = flow.source(at, path, through)
        inside = flow.callee(at, "calls") if flow.opcode(at) == "fusion" else None
        if inside is not None:
            at = flow.root(inside)
            continue
        further = flow.outwards(at, path)
        if further is None:
            break
        at, path = further
    return at, path


def readers(flow: Flow, at: int, through: frozenset[str] = HANDING_ON) -> list[int]:
    """What computes with a value, inside fusions too; a ``tuple`` or ``while`` is a boundary."""
    found: dict[int, None] = {}
    seen: set[int] = set()
    waiting = [at]
    while waiting and len(seen) < _MAX_SEEN:
        value = waiting.pop()
        if value in seen:
            continue
        seen.add(value)
        for user in flow.users(value):
            inside = flow.callee(user, "calls") if flow.opcode(user) == "fusion" else None
            if inside is not None:
                numbers = [n for n, one in enumerate(flow.operands(user)) if one == value]
                within = (flow.parameter(inside, number) for number in numbers)
                waiting += [parameter for parameter in within if parameter is not None]
            elif flow.opcode(user) in through:
                waiting.append(user)
            else:
                found[user] = None
        computation = flow.computation_of(value)
        if flow.root(computation) == value:
            caller = flow.caller(computation)
            if caller is not None and flow.opcode(caller) == "fusion":
                waiting.append(caller)
    return list(found)


def kernel(flow: Flow, at: int) -> int:
    """The instruction that runs ``at``: itself, or the outermost fusion around it."""
    for _ in range(_MAX_STEPS):
        caller = flow.caller(flow.computation_of(at))
        if caller is None or flow.opcode(caller) != "fusion":
            break
        at = caller
    return at


def depends_on_carry(flow: Flow, at: int, body: int) -> bool:
    """Whether a value in a loop's body depends on what earlier iterations computed.

    Counters and members that the loop hands on unchanged do not count.
    """
    loop = flow.caller(body)
    if loop is None:
        return True
    waiting, seen = [at], {at}
    while waiting:
        at = waiting.pop()
        operands = flow.operands(at)
        if flow.opcode(at) == "get-tuple-element" and flow.opcode(operands[0]) == "parameter":
            is_counter = flow.shape(at).element_count == 1 and flow.shape(at).dtype[0] in "su"
            if not is_counter and not flow.is_invariant(loop, (flow.member(at),)):
                return True
            continue
        if flow.opcode(at) == "parameter":
            caller = flow.caller(flow.computation_of(at))
            if caller is None or flow.opcode(caller) != "fusion":
                return True
            operands = [flow.operands(caller)[int(flow.module.parameter_number[at])]]
        if len(seen) > _MAX_SEEN:
            return True
        fresh = [one for one in operands if one not in seen]
        seen.update(fresh)
        waiting += fresh
    return False


def reaches(flow: Flow, kernels: list[int]) -> bool:
    """Whether one of some instructions of a computation depends on another of them.

    True also where that takes too long to see.
    """
    wanted = set(kernels)
    first = min(wanted)  # operands come before their users
    waiting = list(kernels)
    seen: set[int] = set()
    while waiting:
        for one in flow.operands(waiting.pop()):
            if one in wanted or len(seen) > _MAX_SEEN:
                return True
            if one > first and one not in seen:
                seen.add(one)
                waiting.append(one)
    return False


def versions(flow: Flow, at: int, path: Path = (), within: int | None = None) -> Iterator[Source]:
    """A value and what it is a changed version of, element for element, nearest first.

    The walk goes up through elementwise ops, updates in place, loops and fusions, as long as the
    number of elements stays: from ``p - rate * g`` to ``p`` and ``g``, not through products or
    reductions. It ends at the parameters of computation ``within``, by default of the entry.
    """
    top = flow.module.entry if within is None else within
    size = _size(flow, at, path)
    seen: set[Source] = set()
    waiting = deque([(at, path)])
    while waiting and len(seen) < _MAX_VERSIONS:
        at, path = waiting.popleft()
        if (at, path) in seen or _size(flow, at, path) != size:
            continue
        seen.add((at, path))
        yield at, path
        if flow.opcode(at) != "parameter" or flow.computation_of(at) != top:
            waiting += _made_from(flow, at, path)


def updated(flow: Flow, at: int, path: Path = (), within: int | None = None) -> Iterator[Source]:
    """The parameters of ``within``, by default of the entry, among the ``versions``."""
    top = flow.module.entry if within is None else within
    for one, where in versions(flow, at, path, within):
        if flow.opcode(one) == "parameter" and flow.computation_of(one) == top:
            yield one, where


def is_joined(flow: Flow, at: int) -> bool:
    """Whether XLA:TPU joins a value that it fetched from HBM in slices."""
    module = flow.module
    return "ConcatBitcast" in module.attributes[module.attribute[at]].get("custom_call_target", "")


def _size(flow: Flow, at: int, path: Path) -> int:
    shape = flow.shape(at)
    for number in path:
        if number >= len(shape.elements):
            return -1
        shape = shape.elements[number]
    return shape.element_count


def _made_from(flow: Flow, at: int, path: Path) -> list[Source]:
    """The values that hold the same elements before ``at``."""
    opcode, operands = flow.opcode(at), flow.operands(at)
    if opcode == "get-tuple-element" and operands:
        return [(operands[0], (flow.member(at), *path))]
    if opcode == "tuple" and path and path[0] < len(operands):
        return [(operands[path[0]], path[1:])]
    if opcode == "fusion" and (inside := flow.callee(at, "calls")) is not None:
        return [(flow.root(inside), path)]
    if opcode == "while" and operands and (body := flow.callee(at, "body")) is not None:
        kept = any(left == path for _, left in updated(flow, flow.root(body), path, within=body))
        return [(operands[0], path)] if kept else []
    if opcode == "parameter":
        caller = flow.caller(flow.computation_of(at))
        if caller is None or flow.opcode(caller) != "fusion":
            return []
        number, outer = int(flow.module.parameter_number[at]), flow.operands(caller)
        return [(outer[number], path)] if number < len(outer) else []
    if opcode == "custom-call" and is_joined(flow, at) and operands:
        opcode, operands = flow.opcode(operands[0]), flow.operands(operands[0])
    if opcode in ("copy-done", "slice-done") and operands:  # the first half's shape is a tuple
        return [(one, path) for one in flow.operands(operands[0])[:1]]
    if opcode in UPDATES or opcode in SAME_ELEMENTS:
        return [(one, path) for one in operands[:1]]
    return [(one, ()) for one in operands] if opcode in ELEMENTWISE else []


def copied(flow: Flow, at: int, path: Path = ()) -> tuple[Source, list[int]]:
    """What a value is a plain copy of, same elements at the same places, and what copies it.

    Through copies to other layouts and memories, XLA:TPU's in slices too; not out of loops.
    """
    kernels: list[int] = []
    for _ in range(_MAX_STEPS):
        at, path = flow.source(at, path, _UNMOVED)
        parts = [] if path else _copied_from(flow, at)
        if not parts:
            break
        kernels += [at, *parts[:-1]]
        at = parts[-1]
    return (at, path), kernels


def _copied_from(flow: Flow, at: int) -> list[int]:
    """What a copy copies, after the kernels that do it beside ``at``; nothing of what is none."""
    opcode, operands = flow.opcode(at), flow.operands(at)
    if opcode in ("copy", "copy-start"):
        return operands[:1]
    if opcode == "bitcast":
        one, other = flow.shape(at), flow.shape(operands[0])
        same = (one.dims, one.minor_to_major) == (other.dims, other.minor_to_major)
        return operands if same and one.dtype == other.dtype else []
    if opcode == "custom-call" and is_joined(flow, at):
        starts = [start for done in operands for start in flow.operands(done)]
        whole = {one for start in starts for one in flow.operands(start)}
        return [*starts, *whole] if len(whole) == 1 else []
    if opcode == "fusion" and flow.contents(at) == {"copy"}:
        moved = flow.handed_on(at, _UNMOVED | {"copy"})
        return [] if moved is None else [moved]
    return []
