"""A program rewritten by passes before it is compiled, and the original beside it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hlo_lab.lowering import adapter
from hlo_lab.lowering.worker.executable import Executable
from hlo_lab.passkit.mlir_module import count_ops, mark, marked, returned, taken, unmark
from hlo_lab.passkit.rewriting import Applied, PassSpec, apply, inline


@dataclass(eq=False)
class Rewritten:
    """A module before and after passes; both in one context, both with numbered results.

    Attributes:
        original: as it was, calls inlined.
        module: as the passes left it.
        applied: what each pass did.
        tolerance: the largest relative error that a pass says is meant; None for rounding.
        compile_original: compiles the original program as it was lowered; the worker sets it.
        compile_probe: compiles a module of the same arguments with other results.
    """

    original: Any
    module: Any
    applied: list[Applied]
    tolerance: float | None
    compile_original: Callable[[Path], Executable] | None = None
    compile_probe: Callable[[Any], Executable] | None = None

    @classmethod
    def of(cls, module: Any, specs: Sequence[PassSpec]) -> Rewritten:
        """Of a module that stays as it is.

        Raises:
            InputError: a pass file is broken.
            PassError: a pass raised, or left a module that is not valid.
        """
        passes = [spec.make() for spec in specs]
        original = adapter.parse_stablehlo(adapter.stablehlo_text(module))
        inline(original)
        with original.context:
            mark(original)
            copy = adapter.copy_module(original)
        applied = apply(passes, copy, [spec.place for spec in specs])
        errors = [one.relative_error for one in passes if one.relative_error is not None]
        return cls(original, copy, applied, max(errors, default=None))

    def plain(self) -> Any:
        """The rewritten module without the numbers, to compile."""
        with self.module.context:
            copy = adapter.copy_module(self.module)
            unmark(copy)
        return copy

    def facts(self) -> dict[str, Any]:
        """For the worker's info: what was applied, and operations by name on both sides."""
        return {
            "passes": [vars(each) for each in self.applied],
            "ops": {"before": count_ops(self.original), "after": count_ops(self.module)},
        }

    def results(self) -> list[int | None]:
        """The number of each result of the original; None where the other module has it not."""
        known = marked(self.module)
        numbers = {value: number for number, value in marked(self.original).items()}
        found = [numbers.get(value) for value in returned(self.original)]
        return [number if number in known else None for number in found]

    def sources(self) -> dict[int, list[int]]:
        """What each value is computed from in the original, by the numbers that both have."""
        known = marked(self.module).keys()
        values = marked(self.original)
        numbers = {value: number for number, value in values.items()}
        out: dict[int, list[int]] = {}
        for number, value in sorted(values.items()):  # sources come first
            found = [numbers[each] for each in taken(value.owner.operation) if each in numbers]
            reached = (each for at in found for each in ([at] if at in known else out[at]))
            out[number] = list(dict.fromkeys(reached))
        return out

    def place(self, number: int) -> dict[str, str]:
        """What the original computes there: ``op``, ``op_name`` and ``location`` as MLIR has it."""
        raw = marked(self.original)[number].owner.operation
        name, place = adapter.location_of(raw)
        return {
            "op": str(raw.name).removeprefix("stablehlo."),
            "op_name": name,
            "location": place,
        }

    def probes(self, numbers: Sequence[int]) -> tuple[Executable, Executable]:
        """Both modules compiled to give those values."""
        assert self.compile_probe is not None
        sides = []
        for module in (self.original, self.module):
            with module.context:
                copy = adapter.copy_module(module)
                found = marked(copy)
                adapter.set_results(copy, [found[number] for number in numbers])
                unmark(copy)
            sides.append(self.compile_probe(copy))
        return sides[0], sides[1]
