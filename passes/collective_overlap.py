"""SHD002: collectives that independent work could hide."""

# ruff: noqa: E501 - HLO text has long lines

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from hlo_lab.cost import collectives, network
from hlo_lab.cost.list_schedule import makespan
from hlo_lab.cost.overlap import pairs, sending
from hlo_lab.cost.tables import Bools, attributes_at
from hlo_lab.ir.module import Module
from hlo_lab.passkit.base import AnalysisPass, Example
from hlo_lab.passkit.context import Context
from hlo_lab.passkit.finding import Finding
from hlo_lab.passkit.folding import share, time_severity
from hlo_lab.passkit.patterns import collective_kind
from hlo_lab.passkit.wording import line_text, place_text, seconds_text, times_text

_REACHED = 0.5  # of what starting earlier could hide, by what compilers came to; see below
_GPU = (
    "Compile with a smaller threshold for combining, so that each part starts as it is ready: "
    "--xla-flag xla_gpu_KIND_combine_threshold_bytes=1000000."
)
_TPU = (
    "Compile with --xla-flag xla_enable_async_all_reduce=true, "
    "xla_tpu_enable_async_collective_fusion_fuse_KIND=true, "
    "xla_tpu_enable_async_collective_fusion_multiple_steps=true and "
    "xla_tpu_overlap_compute_collective_tc=true"
)
_ADVICE = {  # by kind of machine, and whether combined collectives are to be taken apart
    ("gpu", False): _GPU,
    ("gpu", True): _GPU,
    ("tpu", False): f"{_TPU}.",
    ("tpu", True): f"{_TPU}, and xla_jf_crs_combiner_threshold_in_bytes=1000000.",
}


def _text(parts: int, dependent: bool) -> str:
    """Products, and the sum over eight devices of what each gives, all at the end."""
    shape = "f32[4096,4096]{1,0}"
    lines = ["HloModule m, is_scheduled=true, num_partitions=8", ""]
    lines += ["%sum (a: f32[], b: f32[]) -> f32[] {", "  %a = f32[] parameter(0)"]
    lines += ["  %b = f32[] parameter(1)", "  ROOT %c = f32[] add(%a, %b)", "}", ""]
    lines += [
        "ENTRY %main (x: f32[4096,4096]) -> f32[4096,4096] {",
        f"  %x = {shape} parameter(0)",
    ]
    made, last = [], "%x"
    for part in range(parts):
        lines.append(
            f"  %y{part} = {shape} dot({last}, %x), lhs_contracting_dims={{1}}, rhs_contracting_dims={{0}}"
        )
        made.append(f"%y{part}")
        last = f"%y{part}" if dependent else "%x"
    shapes = ", ".join([shape] * parts)
    lines.append(
        f"  %all = ({shapes}) all-reduce({', '.join(made)}), channel_id=1, replica_groups={{{{0,1,2,3,4,5,6,7}}}}, use_global_device_ids=true, to_apply=%sum"
    )
    lines += [f"  ROOT %r = {shape} get-tuple-element(%all), index=0", "}", ""]
    return "\n".join(lines)


@dataclass(frozen=True)
class CollectiveOverlapPass(AnalysisPass):
    """Collectives that the device waits for while it has other work to do.

    What it finds
        In each computation of a scheduled module, the time of collectives that nothing hides
        (synchronous ones, and pairs with too little between start and done), and how much of it
        a schedule of the same operations could hide that starts whatever is ready; first as they
        are, then with combined collectives taken apart again, since one that sums all gradients
        has to wait for the last. CPUs have no collectives beside their kernels.

    Why it matters
        The links and the matrix units are different parts of a device: what waits for the one
        could use the other.

    Example
        The gradients of all layers summed by one all-reduce after the backward pass.

    What to do
        A smaller threshold for combining, and asynchronous collectives: the finding names the
        flags for the target. Or let the program sum each layer's gradient where it is made.

    How it is verified
        Compile a step of four layers (width 1024) with the flags, for tpu:v5e:2x4. Data parallel:
        1.23 ms of all-reduces with nothing beside them become 0.42, for 1.66 to 1.75 ms of
        kernels by the compiler's cycles: 0.72 ms saved, 0.53 as estimated; peak 203 to 168 MB.
        Tensor parallel: 2.18 to 1.87 ms of all-reduces, kernels as before, 0.30 ms saved of 0.34
        estimated, and a peak of 42 to 126 MB. The threshold with only one of the other flags,
        and data_parallel_all_reduce_opt: no effect.
        On GPUs the scheduler does most by itself: there is no finding for gpu:h100:8, and its
        latency hiding flag changes nothing. A transformer's step, fully sharded over gpu:h100:4:
        the smaller thresholds save 52 us of 1.57 ms by the model, 56 as estimated.
    """

    code: ClassVar[str] = "SHD002"
    name: ClassVar[str] = "collective-overlap"
    examples: ClassVar[tuple[Example, ...]] = (
        Example("four gradients summed at the end", _text(4, True)),
        Example("one product and its sum", _text(1, True), finds=0),
    )

    min_share: float = 0.03  # of the step's time that would be saved

    def run(self, module: Module, context: Context) -> Iterator[Finding]:
        """Yield a finding per computation whose collectives could be hidden."""
        kind = context.machine.kind
        if module.warnings or not module.is_scheduled or kind == "cpu":
            return
        for room in _rooms(module, context):
            runs = float(context.cost.executions[room.worst])
            seconds = room.saved * runs * (1.0 if room.split else _REACHED)
            if share(context, seconds) < self.min_share:
                continue
            flow = context.flow
            several = f"{room.count} collectives, the longest of which is " * (room.count > 1)
            opcode = collective_kind(flow.opcode(room.worst)) or "collective"
            at = flow.place(room.worst)
            place = line_text(module, at) or place_text(module, at)  # names may be joined ones
            how = (
                "taken apart again and started as soon as each part is"
                if room.split
                else ("started as soon as it is")
            )
            yield self.finding(
                module.instruction(room.worst),
                f"the device waits {seconds_text(room.exposed)} for {several}{opcode} "
                f"({place}){times_text(runs)}: {how} ready, other work could hide "
                f"{seconds_text(room.saved)} of it",
                severity=time_severity(context, seconds),
                advice=_ADVICE[kind, room.split].replace("KIND", _flag_name(opcode)),
                seconds=seconds,
                context=context,
            )


