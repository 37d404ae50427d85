"""REM001 on compiled training steps."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from hlo_lab.cost.memory import memory_profile
from hlo_lab.ir.files import read_module
from hlo_lab.passkit.finding import Severity


def test_a_scan_over_layers_says_what_checkpointing_its_body_saves(compiled, run_pass) -> None:
    findings = run_pass("remat", compiled / "scanned.hlo")
    loop = findings[0]
    assert loop.severity is Severity.WARNING
    assert loop.message.startswith("the loop at programs.py:")
    assert "jax.checkpoint(body" in loop.advice
    # five [4, 16, 128, 256] f32 stacks at least
    assert loop.estimate.bytes > 4 * 4 * 16 * 128 * 256 * 4
    assert loop.estimate.seconds < 0


def test_the_saving_is_close_to_what_checkpointing_gives(compiled: Path, run_pass) -> None:
    promised = run_pass("remat", compiled / "scanned.hlo")[0].estimate.bytes
    kept, left = (
        memory_profile(read_module(compiled / f"{name}.hlo")).peak_bytes
        for name in ("scanned", "checkpointed")
    )
    assert promised == pytest.approx(kept - left, rel=0.25)


OUTPUTS = """HloModule m, is_scheduled=true

%two (a: f32[1024,1024]) -> (f32[1024,1024], f32[1024,1024]) {
  %a = f32[1024,1024] parameter(0)
  %s = f32[1024,1024] sine(%a)
  %c = f32[1024,1024] cosine(%a)
  ROOT %sc = (f32[1024,1024], f32[1024,1024]) tuple(%s, %c)
}

ENTRY %main (x: f32[1024,1024]) -> (f32[1024,1024], f32[1024,1024]) {
  %x = f32[1024,1024] parameter(0)
  %both = (f32[1024,1024], f32[1024,1024]) fusion(%x), kind=kLoop, calls=%two, metadata={op_name="jit(f)/jvp()/sin" source_file="model.py" source_line=2}
  %sin = f32[1024,1024] get-tuple-element(%both), index=0
  %cos = f32[1024,1024] get-tuple-element(%both), index=1
  %y = f32[1024,1024] dot(%sin, %x), lhs_contracting_dims={1}, rhs_contracting_dims={0}, metadata={op_name="jit(f)/jvp()/dot_general"}
  %fetch = (f32[1024,1024], f32[1024,1024], u32[]) copy-start(%cos)
  %done = f32[1024,1024] copy-done(%fetch)
  %g = f32[1024,1024] multiply(%x, %done), metadata={op_name="jit(f)/transpose(jvp())/mul"}
  ROOT %o = (f32[1024,1024], f32[1024,1024]) tuple(%y, %g)
}
"""  # noqa: E501


def test_one_output_of_a_fusion_read_through_an_asynchronous_copy(run_pass) -> None:
    (finding,) = run_pass("remat", OUTPUTS)
    assert finding.message.startswith("sin at model.py:2 makes 1 value of f32[1024,1024]")
    assert finding.estimate.bytes == 1024 * 1024 * 4
    assert finding.where.instruction == "both"


def test_stacked_values_count_every_iteration_and_name_their_line(compiled, run_pass) -> None:
    findings = run_pass("remat", compiled / "scanned.hlo")
    tanh = next(one for one in findings if one.message.startswith("tanh at programs.py:24"))
    assert "4 times" in tanh.message
    assert tanh.estimate.bytes == 4 * 16 * 128 * 256 * 4
    assert tanh.where.source[0].line == 24


def test_the_same_line_of_unrolled_layers_is_one_finding(compiled, run_pass) -> None:
    findings = run_pass("remat", compiled / "unrolled.hlo")
    tanh = [one for one in findings if one.message.startswith("tanh at")]
    assert len(tanh) == 1
    assert "makes 4 values of f32[16,128,256]" in tanh[0].message
    assert tanh[0].estimate.bytes == 4 * 16 * 128 * 256 * 4


def test_a_checkpointed_scan_and_inference_have_no_findings(compiled: Path, run_pass) -> None:
    assert run_pass("remat", compiled / "checkpointed.hlo") == []
    assert run_pass("remat", compiled / "inference.hlo") == []


def test_small_values_are_left_out(compiled, run_pass) -> None:
    assert run_pass("remat{min_bytes=1GiB}", compiled / "unrolled.hlo") == []


def test_lines_beyond_top_are_summed_up(compiled, run_pass) -> None:
    options = "min_bytes=4KiB,min_share=0,warn_share=1"  # notes all, which are not sorted apart
    every = run_pass(f"remat{{{options},top=50}}", compiled / "unrolled.hlo")
    freed = [one.estimate.bytes for one in every]
    assert freed == sorted(freed, reverse=True)
    short = run_pass(f"remat{{{options},top=2}}", compiled / "unrolled.hlo")
    assert [one.message for one in short[:2]] == [one.message for one in every[:2]]
    assert "more source line" in short[-1].message
    assert len(short) == 3
    assert short[-1].estimate.bytes == sum(freed[2:])
    assert short[-1].estimate.seconds == pytest.approx(
        sum(one.estimate.seconds for one in every[2:])
    )


def test_values_that_are_no_part_of_the_peak_are_not_named(compiled, run_pass) -> None:
    every = run_pass("remat{min_bytes=4KiB,min_share=0,top=50}", compiled / "unrolled.hlo")
    share = re.compile(r"\((\d+)% of it\)")
    peak = memory_profile(read_module(compiled / "unrolled.hlo")).peak_bytes
    large = run_pass("remat{min_bytes=4KiB,min_share=0.05,top=50}", compiled / "unrolled.hlo")
    named = [one for one in large if share.search(one.message)]
    assert named == [one for one in every if one.estimate.bytes >= 0.05 * peak]
    assert 0 < len(named) < len(every)


STEP = """HloModule m, is_scheduled=true

