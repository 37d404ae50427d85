"""The text reader: what it gives, what it forgives and what it refuses."""

from __future__ import annotations

import pytest

from hlo_lab.errors import ReadError
from hlo_lab.ir import read_text, verify
from hlo_lab.ir.text import read_text_modules


def test_columns_of_a_small_module(small):
    assert (small.name, len(small), small.computation_names) == ("small", 8, ["fused", "main"])
    assert small.is_scheduled and small.warnings == []
    fusion = small.instruction("%fusion")
    assert [operand.name for operand in fusion.operands] == ["x"]
    assert [(role, called.name) for role, called in fusion.callees] == [("calls", "fused")]
    assert fusion.attributes == {"kind": "kLoop"}
    twice = small.instruction("twice")
    assert [operand.name for operand in twice.operands] == ["p", "p"] and twice.is_root
    assert small.instruction("one").literal == "1"
    assert [i.name for i in small.instruction("product").control_predecessors] == ["dead"]
    verify(small)


def test_source_stack_is_innermost_first_and_a_fusion_takes_its_roots(small):
    expected = ["/tmp/model.py:7 in layer", "/tmp/train.py:40 in step"]
    assert [str(frame) for frame in small.instruction("twice").source] == expected
    assert small.instruction("fusion").source == small.instruction("twice").source
    assert small.instruction("x").source == ()


FUSED = """HloModule m
f {
  p = f32[2] parameter(0)
  a = f32[2] negate(p), metadata={source_file="m.py" source_line=1}
  b = f32[2] sine(a), metadata={source_file="m.py" source_line=2}
  c = f32[2] cosine(b), metadata={op_name="c" source_file="m.py" source_line=2}
  d = f32[2] tanh(c), metadata={source_file="m.py" source_line=3}
  ROOT r = bf16[2] convert(d)
}
g {
  q = bf16[2] parameter(0)
  ROOT s = f32[2] convert(q)
}
ENTRY e {
  x = f32[2] parameter(0)
  y = bf16[2] fusion(x), kind=kLoop, calls=f
  ROOT z = f32[2] fusion(y), kind=kLoop, calls=g
}
"""


def test_a_fusion_whose_root_has_no_source_takes_the_most_frequent_one_inside():
    module = read_text(FUSED)
    assert [str(frame) for frame in module.instruction("y").source] == ["m.py:2"]
    assert module.instruction("z").source == ()
    assert module.instruction("r").source == (), "only a fusion stands for what it holds"
    tied = read_text(FUSED.replace("op_name=", "x=").replace("source_line=2}", "source_line=4}", 1))
    assert [str(frame) for frame in tied.instruction("y").source] == ["m.py:3"], "nearest the end"


def test_names_without_percent_operands_with_shapes_and_comments():
    module = read_text(
        "HloModule old\nENTRY e {\n  a = f32[2]{0} parameter(0) // note\n"
        "  t = (f32[2]{0}, /*index=1*/f32[2]{0}) tuple(f32[2]{0} a, /*index=1*/f32[2]{0} a)\n"
        "  ROOT g = f32[2]{0} get-tuple-element((f32[2]{0}, f32[2]{0}) t), index=1\n}\n"
    )
    assert [i.name for i in module.instruction("t").operands] == ["a", "a"]
    assert [i.name for i in module.instruction("g").operands] == ["t"]


def test_an_instruction_goes_on_until_its_brackets_close():
    module = read_text(
        "HloModule m\nENTRY e {\n  %a = f32[] parameter(0)\n  %c = f32[] custom-call(%a), "
        'custom_call_target="t", frontend_attributes={kernel_metadata={\n"x":"{\\"b\\": 1}"\n}}, '
        'metadata={op_name="n"}\n  ROOT %r = f32[] negate(%c)\n}\n'
    )
    call = module.instruction("c")
    assert call.op_name == "n" and "kernel_metadata" in call.attributes["frontend_attributes"]
    assert [i.name for i in module.instruction("r").operands] == ["c"]


