"""Applying rewrite passes to a module, one after another, each checked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from itertools import chain, repeat
from pathlib import Path
from typing import Any, cast

from hlo_lab.errors import InputError, PassError, ReadError, UseError
from hlo_lab.ir.module import Module
from hlo_lab.passkit import mlir
from hlo_lab.passkit.base import HloRewritePass, RewritePass, RewritingPass
from hlo_lab.passkit.hlo_rewriter import HloRewriter
from hlo_lab.passkit.loading import PassInfo, load_file
from hlo_lab.passkit.pipeline import pass_error
from hlo_lab.passkit.place import Place
from hlo_lab.passkit.rewriter import Rewriter


@dataclass(frozen=True)
class PassSpec:
    """A configured rewrite pass by name, for another process to make again.

    Attributes:
        path: its file.
        options: values of the fields that are not their defaults.
        place: where it applies; None for everywhere.
    """

    path: str
    name: str
    options: Mapping[str, Any]
    place: Place | None = None

    @classmethod
    def of(cls, info: PassInfo, one: RewritingPass, place: Place | None = None) -> PassSpec:
        given = {
            field.name: getattr(one, field.name)
            for field in fields(cast(Any, one))
            if getattr(one, field.name) != field.default
        }
        return cls(str(info.path.resolve()), info.name, given, place)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, given: Mapping[str, Any]) -> PassSpec:
        """What ``to_dict`` gave."""
        place = given["place"]
        return cls(**{**given, "place": None if place is None else Place(**place)})

    def make(self) -> RewritingPass:
        """The pass. Raises ``InputError`` where its file does not define it any more."""
        for info in load_file(Path(self.path), self.path):
            if info.name == self.name and issubclass(info.pass_class, RewritingPass):
                return info.pass_class(**self.options)
        raise InputError(f"{self.path}: defines no rewrite pass {self.name!r} any more")


@dataclass(frozen=True)
class Applied:
    """What one pass did: how often it replaced something."""

    code: str
    name: str
    changes: int


def inline(raw: Any) -> int:
    """Inline the calls of a module; see ``mlir.inline_calls``."""
    with raw.context, mlir.ir().Location.unknown():
        return mlir.inline_calls(raw)


def apply(
    passes: Iterable[RewritePass], raw: Any, places: Iterable[Place | None] = ()
) -> list[Applied]:
    """Rewrite an MLIR module in place; it is verified after each pass.

    Args:
        places: where each pass applies; everywhere for those without.

    Raises:
        UseError: an option of a pass does not fit the program.
        PassError: a pass raised, or what it left is not valid.
    """
    done: list[Applied] = []
    with raw.context, mlir.ir().Location.unknown():
        for one, place in zip(passes, chain(places, repeat(None)), strict=False):
            rewriter = Rewriter(raw, place)
            try:
                one.rewrite(rewriter)
                rewriter.finish()
            except UseError:  # an option that does not fit the program
                raise
            except Exception as error:
                raise pass_error(one, error) from error
            _verify(one, raw)
            done.append(Applied(one.code, one.name, rewriter.changes))
    return done


def apply_to_hlo(
    one: HloRewritePass, module: Module, place: Place | None = None
) -> tuple[Module, Applied]:
    """An HLO module as a pass leaves it, verified.

    Raises:
        UseError: an option of the pass does not fit the program.
        PassError: the pass raised, or what it left is not valid.
    """
    rewriter = HloRewriter(module, place)
    try:
        one.rewrite(rewriter)
    except UseError:
        raise
    except Exception as error:
        raise pass_error(one, error) from error
    try:
        changed = rewriter.finish()
    except (ReadError, ValueError) as error:
        raise not_valid(one, str(error)) from error
    return changed, Applied(one.code, one.name, rewriter.changes)


def not_valid(one: RewritingPass, why: str) -> PassError:
    """What a pass left is no program."""
    return PassError(
        f"pass {one.name} ({one.code}) left a module that is not valid: {why}; mend the pass"
    )


def _verify(one: RewritingPass, raw: Any) -> None:
    try:
        raw.operation.verify()
    except Exception as error:  # MLIR's own error type
        lines: Sequence[str] = [line.strip() for line in str(error).splitlines() if line.strip()]
        said = next((line for line in lines if "error:" in line), lines[0] if lines else "")
        raise not_valid(one, said) from error
