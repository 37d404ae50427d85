"""REM001: what the forward pass keeps in memory for the backward pass."""

# ruff: noqa: E501 - HLO text has long lines

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import ClassVar

from hlo_lab.ir.module import Module
from hlo_lab.ir.shapes import Shape
from hlo_lab.passkit.base import AnalysisPass, Example
from hlo_lab.passkit.context import Context
from hlo_lab.passkit.finding import Finding, Severity
from hlo_lab.passkit.patterns import FREE, MOVES, Path, Phase, Source, phase
from hlo_lab.passkit.wording import (
    bytes_text,
    counted,
    line_text,
    place_text,
    seconds_text,
    times_text,
)

_CONTROL = frozenset(("while", "conditional", "call", "async-start", "copy-start"))
_CALLERS = frozenset(("while", "conditional", "call"))
_PARTS = 2  # source lines that the finding on a loop names
# a price is that of all it takes, products too, and many small arrays are large together
_REMEDY = "recompute{products=true,min-bytes=0}"
_UNSURE = "and XLA:CPU's scheduler often keeps the peak where it was"
_MAX_CHAIN = 400  # kernels looked at per value; a longer chain counts as not worth it


@dataclass(frozen=True)
class _Residual:
    """A forward value that the backward pass reads.

    ``at`` is the kernel that makes it, ``shown`` the instruction to name, ``shape`` that of
    one value (one iteration's), ``bytes`` what
    it holds at the peak (all iterations of a loop). ``seconds`` are what
    making it again from the values that stay would cost per step; ``loop`` is the while
    that collects it, or -1.
    """

    at: int
    shown: int
    shape: Shape
    bytes: int
    seconds: float
    executions: float
    loop: int = -1


@dataclass
class _Group:
    """Residuals made by the same op at the same source line."""

    residuals: list[_Residual] = field(default_factory=list)

    @property
    def bytes(self) -> int:
        return sum(one.bytes for one in self.residuals)

    @property
    def seconds(self) -> float:
        return sum(one.seconds for one in self.residuals)


@dataclass(frozen=True)
class _Loop:
    """What a loop stacks beside its carry: ``stacked`` bytes, and those that go with its carry
    alone kept."""

    at: int
    values: int
    stacked: int
    bytes: int


_FORWARD = 'metadata={op_name="jit(f)/jvp()/%s" source_file="model.py" source_line=%d}'
_BACKWARD = 'metadata={op_name="jit(f)/transpose(jvp())/%s" source_file="model.py" source_line=%d}'


def _step(keeps: bool) -> str:
    """A training step whose backward pass reads ``exp(x)``, or only ``x``."""
    read = "%e" if keeps else "%x"
    return f"""HloModule m, is_scheduled=true

ENTRY %main (x: f32[4096,1024], w: f32[1024,1024], t: f32[4096,1024]) -> (f32[4096,1024], f32[4096,1024]) {{
  %x = f32[4096,1024]{{1,0}} parameter(0)
  %w = f32[1024,1024]{{1,0}} parameter(1)
  %t = f32[4096,1024]{{1,0}} parameter(2)
  %e = f32[4096,1024]{{1,0}} exponential(%x), {_FORWARD % ("exp", 3)}
  %y = f32[4096,1024]{{1,0}} dot(%e, %w), lhs_contracting_dims={{1}}, rhs_contracting_dims={{0}}, {_FORWARD % ("dot_general", 4)}
  %g = f32[4096,1024]{{1,0}} dot(%t, %w), lhs_contracting_dims={{1}}, rhs_contracting_dims={{1}}, {_BACKWARD % ("dot_general", 4)}
  %r = f32[4096,1024]{{1,0}} multiply(%g, {read}), {_BACKWARD % ("mul", 3)}
  ROOT %o = (f32[4096,1024]{{1,0}}, f32[4096,1024]{{1,0}}) tuple(%y, %r)
}}
"""


_INFERENCE = """HloModule m, is_scheduled=true

ENTRY %main (x: f32[4096,1024]) -> f32[4096,1024] {
  %x = f32[4096,1024]{1,0} parameter(0)
  %e = f32[4096,1024]{1,0} exponential(%x)
  ROOT %r = f32[4096,1024]{1,0} multiply(%e, %x)
}
"""


