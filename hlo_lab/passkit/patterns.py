"""Patterns that passes share: kinds of ops, forward or backward, walking along the data flow."""

from __future__ import annotations

import enum
from functools import cached_property

from hlo_lab.ir.module import ROLES, Module
from hlo_lab.ir.shapes import Shape


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Opcodes that no kernel runs for.
FREE = _words(
    "parameter constant get-tuple-element tuple bitcast opt-barrier optimization-barrier "
    "after-all add-dependency domain partition-id replica-id"
)
# Opcodes that hand on the value of operand 0 itself, or a part of its tuple.
HANDING_ON = _words(
    "bitcast get-tuple-element opt-barrier optimization-barrier add-dependency domain "
    "all-reduce-done all-gather-done collective-permute-done copy-done async-done"
)
# Opcodes that change place, order or precision of elements, but compute nothing.
MOVES = HANDING_ON | _words(
    "copy convert reshape transpose copy-start broadcast dynamic-slice slice"
)
ELEMENTWISE = _words(
    "abs add and atan2 cbrt ceil clamp clz compare complex convert copy cosine divide erf "
    "exponential exponential-minus-one floor imag is-finite log log-plus-one logistic map "
    "maximum minimum multiply negate not or popcnt power real reduce-precision remainder "
    "round-nearest-afz round-nearest-even rsqrt select shift-left shift-right-arithmetic "
    "shift-right-logical sign sine sqrt stochastic-convert subtract tan tanh xor"
)
# What a GPU or CPU spends many cycles on per element; XLA hesitates to compute these twice.
EXPENSIVE = _words(
    "atan2 cbrt cosine divide erf exponential exponential-minus-one log log-plus-one logistic "
    "power remainder rsqrt sine sqrt tan tanh rng"
)
COLLECTIVES = _words(
    "all-reduce all-gather reduce-scatter all-to-all ragged-all-to-all collective-permute "
    "collective-broadcast"
)

Path = tuple[int, ...]
Source = tuple[int, Path]  # an instruction and which member of its tuple


class Phase(enum.StrEnum):
    """Which part of a training step an op belongs to, by its op_name."""

    FORWARD = "forward"
    BACKWARD = "backward"
    RECOMPUTE = "recompute"  # forward work that jax.checkpoint repeats in the backward pass


def phase(op_name: str) -> Phase:
    """JAX names the backward pass ``transpose(jvp(..))`` and repeats ``rematted_computation``."""
    if "rematted_computation" in op_name:
        return Phase.RECOMPUTE
    return Phase.BACKWARD if "transpose(" in op_name else Phase.FORWARD


def collective_kind(opcode: str) -> str:
    """``all-gather-start`` -> ``all-gather``; empty for anything but a collective's start."""
    kind = opcode.removesuffix("-start")
    return kind if kind in COLLECTIVES else ""


