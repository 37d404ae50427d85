"""Rewrite passes on what their own examples, which are lowered for CPU, cannot show."""

from __future__ import annotations

from typing import Any

from hlo_lab.lowering import adapter
from hlo_lab.passkit.base import RewritePass
from hlo_lab.passkit.discovery import discover
from hlo_lab.passkit.mlir_module import count_ops
from hlo_lab.passkit.selection import select_rewrites
from tests.unit.passkit.modules import rewriting


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
