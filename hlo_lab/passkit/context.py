"""What a pass may ask beside the module itself: costs, memory, the machine, the bundle."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

from hlo_lab.ir.module import Module
from hlo_lab.passkit.patterns import Flow

if TYPE_CHECKING:
    from hlo_lab.cost.machines import Machine
    from hlo_lab.cost.memory import MemoryProfile
    from hlo_lab.cost.model import ModuleCost
    from hlo_lab.cost.tables import Floats


class BundleLike(Protocol):
    """What a pass sees of a bundle on disk."""

    @property
    def manifest(self) -> Mapping[str, Any]: ...

    def module(self, stage: str) -> Module: ...


class Context:
    """The module under analysis and what is known about it; everything is computed once, on demand.

    Attributes:
        module: the module that the passes run on.
        machine: the machine that estimates are for.
        bundle: the bundle that the module comes from, or None for a bare HLO file.
    """

    def __init__(
        self,
        module: Module,
        machine: Machine,
        *,
        bundle: BundleLike | None = None,
        before: Module | None = None,
    ):
        self.module = module
        self.machine = machine
        self.bundle = bundle
        self._before = before

    @cached_property
    def cost(self) -> ModuleCost:
        """Flops, bytes, executions and seconds of every instruction."""
        from hlo_lab.cost.model import cost

        return cost(self.module, self.machine)

    @cached_property
    def seconds(self) -> Floats:
        """float64[N], one execution: by XLA:TPU's own cycles where it gives them, else estimated.

        What advice saves is verified by the same.
        """
        from hlo_lab.cost.compiler import compiler_cost

        if self.machine.kind != "tpu":
            return self.cost.seconds
        return compiler_cost(self.module, self.cost, self.machine).filled(self.cost)

    @cached_property
    def memory(self) -> MemoryProfile:
        """Live ranges, the peak and who holds it."""
        from hlo_lab.cost.memory import memory_profile

        return memory_profile(self.module)

    @cached_property
    def flow(self) -> Flow:
        """The module's data flow, for following edges."""
        return Flow(self.module)

    @cached_property
    def numbers(self) -> list[int]:
        """Value numbers by instruction: the same for what computes the same values."""
        from hlo_lab.passkit.numbering import Numbering

        return Numbering(self.flow).of

    def kernel_seconds(self, at: int) -> float:
        """One execution: by the compiler's cycles where it wrote them, else by the model."""
        from hlo_lab.cost.tables import attributes_at
        from hlo_lab.ir.backend import backend_of

        cycles = backend_of(attributes_at(self.module, int(self.module.attribute[at]))).cycles
        if cycles is not None and self.machine.clock and self.machine.kind == "tpu":
            return cycles / self.machine.clock
        return float(self.cost.seconds[at])

    @cached_property
    def before(self) -> Module | None:
        """The module before optimisation; None where it is not known."""
        if self._before is not None or self.bundle is None:
            return self._before
        return self.bundle.module("hlo-before")

    @property
    def manifest(self) -> Mapping[str, Any]:
        """The bundle's manifest; empty without a bundle."""
        return {} if self.bundle is None else self.bundle.manifest
