"""Walks along the data flow."""

from __future__ import annotations

import pytest

from hlo_lab.ir.text import read_text
from hlo_lab.passkit.patterns import MOVES, Flow, Phase, collective_kind, phase

TEXT = """HloModule m, is_scheduled=true

%moves (a: f32[8,4]) -> f32[4,8] {
  %a = f32[8,4] parameter(0)
  %c = bf16[8,4] convert(%a)
  ROOT %t = bf16[4,8] transpose(%c), dimensions={1,0}
}

%computes (b: f32[8,4]) -> f32[8,4] {
  %b = f32[8,4] parameter(0)
  ROOT %s = f32[8,4] sine(%b), metadata={op_name="jit(f)/sin"}
}

%row (buf: f32[3,8,4], i: s32[], v: f32[8,4]) -> f32[3,8,4] {
  %buf = f32[3,8,4] parameter(0)
  %ri = s32[] parameter(1)
  %v = f32[8,4] parameter(2)
  %rz = s32[] constant(0)
  %up = f32[1,8,4] bitcast(%v)
  ROOT %dus = f32[3,8,4] dynamic-update-slice(%buf, %up, %ri, %rz, %rz)
}

%body (p: (s32[], f32[8,4], f32[3,8,4], f32[8,4])) -> (s32[], f32[8,4], f32[3,8,4], f32[8,4]) {
  %p = (s32[], f32[8,4], f32[3,8,4], f32[8,4]) parameter(0)
  %k = s32[] get-tuple-element(%p), index=0
  %x = f32[8,4] get-tuple-element(%p), index=1
  %stack = f32[3,8,4] get-tuple-element(%p), index=2
  %w = f32[8,4] get-tuple-element(%p), index=3
  %one = s32[] constant(1)
  %k1 = s32[] add(%k, %one)
  %y = f32[8,4] multiply(%x, %w)
  %new = f32[3,8,4] fusion(%stack, %k, %y), kind=kLoop, calls=%row
  ROOT %out = (s32[], f32[8,4], f32[3,8,4], f32[8,4]) tuple(%k1, %y, %new, %w)
}

%cond (q: (s32[], f32[8,4], f32[3,8,4], f32[8,4])) -> pred[] {
  %q = (s32[], f32[8,4], f32[3,8,4], f32[8,4]) parameter(0)
  %kk = s32[] get-tuple-element(%q), index=0
  %three = s32[] constant(3)
  ROOT %lt = pred[] compare(%kk, %three), direction=LT
}

ENTRY %main (e: f32[8,4], f: f32[8,4]) -> (f32[4,8], f32[8,4], f32[3,8,4]) {
  %e = f32[8,4] parameter(0)
  %f = f32[8,4] parameter(1)
  %m = bf16[4,8] fusion(%e), kind=kLoop, calls=%moves
  %n = f32[8,4] fusion(%e), kind=kLoop, calls=%computes
  %zero = s32[] constant(0)
  %z = f32[] constant(0)
  %zs = f32[3,8,4] broadcast(%z), dimensions={}
  %in = (s32[], f32[8,4], f32[3,8,4], f32[8,4]) tuple(%zero, %n, %zs, %f)
  %loop = (s32[], f32[8,4], f32[3,8,4], f32[8,4]) while(%in), condition=%cond, body=%body
  %last = f32[8,4] get-tuple-element(%loop), index=1
  %rows = f32[3,8,4] get-tuple-element(%loop), index=2
  %same = f32[8,4] get-tuple-element(%loop), index=3
  %neg = f32[8,4] negate(%same)
  ROOT %o = (f32[4,8], f32[8,4], f32[3,8,4]) tuple(%m, %neg, %rows)
}
"""


@pytest.fixture(scope="module")
def module():
    return read_text(TEXT.splitlines(keepends=True))


@pytest.fixture(scope="module")
def flow(module):
    return Flow(module)


@pytest.fixture(scope="module")
def at(module):
    return lambda name: module.instruction(name).index


