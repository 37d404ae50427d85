"""What main takes and gives, and donation."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import pytest

from hlo_lab.errors import UseError
from hlo_lab.passkit.entry import arguments, choose_layouts, chosen, donate, results
from tests.unit.passkit.modules import rewriting, traced

X = jax.ShapeDtypeStruct((4, 8), jnp.float32)


def _program(params: Any, x: Any) -> Any:
    return jnp.sum(x), {"w": params["w"] + x}


def test_names_and_donation() -> None:
    raw = traced(_program, {"w": X}, X)
    with rewriting(raw) as module:
        first, second = arguments(module)
        assert (first.name, second.name) == ("params['w']", "x")
        assert (first.donated, first.alias, first.sharding) == (False, None, "")
        total, new = results(module)
        with pytest.raises(ValueError, match="cannot be written over argument 0"):
            donate(module, first, total)
        donate(module, first, new)
        donate(module, second, None)
        first, second = arguments(module)
        assert (first.donated, first.alias) == (True, 1)
        assert (second.donated, second.alias) == (True, None)
        assert module.changes == 2
    assert "tf.aliasing_output = 1" in str(raw)


def test_arguments_by_name() -> None:
    with rewriting(traced(_program, {"w": X}, X)) as module:
        for names, numbers in (
            ("", [0, 1]),
            ("x+params", [0, 1]),
            ("params['w']", [0]),
            ("1", [1]),
        ):
            assert [each.number for each in chosen(module, names)] == numbers
        with pytest.raises(UseError, match="no argument is called 'param'; the first are params"):
            chosen(module, "x+param")


def test_layouts_that_xla_chooses() -> None:
    raw = traced(_program, {"w": X}, X)
    with rewriting(raw) as module:
        choose_layouts(module)
        assert module.changes == 4
        choose_layouts(module)
        assert module.changes == 4
    assert str(raw).count('mhlo.layout_mode = "auto"') == 4
