"""Which arguments could be written over, by the kind of machine."""

from __future__ import annotations

import pytest

from hlo_lab.cost.machines import for_target
from hlo_lab.ir.text import read_text
from hlo_lab.passkit.context import Context
from hlo_lab.passkit.discovery import discover
from hlo_lab.passkit.pipeline import run_passes
from hlo_lab.passkit.selection import select_passes

CENTRED = """HloModule m, is_scheduled=true

%add (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %s = f32[] add(%a, %b)
}

%centre (p: f32[1024,1024]) -> f32[1024,1024] {
  %p = f32[1024,1024]{1,0} parameter(0)
  %zero = f32[] constant(0)
  %sum = f32[1024]{0} reduce(%p, %zero), dimensions={1}, to_apply=%add
  %sums = f32[1024,1024]{1,0} broadcast(%sum), dimensions={0}
  ROOT %d = f32[1024,1024]{1,0} subtract(%p, %sums)
}

ENTRY %main (x: f32[1024,1024]) -> f32[1024,1024] {
  %x = f32[1024,1024]{1,0} parameter(0), metadata={op_name="x"}
  ROOT %y = f32[1024,1024]{1,0} fusion(%x), kind=kLoop, calls=%centre
}
"""


@pytest.mark.parametrize(("target", "finds"), [("tpu:v5e", 1), ("cpu", 0), ("gpu:h100", 0)])
def test_a_kernel_that_sums_the_argument_too(target: str, finds: int) -> None:
    module = read_text(CENTRED)
    context = Context(module, for_target(target))
    result = run_passes(select_passes(["donation"], discover()), module, context)
    assert not result.failures
    assert len(result.findings) == finds
