"""Rewriting at one place of a program."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from hlo_lab.errors import UseError
from hlo_lab.passkit import mlir
from hlo_lab.passkit.mlir_module import walk
from hlo_lab.passkit.place import Place
from hlo_lab.passkit.rewriter import Rewriter
from hlo_lab.passkit.rewriting import PassSpec
from tests.unit.passkit.modules import traced

X = jax.ShapeDtypeStruct((4, 8), jnp.float32)
HERE = Path(__file__)


def outer(x: Any) -> Any:
    y = jnp.sin(x)  # FIRST
    return helper(y) + jnp.cos(y)  # SECOND


@jax.jit
def helper(x: Any) -> Any:
    def body(carry: Any, _: Any) -> Any:
        return jnp.sin(carry), None  # INSIDE

    return jax.lax.scan(body, x, None, length=3)[0]


def line(mark: str) -> int:
    lines = HERE.read_text().splitlines()
    return next(at for at, text in enumerate(lines, 1) if text.endswith(f"# {mark}"))


def names(place: Place, *only: str) -> list[str]:
    raw = traced(outer, X)
    with raw.context, mlir.ir().Location.unknown():
        return [op.name for op in Rewriter(raw, place).ops(*only)]


def test_the_operations_of_a_line() -> None:
    assert names(Place(str(HERE), line("FIRST"))) == ["sine"]
    assert names(Place(HERE.name, line("INSIDE"))) == ["sine"]
    assert names(Place(f"passkit/{HERE.name}", line("FIRST"))) == ["sine"]
    # its own alone, not those of the function that it calls
    assert names(Place(HERE.name, line("SECOND"))) == ["cosine", "add"]


def test_a_line_that_only_calls_has_what_it_calls() -> None:
    raw = traced(calls_only, X)
    with raw.context, mlir.ir().Location.unknown():
        found = Rewriter(raw, Place(HERE.name, line("CALL"))).ops("sine")
        assert len(list(found)) == 1


def calls_only(x: Any) -> Any:
    return wrapped(x)  # CALL


def wrapped(x: Any) -> Any:
    return jnp.sin(x)


def test_a_place_that_has_none_names_lines_that_do() -> None:
    raw = traced(outer, X)
    with raw.context:
        every = list(walk(raw.operation))
        Place(HERE.name, line("FIRST")).check(every)
        with pytest.raises(UseError, match=rf"gone.py:1; there are some from {HERE.name}:\d+"):
            Place("gone.py", 1).check(every)
        near = line("SECOND")
        with pytest.raises(UseError, match=rf"from {HERE.name}:{near}"):
            Place(HERE.name, near + 1).check(every)


def test_other_places_have_none() -> None:
    assert names(Place("st_place.py", line("FIRST"))) == []
    assert names(Place(HERE.name, 1)) == []
    assert names(Place("other/" + HERE.name, line("FIRST"))) == []


def test_by_the_name_of_an_operation() -> None:
    assert names(Place(op_name="jit(outer)/cos")) == ["cosine"]
    assert names(Place(op_name="jit(outer)/tan")) == []


def test_as_the_user_writes_it_and_as_json() -> None:
    assert Place.parse("C:/models/train.py:12") == Place("C:/models/train.py", 12)
    assert str(Place.parse("train.py:12")) == "train.py:12"
    for text in ("train.py", "train.py:", ":3", "train.py:x"):
        with pytest.raises(UseError, match="FILE:LINE"):
            Place.parse(text)
    for place in (None, Place("train.py", 12)):
        spec = PassSpec("p.py", "p", {"most": 2}, place)
        assert PassSpec.from_dict(spec.to_dict()) == spec
