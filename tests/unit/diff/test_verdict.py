"""identical, equivalent or changed."""

from __future__ import annotations

import re

import pytest

from hlo_lab.diff import DiffResult, Kind, Verdict
from hlo_lab.errors import InputError
from tests.unit.diff.modules import APART, FUSED, MODEL, compare, edited, module


def kinds(result: DiffResult) -> set[Kind]:
    return {change.kind for change in result.changes}


def test_a_module_is_identical_to_itself() -> None:
    result = compare(MODEL, MODEL)
    assert result.verdict is Verdict.IDENTICAL
    assert (result.matched, result.changed, result.added, result.removed) == (29, 0, 0, 0)
    assert not result.changes
    assert all(values["before"] == values["after"] for values in result.deltas.values())


@pytest.mark.parametrize(
    "replacement",
    [
        pytest.param(("a1", "renamed.77"), id="a name"),
        pytest.param(("add_f32", "region_0.5"), id="a computation's name"),
        pytest.param(("source_line=10", "source_line=99"), id="a source line"),
        pytest.param(("jit(f)/layer1", "jit(g)/other"), id="an op_name"),
        pytest.param(("jit_f", "jit_g"), id="the module's name"),
        pytest.param(("f32[8,8]{1,0} parameter", "f32[8,8] parameter"), id="a default layout"),
    ],
)
def test_names_and_metadata_are_no_difference(replacement: tuple[str, str]) -> None:
    assert edited(replacement).verdict is Verdict.IDENTICAL


def test_metadata_may_be_absent_and_names_marked() -> None:
    bare = re.sub(r", metadata=\{[^}]*\}", "", MODEL)
    assert compare(MODEL, bare).verdict is Verdict.IDENTICAL
    marked = re.sub(r"\b(x|w1|h1|a1|a2)\b(?! \()", r"%\1", MODEL)
    assert compare(MODEL, marked).verdict is Verdict.IDENTICAL


def test_the_order_of_independent_instructions_is_no_difference() -> None:
    lines = MODEL.splitlines(keepends=True)
    zero = next(i for i, line in enumerate(lines) if line.startswith("  zero ="))
    x = next(i for i, line in enumerate(lines) if line.startswith("  x ="))
    lines.insert(x, lines.pop(zero))
    assert compare(MODEL, "".join(lines)).verdict is Verdict.IDENTICAL


COMPARISON = """HloModule m

ENTRY e {
  p = f32[8]{0} parameter(0)
  ROOT c = pred[8]{0} compare(p, p), direction=LT%s
}
"""
BROADCAST = """HloModule m

ENTRY e {
  p = f32[8]{0} parameter(0)
  ROOT c = f32[8]{0} collective-broadcast(p), replica_groups={{0,1}}%s
}
"""
SHARDED = """HloModule m

ENTRY e {
  p = f32[8]{0} parameter(0)
  ROOT c = f32[8]{0} negate(p), sharding={devices=[1,2]<=[2] last_tile_dims={unreduced}%s
}
"""
_REDUCED = ' metadata={op_type="sdy::reduction_op" op_name="%s"}}'


@pytest.mark.parametrize(
    ("text", "old", "new", "same"),
    [
        (COMPARISON, ", type=TOTALORDER", ", order=TOTAL", True),
        (COMPARISON, "", ", order=TOTAL", False),
        (COMPARISON, "", ", type=TOTALORDER", False),
        (BROADCAST, "", ", has_dynamic_root=false", True),
        (BROADCAST, "", ", has_dynamic_root=true", False),
        (BROADCAST, "", ', frontend_attributes={is_spmd_generated="true"}', True),
        (BROADCAST, ', frontend_attributes={a="b",c="d"}',
         ', frontend_attributes={a="b",is_spmd_generated="true",c="d"}', True),
        (BROADCAST, "", ', frontend_attributes={a="b"}', False),
        (SHARDED, "}", _REDUCED % "SUM", True),
        (SHARDED, "}", _REDUCED % "MAX", False),
        (SHARDED, "}", ' metadata={{op_name="a"}, {op_name="b" source_line=3}}}', True),
    ],
)  # fmt: skip
def test_what_versions_of_xla_spell_differently(text, old, new, same) -> None:
    for pair in ((old, new), (new, old)):
        verdict = compare(*(text % attribute for attribute in pair)).verdict
        assert verdict is (Verdict.IDENTICAL if same else Verdict.CHANGED)


