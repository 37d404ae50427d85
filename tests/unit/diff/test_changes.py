"""Each single edit is found, at its own instruction, under its own kind."""

from __future__ import annotations

import pytest

from hlo_lab.diff import DiffResult, Kind, Verdict
from tests.unit.diff.modules import MODEL, compare, edited


def only(result: DiffResult) -> str:
    assert result.verdict is Verdict.CHANGED
    assert len(result.changes) == 1, [change.summary for change in result.changes]
    return result.changes[0].summary


@pytest.mark.parametrize(
    ("replacement", "kind", "summary", "names"),
    [
        (
            ("tanh(h1)", "sine(h1)"), Kind.REPLACED,
            "tanh -> sine at model.py:10", ("a1",),
        ),
        (
            ("cosine(value)", "sine(value)"), Kind.REPLACED,
            "cosine -> sine at model.py:30", ("scaled",),
        ),
        (("limit = s32[] constant(3)", "limit = s32[] constant(4)"), Kind.CONSTANT,
         "constant 3 -> 4", ("limit",)),
        (("direction=LT", "direction=LE"), Kind.ATTRIBUTE,
         "compare: direction LT -> LE", ("less",)),
        (("f32[4,8]{1,0} subtract", "f32[4,8]{0,1} subtract"), Kind.LAYOUT,
         "layout {row-major} -> {0,1} in 1 operation", ("d",)),
    ],
)  # fmt: skip
def test_one_edit_is_one_change(
    replacement: tuple[str, str], kind: Kind, summary: str, names: tuple[str, ...]
) -> None:
    result = edited(replacement)
    assert only(result) == summary
    assert result.changes[0].kind is kind
    assert result.changes[0].before.instructions == names
    assert (result.changed, result.added, result.removed) == (1, 0, 0)


def test_a_removed_operation() -> None:
    result = edited(
        ("  d = f32[4,8]{1,0} subtract(a2, a1)\n", ""), ("multiply(d, a1)", "multiply(a2, a1)")
    )
    assert only(result) == "1 operation removed: 1 subtract"
    assert result.changes[0].kind is Kind.REMOVED
    assert (result.changed, result.added, result.removed) == (0, 0, 1)


def test_an_added_operation_inside_a_loop_is_shown_there() -> None:
    result = edited(
        ("  ROOT both", "  twice = f32[4,8]{1,0} negate(scaled)\n  ROOT both"),
        ("tuple(next, scaled)", "tuple(next, twice)"),
    )
    assert only(result) == "1 operation added: 1 negate"
    assert result.changes[0].after.instructions == ("twice",)


def test_equal_edits_of_several_layers_fold() -> None:
    result = edited(("tanh(", "sine("))
    assert only(result) == "tanh -> sine (x 2) at model.py:10"
    assert result.changes[0].repeats == 2
    assert [frame.line for frame in result.changes[0].after.source] == [10, 20]


def test_a_changed_dimension_is_one_group_with_its_cause() -> None:
    result = edited(("[4,8]", "[16,8]"))
    assert "dimension 4 -> 16 in" in only(result)
    change = result.changes[0]
    assert change.kind is Kind.SHAPE
    assert change.cause == "the program's argument 0 (f32[4,8] -> f32[16,8])"
    assert (result.added, result.removed) == (0, 0)


def test_attributes_that_follow_a_dimension_belong_to_its_group() -> None:
    text = """\
HloModule m
ENTRY e {
  p = f32[32,8]{1,0} parameter(0)
  s = f32[32,4]{1,0} slice(p), slice={[0:32], [0:4]}
  ROOT n = f32[32,4]{1,0} negate(s)
}
"""
    result = edited(("32", "64"), text=text.replace("f32", "bf16"))
    assert only(result) == "dimension 32 -> 64 in 3 operations"


def test_one_node_that_becomes_two_is_no_addition() -> None:
    text = """\
HloModule m
ENTRY e {
  p = f32[128,64]{1,0} parameter(0)
  q = f32[128,64]{1,0} parameter(1)
  c = f32[] constant(1)
  b = f32[128,64]{1,0} broadcast(c), dimensions={}
  b2 = f32[128,64]{1,0} broadcast(c), dimensions={}
  m = f32[128,64]{1,0} multiply(p, b)
  m2 = f32[128,64]{1,0} multiply(q, b2)
  ROOT t = (f32[128,64]{1,0}, f32[128,64]{1,0}) tuple(m, m2)
}
"""
    after = text
    for name in ("p", "b", "m"):
        after = after.replace(f"  {name} = f32[128", f"  {name} = f32[256")
    after = after.replace("t = (f32[128", "t = (f32[256")
    result = compare(text, after)
    assert only(result) == "dimension 128 -> 256 in 4 operations"
    assert (result.added, result.removed) == (0, 0)


