"""MEM001: arguments that a result replaces, kept beside it because they are not donated."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from hlo_lab.cost.aliasing import donated, parse_aliases
from hlo_lab.ir.module import Module
from hlo_lab.passkit.base import AnalysisPass, Example
from hlo_lab.passkit.context import Context
from hlo_lab.passkit.finding import Finding, Severity
from hlo_lab.passkit.folding import WORTH
from hlo_lab.passkit.patterns import ELEMENTWISE, HANDING_ON, Flow
from hlo_lab.passkit.tracing import UPDATES, updated
from hlo_lab.passkit.wording import bytes_text, counted

_IN_PLACE = ELEMENTWISE | HANDING_ON | UPDATES | {"copy", "tuple"}
_TOP_NAME = re.compile(r"[A-Za-z_]\w*")
_NAMED = 3  # arguments that the message names
_CHECKED = 32  # arguments, the largest, whose readers are looked through

_STEP = """HloModule m, is_scheduled=true{donated}

%f (p: f32[1024,1024], g: f32[1024,1024]) -> f32[1024,1024] {{
  %p = f32[1024,1024]{{1,0}} parameter(0)
  %g = f32[1024,1024]{{1,0}} parameter(1)
  ROOT %s = f32[1024,1024]{{1,0}} subtract(%p, %g)
}}

ENTRY %main (w: f32[1024,1024], x: f32[1024,1024]) -> f32[1024,1024] {{
  %w = f32[1024,1024]{{1,0}} parameter(0), metadata={{op_name="params[\\'w\\']"}}
  %x = f32[1024,1024]{{1,0}} parameter(1), metadata={{op_name="x"}}
  %g = f32[1024,1024]{{1,0}} dot(%x, %x), lhs_contracting_dims={{1}}, rhs_contracting_dims={{0}}
  ROOT %n = f32[1024,1024]{{1,0}} fusion(%w, %g), kind=kLoop, calls=%f
}}
"""

_GRADIENT = """HloModule m, is_scheduled=true