@dataclass(frozen=True)
class RematPass(AnalysisPass):
    """What the backward pass keeps alive, and its price.

    What it finds
        Forward values that the backward pass reads and that are live when memory peaks,
        with their bytes and the seconds of making them
        again from values that stay anyway. Residuals that a scan over layers stacks up
        are found in the loop that writes them, and counted for all iterations; a loop
        that keeps much more than its carry is one finding, which names the largest of
        them. Findings are ranked by the bytes that they hold at the peak; what is not
        named is one note.

    Why it matters
        Residuals mostly decide the largest batch or model that fits. Recomputing cheap
        ones (activations, masks, normalised inputs) costs little, and on a machine bound
        by memory it can even save time.

    Example
        ``y = exp(x) @ w`` keeps ``exp(x)`` for the gradient of ``w``. Recomputing it
        from ``x`` costs one pass over ``x`` and frees the whole array.

    What to do
        Wrap the layer, or the body of the scan (``prevent_cse=False``), in
        ``jax.checkpoint``. To keep what is dear and drop what is cheap, name the dear
        values with ``jax.ad_checkpoint.checkpoint_name`` and give
        ``policy=jax.checkpoint_policies.save_only_these_names(...)``; or try
        ``dots_saveable``, which keeps matrix products only.

    How it is verified
        Compile again and compare the peak and the estimated time: XLA may already
        recompute a value inside a fusion, and it can merge the recomputation away. XLA:CPU
        does not schedule for memory: there only what a loop stacks is sure to go, so all
        else is a note without a promise of bytes. Each value is priced as if it alone were
        dropped. For scans the rewrite ``recompute`` does it: a transformer of 8 layers, width
        512, on tpu:v5e went from 1.3 GiB to 390 MiB at the peak, 1.1 GiB promised, and from 9.7
        to 6.6 ms by the compiler's cycles.
    """

    code: ClassVar[str] = "REM001"
    name: ClassVar[str] = "remat"
    examples: ClassVar[tuple[Example, ...]] = (
        Example("a cheap activation kept for the backward pass", _step(keeps=True)),
        Example(
            "the backward pass reads an argument, which is there anyway", _step(False), finds=0
        ),
        Example("no backward pass", _INFERENCE, finds=0),
    )

    min_bytes: int = 1 << 20  # a line that holds less is left out
    min_share: float = 0.01  # share of the peak below which a line is not named
    warn_share: float = 0.05  # share of the peak that makes a warning
    max_cost: float = 0.05  # share of the step's time that recomputing may cost in a warning
    top: int = 5  # loops and source lines named one by one

    def run(self, module: Module, context: Context) -> Iterator[Finding]:
        """Yield what frees most first, then one note on the rest."""
        if not any("transpose(" in metadata.op_name for metadata in module.metadatas):
            return
        if not context.memory.scheduled:
            yield self.finding(
                module.entry_computation.root,
                "the module is not scheduled: what is live at the peak is taken from the printed "
                "order, and fusion has not removed what it will",
                severity=Severity.NOTE,
                advice="Analyze the optimised module, or the program itself.",
            )
        search = _Search(module, context)
        groups: dict[tuple[str, int], _Group] = {}
        for value in search.residuals():
            key = (place_text(module, value.shown), value.loop)
            groups.setdefault(key, _Group()).residuals.append(value)
        loops = [one for one in search.loops if self._is_large(context, one)]
        parts: dict[int, list[_Group]] = {loop.at: [] for loop in loops}
        ranked: list[_Loop | _Group] = [*loops]
        for (_, at), group in groups.items():
            if at in parts:
                parts[at].append(group)
            elif group.bytes >= self.min_bytes:
                ranked.append(group)
        # of values that hold the same, the cheapest first
        ranked.sort(key=lambda one: (-one.bytes, one.seconds if isinstance(one, _Group) else 0))
        least = self.min_share * context.memory.peak_bytes
        named = [one for one in ranked if one.bytes >= least][: self.top]
        for one in named:
            if isinstance(one, _Loop):
                yield self._loop(module, context, one, parts[one.at])
            else:
                yield self._value(module, context, one)
        rest = [one for one in ranked[len(named) :] if isinstance(one, _Group)]
        total = sum(group.bytes for group in rest)
        if rest and total >= least:
            yield self.finding(
                module.instruction(rest[0].residuals[0].shown),
                f"{counted(len(rest), 'more source line')} of the forward pass hold "
                f"{bytes_text(total)} for the backward pass",
                severity=Severity.NOTE,
                seconds=-sum(group.seconds for group in rest),
                bytes=None if _for_cpu(context) else total,
                context=context,
            )

    def _is_large(self, context: Context, loop: _Loop) -> bool:
        """Whether a loop stacks much more than its carry."""
        share = loop.bytes / max(context.memory.peak_bytes, 1)
        return loop.bytes >= self.min_bytes and share >= self.warn_share and loop.values > 1

    def _value(self, module: Module, context: Context, group: _Group) -> Finding:
        worst = max(group.residuals, key=lambda one: one.bytes)
        flow = context.flow
        share = group.bytes / max(context.memory.peak_bytes, 1)
        whole = context.cost.total_seconds
        relative = group.seconds / whole if whole else 0.0
        shape = next(worst.shape.leaves())[1].without_layout()
        many = counted(len(group.residuals), "value")
        them = "it" if len(group.residuals) == 1 else "them"
        runs = times_text(worst.executions) if worst.loop >= 0 else ""
        within = " under jax.checkpoint" if "checkpoint" in flow.op_name(worst.at) else ""
        unsure = worst.loop < 0 and _for_cpu(context)
        cheap = share >= self.warn_share and relative <= self.max_cost and not within
        # before scheduling and fusion, what is live together is a guess
        cheap = cheap and context.memory.scheduled and not unsure
        place = place_text(module, worst.shown)
        hold = "holds" if them == "it" else "hold"
        return self.finding(
            module.instruction(worst.shown),
            f"{place}{within} makes {many} of {shape}{runs} for the backward pass, which {hold} "
            f"{bytes_text(group.bytes)}, {share:.0%} of the peak; making {them} again costs "
            f"{relative:.1%} of the step's time" + (f", {_UNSURE}" if unsure else ""),
            severity=Severity.WARNING if cheap else Severity.NOTE,
            advice=_advice(bool(within), unsure),
            remedy=() if worst.loop < 0 else (_REMEDY,),
            seconds=-group.seconds,
            bytes=None if unsure else group.bytes,
            context=context,
        )

    def _loop(self, module: Module, context: Context, kept: _Loop, parts: list[_Group]) -> Finding:
        share = kept.bytes / max(context.memory.peak_bytes, 1)
        seconds = _body_seconds(context, kept.at)
        relative = seconds / max(context.cost.total_seconds, 1e-12)
        place = line_text(module, kept.at) or f"%{module.instruction_names[kept.at]}"
        largest = sorted(parts, key=lambda group: (-group.bytes, group.seconds))[:_PARTS]
        named = ", ".join(
            f"{place_text(module, group.residuals[0].shown)} {bytes_text(group.bytes)} "
            f"(again in {seconds_text(group.seconds)})"
            for group in largest
        )
        return self.finding(
            module.instruction(kept.at),
            f"the loop at {place} stacks {counted(kept.values, 'value')}, "
            f"{bytes_text(kept.stacked)}, for the backward pass; making them again from its "
            f"carry frees up to {share:.0%} of the peak and adds up to {relative:.0%} to the "
            "step's time" + (f"; most are {named}" if named else ""),
            severity=Severity.WARNING if context.memory.scheduled else Severity.NOTE,
            advice=(
                "Wrap the body: jax.lax.scan(jax.checkpoint(body, prevent_cse=False), ...); "
                "try policy=jax.checkpoint_policies.dots_saveable beside it, and compile both. "
                "The whole body is then computed again, which costs the estimate's time; "
                f"`hlo-lab rewrite '{_REMEDY}'`, which is what --verify tries, computes again "
                "only what the loop stacks, where it can: its figures are not those of the wrapping."
            ),
            remedy=(_REMEDY,),
            seconds=-seconds,
            bytes=kept.bytes,
            context=context,
        )