ENTRY %main (x: f32[1024,1024], t: f32[1024,1024]) -> (f32[1024,1024], f32[1024,1024]) {{
  %x = f32[1024,1024] parameter(0)
  %t = f32[1024,1024] parameter(1)
  %e = f32[1024,1024] exponential(%x), metadata={{op_name="jit(f)/jvp()/exp"}}
  %b = f32[1024,1024] negate(%t), metadata={{op_name="jit(f)/transpose(jvp())/neg"}}
  {first}
  {second}
  ROOT %o = (f32[1024,1024], f32[1024,1024]) tuple(%p, %r)
}}
"""
_R = '%r = f32[1024,1024] multiply(%b, %e), metadata={op_name="jit(f)/transpose(jvp())/mul"}'
_P = "%p = f32[1024,1024] dot(%t, %t), lhs_contracting_dims={1}, rhs_contracting_dims={0}"


def test_a_value_released_before_the_peak_is_left_out(run_pass) -> None:
    (finding,) = run_pass("remat", STEP.format(first=_P, second=_R))
    assert finding.message.startswith("exp makes 1 value")
    # used up at once, the exponential is gone when the three later buffers are live
    late = (
        STEP.format(first=_R, second=_P)
        .replace("tuple(%p, %r)", "tuple(%p, %s)")
        .replace(
            "  ROOT",
            "  %a = f32[2048,1024] concatenate(%r, %b), dimensions={0}\n"
            "  %c = f32[2048,1024] sine(%a)\n"
            "  %d = f32[2048,1024] cosine(%a)\n"
            "  %q = f32[2048,1024] add(%c, %d)\n"
            "  %s = f32[1024,1024] slice(%q), slice={[0:1024], [0:1024]}\n"
            "  ROOT",
        )
    )
    assert run_pass("remat", late) == []


def test_an_unscheduled_module_gives_notes_only(run_pass) -> None:
    text = STEP.format(first=_P, second=_R).replace(", is_scheduled=true", "")
    findings = run_pass("remat", text)
    assert "not scheduled" in findings[0].message
    assert {one.severity for one in findings} == {Severity.NOTE}