def test_constants_follow_their_users() -> None:
    text = """\
HloModule m
ENTRY e {
  p = f32[] parameter(0)
  four = f32[] constant(4)
  two = f32[] constant(2)
  m = f32[] multiply(p, four)
  ROOT a = f32[] add(m, two)
}
"""
    result = edited(("constant(2)", "constant(1)"), ("constant(4)", "constant(2)"), text=text)
    assert sorted(change.summary for change in result.changes) == [
        "constant 2 -> 1",
        "constant 4 -> 2",
    ]
    assert (result.added, result.removed) == (0, 0)


def test_arguments_pair_by_name_where_one_is_new_in_the_middle() -> None:
    text = """\
HloModule m
ENTRY e {
  p = f32[8]{0} parameter(0), metadata={op_name="params['a']"}
  q = f32[8]{0} parameter(1), metadata={op_name="params['c']"}
  n = f32[8]{0} negate(p)
  ROOT s = f32[8]{0} subtract(n, q)
}
"""
    after = text.replace("parameter(1)", "parameter(2)").replace(
        "  n =",
        "  b = f32[8]{0} parameter(1), metadata={op_name=\"params['b']\"}\n"
        "  pb = f32[8]{0} subtract(p, b)\n  n =",
    ).replace("negate(p)", "negate(pb)")  # fmt: skip
    result = compare(text, after)
    assert sorted((str(change.kind), change.summary) for change in result.changes) == [
        ("added", "2 operations added: 1 subtract at params['b']"),
        ("attribute", "1 argument at another position"),
    ]


def test_element_types() -> None:
    result = edited(("f32[4,8]", "bf16[4,8]"))
    assert only(result).startswith("f32 -> bf16 in ")
    assert result.changes[0].kind is Kind.DTYPE


def test_collectives_are_named_as_such() -> None:
    result = edited((
        "  a1 = f32[4,8]{1,0} tanh(h1)",
        "  r = f32[4,8]{1,0} all-reduce(h1), replica_groups={}, to_apply=add_f32\n"
        "  a1 = f32[4,8]{1,0} tanh(r)",
    ))  # fmt: skip
    assert only(result) == "1 all-reduce added"
    assert result.changes[0].kind is Kind.COLLECTIVE
    assert result.deltas["collectives"] == {"before": 0, "after": 1}


def test_donation() -> None:
    aliased = MODEL.replace(
        "HloModule jit_f,", "HloModule jit_f, input_output_alias={ {}: (2, {}, may-alias) },"
    )
    assert only(compare(MODEL, aliased)) == "argument 2 donated"
    assert only(compare(aliased, MODEL)) == "argument 2 no longer donated"


def test_the_number_of_partitions() -> None:
    four, eight = (
        MODEL.replace("HloModule jit_f,", f"HloModule jit_f, num_partitions={n},") for n in (4, 8)
    )
    assert only(compare(four, eight)) == "num_partitions: 4 -> 8"
    # protos do not have it
    unknown = compare(MODEL, four)
    assert unknown.verdict is Verdict.IDENTICAL
    assert unknown.notes == ["num_partitions (4) is stated on one side alone: not compared"]


def test_an_added_argument_is_the_cause() -> None:
    result = edited((
        "  h1 = f32[4,8]{1,0} dot(x, w1)",
        "  b = f32[4,8]{1,0} parameter(3)\n  xb = f32[4,8]{1,0} add(x, b)\n"
        "  h1 = f32[4,8]{1,0} dot(xb, w1)",
    ))  # fmt: skip
    assert only(result) == "2 operations added: 1 add"
    assert result.changes[0].cause == "new argument 3 (f32[4,8])"


def test_rematerialisation_is_named() -> None:
    result = edited((
        "  m = f32[4,8]{1,0} multiply(d, a1)",
        "  h3 = f32[4,8]{1,0} sine(h1), metadata={op_name=\"jit(f)/rematted_computation/sin\"}\n"
        "  m = f32[4,8]{1,0} multiply(d, h3)",
    ))  # fmt: skip
    assert result.changes[0].kind is Kind.RECOMPUTE
    assert "1 operation recomputed: 1 sine" in result.changes[0].summary


def test_changes_come_by_cost_and_carry_it() -> None:
    result = edited(
        ("f32[4,8]{1,0} subtract", "f32[4,8]{0,1} subtract"),
        ("  h1 =", "  h0 = f32[8,8]{1,0} dot(w1, w2), lhs_contracting_dims={1}, "
         "rhs_contracting_dims={0}\n  h1 ="),
        ("dot(x, w1)", "dot(x, h0)"),
    )  # fmt: skip
    assert [change.kind for change in result.changes] == [Kind.ADDED, Kind.LAYOUT]
    assert result.changes[0].seconds is not None
    assert result.changes[0].seconds > 0


def test_the_document_has_the_fields_of_the_schema() -> None:
    document = edited(("tanh(h1)", "sine(h1)")).to_dict()
    assert set(document) == {
        "verdict", "matched", "changed", "added", "removed", "changes", "deltas", "notes",
    }  # fmt: skip
    change = document["changes"][0]
    assert set(change) == {"kind", "summary", "count", "repeats", "before", "after", "cause"}
    assert change["before"]["source"] == [{"file": "model.py", "line": 10, "function": ""}]


