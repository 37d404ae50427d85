"""Rewrite passes on what their own examples, which are lowered for CPU, cannot show."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from hlo_lab.lowering import adapter
from hlo_lab.passkit.base import RewritePass
from hlo_lab.passkit.discovery import discover
from hlo_lab.passkit.mlir_module import count_ops
from hlo_lab.passkit.selection import select_rewrites
from tests.unit.passkit.modules import rewriting, traced


def _pass(selection: str) -> RewritePass:
    ((_, one),) = select_rewrites([selection], discover())
    return one


def _changes(selection: str, raw: Any) -> int:
    with rewriting(raw) as module:
        _pass(selection).rewrite(module)
    return module.changes


def _transfer(name: str, operands: str, kind: int, signature: str) -> str:
    return (
        f'"stablehlo.{name}"({operands}) <{{channel_handle = #stablehlo.channel_handle<handle = '
        f"{kind}, type = {kind}>, is_host_transfer = true}}> : {signature}"
    )


def _send(value: str, token: str) -> str:
    signature = "(tensor<8xf32>, !stablehlo.token) -> !stablehlo.token"
    return _transfer("send", f"{value}, {token}", 2, signature)


def _receive(token: str) -> str:
    return _transfer("recv", token, 3, "(!stablehlo.token) -> (tensor<8xf32>, !stablehlo.token)")


# what JAX lowers ordered calls of the host to: a print of two values, a call whose result is
# used, and one whose result is not
TRANSFERS = f"""
module @m {{
  func.func public @main(%t: !stablehlo.token, %x: tensor<8xf32>)
      -> (!stablehlo.token, tensor<8xf32>) {{
    %0 = stablehlo.negate %x : tensor<8xf32>
    %1 = {_send("%0", "%t")}
    %2 = {_send("%x", "%1")}
    %3:2 = {_receive("%2")}
    %4 = {_send("%x", "%3#1")}
    %5:2 = {_receive("%4")}
    %6 = {_send("%5#0", "%5#1")}
    %7:2 = {_receive("%6")}
    %8 = stablehlo.add %x, %5#0 : tensor<8xf32>
    return %7#1, %8 : !stablehlo.token, tensor<8xf32>
  }}
}}
"""


def test_calls_of_the_host_on_a_tpu_are_transfers() -> None:
    raw = adapter.parse_stablehlo(TRANSFERS)
    assert _changes("drop-callbacks", raw) == 2
    assert count_ops(raw) == {"send": 1, "recv": 1, "add": 1}


WIDE = """
module @m {
  func.func public @main(%x: tensor<8xf64>, %n: tensor<i64>) -> (tensor<8xf64>, tensor<i64>) {
    %0 = stablehlo.custom_call @mine(%x) : (tensor<8xf64>) -> tensor<8xf64>
    %1 = stablehlo.negate %0 : tensor<8xf64>
    %2 = stablehlo.custom_call @mine(%1) : (tensor<8xf64>) -> tensor<8xf64>
    %least = stablehlo.constant dense<-9223372036854775808> : tensor<i64>
    %3 = stablehlo.maximum %n, %least : tensor<i64>
    return %2, %3 : tensor<8xf64>, tensor<i64>
  }
}
"""


def test_what_the_width_matters_to_keeps_it() -> None:
    raw = adapter.parse_stablehlo(WIDE)
    assert _changes("narrow-types", raw) == 1
    text = str(raw)
    assert "stablehlo.negate %1 : tensor<8xf32>" in text
    assert text.count("(tensor<8xf64>) -> tensor<8xf64>") == 2
    assert "dense<-2147483648> : tensor<i32>" in text
    assert "-> (tensor<8xf64>, tensor<i64>)" in text


def test_one_kind_of_type_alone() -> None:
    raw = adapter.parse_stablehlo(WIDE)
    assert _changes("narrow-types{floats=false}", raw) == 1
    assert "stablehlo.negate %0 : tensor<8xf64>" in str(raw)
    assert _changes("narrow-types{floats=false,integers=false}", raw) == 0


X, WS = (jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((8, 4), (5, 4, 4)))


def _gradient(layer: Callable[..., Any]) -> Any:
    def loss(ws: Any, x: Any) -> Any:
        return jnp.sum(jax.lax.scan(layer, x, ws)[0] ** 2)

    return traced(jax.grad(loss), WS, X)


@pytest.mark.parametrize(
    ("options", "before", "after"),
    [
        # the carry, the exponential, its sine and its cosine
        ("min_bytes=1", 4, 2),
        ("min_bytes=1,products=true", 4, 1),
        ("min_bytes=1MiB", 4, 4),
    ],
)
def test_what_a_scan_stacks_for_its_backward_pass(options: str, before: int, after: int) -> None:

    def layer(x: Any, w: Any) -> tuple[Any, None]:
        y = jnp.exp(x @ w)
        return x + jnp.sin(y) * y, None

    raw = _gradient(layer)
    # and one of the gradient
    assert count_ops(raw)["dynamic_update_slice"] == before + 1
    assert _changes(f"recompute{{{options}}}", raw) == before - after
    assert count_ops(raw)["dynamic_update_slice"] == after + 1
    assert count_ops(raw)["dot_general"] == (4 if "products" in options else 3)


def test_what_the_caller_takes_is_kept() -> None:
    def layer(x: Any, w: Any) -> tuple[Any, Any]:
        y = jnp.sin(x @ w)
        return y, y

    def both(ws: Any, x: Any) -> Any:
        (_, ys), back = jax.vjp(lambda ws: jax.lax.scan(layer, x, ws), ws)
        return ys, back((x, ys))

    raw = traced(both, WS, X)
    stacked = count_ops(raw)["dynamic_update_slice"]
    dropped = _changes("recompute{min_bytes=1,products=true}", raw)
    # the carry of each iteration, and what the caller gets
    assert count_ops(raw)["dynamic_update_slice"] == stacked - dropped == 3