def test_channel_numbers_and_compiler_estimates_are_no_difference() -> None:
    text = """\
HloModule m
ENTRY e {
  p = f32[8]{0} parameter(0)
  ROOT g = f32[16]{0} all-gather(p), channel_id=1, replica_groups={{0,1}}, \
dimensions={0}, backend_config={"window_config":{"estimated_cycles":"17"}}
}
"""
    assert edited(("channel_id=1", "channel_id=42"), text=text).verdict is Verdict.IDENTICAL
    assert edited(('"17"', '"18"'), text=text).verdict is Verdict.IDENTICAL
    assert edited(("{{0,1}}", "{{1,0}}"), text=text).verdict is Verdict.CHANGED


def test_commuted_operands_are_equivalent() -> None:
    result = edited(("multiply(d, a1)", "multiply(a1, d)"))
    assert result.verdict is Verdict.EQUIVALENT
    assert kinds(result) == {Kind.NO_EFFECT}


def test_swapped_operands_of_subtract_are_a_change() -> None:
    result = edited(("subtract(a2, a1)", "subtract(a1, a2)"))
    assert result.verdict is Verdict.CHANGED
    assert kinds(result) == {Kind.OPERANDS}
    assert result.changes[0].before.instructions == ("d",)


def test_duplicates_before_optimisation_are_equivalent() -> None:
    twice = (
        "  m = f32[4,8]{1,0} multiply(d, a1)\n",
        "  again = f32[4,8]{1,0} subtract(a2, a1)\n  m = f32[4,8]{1,0} multiply(again, a1)\n",
    )
    result = edited(twice)
    assert result.verdict is Verdict.EQUIVALENT
    assert "1 operation" in result.changes[0].summary


def test_a_duplicate_of_a_scheduled_module_is_work() -> None:
    once = """\
HloModule m, is_scheduled=true
ENTRY e {
  p = f32[8]{0} parameter(0)
  a = f32[8]{0} exponential(p)
  ROOT r = f32[8]{0} subtract(a, a)
}
"""
    result = edited(
        ("  ROOT", "  b = f32[8]{0} exponential(p)\n  ROOT"), ("(a, a)", "(a, b)"), text=once
    )
    assert result.verdict is Verdict.CHANGED
    assert kinds(result) == {Kind.RECOMPUTE}


def test_a_row_major_reshape_and_back_is_equivalent() -> None:
    result = edited((
        "  d = f32[4,8]{1,0} subtract(a2, a1)\n",
        "  flat = f32[32]{0} reshape(a2)\n  back = f32[4,8]{1,0} reshape(flat)\n"
        "  d = f32[4,8]{1,0} subtract(back, a1)\n",
    ))  # fmt: skip
    assert result.verdict is Verdict.EQUIVALENT
    assert "2 reshape" in result.changes[0].summary


def test_a_shape_seen_through_a_reshape_is_a_change() -> None:
    text = """\
HloModule m
ENTRY e {
  p = f32[4,4]{1,0} parameter(0)
  q = f32[4,4]{1,0} parameter(1)
  r = f32[4,4]{1,0} reshape(p)
  ROOT d = f32[4,4]{1,0} dot(r, q), lhs_contracting_dims={1}, rhs_contracting_dims={0}
}
"""
    assert edited(("reshape(p)", "transpose(p), dimensions={1,0}"), text=text).verdict is (
        Verdict.CHANGED
    )


