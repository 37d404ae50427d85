"""FUS001: what it counts, what it leaves out, and the reasons it gives."""

from __future__ import annotations

from pathlib import Path

import pytest

from hlo_lab.passkit.finding import Severity

HEAD = """HloModule m, is_scheduled=true

%f1 (a: f32[1024,1024]) -> f32[1024,1024] {
  %a = f32[1024,1024]{1,0} parameter(0)
  ROOT %n = f32[1024,1024]{1,0} negate(%a)
}

%f2 (b: f32[1024,1024]) -> f32[1024,1024] {
  %b = f32[1024,1024]{1,0} parameter(0)
  ROOT %t = f32[1024,1024]{0,1} copy(%b)
}

%f3 (d: f32[1024,1024]) -> f32[512,512] {
  %d = f32[1024,1024]{1,0} parameter(0)
  %sl = f32[512,512]{1,0} slice(%d), slice={[0:512], [0:512]}
  ROOT %u = f32[512,512]{1,0} multiply(%sl, %sl)
}

%add (l: f32[], r: f32[]) -> f32[] {
  %l = f32[] parameter(0)
  %r = f32[] parameter(1)
  ROOT %lr = f32[] add(%l, %r)
}

"""
SIZE = 1024 * 1024 * 4


def entry(*lines: str) -> str:
    body = "\n".join(f"  {line}" for line in lines)
    return (
        f"{HEAD}ENTRY %main (x: f32[1024,1024]) -> f32[1024,1024] {{\n"
        f"  %x = f32[1024,1024]{{1,0}} parameter(0)\n{body}\n}}\n"
    )


FIRST = "%p = f32[1024,1024]{1,0} fusion(%x), kind=kLoop, calls=%f1"


def test_one_reader_saves_a_write_and_a_read(run_pass) -> None:
    text = entry(FIRST, "ROOT %y = f32[1024,1024]{1,0} fusion(%p), kind=kLoop, calls=%f1")
    (finding,) = run_pass("fusion", text)
    assert finding.severity is Severity.WARNING
    assert finding.estimate.bytes == 2 * SIZE
    assert "nothing in the graph keeps them apart" in finding.message


@pytest.mark.parametrize(
    ("reader", "reason"),
    [
        ("f32[1024,1024]{0,1} fusion(%p), kind=kLoop, calls=%f2", "the layout changes"),
        ("f32[512,512]{1,0} fusion(%p), kind=kLoop, calls=%f3", "different numbers of elements"),
    ],
)
def test_reasons_that_a_user_can_act_on(run_pass, reader: str, reason: str) -> None:
    (finding,) = run_pass("fusion{notes=false}", entry(FIRST, f"ROOT %y = {reader}"))
    assert reason in finding.message
    assert finding.advice


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        (
            ["ROOT %y = f32[1024,1024]{1,0} dot(%p, %p), lhs_contracting_dims={1}, "
             "rhs_contracting_dims={0}"],
            "a matrix product",
        ),
        (['ROOT %y = f32[1024,1024]{1,0} custom-call(%p), custom_call_target="k"'],
         "a library call"),
        (["ROOT %y = f32[1024,1024]{1,0} all-reduce(%p), replica_groups={{0,1}}, to_apply=%add"],
         "a collective"),
        (["ROOT %y = f32[1024,1024]{1,0} fusion(%p), kind=kCustom, calls=%f1"], "a library call"),
    ],
)  # fmt: skip
def test_what_no_fusion_joins_is_one_note(run_pass, lines: list[str], reason: str) -> None:
    (finding,) = run_pass("fusion", entry(FIRST, *lines))
    assert finding.severity is Severity.NOTE
    assert reason in finding.message
    assert run_pass("fusion{notes=false}", entry(FIRST, *lines)) == []


def test_a_value_that_has_to_be_written_anyway_is_left_out(run_pass) -> None:
    lines = (
        FIRST,
        "%q = f32[1024,1024]{1,0} fusion(%p), kind=kLoop, calls=%f1",
        "ROOT %y = (f32[1024,1024], f32[1024,1024]) tuple(%p, %q)",
    )
    assert run_pass("fusion{min_bytes=0}", entry(*lines)) == []


def test_zeros_that_start_a_buffer_are_left_out(run_pass) -> None:
    text = entry(
        "%z = f32[] constant(0)",
        "%b = f32[1024,1024]{1,0} broadcast(%z), dimensions={}",
        "ROOT %y = f32[1024,1024]{1,0} fusion(%b), kind=kLoop, calls=%f1",
    )
    assert run_pass("fusion", text) == []


def test_pairs_of_the_same_lines_are_one_finding(run_pass) -> None:
    place = ', metadata={op_name="jit(f)/%s" source_file="model.py" source_line=%d}'
    lines = []
    for number in range(5):
        source = f"%y{number - 1}" if number else "%x"
        lines.append(
            f"%p{number} = f32[1024,1024]{{1,0}} fusion({source}), kind=kLoop, calls=%f1"
            + place % ("neg", 3)
        )
        lines.append(
            f"%y{number} = f32[1024,1024]{{1,0}} fusion(%p{number}), kind=kLoop, calls=%f1"
            + place % ("mul", 4)
        )
    lines[-1] = "ROOT " + lines[-1]
    findings = run_pass("fusion", entry(*lines))
    assert [one.estimate.bytes for one in findings] == [5 * 2 * SIZE, 4 * 2 * SIZE]
    assert "neg at model.py:3 writes f32[1024,1024] that mul at model.py:4" in findings[0].message
    assert len(run_pass("fusion{top=1}", entry(*lines))) == 1


def test_on_a_compiled_training_step(compiled: Path, run_pass) -> None:
    findings = run_pass("fusion", compiled / "checkpointed.hlo")
    assert findings[0].message.startswith("tanh at programs.py:24 writes f32[16,128,256]")
    assert "4 times" in findings[0].message
    assert "several kernels read it" in findings[0].message
    assert len(findings) == 2


def test_a_cut_file_gives_a_note_and_no_kernels(run_pass) -> None:
    text = entry(FIRST, "%y = f32[1024,1024]{1,0} fusion(%p), kind=kLoop, calls=%f1")
    (finding,) = run_pass("fusion", text.rstrip().removesuffix("}"))
    assert "the file is cut" in finding.message