def test_source_goes_through_moves_and_fusions_that_only_move(flow, at) -> None:
    assert flow.source(at("m"), (), MOVES) == (at("e"), ())
    assert flow.source(at("m")) == (at("m"), ())
    assert flow.source(at("n"), (), MOVES) == (at("n"), ())
    assert flow.source(at("rows")) == (at("loop"), (2,))


def test_source_goes_into_tuples(flow, at) -> None:
    assert flow.source(at("in"), (1,)) == (at("n"), ())


def test_origin_goes_through_what_a_loop_hands_on_unchanged(flow, at) -> None:
    assert flow.origin(at("same")) == (at("f"), ())
    assert flow.origin(at("w")) == (at("f"), ())
    assert flow.origin(at("x")) == (at("p"), (1,))
    assert flow.origin(at("last")) == (at("loop"), (1,))


def test_stacked_updates_are_found_through_the_fusion_that_writes_them(flow, at) -> None:
    assert flow.stacked_update(at("loop"), (2,)) == ((at("y"), ()), at("y"))
    assert flow.stacked_update(at("loop"), (1,)) is None
    assert flow.stacked_update(at("loop"), (3,)) is None


def test_a_fusion_may_write_several_stacks_and_what_is_carried() -> None:
    text = TEXT.replace(
        "  ROOT %dus = f32[3,8,4] dynamic-update-slice(%buf, %up, %ri, %rz, %rz)\n",
        "  %dus = f32[3,8,4] dynamic-update-slice(%buf, %up, %ri, %rz, %rz)\n"
        "  ROOT %both = (f32[8,4], f32[3,8,4]) tuple(%v, %dus)\n",
    )
    text = text.replace("v: f32[8,4]) -> f32[3,8,4] {", "v: f32[8,4]) -> (f32[8,4], f32[3,8,4]) {")
    text = text.replace(
        "  %new = f32[3,8,4] fusion(%stack, %k, %y), kind=kLoop, calls=%row\n",
        "  %pair = (f32[8,4], f32[3,8,4]) fusion(%stack, %k, %y), kind=kLoop, calls=%row\n"
        "  %next = f32[8,4] get-tuple-element(%pair), index=0\n"
        "  %new = f32[3,8,4] get-tuple-element(%pair), index=1\n",
    ).replace("tuple(%k1, %y, %new, %w)", "tuple(%k1, %next, %new, %w)")
    flow = Flow(read_text(text.splitlines(keepends=True)))
    loop, y = (flow.module.instruction(name).index for name in ("loop", "y"))
    assert flow.stacked_update(loop, (2,)) == ((y, ()), y)
    assert flow.stacked_update(loop, (1,)) is None


def test_kernel_users_see_through_get_tuple_element(flow, at) -> None:
    assert set(flow.kernel_users(at("loop"))) == {at("neg"), at("o")}
    assert set(flow.kernel_users(at("e"))) == {at("m"), at("n")}


def test_a_fusion_without_a_name_is_shown_by_its_last_named_op(flow, at) -> None:
    assert flow.op_name(at("n")) == "jit(f)/sin"
    assert flow.place(at("n")) == at("s")
    assert flow.place(at("m")) == at("m")


def test_contents_and_lift(flow, at, module) -> None:
    assert flow.contents(at("m")) == {"convert", "transpose"}
    assert flow.contents(at("neg")) == {"negate"}
    assert flow.lift(at("y"), module.entry) == at("loop")
    assert flow.lift(at("e"), flow.computation_of(at("y"))) is None


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("jit(f)/jvp()/dot_general", Phase.FORWARD),
        ("jit(f)/transpose", Phase.FORWARD),
        ("jit(f)/transpose(jvp())/dot_general", Phase.BACKWARD),
        ("jit(f)/transpose(jvp(jvp()))/checkpoint/rematted_computation/sin", Phase.RECOMPUTE),
    ],
)
def test_phases(name: str, expected: Phase) -> None:
    assert phase(name) is expected


def test_only_the_start_of_a_collective_counts() -> None:
    assert collective_kind("all-gather-start") == "all-gather"
    assert collective_kind("all-gather-done") == ""
    assert collective_kind("add") == ""