def test_an_inlined_call_is_equivalent() -> None:
    called = """\
HloModule m
half {
  p = f32[8]{0} parameter(0)
  e = f32[8]{0} exponential(p)
  ROOT n = f32[8]{0} negate(e)
}
ENTRY e {
  x = f32[8]{0} parameter(0)
  ROOT c = f32[8]{0} call(x), to_apply=half
}
"""
    inlined = """\
HloModule m
ENTRY e {
  x = f32[8]{0} parameter(0)
  e = f32[8]{0} exponential(x)
  ROOT n = f32[8]{0} negate(e)
}
"""
    assert compare(called, inlined).verdict is Verdict.EQUIVALENT


def test_fusion_boundaries_are_a_change() -> None:
    result = compare(FUSED, APART)
    assert result.verdict is Verdict.CHANGED
    assert kinds(result) == {Kind.FUSION}
    assert (result.changed, result.added, result.removed) == (0, 0, 0)
    assert "1 kernel (one) -> 2 kernels (one, two)" in result.changes[0].summary


def test_the_order_of_a_fusions_parameters_is_equivalent() -> None:
    text = """\
HloModule m, is_scheduled=true
f {
  p = f32[64]{0} parameter(0)
  q = f32[64]{0} parameter(1)
  n = f32[64]{0} negate(p)
  ROOT s = f32[64]{0} subtract(n, q)
}
ENTRY main {
  x = f32[64]{0} parameter(0)
  y = f32[64]{0} parameter(1)
  ROOT one = f32[64]{0} fusion(x, y), kind=kLoop, calls=f
}
"""
    swap = [("p = f32[64]{0} parameter(0)", "p = f32[64]{0} parameter(9)"),
            ("q = f32[64]{0} parameter(1)", "q = f32[64]{0} parameter(0)"),
            ("parameter(9)", "parameter(1)"), ("fusion(x, y)", "fusion(y, x)")]  # fmt: skip
    assert edited(*swap, text=text).verdict is Verdict.EQUIVALENT


def test_elided_constants_compare_by_shape_and_say_so() -> None:
    text = """\
HloModule m
ENTRY e {
  c = f32[12]{0} constant({1,2,3,4,5,6,7,8,9,10,11,12})
  p = f32[12]{0} parameter(0)
  ROOT s = f32[12]{0} subtract(c, p)
}
"""
    elided = edited(("{1,2,3,4,5,6,7,8,9,10,11,12}", "{...}"), text=text)
    assert elided.verdict is Verdict.IDENTICAL
    assert "{...}" in elided.notes[0]
    assert edited(("{1,2,", "{1,3,"), text=text).verdict is Verdict.CHANGED


@pytest.mark.parametrize(
    ("dtype", "a", "b", "same"),
    [
        ("f32", "55906239035264", "5.59062387e+13", True),
        ("f64", "55906239035264", "5.59062387e+13", False),
        ("f32", "1e-06", "1e-05", False),
        ("f32", "-inf", "inf", False),
        ("s32", "16777216", "16777217", False),
    ],
)
def test_floats_compare_by_value(dtype: str, a: str, b: str, same: bool) -> None:
    text = f"HloModule m\nENTRY e {{\n  ROOT c = {dtype}[] constant({a})\n}}\n"
    verdict = edited((f"({a})", f"({b})"), text=text).verdict
    assert verdict is (Verdict.IDENTICAL if same else Verdict.CHANGED)


def test_a_cut_file_is_compared_and_noted() -> None:
    cut = MODEL[: MODEL.index("  nothing = ")]
    result = compare(MODEL, cut)
    assert result.verdict is Verdict.CHANGED
    assert result.removed >= 2
    assert any("cut" in note for note in result.notes)


def test_recursion_is_refused() -> None:
    text = """\
HloModule m
f {
  p = f32[] parameter(0)
  ROOT r = f32[] call(p), to_apply=f
}
ENTRY e {
  x = f32[] parameter(0)
  ROOT c = f32[] call(x), to_apply=f
}
"""
    with pytest.raises(InputError, match="f"):
        from hlo_lab.diff.digest import computation_digests
        from hlo_lab.diff.labels import label

        recursive = module(text)
        computation_digests(recursive, label(recursive))
