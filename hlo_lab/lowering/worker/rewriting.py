"""A program rewritten by passes before it is compiled, and the original beside it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from hlo_lab.lowering import adapter
from hlo_lab.lowering.worker.executable import Executable
from hlo_lab.lowering.worker.hlo_passes import (
    InsideXla,
    from_hlo,
    is_inside,
    opcodes,
    rewrite_hlo,
    to_hlo,
)
from hlo_lab.passkit.base import HloRewritePass, RewritePass, RewritingPass
from hlo_lab.passkit.mlir_module import count_ops, mark, marked, returned, taken, unmark, walk
from hlo_lab.passkit.place import Place
from hlo_lab.passkit.rewriting import Applied, PassSpec, apply, inline

T = TypeVar("T")


@dataclass(eq=False)
class Rewritten:
    """A module before and after passes; both in one context, both with numbered results.

    Attributes:
        original: as it was, calls inlined.
        module: as the passes left it.
        applied: what each pass did; None for those inside XLA.
        tolerance: the largest relative error that a pass says is meant; None for rounding.
        inside: passes that are applied while XLA compiles ``plain``; None where there are none.
        is_hlo: whether the last of the others works on HLO.
        compile_original: compiles the original program as it was lowered; the worker sets it.
        compile_probe: compiles a module of the same arguments with other results.
    """

    original: Any
    module: Any
    applied: list[Applied | None]
    tolerance: float | None
    inside: InsideXla | None = None
    is_hlo: bool = False
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
        rewritten, applied = rewrite_outside(passes, specs, copy)
        if rewritten is not copy:  # it came back from HLO: so does the original, to compare
            original = from_hlo(to_hlo(original), original)
        errors = [one.relative_error for one in passes if one.relative_error is not None]
        within = inside_passes(passes, specs)
        inside = InsideXla(within) if within else None
        others = [one for one in passes if not is_inside(one)]
        is_hlo = bool(others) and not isinstance(others[-1], RewritePass)
        return cls(original, rewritten, applied, max(errors, default=None), inside, is_hlo)

    def compiled(self, compile: Callable[[], T], executable: Callable[[T], Any]) -> T:
        """What ``compile`` gives, with the passes inside XLA applied to it."""
        if self.inside is None:
            return compile()
        return self.inside.compile(adapter.module_name(self.module), compile, executable)

    def check_places(self, specs: Sequence[PassSpec]) -> None:
        """Raises ``UseError`` where an idle pass was to apply where no operation is from."""
        for spec, one in zip(specs, self.applied, strict=True):
            if spec.place is not None and not (one and one.changes):
                with self.original.context:
                    spec.place.check(walk(self.original.operation))

    def plain(self) -> Any:
        """The rewritten module without the numbers, to compile."""
        with self.module.context:
            copy = adapter.copy_module(self.module)
            unmark(copy)
        return copy

    def facts(self) -> dict[str, Any]:
        """For the worker's info: what was applied, and operations by name on both sides."""
        return {
            "passes": [vars(each) for each in self.all_applied()],
            "ops": {"before": count_ops(self.original), "after": count_ops(self.module)},
        }

    @property
    def changes(self) -> int:
        """How often the passes replaced something."""
        return sum(each.changes for each in self.all_applied())

    def ops(self) -> dict[str, int]:
        """How many operations of each name the last pass left, at its own stage."""
        if self.inside is not None and self.inside.module is not None:
            return opcodes(self.inside.module)
        return opcodes(to_hlo(self.module)) if self.is_hlo else count_ops(self.module)

    def all_applied(self) -> list[Applied]:
        """What each pass did, those inside XLA as well."""
        inside = iter(self.inside.applied() if self.inside is not None else ())
        return [each or next(inside) for each in self.applied]

    def results(self) -> list[int | None]:
        """The number of each result of the original; None where the other module has it not.

        Those of a module that passes change inside XLA are others than they look from here.
        """
        if self.inside is not None:
            return [None] * len(returned(self.original))
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


def rewrite_outside(
    passes: Sequence[RewritingPass], specs: Sequence[PassSpec], raw: Any
) -> tuple[Any, list[Applied | None]]:
    """Apply those passes that change a module before XLA has it, in order.

    Args:
        raw: an MLIR module, which is changed.

    Returns:
        The module, another one where a pass changed its HLO; what each pass did, None for
        those that are applied inside XLA.

    Raises:
        PassError: a pass raised, or left a module that is not valid.
    """
    done: list[Applied | None] = []
    for one, spec in zip(passes, specs, strict=True):
        if isinstance(one, RewritePass):
            done += apply([one], raw, [spec.place])
        elif is_inside(one):
            done.append(None)
        else:
            assert isinstance(one, HloRewritePass)
            raw, applied = rewrite_hlo(one, raw, spec.place)
            done.append(applied)
    return raw, done


def inside_passes(
    passes: Sequence[RewritingPass], specs: Sequence[PassSpec]
) -> list[tuple[HloRewritePass, Place | None]]:
    """Those that are applied while XLA compiles, and where."""
    pairs = zip(passes, specs, strict=True)
    return [(one, spec.place) for one, spec in pairs if is_inside(one)]
