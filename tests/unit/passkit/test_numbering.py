"""Value numbers: equal for equal values, whatever kernel, loop or layout they are in."""

from __future__ import annotations

import pytest

from hlo_lab.ir.text import read_text
from hlo_lab.passkit.numbering import Numbering
from hlo_lab.passkit.patterns import Flow

TEXT = """HloModule m, is_scheduled=true

%sum (l: f32[], r: f32[]) -> f32[] {
  %l = f32[] parameter(0)
  %r = f32[] parameter(1)
  ROOT %lr = f32[] add(%l, %r)
}

%most (l2: f32[], r2: f32[]) -> f32[] {
  %l2 = f32[] parameter(0)
  %r2 = f32[] parameter(1)
  ROOT %lr2 = f32[] maximum(%l2, %r2)
}

%fused (p: f32[8,8], q: f32[8,8]) -> (f32[8,8], f32[64]) {
  %p = f32[8,8]{1,0} parameter(0)
  %q = f32[8,8]{1,0} parameter(1)
  %inner = f32[8,8]{1,0} add(%q, %p)
  %flat = f32[64]{0} bitcast(%inner)
  %wave = f32[64]{0} tanh(%flat)
  ROOT %both = (f32[8,8]{1,0}, f32[64]{0}) tuple(%inner, %wave)
}

%body (b: (s32[], f32[8,8], f32[8,8])) -> (s32[], f32[8,8], f32[8,8]) {
  %b = (s32[], f32[8,8]{1,0}, f32[8,8]{1,0}) parameter(0)
  %k = s32[] get-tuple-element(%b), index=0
  %kept = f32[8,8]{1,0} get-tuple-element(%b), index=1
  %changed = f32[8,8]{1,0} get-tuple-element(%b), index=2
  %looped = f32[8,8]{1,0} tanh(%kept)
  %new = f32[8,8]{1,0} tanh(%changed)
  ROOT %next = (s32[], f32[8,8]{1,0}, f32[8,8]{1,0}) tuple(%k, %kept, %new)
}

%cond (c: (s32[], f32[8,8], f32[8,8])) -> pred[] {
  %c = (s32[], f32[8,8]{1,0}, f32[8,8]{1,0}) parameter(0)
  ROOT %yes = pred[] constant(true)
}

ENTRY %main (x: f32[8,8], y: f32[8,8]) -> (f32[8,8], f32[8,8]) {
  %x = f32[8,8]{1,0} parameter(0)
  %y = f32[8,8]{1,0} parameter(1)
  %both2 = (f32[8,8]{1,0}, f32[64]{0}) fusion(%x, %y), kind=kLoop, calls=%fused
  %member = f32[8,8]{1,0} get-tuple-element(%both2), index=0
  %moved = f32[8,8]{0,1} copy(%x)
  %outer = f32[8,8]{1,0} add(%moved, %y)
  %tall = f32[8,8]{1,0} tanh(%outer)
  %turned = f32[8,8]{0,1} bitcast(%outer)
  %zero = f32[] constant(0)
  %rows = f32[8]{0} reduce(%outer, %zero), dimensions={1}, to_apply=%sum
  %columns = f32[8]{0} reduce(%outer, %zero), dimensions={0}, to_apply=%sum
  %largest = f32[8]{0} reduce(%outer, %zero), dimensions={1}, to_apply=%most
  %rows2 = f32[8]{0} reduce(%member, %zero), dimensions={1}, to_apply=%sum
  %drawn = f32[8,8]{1,0} rng(%zero, %zero), distribution=rng_uniform
  %drawn2 = f32[8,8]{1,0} rng(%zero, %zero), distribution=rng_uniform
  %start = s32[] constant(0)
  %init = (s32[], f32[8,8]{1,0}, f32[8,8]{1,0}) tuple(%start, %outer, %y)
  %loop = (s32[], f32[8,8]{1,0}, f32[8,8]{1,0}) while(%init), condition=%cond, body=%body
  %after = f32[8,8]{1,0} get-tuple-element(%loop), index=1
  %result = f32[8,8]{1,0} get-tuple-element(%loop), index=2
  ROOT %t = (f32[8,8]{1,0}, f32[8,8]{1,0}) tuple(%after, %result)
}
"""


@pytest.fixture(scope="module")
def numbers() -> dict[str, int]:
    module = read_text(TEXT.splitlines(keepends=True))
    return dict(zip(module.instruction_names, Numbering(Flow(module)).of, strict=True))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("outer", "inner"),  # operands the other way round, in a fusion, of a copy
        ("outer", "member"),
        ("tall", "wave"),  # of the same elements in another shape
        ("tall", "looped"),  # of what a loop keeps
        ("outer", "after"),
        ("rows", "rows2"),
    ],
)
def test_equal_values(numbers: dict[str, int], one: str, other: str) -> None:
    assert numbers[one] == numbers[other]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("outer", "turned"),
        ("rows", "columns"),
        ("rows", "largest"),
        ("looped", "new"),
        ("changed", "y"),
        ("changed", "result"),
        ("drawn", "drawn2"),
    ],
)
def test_other_values(numbers: dict[str, int], one: str, other: str) -> None:
    assert numbers[one] != numbers[other]
