"""Which arguments could be written over, by the kind of machine."""

from __future__ import annotations

import pytest

from hlo_lab.cost.machines import for_target
from hlo_lab.ir.text import read_text
from hlo_lab.passkit.context import Context
from hlo_lab.passkit.discovery import discover
from hlo_lab.passkit.finding import Severity
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


SOME_COPIED = """HloModule m, is_scheduled=true

%centre (p: f32[SIZE]) -> f32[SIZE] {
  %p = f32[SIZE]{0} parameter(0)
  %turned = f32[SIZE]{0} reverse(%p), dimensions={0}
  ROOT %d = f32[SIZE]{0} subtract(%p, %turned)
}

%less (p: f32[1048576]) -> f32[1048576] {
  %p = f32[1048576]{0} parameter(0)
  ROOT %d = f32[1048576]{0} multiply(%p, %p)
}

ENTRY %main (x: f32[SIZE], y: f32[1048576]) -> (f32[SIZE], f32[1048576]) {
  %x = f32[SIZE]{0} parameter(0), metadata={op_name="p['x']"}
  %y = f32[1048576]{0} parameter(1), metadata={op_name="p['y']"}
  %a = f32[SIZE]{0} fusion(%x), kind=kLoop, calls=%centre
  %b = f32[1048576]{0} fusion(%y), kind=kLoop, calls=%less
  ROOT %t = (f32[SIZE]{0}, f32[1048576]{0}) tuple(%a, %b)
}
"""


@pytest.mark.parametrize(
    ("size", "severity", "freed"),
    [(262144, Severity.WARNING, 3 << 20), (2097152, Severity.NOTE, None)],
    ids=["fewer", "more"],
)
def test_what_is_copied_of_the_same_argument_frees_nothing(
    size: int, severity: Severity, freed: int | None
) -> None:
    module = read_text(SOME_COPIED.replace("SIZE", str(size)))
    context = Context(module, for_target("cpu"))
    (one,) = run_passes(select_passes(["donation"], discover()), module, context).findings
    assert (one.severity, one.estimate.bytes) == (severity, freed)
    assert "donates 1 other too" in one.advice
    assert "XLA:CPU copies it" in one.advice