def _for_cpu(context: Context) -> bool:
    """Whether the module is compiled for CPU, whose scheduler does not look at memory."""
    target = str(context.manifest.get("target", "")) or context.machine.kind
    return target.partition(":")[0] == "cpu"


def _advice(kept_on_purpose: bool, unsure: bool) -> str:
    if kept_on_purpose:
        return (
            "It is kept on purpose, by the policy or as the input of a checkpointed function; "
            "a checkpoint around more layers keeps fewer."
        )
    if unsure:
        return (
            "Before wrapping the layer in jax.checkpoint, compile it so and compare with "
            "`hlo-lab diff`, best for the accelerator that it will run on."
        )
    return (
        "Wrap the layer in jax.checkpoint with a policy that does not save it; to keep dearer "
        "values of the layer, mark them with checkpoint_name and use save_only_these_names. "
        "Compile again to confirm: XLA may recompute it already."
    )


class _Search:
    """Finds the residuals of one module."""

    def __init__(self, module: Module, context: Context):
        self.module = module
        self.context = context
        self.flow = context.flow
        self.runs = context.cost.executions.tolist()
        self.seconds = context.cost.seconds.tolist()
        self.last_use: dict[int, int] = {}
        self.loops: list[_Loop] = []

    def residuals(self) -> list[_Residual]:
        found: list[_Residual] = []
        peak = int(self.context.memory.peak_instruction)
        for computation in range(len(self.module.computation_names)):
            rows = self._rows(computation)
            at_peak = self.flow.lift(peak, computation)
            if at_peak is not None and self.runs[rows.start] > 0:
                found += self._of_computation(rows, at_peak)
        return found

    def _rows(self, computation: int) -> range:
        start = self.module.computation_start
        return range(int(start[computation]), int(start[computation + 1]))

    def _of_computation(self, rows: range, peak: int) -> list[_Residual]:
        flow, found = self.flow, []
        if not any(phase(flow.op_name(at)) is Phase.BACKWARD for at in rows):
            return []
        for at in rows:
            opcode = flow.opcode(at)
            if opcode == "while":
                found += self._stacked(at, rows, peak)
            if opcode in FREE or opcode in _CONTROL:
                continue
            for value in self._values(at):
                read = self._read_backwards(value, at)
                if read and at <= peak <= read[1] and not flow.shape(value).memory_space:
                    seconds, missing = self._recompute(at, read[0], {})
                    if not missing:
                        found.append(
                            _Residual(
                                at=at,
                                shown=flow.place(at),
                                shape=flow.shape(value),
                                bytes=flow.shape(value).bytes,
                                seconds=seconds * self.runs[at],
                                executions=self.runs[at],
                            )
                        )
        return found

    def _values(self, at: int) -> list[int]:
        """The arrays that a kernel makes: itself, or the members of its tuple that are used."""
        flow = self.flow
        if flow.shape(at).is_array:
            return [at]
        return [
            user
            for user in flow.users(at)
            if flow.opcode(user) == "get-tuple-element" and flow.shape(user).is_array
        ]

    def _read_backwards(self, at: int, producer: int) -> tuple[int, int] | None:
        """(first, last) position of the backward ops that read a forward value."""
        flow = self.flow
        name = flow.op_name(producer)
        if not name or phase(name) is not Phase.FORWARD:
            return None  # without a name it may be the compiler's own, such as a gradient's zeros
        users = [user for user in self._users(at) if phase(flow.op_name(user)) is not Phase.FORWARD]
        return (min(users), max(users)) if users else None

    def _users(self, at: int) -> list[int]:
        """Readers of a value, past copies, with the loop in place of the tuple it enters by."""
        flow, out = self.flow, []
        waiting, seen = flow.kernel_users(at), set()
        while waiting:
            user = waiting.pop()
            if user in seen:
                continue
            seen.add(user)
            if flow.opcode(user) == "tuple":
                out += [one for one in flow.users(user) if flow.opcode(one) not in FREE]
            elif flow.opcode(user) in ("copy", "copy-start"):
                waiting += flow.kernel_users(user)
            else:
                out.append(user)
        return out

    def _stacked(self, loop: int, rows: range, peak: int) -> list[_Residual]:
        """Residuals that a loop writes row after row and a later one reads."""
        flow, found = self.flow, []
        members: list[tuple[int, int, int]] = []
        stays: dict[Source, None] = {}
        for user in flow.users(loop):
            if flow.opcode(user) != "get-tuple-element":
                continue
            update = flow.stacked_update(loop, (flow.member(user),))
            read = self._read_backwards(user, loop)
            if update is None or read is None or not loop <= peak <= read[1]:
                continue
            source, shown = update
            stays[source] = None
            # what a TPU keeps in its vector memory takes nothing of the peak
            if flow.opcode(source[0]) not in FREE and not flow.shape(user).memory_space:
                members.append((user, source[0], shown))
        kept = 0
        for user, made, shown in members:
            inside = self._rows(flow.computation_of(made))
            seconds, missing = self._recompute(made, inside.stop, stays)
            iterations = self.runs[made]
            size = flow.shape(user).bytes
            kept += size
            size -= missing * int(iterations)
            if size > 0:
                found.append(
                    _Residual(
                        at=made,
                        shown=shown,
                        # a fusion that writes a row in place has the whole buffer's shape
                        shape=flow.shape(shown if self._in_place(made) else made),
                        bytes=size,
                        seconds=seconds * iterations,
                        executions=iterations,
                        loop=loop,
                    )
                )
        if members:
            self.loops.append(
                _Loop(loop, len(members), kept, kept - self._carry_bytes(loop, stays))
            )
        return found

    def _in_place(self, at: int) -> bool:
        return "dynamic-update-slice" in self.flow.contents(at)

    def _carry_bytes(self, loop: int, stays: dict[Source, None]) -> int:
        """Bytes over all iterations of the carry that is not stacked yet."""
        flow, total = self.flow, 0
        body = flow.callee(loop, "body")
        parameter = None if body is None else flow.parameter(body)
        if parameter is None:
            return 0
        for member, shape in enumerate(flow.shape(loop).elements):
            path = (member,)
            if (
                shape.element_count > 1
                and (parameter, path) not in stays
                and not flow.is_invariant(loop, path)
                and flow.stacked_update(loop, path) is None
            ):
                total += shape.bytes
        return total * self.context.cost.trips.get(loop, 1)

    def _recompute(self, at: int, until: int, stays: dict[Source, None]) -> tuple[float, int]:
        """(seconds, bytes that would have to stay instead) of making a value again.

        Goes up from ``at`` to values that are live until ``until`` anyway: arguments,
        constants, ``stays``, and whatever is read that late. One execution.
        """
        flow = self.flow
        seconds, missing = 0.0, 0
        waiting: list[int] = [at]
        seen: set[Source] = {(at, ())}
        while waiting:
            one = waiting.pop()
            seconds += self.seconds[one]
            if len(seen) > _MAX_CHAIN:
                return seconds, flow.shape(at).bytes
            for operand in flow.operands(one):
                source = flow.source(operand)
                if source in seen or source in stays or flow.source(operand, (), MOVES) in stays:
                    continue
                seen.add(source)
                made, path = source
                if flow.opcode(made) in ("parameter", "while"):
                    missing += self._missing(made, path, operand, until)
                elif flow.opcode(made) != "constant" and self._live_until(made) < until:
                    waiting.append(made)
        return seconds, missing

    def _missing(self, made: int, path: Path, operand: int, until: int) -> int:
        """Bytes that would have to be kept where the chain starts at a loop's value."""
        flow = self.flow
        if flow.opcode(made) == "while":  # rerunning the loop is never worth it
            return 0 if self._live_until(operand) >= until else flow.shape(operand).bytes
        loop = flow.caller(flow.computation_of(made))
        if not path or loop is None or flow.opcode(loop) != "while":
            return 0
        shape = flow.shape(operand)
        if shape.element_count <= 1 or flow.is_invariant(loop, path):
            return 0  # the loop's counter costs nothing
        return 0 if flow.stacked_update(loop, path) is not None else shape.bytes

    def _live_until(self, at: int) -> int:
        found = self.last_use.get(at)
        if found is None:
            found = self.last_use[at] = max(self._users(at), default=at)
        return found


def _body_seconds(context: Context, loop: int) -> float:
    """Seconds per step that all iterations of a loop take, with the loops inside it."""
    module, cost = context.module, context.cost
    spent, total = cost.seconds * cost.executions, 0.0
    waiting, seen = [loop], {loop}
    while waiting:
        at = waiting.pop()
        for called in module.callee[module.callee_start[at] : module.callee_start[at + 1]].tolist():
            rows = slice(
                int(module.computation_start[called]), int(module.computation_start[called + 1])
            )
            total += float(spent[rows].sum())
            inside = range(rows.start, rows.stop)
            callers = [one for one in inside if context.flow.opcode(one) in _CALLERS]
            waiting += [one for one in callers if one not in seen]
            seen.update(callers)
    return total