def test_same_names_in_two_computations_stay_apart():
    module = read_text(
        "HloModule m\nf {\n  p = f32[] parameter(0)\n  ROOT n = f32[] negate(p)\n}\n"
        "ENTRY e {\n  p = f32[] parameter(0)\n  ROOT n = f32[] call(p), to_apply=f\n}\n"
    )
    assert module.operand.tolist() == [0, 2]
    assert module.instruction("n").opcode == "call", "the entry's own name wins"


def test_a_complete_module_without_entry_takes_its_last_computation():
    module = read_text("HloModule m\n\n%f {\n  ROOT %a = f32[] constant(1)\n}\n// CHECK: x\n")
    assert module.warnings == [] and module.entry_computation.name == "f"


@pytest.mark.parametrize(
    "cut", ["ROOT %twice", "%product", "ENTRY", "  ROOT %product = f32[4]{0} mul"]
)
def test_cut_text_reads_with_a_warning(small_text, cut):
    module = read_text(small_text[: small_text.index(cut)])
    assert len(module.warnings) == 1 and "cut" in module.warnings[0]
    verify(module)


def test_cut_text_drops_calls_of_what_is_missing():
    module = read_text(
        "HloModule m, entry_computation_layout={()->f32[]}\nf {\n"
        "  a = f32[] parameter(0)\n  ROOT c = f32[] call(a), to_apply=gone\n}\n"
    )
    assert module.instruction("c").callees == [] and module.warnings


def test_several_modules_are_refused_until_one_is_picked(small_text):
    both = small_text + small_text.replace("small", "other")
    assert [m.name for m in read_text_modules(both)] == ["small", "other"]
    with pytest.raises(ReadError, match=r"holds 2 modules .*#1 \.\.\. #2"):
        read_text(both)


def entry(*lines: str, header: str = "HloModule m") -> str:
    return "\n".join((header, "ENTRY e {", *(f"  {line}" for line in lines), "}", ""))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no module"),
        ("hello world\n", "not HLO text"),
        ('module @jit_f {\n  func.func public @main() {\n', "StableHLO"),
        ("HloModule m\n", "cut before its first computation"),
        (entry("a = f32[] add(b, c)"), "unknown operand 'b' of 'a'"),
        (entry("a = f32[] negate(b)", "b = f32[] negate(a)"), "before it is"),
        (entry("a = f32[] constant(1)", "a = f32[] constant(2)"), "named 'a'"),
        (entry("ROOT a = f32[] call(), to_apply=f"), "calls 'f'"),
        (entry("a = f32[] parameter(x)"), "parameter number"),
        (entry(f"a = f32[{10**30}] parameter(0)"), "too large"),
        (entry("a = f32[2]{7} parameter(0)"), "layout"),
        (entry("a = " + "(" * 5000), "nested deeper"),
        (entry("a = " + "(" * 90 + "f32[]" + ")" * 90 + " parameter(0)"), "nested deeper"),
        (entry(), "is empty"),
        (entry("a = f32[] constant(1)", header="HloModule m, x={"), "module header"),
    ],
)  # fmt: skip
def test_refused_with_a_reason(text, reason):
    with pytest.raises(ReadError, match=reason) as caught:
        read_text(text)
    assert "\n" not in str(caught.value)


def test_unknown_opcodes_and_attributes_are_kept():
    module = read_text(
        "HloModule m\nENTRY e {\n  ROOT a = q99[2]{0} new-op(), shiny={1,{2}}, flag\n}\n"
    )
    (a,) = module.instructions
    assert (a.opcode, a.shape.dtype, a.attributes) == (
        "new-op",
        "q99",
        {"shiny": "{1,{2}}", "flag": ""},
    )


def test_spelled_out_async_pair_stands_as_its_operation():
    module = read_text(
        "HloModule m\nw {\n  p = f32[8]{0} parameter(0)\n"
        "  ROOT s = f32[4]{0} slice(p), slice={[0:4]}\n}\nENTRY e {\n  x = f32[8]{0} parameter(0)\n"
        "  b = ((f32[8]{0}), f32[4]{0}, s32[]) async-start(x), calls=w\n"
        "  ROOT d = f32[4]{0} async-done(b)\n}\n"
    )
    assert module.computation_names == ["e"]
    assert [i.opcode for i in module.instructions] == ["parameter", "slice-start", "slice-done"]
    assert module.instruction("b").attributes == {"slice": "{[0:4]}"}