ENTRY %main (w: f32[1024,1024], x: f32[1024,1024]) -> f32[1024,1024] {
  %w = f32[1024,1024]{1,0} parameter(0), metadata={op_name="params"}
  %x = f32[1024,1024]{1,0} parameter(1), metadata={op_name="x"}
  ROOT %g = f32[1024,1024]{1,0} dot(%x, %w), lhs_contracting_dims={1}, rhs_contracting_dims={0}
}
"""


@dataclass(frozen=True)
class _Pair:
    """An argument and the instruction that makes a changed version of it, a result."""

    parameter: int
    made: int
    bytes: int
    name: str


@dataclass(frozen=True)
class DonationPass(AnalysisPass):
    """Arguments that a result replaces, but that are not donated.

    What it finds
        Arguments of which a result is a changed version, element for element (updated
        parameters and optimiser state, a cache that was written to), of the same type and
        size, and not donated. Gradients have the shape of their parameters too, but are no
        changed version of them, and give no finding. On CPU only those whose other readers
        come before the result by their data: XLA:CPU copies the rest when they are donated. On CPUs
        and GPUs not those that the kernel of the result reads otherwise too (a layer norm sums
        its rows): they are copied as well. ``jax.jit`` donates whole arguments, so what is
        copied of the same ones is taken off what is freed; where less than ``min_bytes`` is
        left, the finding is a note without a figure.

    Why it matters
        Old and new value are held at once for the whole call: the peak counts both.

    Example
        ``new = params - rate * grads`` holds ``params`` and ``new``; donated, ``new`` is
        written over ``params``.

    What to do
        ``jax.jit(step, donate_argnames=("params",))``, where the caller does not read the old
        value after the call (``params = step(params, ...)``). Only the caller's code shows
        whether it does.

    How it is verified
        Compile again with the arguments donated: the results are aliased and the peak is lower
        by the bytes of the estimate. ``{k: p[k] - 0.1 * g[k]}`` over 67 MB of parameters: peak
        201.4 to 134.3 MB on tpu:v5e and on cpu, 67.1 MB as estimated; the time stays. A
        mixture-of-experts step: 892.1 to 757.9 MB on tpu:v5e, 134.3 MB as estimated.
    """

    code: ClassVar[str] = "MEM001"
    name: ClassVar[str] = "donation"
    examples: ClassVar[tuple[Example, ...]] = (
        Example("an update of parameters", _STEP.format(donated="")),
        Example(
            "donated already",
            _STEP.format(donated=", input_output_alias={ {}: (0, {}, may-alias) }"),
            finds=0,
        ),
        Example("a result of the same shape that is no update", _GRADIENT, finds=0),
    )

    min_bytes: int = 1 << 20  # of all such arguments together

    def run(self, module: Module, context: Context) -> Iterator[Finding]:
        """Yield at most one finding, on all of them together."""
        if not module.is_scheduled or module.warnings:
            return
        pairs = every = _pairs(module, context.flow)
        if context.machine.kind != "tpu":
            pairs = [pair for pair in pairs if _at_once(context.flow, pair)]
        if context.machine.kind == "cpu":
            pairs = [pair for pair in pairs[:_CHECKED] if _ordered(context.flow, pair)]
        saved = sum(pair.bytes for pair in pairs)
        if not pairs or saved < self.min_bytes:
            return
        peak = context.memory.peak_bytes
        named = ", ".join(f"{pair.name} {bytes_text(pair.bytes)}" for pair in pairs[:_NAMED])
        more = f" and {len(pairs) - _NAMED} more" if len(pairs) > _NAMED else ""
        tops = list(dict.fromkeys(_top(pair.name) for pair in pairs))
        # jax.jit donates whole arguments: what the compiler copies then frees nothing
        others = [one for one in every[:_CHECKED] if one not in pairs and _top(one.name) in tops]
        freed = saved - sum(one.bytes for one in others)
        is_sure = freed >= self.min_bytes
        names = "".join(f'"{name}", ' for name in tops[:_NAMED] if name).rstrip(" ")
        verb = "has" if len(pairs) == 1 else "have"
        yield self.finding(
            module.instruction(pairs[0].parameter),
            f"{counted(len(pairs), 'argument')} {verb} a result that replaces "
            f"{'it' if len(pairs) == 1 else 'them'} but {'is' if len(pairs) == 1 else 'are'} not "
            f"donated, so old and new are held at once, {bytes_text(saved)} of the peak of "
            f"{bytes_text(peak)}: {named}{more}",
            severity=Severity.WARNING if is_sure and freed >= WORTH * peak else Severity.NOTE,
            advice=f"Where the caller does not read the old value after the call: "
            f"jax.jit(..., donate_argnames=({names or '...'})){_besides(others, context)}.",
            remedy=(f"donate-arguments{{arguments={_chosen(module, pairs)}}}",),
            bytes=freed if is_sure else None,
            context=context,
        )


def _besides(others: list[_Pair], context: Context) -> str:
    if not others:
        return ""
    size = bytes_text(sum(one.bytes for one in others))
    them = "it" if len(others) == 1 else "them"
    return (
        f" (donates {counted(len(others), 'other')} too, {size}, and "
        f"XLA:{context.machine.kind.upper()} copies {them})"
    )


def _pairs(module: Module, flow: Flow) -> list[_Pair]:
    root = int(module.computation_root[module.entry])
    results = flow.operands(root) if flow.opcode(root) == "tuple" else [root]
    aliases = parse_aliases(module.header.get("input_output_alias", ""))
    reused = {path[0] if path else 0 for path, _, _ in aliases}
    given = donated(module)
    found = []
    for number, result in enumerate(results):
        if number in reused or not flow.shape(result).is_array:
            continue
        candidates = [
            at
            for at, path in updated(flow, result)
            if not path
            and int(module.parameter_number[at]) not in given
            and _fits(flow, at, result)
        ]
        if candidates:
            found.append((flow.source(result)[0], candidates))
    taken: dict[int, int] = {}
    for made, candidates in sorted(found, key=lambda one: len(one[1])):  # no choice: first
        free = next((at for at in candidates if at not in taken), None)
        if free is not None:
            taken[free] = made
    pairs = [
        _Pair(
            parameter=at,
            made=made,
            bytes=flow.shape(at).padded_bytes,
            name=flow.op_name(at) or module.instruction_names[at],
        )
        for at, made in taken.items()
    ]
    return sorted(pairs, key=lambda pair: -pair.bytes)


def _fits(flow: Flow, parameter: int, result: int) -> bool:
    """Whether the result can be written over the argument."""
    old, new = flow.shape(parameter), flow.shape(result)
    same = (old.dtype, old.dims, old.padded_bytes) == (new.dtype, new.dims, new.padded_bytes)
    return same and flow.source(result)[0] != parameter


def _ordered(flow: Flow, pair: _Pair) -> bool:
    """Whether whatever else reads the argument is needed for the result, so that it is earlier."""
    others = set(flow.kernel_users(pair.parameter)) - {pair.made}
    waiting, seen = [pair.made], {pair.made}
    while waiting and others:
        before = set(flow.operands(waiting.pop())) - seen
        others -= before
        seen |= before
        waiting += before
    return not others


def _at_once(flow: Flow, pair: _Pair) -> bool:
    """Whether the kernel of the result reads the argument element for element alone."""
    inside = flow.callee(pair.made, "calls") if flow.opcode(pair.made) == "fusion" else None
    if inside is None:
        return True
    operands = enumerate(flow.operands(pair.made))
    taken = [number for number, one in operands if flow.source(one)[0] == pair.parameter]
    waiting = [at for number in taken if (at := flow.parameter(inside, number)) is not None]
    seen: set[int] = set()
    while waiting:
        users = set(flow.users(waiting.pop())) - seen
        if any(flow.opcode(one) not in _IN_PLACE for one in users):
            return False
        seen |= users
        waiting += users
    return True


def _chosen(module: Module, pairs: list[_Pair]) -> str:
    """The arguments as the rewrite takes them: by name as JAX would, by number without names."""
    names = [_top(pair.name) for pair in pairs]
    if not all(names):
        names = [str(int(module.parameter_number[pair.parameter])) for pair in pairs]
    return "+".join(dict.fromkeys(names))


def _top(name: str) -> str:
    """``params['w']`` -> ``params``."""
    match = _TOP_NAME.match(name)
    return match.group() if match else ""
