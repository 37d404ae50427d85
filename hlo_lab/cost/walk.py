"""One pass over the instructions that execute, with callees inlined at their call site.

Values pass through tuples, get-tuple-elements, bitcasts, barriers, calls and the two
halves of asynchronous pairs unchanged. Values that XLA gives one buffer are united: what
loops carry from one iteration to the next, what the branches of a conditional return,
updates in place, and donated arguments with the outputs that replace them.
"""

from __future__ import annotations

from hlo_lab.cost.aliasing import Aliasing, Pair, parse_aliases
from hlo_lab.cost.callgraph import callees_first
from hlo_lab.cost.tables import attributes_at, shape_at
from hlo_lab.cost.values import Layout, Values, member
from hlo_lab.errors import ReadError
from hlo_lab.ir.module import ROLES, Module

MAX_DEPTH = 100  # nested calls; real programs stay below twenty
_PASS_WHOLE = frozenset(
    ("bitcast", "opt-barrier", "optimization-barrier", "add-dependency", "domain", "async-update")
)
# pass their operands on without touching the data
_NO_USE = frozenset(("tuple", "get-tuple-element", "while", "call", "conditional")) | _PASS_WHOLE
_MANY_CALLS = "a computation called from very many places was not followed at each of them"

# the values that each instruction of a computation shows, by instruction index
Shown = dict[int, list[int]]