def test_a_constant_is_shown_where_it_is_used() -> None:
    text = """\
HloModule m
ENTRY e {
  p = f32[8] parameter(0)
  c = f32[] constant(2)
  b = f32[8] broadcast(c), dimensions={}
  ROOT m = f32[8] multiply(p, b), metadata={source_file="/w/model.py" source_line=7}
}
"""
    result = edited(("constant(2)", "constant(3)"), text=text)
    assert only(result) == "constant 2 -> 3, used at model.py:7"
    change = result.changes[0]
    assert [frame.file for frame in (*change.before.source, *change.after.source)] == [
        "/w/model.py",
        "/w/model.py",
    ]


def test_rematerialisation_is_named_among_what_has_no_name() -> None:
    marked = 'metadata={op_name="jit(f)/checkpoint/rematted_computation/sin"}'
    result = edited((
        "  m = f32[4,8]{1,0} multiply(d, a1)",
        f"  h3 = f32[4,8]{{1,0}} sine(h1), {marked}\n"
        "  h4 = f32[8,4]{1,0} transpose(h3), dimensions={1,0}\n"
        "  h5 = f32[8,4]{0,1} copy(h4)\n"
        "  h6 = f32[4,8]{1,0} transpose(h5), dimensions={1,0}\n"
        "  m = f32[4,8]{1,0} multiply(d, h6)",
    ))  # fmt: skip
    assert result.changes[0].kind is Kind.RECOMPUTE


def test_an_unrolled_layer_computed_again_is_rematerialised() -> None:
    text = """\
HloModule m, is_scheduled=true
ENTRY e {
  p = f32[64] parameter(0)
  s = f32[64] sine(p), metadata={op_name="jit(f)/sin"}
  c = f32[64] cosine(s)
  ROOT m = f32[64] multiply(c, s)
}
"""
    again = 'sine(p), metadata={op_name="jit(f)/checkpoint/rematted_computation/sin"}'
    result = edited(
        ("  ROOT m = f32[64] multiply(c, s)", f"  s2 = f32[64] {again}\n  ROOT m = f32[64] "
         "multiply(c, s2)"),
        text=text,
    )  # fmt: skip
    [change] = result.changes
    assert change.kind is Kind.RECOMPUTE
    assert change.cause.startswith("rematerialisation")
    plain = compare(text, text.replace("  ROOT", "  s2 = f32[64] sine(p)\n  ROOT").replace(
        "multiply(c, s)", "multiply(c, s2)"
    ))  # fmt: skip
    assert plain.changes[0].cause == "copied into more or fewer fusions"


def test_a_first_computation_whose_match_is_the_second_one_is_no_addition() -> None:
    text = """\
HloModule m, is_scheduled=true
ENTRY e {
  p = f32[64] parameter(0)
  q = f32[64] parameter(1)
  s = f32[64] sine(p), metadata={op_name="jit(f)/sin"}
  t = f32[64] tanh(s), metadata={op_name="jit(f)/tanh"}
  ROOT m = f32[64] multiply(t, q)
}
"""
    mark = "jit(f)/checkpoint/rematted_computation"
    after = text.replace("jit(f)/sin", f"{mark}/sin").replace("jit(f)/tanh", f"{mark}/tanh")
    after = after.replace(
        "  ROOT m = f32[64] multiply(t, q)",
        """\
  s2 = f32[64] sine(q), metadata={op_name="jit(f)/sin"}
  t2 = f32[64] tanh(s2), metadata={op_name="jit(f)/tanh"}
  m = f32[64] multiply(t, q)
  ROOT a = f32[64] subtract(m, t2)""",
    )
    [change] = [c for c in compare(text, after).changes if "sine" in c.summary]
    assert change.kind is Kind.RECOMPUTE


def test_what_merely_follows_is_plumbing() -> None:
    result = edited(
        ("tuple(next, scaled)", "tuple(next, scaled, scaled)"),
        ("  start = (s32[], f32[4,8]{1,0}) tuple(zero, m)",
         "  start = (s32[], f32[4,8]{1,0}, f32[4,8]{1,0}) tuple(zero, m, m)"),
        ("(s32[], f32[4,8]{1,0}) parameter(0)",
         "(s32[], f32[4,8]{1,0}, f32[4,8]{1,0}) parameter(0)"),
        ("tanh(h1)", "sine(h1)"),
    )  # fmt: skip
    plumbing = [change for change in result.changes if change.plumbing]
    assert plumbing
    assert all("tuple" in c.summary or "parameter" in c.summary for c in plumbing)
    assert [c.summary for c in result.changes if not c.plumbing] == ["tanh -> sine at model.py:10"]
    argument = edited(("w2 = f32[8,8]{1,0} parameter(2)", "w2 = f32[8,8]{0,1} parameter(2)"))
    assert not any(change.plumbing for change in argument.changes)
