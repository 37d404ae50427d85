"""MEM002: a cache that is written anew to add an entry to it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from hlo_lab.cost.aliasing import donated
from hlo_lab.ir.module import Module
from hlo_lab.passkit.base import AnalysisPass, Example
from hlo_lab.passkit.context import Context
from hlo_lab.passkit.finding import Finding
from hlo_lab.passkit.folding import Hit, fold, time_severity
from hlo_lab.passkit.patterns import MOVES, Flow, Path, Source
from hlo_lab.passkit.tracing import SAME_ELEMENTS, UPDATES, definition, kernel
from hlo_lab.passkit.wording import bytes_text, place_text, times_text

_MOVED = (MOVES - {"broadcast"}) | {"slice-start", "slice-done"}
_KEPT = SAME_ELEMENTS | UPDATES
_UNCUT = _MOVED - {"slice", "slice-start"}
_FETCHES = ("slice", "slice-start", "copy", "copy-start")
_STARTS = re.compile(r"\[(-?\d+):")
_NUMBER = re.compile(r"\d+")
_JOINS = ("maximum", "add", "or", "select")  # how XLA:TPU joins two padded parts

_WINDOW = """HloModule m, is_scheduled=true

ENTRY %main (cache: f32[8,4096,64], new: f32[8,1,64]) -> f32[8,4096,64] {
  %cache = f32[8,4096,64]{2,1,0} parameter(0), metadata={op_name="cache"}
  %new = f32[8,1,64]{2,1,0} parameter(1), metadata={op_name="new"}
  %old = f32[8,4095,64]{2,1,0} slice(%cache), slice={[0:8], [1:4096], [0:64]}
  ROOT %next = f32[8,4096,64]{2,1,0} concatenate(%old, %new), dimensions={1}
}
"""

_PADDED = """HloModule m, is_scheduled=true

%f (o: f32[8,4095,64], n: f32[8,1,64]) -> f32[8,4096,64] {
  %o = f32[8,4095,64]{2,1,0} parameter(0)
  %n = f32[8,1,64]{2,1,0} parameter(1)
  %low = f32[] constant(-inf)
  %po = f32[8,4096,64]{2,1,0} pad(%o, %low), padding=0_0x0_1x0_0
  %pn = f32[8,4096,64]{2,1,0} pad(%n, %low), padding=0_0x4095_0x0_0
  ROOT %m = f32[8,4096,64]{2,1,0} maximum(%po, %pn)
}

ENTRY %main (cache: f32[8,4096,64], new: f32[8,1,64]) -> f32[8,4096,64] {
  %cache = f32[8,4096,64]{2,1,0} parameter(0), metadata={op_name="cache"}
  %new = f32[8,1,64]{2,1,0} parameter(1), metadata={op_name="new"}
  %old = f32[8,4095,64]{2,1,0} slice(%cache), slice={[0:8], [1:4096], [0:64]}
  ROOT %next = f32[8,4096,64]{2,1,0} fusion(%old, %new), kind=kLoop, calls=%f
}
"""

_UPDATE = """HloModule m, is_scheduled=true

ENTRY %main (cache: f32[8,4096,64], new: f32[8,1,64], at: s32[]) -> f32[8,4096,64] {
  %cache = f32[8,4096,64]{2,1,0} parameter(0), metadata={op_name="cache"}
  %new = f32[8,1,64]{2,1,0} parameter(1), metadata={op_name="new"}
  %at = s32[] parameter(2), metadata={op_name="at"}
  %zero = s32[] constant(0)
  ROOT %next = f32[8,4096,64]{2,1,0} dynamic-update-slice(%cache, %new, %zero, %at, %zero)
}
"""

_HALVES = """HloModule m, is_scheduled=true

