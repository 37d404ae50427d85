"""Following values through fusions."""

from __future__ import annotations

import pytest

from hlo_lab.ir.text import read_text
from hlo_lab.passkit.patterns import Flow
from hlo_lab.passkit.tracing import copied, definition, kernel, readers, updated

TEXT = """HloModule m, is_scheduled=true

%hot (i: s32[8]) -> f32[8,16] {
  %i = s32[8] parameter(0)
  %ib = s32[8,16] broadcast(%i), dimensions={0}
  %io = s32[8,16] iota(), iota_dimension=1
  %eq = pred[8,16] compare(%ib, %io), direction=EQ
  ROOT %oh = f32[8,16] convert(%eq)
}

%use (h: f32[8,16], w: f32[16,4]) -> f32[8,4] {
  %h = f32[8,16] parameter(0)
  %w = f32[16,4] parameter(1)
  ROOT %d = f32[8,4] dot(%h, %w), lhs_contracting_dims={1}, rhs_contracting_dims={0}
}

%step (p: f32[16,4], g: f32[16,4]) -> (f32[16,4], f32[16,4]) {
  %p = f32[16,4] parameter(0)
  %g = f32[16,4] parameter(1)
  %s = f32[16,4] subtract(%p, %g)
  %n = f32[16,4] negate(%g)
  ROOT %st = (f32[16,4], f32[16,4]) tuple(%s, %n)
}

%body (b: (s32[], f32[16,4])) -> (s32[], f32[16,4]) {
  %b = (s32[], f32[16,4]) parameter(0)
  %k = s32[] get-tuple-element(%b), index=0
  %v = f32[16,4] get-tuple-element(%b), index=1
  %v2 = f32[16,4] sine(%v)
  ROOT %r = (s32[], f32[16,4]) tuple(%k, %v2)
}

%cond (c: (s32[], f32[16,4])) -> pred[] {
  %c = (s32[], f32[16,4]) parameter(0)
  ROOT %t = pred[] constant(true)
}

ENTRY %main (ids: s32[8], table: f32[16,4], x: f32[16,16]) -> (f32[8,4], f32[16,4], f32[16,4]) {
  %ids = s32[8] parameter(0)
  %table = f32[16,4] parameter(1)
  %x = f32[16,16] parameter(2)
  %onehot = f32[8,16] fusion(%ids), kind=kLoop, calls=%hot
  %copied = f32[8,16] copy(%onehot)
  %product = f32[8,4] fusion(%copied, %table), kind=kLoop, calls=%use
  %grad = f32[16,4] dot(%x, %table), lhs_contracting_dims={1}, rhs_contracting_dims={0}
  %both = (f32[16,4], f32[16,4]) fusion(%table, %grad), kind=kLoop, calls=%step
  %new = f32[16,4] get-tuple-element(%both), index=0
  %other = f32[16,4] get-tuple-element(%both), index=1
  %zero = s32[] constant(0)
  %init = (s32[], f32[16,4]) tuple(%zero, %new)
  %loop = (s32[], f32[16,4]) while(%init), condition=%cond, body=%body
  %last = f32[16,4] get-tuple-element(%loop), index=1
  ROOT %out = (f32[8,4], f32[16,4], f32[16,4]) tuple(%product, %last, %other)
}
"""


@pytest.fixture(scope="module")
def flow() -> Flow:
    return Flow(read_text(TEXT.splitlines(keepends=True)))


def at(flow: Flow, name: str) -> int:
    return flow.module.instruction(name).index


def names(flow: Flow, found) -> list[str]:
    return [flow.module.instruction_names[one] for one in found]


def test_a_definition_lies_inside_of_another_fusion(flow: Flow) -> None:
    assert definition(flow, at(flow, "h")) == (at(flow, "eq"), ())
    assert definition(flow, at(flow, "w")) == (at(flow, "table"), ())


def test_readers_lie_inside_of_fusions(flow: Flow) -> None:
    assert names(flow, readers(flow, at(flow, "copied"))) == ["d"]
    assert set(names(flow, readers(flow, at(flow, "eq")))) == {"oh"}
    assert names(flow, readers(flow, at(flow, "d"))) == ["out"]


def test_the_kernel_of_an_op_is_the_fusion_around_it(flow: Flow) -> None:
    assert kernel(flow, at(flow, "d")) == at(flow, "product")
    assert kernel(flow, at(flow, "grad")) == at(flow, "grad")


def test_a_changed_version_of_a_parameter(flow: Flow) -> None:
    """Through a loop and a fusion with several results, but not through a product."""
    assert names(flow, [one for one, _ in updated(flow, at(flow, "last"))]) == ["table"]
    assert list(updated(flow, at(flow, "other"))) == []
    assert list(updated(flow, at(flow, "product"))) == []


COPIES = """HloModule m, is_scheduled=true

ENTRY %main (x: f32[8,8], y: f32[8,8]) -> (f32[8,8], f32[8,8], f32[8,8]) {
  %x = f32[8,8]{1,0} parameter(0)
  %y = f32[8,8]{1,0} parameter(1)
  %start = (f32[8,8]{1,0:S(1)}, f32[8,8]{1,0}, u32[]{:S(2)}) copy-start(%x)
  %done = f32[8,8]{1,0:S(1)} copy-done(%start)
  %same = f32[8,8]{1,0} copy(%done)
  %first = ((f32[8,8]{1,0}), f32[4,8]{1,0:S(1)}, s32[]{:S(2)}) slice-start(%y), slice={[0:4], [0:8]}
  %second = ((f32[8,8]{1,0}), f32[4,8]{1,0:S(1)}, s32[]{:S(2)}) slice-start(%y), slice={[4:8], [0:8]}
  %top = f32[4,8]{1,0:S(1)} slice-done(%first)
  %bottom = f32[4,8]{1,0:S(1)} slice-done(%second)
  %joined = f32[8,8]{1,0:S(1)} custom-call(%top, %bottom), custom_call_target="ConcatBitcast"
  %turned = f32[8,8]{0,1} bitcast(%x)
  %transposed = f32[8,8]{1,0} copy(%turned)
  ROOT %t = (f32[8,8]{1,0}, f32[8,8]{1,0}, f32[8,8]{1,0}) tuple(%same, %joined, %transposed)
}
"""  # noqa: E501


@pytest.mark.parametrize(
    ("name", "source", "kernels"),
    [
        ("same", "x", ["same", "start"]),
        ("joined", "y", ["joined", "first", "second"]),
        ("transposed", "turned", ["transposed"]),
    ],
)
def test_a_copy_is_followed_and_a_transposition_is_none(
    name: str, source: str, kernels: list[str]
) -> None:
    module = read_text(COPIES.splitlines(keepends=True))
    (found, path), through = copied(Flow(module), module.instruction(name).index)
    assert (module.instruction_names[found], path) == (source, ())
    assert [module.instruction_names[one] for one in through] == kernels
