"""What the compiler itself expects a module to take, beside the project's own estimate."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from hlo_lab.cost.machines import Machine
from hlo_lab.cost.model import ModuleCost
from hlo_lab.cost.tables import Floats, attributes_at
from hlo_lab.ir.backend import NOTHING, Backend, backend_of
from hlo_lab.ir.module import Ints, Module

_DOUBTFUL = 20.0  # times our estimate
_UNTUNED = 3.0  # times our estimate, for a Triton kernel in XLA's default tiles


@dataclass(eq=False)
class CompilerCost:
    """The compiler's records over a module's kernels.

    Attributes:
        records: by index, the kernels that the compiler wrote something about.
        seconds: float64[N], one execution; NaN where the compiler gives none.
        total_seconds: per call of the entry, over the kernels that have one.
        coverage: share of the project's own estimated seconds in those kernels, 0 to 1.
        costed, kernels: how many kernels have one, of how many.
        without: opcodes of the other kernels, by number.
        vector_bytes: most scoped vector memory (VMEM) that one kernel uses; 0 but on a TPU.
        libraries: kernels by who computes them (Triton, cuBLASLt, cuDNN, Pallas, an emitter).
        doubtful: GPU: kernels that it expects to take more than 20 times our estimate;
            doubtful_seconds: of them in ``total_seconds``.
        untuned: GPU: Triton kernels that it expects to take from 3 to 20 times our estimate;
            untuned_seconds: of them in ``total_seconds``; untuned_estimate: by our estimate.
    """

    records: dict[int, Backend]
    seconds: Floats
    total_seconds: float
    coverage: float
    costed: int
    kernels: int
    without: Counter[str]
    doubtful: Ints
    doubtful_seconds: float
    untuned: Ints
    untuned_seconds: float
    untuned_estimate: float

    @property
    def notes(self) -> list[str]:
        """What of its times is not to be believed."""
        notes = []
        if count := len(self.doubtful):
            rest = self.total_seconds - self.doubtful_seconds
            notes.append(
                f"the compiler's time of {_kernels(count)} is more than {_DOUBTFUL:g} times our "
                "estimate and not to be believed: tiles are tuned on a device alone; without, its "
                f"total is {rest:.3g} s instead of {self.total_seconds:.3g} s"
            )
        if count := len(self.untuned):
            ratio = self.untuned_seconds / self.untuned_estimate
            notes.append(
                f"the compiler's time of {_kernels(count, 'Triton ')} is {ratio:.3g} times our "
                "estimate, as it is for XLA's default tiles, which are tuned on a device alone; "
                "our estimate is for tuned ones"
            )
        return notes

    @cached_property
    def vector_bytes(self) -> int:
        return max((record.vector_bytes for record in self.records.values()), default=0)

    @cached_property
    def libraries(self) -> Counter[str]:
        return Counter(record.kernel for record in self.records.values() if record.kernel)

    def of(self, index: int) -> Backend:
        """The record of one instruction."""
        return self.records.get(index, NOTHING)

    def filled(self, cost: ModuleCost) -> Floats:
        """float64[N], one execution: the estimate where the compiler gives no time."""
        return np.where(np.isnan(self.seconds), cost.seconds, self.seconds)

    @property
    def has_seconds(self) -> bool:
        return self.costed > 0


def _kernels(count: int, kind: str = "") -> str:
    return f"{count} {kind}kernel{'s' if count > 1 else ''}"


def compiler_cost(module: Module, cost: ModuleCost, machine: Machine) -> CompilerCost:
    """Read the records of the kernels of a module.

    Cycles become seconds at the machine's clock; a machine without one gives none.
    Asynchronous copies, gathers, scatters and sorts carry no cycles on a TPU, so a total
    without its coverage says little.
    """
    top = np.nonzero(cost.top_level)[0]
    read: dict[int, Backend] = {}
    records: dict[int, Backend] = {}
    seconds = np.full(len(module), np.nan)
    without: Counter[str] = Counter()
    for at, number in zip(top.tolist(), module.attribute[top].tolist(), strict=True):
        record = read.get(number)
        if record is None:
            record = read[number] = backend_of(attributes_at(module, number))
        if record != NOTHING:
            records[at] = record
        if record.seconds is not None:
            seconds[at] = record.seconds
        elif record.cycles is not None and machine.clock:
            seconds[at] = record.cycles / machine.clock
        else:
            without[module.opcodes[module.opcode[at]]] += 1
    known = ~np.isnan(seconds)
    ours = cost.seconds * cost.executions
    total = float(ours[top].sum())
    is_doubtful = known & (seconds > _DOUBTFUL * cost.seconds) & (machine.kind == "gpu")
    doubtful = np.nonzero(is_doubtful)[0]
    triton = np.zeros(len(module), np.bool_)
    triton[[at for at, record in records.items() if record.kernel == "Triton"]] = True
    is_untuned = triton & known & (seconds >= _UNTUNED * cost.seconds) & ~is_doubtful
    untuned = np.nonzero(is_untuned & (machine.kind == "gpu") & (ours > 0))[0]
    return CompilerCost(
        records=records,
        seconds=seconds,
        total_seconds=float(np.dot(seconds[known], cost.executions[known])),
        coverage=float(ours[known].sum()) / total if total else 0.0,
        costed=int(known.sum()),
        kernels=len(top),
        without=without,
        doubtful=doubtful,
        doubtful_seconds=float(np.dot(seconds[doubtful], cost.executions[doubtful])),
        untuned=untuned,
        untuned_seconds=float(np.dot(seconds[untuned], cost.executions[untuned])),
        untuned_estimate=float(ours[untuned].sum()),
    )