ENTRY %main (x: f32[8,4096,64], y: f32[8,4096,64]) -> f32[8,8192,64] {
  %x = f32[8,4096,64]{2,1,0} parameter(0), metadata={op_name="x"}
  %y = f32[8,4096,64]{2,1,0} parameter(1), metadata={op_name="y"}
  ROOT %both = f32[8,8192,64]{2,1,0} concatenate(%x, %y), dimensions={1}
}
"""


@dataclass(frozen=True)
class CacheConcatPass(AnalysisPass):
    """A cache is copied whole to add a few entries to it.

    What it finds
        A result of the program, or what a loop carries, that is an argument (or the carried
        value) joined with a few new entries: ``concatenate([cache, new])``, a window
        ``concatenate([cache[1:], new])`` or ``jnp.roll``, in the forms into which XLA turns
        them (pads that are joined by a maximum on TPU).

    Why it matters
        Every entry is read and written for one that is new, and old and new cache are held at
        once. A cache that grows also has another shape at each step, so that each compiles anew.

    Example
        ``cache = jnp.concatenate([cache[:, 1:], new], axis=1)`` moves the whole cache.

    What to do
        Keep a buffer of fixed length, write with
        ``jax.lax.dynamic_update_slice_in_dim(cache, new, position, axis)``, ``position`` modulo
        the length for a window, and donate the buffer.

    How it is verified
        Compile again with the update in place and the cache donated. 67 MB of bf16, one entry
        in 2048: 606,144 to 2,094 cycles on tpu:v5e (copies apart) and peak 134.3 to 67.1 MB, both
        as estimated. On cpu 28 to 14 ms by the model of this machine: XLA:CPU turns bf16 into f32
        and back to write one entry, and moves the whole cache for that.
    """

    code: ClassVar[str] = "MEM002"
    name: ClassVar[str] = "cache-concat"
    examples: ClassVar[tuple[Example, ...]] = (
        Example("a window moved by one", _WINDOW),
        Example("the same as XLA:TPU writes it", _PADDED),
        Example("an update in place", _UPDATE, finds=0),
        Example("two halves joined", _HALVES, finds=0),
    )

    min_bytes: int = 1 << 20  # of the cache
    most_new: float = 0.25  # share of the entries that are new, at most

    def run(self, module: Module, context: Context) -> Iterator[Finding]:
        """Yield a finding per source line."""
        if module.warnings:
            return
        remedies: dict[int, tuple[str, ...]] = {}
        for group in fold(context, self._hits(module, context, remedies)):
            worst = group.worst
            held = bytes_text(context.flow.shape(worst.at).padded_bytes)
            runs = float(context.cost.executions[kernel(context.flow, worst.at)])
            place = place_text(module, context.flow.place(worst.at))
            yield self.finding(
                module.instruction(worst.at),
                f"{place} writes all {held} of {worst.key} anew to add a few "
                f"entries to {worst.text}{times_text(runs)}{group.times}: an update in place "
                "writes the new ones alone",
                severity=time_severity(context, group.seconds),
                advice="Keep a buffer of fixed length, write with jax.lax."
                "dynamic_update_slice_in_dim at position (modulo the length for a window), and "
                "donate the buffer.",
                remedy=remedies[worst.at] if all(remedies[hit.at] for hit in group.hits) else (),
                seconds=group.seconds,
                bytes=group.bytes,
                context=context,
            )

    def _hits(
        self, module: Module, context: Context, remedies: dict[int, tuple[str, ...]]
    ) -> Iterator[Hit]:
        """``remedies`` gets the rewrites of each hit, by its ``at``."""
        flow, cost = context.flow, context.cost
        for value, member in _carried(module, flow):
            at, path = definition(flow, value, member, _KEPT)
            if path or flow.shape(at).bytes < self.min_bytes:
                continue
            parts = _parts(flow, at)
            large = [one for one in parts if self._is_most(flow, one, at)]
            if len(parts) < 2 or len(large) != 1:
                continue
            old, where = definition(flow, large[0], (), _MOVED)
            if not _same_state(flow, old, where, value, member):
                continue
            moved = {kernel(flow, at), *_fetches(flow, old, where), *_copies(flow, value, member)}
            runs = float(cost.executions[kernel(flow, at)])
            kept = flow.shape(value)
            kept = kept.elements[member[0]] if member else kept
            stays = _stays(flow, at, large[0], old)
            remedies[at] = _remedy(module, flow, old, where) if stays else ()
            name = flow.op_name(old) or module.instruction_names[old]
            yield Hit(
                at=at,
                seconds=sum(float(context.seconds[one]) for one in moved) * runs,
                bytes=_twice(context, kept.padded_bytes, where),
                text="what the loop carries" if where else name,
                key=str(kept.without_layout()),
            )

    def _is_most(self, flow: Flow, part: int, whole: int) -> bool:
        count = flow.shape(whole).element_count
        return flow.shape(part).element_count >= (1 - self.most_new) * count


def _carried(module: Module, flow: Flow) -> Iterator[Source]:
    """The results of the entry, and of each body of a loop, as (root, member)."""
    bodies = [
        body
        for at in np.nonzero(module.opcode_mask("while"))[0].tolist()
        if (body := flow.callee(at, "body")) is not None
    ]
    for computation in dict.fromkeys([module.entry, *bodies]):
        root = flow.root(computation)
        if not flow.shape(root).is_tuple:
            yield root, ()
            continue
        for number in range(len(flow.shape(root).elements)):
            yield root, (number,)


def _parts(flow: Flow, at: int) -> list[int]:
    """What a concatenation joins; pads that are joined elementwise are one too."""
    if flow.opcode(at) == "concatenate":
        return flow.operands(at)
    if flow.opcode(at) not in _JOINS:
        return []
    made = [definition(flow, one, (), SAME_ELEMENTS)[0] for one in flow.operands(at)]
    padded = [flow.operands(one)[0] for one in made if flow.opcode(one) == "pad"]
    return padded if len(padded) > 1 else []


def _same_state(flow: Flow, old: int, where: Path, value: int, member: Path) -> bool:
    """Whether the old value is an argument, or the member of the loop that is carried on."""
    if flow.opcode(old) != "parameter" or flow.computation_of(old) != flow.computation_of(value):
        return False
    is_entry = flow.computation_of(value) == flow.module.entry
    return not where if is_entry else where == member


def _fetches(flow: Flow, old: int, where: Path) -> list[int]:
    """Copies and slices, asynchronous ones too, that bring the old value to the chip."""
    users = flow.users(old) if not where else []
    users += [one for user in users if flow.opcode(user) == "bitcast" for one in flow.users(user)]
    return [one for one in users if flow.opcode(one) in _FETCHES]


def _copies(flow: Flow, value: int, member: Path) -> list[int]:
    """Copies of the joined value to where the result has to be."""
    found: list[int] = []
    at, path = flow.source(value, member)
    while flow.opcode(at) == "copy" and not path:
        found.append(at)
        at, path = flow.source(flow.operands(at)[0])
    return found


def _stays(flow: Flow, at: int, part: int, old: int) -> bool:
    """Whether the old entries stay where they were: no window that moves on, no growth."""
    first, _ = definition(flow, part, (), _UNCUT)
    start = 0
    if flow.opcode(first) in ("slice", "slice-start"):
        text = flow.module.attributes[flow.module.attribute[first]].get("slice", "")
        start = sum(int(number) for number in _STARTS.findall(text))
    grown = flow.shape(old).element_count < flow.shape(at).element_count
    return not grown and start == _offset(flow, at, part)


def _offset(flow: Flow, at: int, part: int) -> int:
    """Where a part begins in the whole, along the only dimension that is joined."""
    if flow.opcode(at) == "concatenate":
        before = flow.operands(at)[: flow.operands(at).index(part)]
        text = flow.module.attributes[flow.module.attribute[at]].get("dimensions", "0")
        dimension = int(_NUMBER.findall(text)[0])
        return sum(flow.shape(one).dims[dimension] for one in before)
    pad = next(one for one in flow.users(part) if flow.opcode(one) == "pad")
    text = flow.module.attributes[flow.module.attribute[pad]].get("padding", "")
    return sum(int(dimension.split("_")[0]) for dimension in text.split("x") if dimension)


def _twice(context: Context, size: int, where: Path) -> int | None:
    """Bytes of the cache that are held a second time; None for none.

    XLA:TPU may write the joined cache over the old one, where that is donated.
    """
    memory = context.memory
    if context.machine.kind != "tpu" or where:
        return size
    return min(size, memory.peak_bytes - memory.argument_bytes) or None


def _remedy(module: Module, flow: Flow, old: int, where: Path) -> tuple[str, ...]:
    """An update in place, of an argument that is donated for it where it is not yet."""
    update = "concatenate-to-update"
    number = int(module.parameter_number[old]) if not where else -1
    if where or number in donated(module):
        return (update,)
    name = flow.op_name(old)
    chosen = name if name.isidentifier() else number
    return (update, f"donate-arguments{{arguments={chosen}}}")