def _flag_name(opcode: str) -> str:
    """How XLA's flags call a kind of collective, where there are flags for it."""
    known = opcode in ("all-gather", "all-reduce", "reduce-scatter")
    return opcode.replace("-", "_") if known else "all_reduce"


@dataclass(frozen=True)
class _Room:
    """What one run of a computation could save.

    Attributes:
        worst: the collective that is exposed longest, of ``count`` that are.
        exposed: seconds that nothing hides; saved: those that a schedule could.
        split: whether combined collectives have to be taken apart for it.
    """

    worst: int
    count: int
    exposed: float
    saved: float
    split: bool


def _rooms(module: Module, context: Context) -> Iterator[_Room]:
    cost = context.cost
    collective = sending(module, cost)
    hidden = {
        pair.start: min(pair.seconds, float(cost.seconds[pair.start]))
        for pair in pairs(module, cost)
        if collective[pair.start]
    }
    seconds = np.where(cost.top_level, cost.seconds, 0.0)
    running = collective & (cost.executions > 0)
    for computation in np.unique(module.computation_of[running]).tolist():
        rows = range(*module.computation_start[computation : computation + 2].tolist())
        left = {
            at: float(seconds[at]) - hidden.get(at, 0.0)
            for at in rows
            if collective[at] and seconds[at] > hidden.get(at, 0.0)
        }
        exposed = sum(left.values())
        if not exposed:
            continue
        now = float(seconds[rows.start : rows.stop].sum()) - sum(hidden.get(at, 0.0) for at in rows)
        whole = now - _best(context, rows, collective, split=False)
        apart = now - _best(context, rows, collective, split=True)
        split = apart > 1.5 * max(whole, 0.0)
        saved = min(max(apart if split else whole, 0.0), exposed)
        yield _Room(max(left, key=lambda at: left[at]), len(left), exposed, saved, split)


def _best(context: Context, rows: range, collective: Bools, *, split: bool) -> float:
    """Seconds of a computation where kernels, and collectives, start as they are ready."""
    flow, cost = context.flow, context.cost
    seconds: list[float] = []
    queue: list[int] = []
    operands: list[list[int]] = []
    node: dict[int, int] = {}
    for at in rows:
        took = float(cost.seconds[at]) if cost.top_level[at] else 0.0
        needed = [node[one] for one in flow.operands(at) if one in node]
        parts = flow.operands(at) if split and collective[at] and took else []
        if len(parts) > 1:
            for one in parts:
                seconds.append(_alone(context, at, one))
                queue.append(1)
                operands.append([node[one]])
            needed, took = list(range(len(seconds) - len(parts), len(seconds))), 0.0
        node[at] = len(seconds)
        seconds.append(took)
        queue.append(int(collective[at]))
        operands.append(needed)
    return makespan(seconds, queue, operands)


def _alone(context: Context, at: int, operand: int) -> float:
    """Seconds of a combined collective's part for one operand."""
    module, flow = context.module, context.flow
    attributes = attributes_at(module, int(module.attribute[at]))
    size = float(flow.shape(operand).bytes)
    moved = collectives.transfer(module, flow.opcode(at), attributes, size)
    return network.seconds(context.machine, moved)