class Flow:
    """The data flow of a module in lists, for passes that follow edges one by one.

    Instructions and computations are indices into the module's tables throughout.
    """

    def __init__(self, module: Module):
        self.module = module
        self._operand_start: list[int] = module.operand_start.tolist()
        self._operand: list[int] = module.operand.tolist()
        self._opcode: list[int] = module.opcode.tolist()
        self._contents: dict[int, frozenset[str]] = {}

    # ---- look-ups

    def opcode(self, at: int) -> str:
        return self.module.opcodes[self._opcode[at]]

    def op_name(self, at: int) -> str:
        """Of a fusion without metadata of its own: its root's, or the last that has one."""
        module = self.module
        name: str = module.metadatas[module.metadata[at]].op_name
        if not name and self.opcode(at) == "fusion":
            named = self._named_inside(at)
            name = "" if named is None else module.metadatas[module.metadata[named]].op_name
        return name

    def place(self, at: int) -> int:
        """The instruction to show for ``at``: the last named op of a fusion without a name."""
        module = self.module
        if self.opcode(at) != "fusion" or module.metadatas[module.metadata[at]].op_name:
            return at
        named = self._named_inside(at)
        return at if named is None else named

    def _named_inside(self, at: int) -> int | None:
        module, computation = self.module, self.callee(at, "calls")
        if computation is None:
            return None
        rows = range(
            int(module.computation_start[computation + 1]) - 1,
            int(module.computation_start[computation]) - 1,
            -1,
        )
        return next((i for i in rows if module.metadatas[module.metadata[i]].op_name), None)

    def shape(self, at: int) -> Shape:
        shape: Shape = self.module.shapes[self.module.shape[at]]
        return shape

    def operands(self, at: int) -> list[int]:
        return self._operand[self._operand_start[at] : self._operand_start[at + 1]]

    @cached_property
    def _users(self) -> tuple[list[int], list[int]]:
        start, user = self.module.users_csr
        return start.tolist(), user.tolist()

    def users(self, at: int) -> list[int]:
        """Each once, in index order."""
        start, user = self._users
        found = user[start[at] : start[at + 1]]
        return found if len(found) < 2 else list(dict.fromkeys(found))

    def computation_of(self, at: int) -> int:
        return int(self.module.computation_of[at])

    def root(self, computation: int) -> int:
        return int(self.module.computation_root[computation])

    def callee(self, at: int, role: str) -> int | None:
        """The first computation that ``at`` calls in that role."""
        module = self.module
        for row in range(module.callee_start[at], module.callee_start[at + 1]):
            if ROLES[module.callee_role[row]] == role:
                return int(module.callee[row])
        return None

    def caller(self, computation: int) -> int | None:
        """The one instruction that calls a computation; None for several or none."""
        start, caller = self.module.callers_csr
        found = set(caller[start[computation] : start[computation + 1]].tolist())
        return found.pop() if len(found) == 1 else None

    def contents(self, at: int) -> frozenset[str]:
        """The opcodes that run in a kernel: those inside a fusion, else the opcode itself."""
        computation = self.callee(at, "calls") if self.opcode(at) == "fusion" else None
        if computation is None:
            return frozenset((self.opcode(at),))
        found = self._contents.get(computation)
        if found is None:
            start = self.module.computation_start
            rows = self._opcode[int(start[computation]) : int(start[computation + 1])]
            found = frozenset(self.module.opcodes[number] for number in set(rows)) - FREE
            self._contents[computation] = found
        return found

    def member(self, at: int) -> int:
        """The ``index`` of a get-tuple-element."""
        text = self.module.attributes[self.module.attribute[at]].get("index", "0")
        return int(text) if text.isdecimal() else 0

    def parameter(self, computation: int, number: int = 0) -> int | None:
        """The parameter of that number."""
        start, numbers = self.module.computation_start, self.module.parameter_number
        rows = range(int(start[computation]), int(start[computation + 1]))
        return next((i for i in rows if numbers[i] == number), None)

    # ---- walks

    def source(self, at: int, path: Path = (), through: frozenset[str] = HANDING_ON) -> Source:
        """Walk up through ``through`` and through tuples to what made a value.

        With ``MOVES`` the walk also passes fusions that only move their operand.
        """
        while True:
            opcode, operands = self.opcode(at), self.operands(at)
            if opcode == "get-tuple-element" and operands:
                at, path = operands[0], (self.member(at), *path)
            elif opcode == "tuple" and path and path[0] < len(operands):
                at, path = operands[path[0]], path[1:]
            elif operands and opcode in through:
                at = operands[0]
            else:
                moved = None
                if opcode == "fusion" and not path and "copy" in through:
                    moved = self.handed_on(at, through)
                if moved is None:
                    return at, path
                at = moved

    def handed_on(self, at: int, through: frozenset[str] = MOVES) -> int | None:
        """The operand whose value a fusion only moves; None when it computes something."""
        computation = self.callee(at, "calls")
        if computation is None:
            return None
        made, path = self.source(self.root(computation), (), through)
        number, operands = int(self.module.parameter_number[made]), self.operands(at)
        return operands[number] if not path and 0 <= number < len(operands) else None

    def origin(self, at: int, path: Path = (), through: frozenset[str] = MOVES) -> Source:
        """Like :meth:`source`, and on through calls and what loops carry unchanged."""
        for _ in range(64):  # nesting of loops and calls; real programs have a few
            at, path = self.source(at, path, through)
            further = self.outwards(at, path)
            if further is None:
                break
            at, path = further
        return at, path

    def outwards(self, at: int, path: Path) -> Source | None:
        """Where a value comes from before a loop that keeps it, or before the call around it."""
        opcode = self.opcode(at)
        if opcode == "while" and path and self.is_invariant(at, path):
            return self.operands(at)[0], path
        if opcode != "parameter":
            return None
        caller = self.caller(self.computation_of(at))
        if caller is None:
            return None
        if self.opcode(caller) == "while":
            invariant = bool(path) and self.is_invariant(caller, path)
            return (self.operands(caller)[0], path) if invariant else None
        number = int(self.module.parameter_number[at])
        operands = self.operands(caller)
        direct = self.opcode(caller) in ("call", "async-start", "fusion")
        return (operands[number], path) if direct and number < len(operands) else None

    def is_invariant(self, loop: int, path: Path) -> bool:
        """Whether a while hands on that member of its tuple unchanged."""
        body = self.callee(loop, "body")
        if body is None:
            return False
        made, left = self.source(self.root(body), path)
        return left == path and self.opcode(made) == "parameter"

    def kernel_users(self, at: int) -> list[int]:
        """What reads a value, seen through bitcasts and get-tuple-elements.

        A ``tuple`` in the answer stands for a boundary: the value leaves the computation
        or enters a loop, call or branch.
        """
        found: dict[int, None] = {}
        seen: set[int] = set()
        stack = list(reversed(self.users(at)))
        while stack:
            user = stack.pop()
            if user in seen:
                continue
            seen.add(user)
            if self.opcode(user) in HANDING_ON:
                stack.extend(reversed(self.users(user)))
            else:
                found[user] = None
        return list(found)

    def readers(self, at: int, limit: int = 64) -> list[int]:
        """What computes with a value: like :meth:`kernel_users`, through what only moves it."""
        found: dict[int, None] = {}
        waiting = self.kernel_users(at)
        seen = set(waiting)
        while waiting and len(seen) < limit:
            user = waiting.pop()
            if self.opcode(user) in MOVES or self.handed_on(user) is not None:
                further = [one for one in self.kernel_users(user) if one not in seen]
                seen.update(further)
                waiting += further
            else:
                found[user] = None
        return list(found)

    def stacked_update(self, loop: int, path: Path) -> tuple[Source, int] | None:
        """What a while writes into row after row of that member: (source, instruction to show).

        ``jax.lax.scan`` collects its outputs and residuals this way: a buffer with the
        iterations in front, updated in place by dynamic-update-slice. The source lies in
        the loop's body; the two differ where a fusion computes the row itself. None for
        members that are not collected.
        """
        body = self.callee(loop, "body")
        if body is None or len(path) != 1:
            return None
        at, left = self.source(self.root(body), path, MOVES)
        if self.opcode(at) == "dynamic-update-slice":
            made = self.source(self.operands(at)[1], (), MOVES)
            return made, self.place(made[0])
        inside = self.callee(at, "calls") if self.opcode(at) == "fusion" else None
        if inside is None:
            return None
        # a fusion may write several of them
        update, left = self.source(self.root(inside), left, MOVES)
        if left or self.opcode(update) != "dynamic-update-slice":
            return None
        inner = self.source(self.operands(update)[1], (), MOVES)[0]
        number = int(self.module.parameter_number[inner])
        if number < 0:
            return (at, ()), inner
        made = self.source(self.operands(at)[number], (), MOVES)
        return made, self.place(made[0])

    def lift(self, at: int, computation: int) -> int | None:
        """The instruction of ``computation`` in whose course ``at`` runs."""
        for _ in range(64):
            inside = self.computation_of(at)
            if inside == computation:
                return at
            caller = self.caller(inside)
            if caller is None:
                return None
            at = caller
        return None