class Walk:
    """The values of a module in program order.

    Attributes:
        values: what is defined, when it lives and with what it shares a buffer.
        at_time: the instruction executed at each time.
        arguments, results: values of the entry's parameters and root.
        donated: (result, argument) pairs of values that share a buffer.
        sharing: (time, values of the result, values of each operand) where the result may
            overwrite an operand.
        notes: what was not followed.
    """

    def __init__(self, module: Module):
        callees_first(module)  # refuses cycles
        self.module = module
        self.aliasing = Aliasing(module)
        self.values = Values()
        self.layouts = [Layout.of(shape_at(module, n)) for n in range(len(module.shapes))]
        self.shape = module.shape.tolist()
        self.opcode = [module.opcodes[number] for number in module.opcode.tolist()]
        self.at_time: list[int] = []
        self.sharing: list[tuple[int, list[int], list[list[int]]]] = []
        self.notes: list[str] = []
        may_share = self.aliasing.elementwise | module.opcode_mask("sort", "fusion")
        self._may_share = may_share.tolist()
        # bounds the instructions inlined, where computations are called more than once
        self._budget = 4 * len(module) + 100_000
        aliases = parse_aliases(module.header.get("input_output_alias", ""))
        self._donated_numbers = {number for _, number, _ in aliases}
        entry = self._computation(module.entry, None, 0)
        self.results = entry[int(module.computation_root[module.entry])]
        self.values.use(self.results, len(self.at_time) - 1)
        numbers = module.parameter_number
        parameters = {int(numbers[at]): at for at in entry if numbers[at] >= 0}
        self.arguments = [value for at in parameters.values() for value in entry[at]]
        self.donated = self._donate(aliases, parameters, entry)

    def _donate(
        self, aliases: list[Pair], parameters: dict[int, int], entry: Shown
    ) -> list[tuple[int, int]]:
        module = self.module
        root = int(module.computation_root[module.entry])
        pairs: list[tuple[int, int]] = []
        for path, number, operand_path in aliases:
            if number in parameters:
                parameter = parameters[number]
                results = self._member(root, self.results, path)
                pairs += zip(
                    results, self._member(parameter, entry[parameter], operand_path), strict=False
                )
        taken = {self.values.find(value) for value in self.arguments}
        donated = []
        for result, argument in pairs:
            # a result that is another argument already would be copied
            if self.values.find(result) not in taken:
                self.values.unite([result], [argument])
                donated.append((result, argument))
        return donated

    def _layout(self, at: int) -> Layout:
        layout: Layout = self.layouts[self.shape[at]]
        return layout

    def _member(self, at: int, values: list[int], path: tuple[int, ...]) -> list[int]:
        """The values of one member of an instruction's result; none if it has no such member."""
        if not path:
            return values
        members = self._layout(at).members
        if len(path) == 1:
            return (
                values[members[path[0]] : members[path[0] + 1]]
                if path[0] + 1 < len(members)
                else []
            )
        try:
            offset, count = member(self.module.shapes[self.shape[at]], path)
        except IndexError:
            return []
        return values[offset : offset + count]

    # ---- computations

    def _computation(
        self, computation: int, arguments: list[list[int]] | None, depth: int
    ) -> Shown:
        """Visit a computation, whose parameters show ``arguments`` or, if None, new values."""
        module, values = self.module, self.values
        if depth > MAX_DEPTH:
            raise ReadError(f"module {module.name}: calls nest deeper than {MAX_DEPTH}")
        shown: Shown = {}
        start = module.computation_start
        rows = range(int(start[computation]), int(start[computation + 1]))
        self._budget -= len(rows)
        for at in rows:
            opcode = self.opcode[at]
            operands = self.aliasing.operands(at)
            try:
                given = [shown[operand] for operand in operands]
            except KeyError:
                name = module.instruction_names[at]
                raise ReadError(f"module {module.name}: {name} stands before its operand") from None
            callees = self._callees(at, opcode)
            if callees and opcode == "while":
                shown[at] = self._while(at, given, callees, depth)
            elif callees:
                shown[at] = self._call(at, opcode, given, callees, depth)
            elif opcode == "parameter":
                shown[at] = self._parameter(at, arguments)
            else:
                passed = self._passed_on(at, opcode, operands, given)
                shown[at] = self._define(at, opcode, operands, given) if passed is None else passed
            time = len(self.at_time)
            if opcode not in _NO_USE:
                for each in given:
                    values.use(each, time)
            if given and self._may_share[at]:
                self.sharing.append((time, shown[at], given))
            self.at_time.append(at)
        return shown

    def _parameter(self, at: int, arguments: list[list[int]] | None) -> list[int]:
        layout, number = self._layout(at), int(self.module.parameter_number[at])
        given = arguments[number] if arguments and number < len(arguments) else []
        if len(given) == len(layout.bytes):
            return given
        return self.values.define(at, layout, len(self.at_time))

    def _callees(self, at: int, opcode: str) -> list[tuple[str, int]]:
        if opcode not in ("while", "call", "conditional"):
            return []
        module = self.module
        rows = range(module.callee_start[at], module.callee_start[at + 1])
        callees = [(ROLES[module.callee_role[row]], int(module.callee[row])) for row in rows]
        starts = module.computation_start
        if self._budget < sum(int(starts[c + 1] - starts[c]) for _, c in callees):
            if _MANY_CALLS not in self.notes:
                self.notes.append(_MANY_CALLS)
            return []
        return callees

    def _while(
        self, at: int, given: list[list[int]], callees: list[tuple[str, int]], depth: int
    ) -> list[int]:
        """Condition, then body. Each carried array has one buffer throughout.

        The value that enters lives until the body has read it, the next one from its
        definition to the body's end; between the two the buffer is idle.
        """
        values, layout, entered = self.values, self._layout(at), len(self.at_time)
        before = given[0] if given else []
        values.use(before, entered)
        carried: list[list[int]] = []
        for role, callee in sorted(callees, key=lambda pair: pair[0] != "condition"):
            inside = values.define(at, layout, entered)
            shown = self._computation(callee, [inside], depth + 1)
            root = shown[int(self.module.computation_root[callee])]
            values.use(root, len(self.at_time) - 1)
            carried.append(inside)
            if role != "condition":
                carried.append(root)
        result = values.define(at, layout, len(self.at_time) - 1)
        for each in carried:
            values.unite(result, each)
        entered_by, left_by = carried[-2:] if len(carried) > 1 else ([], [])
        for number, (mine, value) in enumerate(zip(result, before, strict=False)):
            unchanged = number < len(left_by) and left_by[number] == entered_by[number]
            if unchanged or not self._is_kept(value):
                values.unite([mine], [value])
        return result

    def _is_kept(self, value: int) -> bool:
        """Whether nothing may overwrite a value: XLA copies constants and arguments first."""
        owner = self.values.owner[value]
        opcode = self.opcode[owner]
        number = int(self.module.parameter_number[owner])
        return opcode == "constant" or (
            opcode == "parameter" and number not in self._donated_numbers
        )

    def _call(
        self, at: int, opcode: str, given: list[list[int]], callees: list[tuple[str, int]],
        depth: int,
    ) -> list[int]:  # fmt: skip
        """A call shows what its callee's root shows; branches return into one buffer."""
        layout, values = self._layout(at), self.values
        results: list[list[int]] = []
        for number, (_, callee) in enumerate(callees):
            # operand 0 of a conditional chooses, each further one goes to its branch
            taken = given if opcode == "call" else given[1 + number : 2 + number]
            shown = self._computation(callee, taken, depth + 1)
            results.append(shown[int(self.module.computation_root[callee])])
        time = len(self.at_time) - 1
        for each in given[:1] if opcode == "conditional" else ():
            values.use(each, time)
        if opcode == "call" and len(results[0]) == len(layout.bytes):
            return results[0]
        out = values.define(at, layout, time)
        for each in results:
            values.use(each, time)
            for mine, value in zip(out, each, strict=False):
                if not self._is_kept(value):
                    values.unite([mine], [value])
        return out

    # ---- instructions

    def _passed_on(
        self, at: int, opcode: str, operands: list[int], given: list[list[int]]
    ) -> list[int] | None:
        """The operands' values that an instruction shows, or None when it makes new ones."""
        count = len(self._layout(at).bytes)
        out: list[int] | None = None
        if opcode == "tuple":
            out = [value for each in given for value in each]
        elif not given:
            return None
        elif opcode == "get-tuple-element":
            out = self._member(operands[0], given[0], (self._index(at),))
        elif opcode in _PASS_WHOLE:
            out = given[0]
        elif opcode.endswith("-done"):
            # a start shows (operands, results, context), copy-start (to, from, context)
            number = 0 if opcode in ("copy-done", "recv-done", "send-done") else 1
            whole = len(given[0]) == count
            out = given[0] if whole else self._member(operands[0], given[0], (number,))[:count]
        return out if out is not None and len(out) == count else None

    def _index(self, at: int) -> int:
        text = attributes_at(self.module, int(self.module.attribute[at])).get("index", "")
        return int(text) if text.isdecimal() else len(self.module.operand)

    def _define(
        self, at: int, opcode: str, operands: list[int], given: list[list[int]]
    ) -> list[int]:
        """New values, united with the operands they overwrite."""
        values, layout = self.values, self._layout(at)
        out = values.define(at, layout, len(self.at_time))
        starts = opcode.endswith("-start") or opcode == "send"
        if starts and opcode != "all-reduce-start" and len(layout.members) > 2:
            source = [value for each in given for value in each]
            offset = layout.members[1] if opcode == "copy-start" else 0
            # the start's tuple shows its operands beside its results
            if offset + len(source) <= len(out):
                values.drop(out[offset : offset + len(source)])
                out[offset : offset + len(source)] = source
        for path, number, operand_path in self.aliasing.in_place(at, opcode):
            if number < len(operands):
                source = self._member(operands[number], given[number], operand_path)
                target = self._member(at, out, path)
                if len(source) == len(target) and not any(map(self._is_kept, source)):
                    values.unite(target, source)
        return out
