"""REM001 on compiled training steps."""

from __future__ import annotations

import re
from pathlib import Path
from typing import ClassVar

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


LINES = Path(__file__).with_name("programs.py").read_text().splitlines()
TANH = next(number for number, line in enumerate(LINES, 1) if "jnp.tanh" in line)


def test_what_a_loop_stacks_is_one_finding_with_its_largest_lines(compiled, run_pass) -> None:
    (loop,) = run_pass("remat", compiled / "scanned.hlo")
    stacked = re.search(r"stacks \d+ values, ([\d.]+) MiB", loop.message)
    named = re.findall(r" at programs.py:\d+ ([\d.]+) MiB \(again in ", loop.message)
    assert stacked and len(named) == 2
    assert sum(map(float, named)) <= float(stacked[1])


# JAX keeps gelu's tanh, or products of it alone: its derivative differs between versions.
@pytest.mark.parametrize(
    ("program", "op", "line"), [("kept", "tanh", TANH), ("scanned", "dot_general", 24)]
)
def test_the_lines_of_a_loop_that_is_no_finding_stand_alone(
    compiled, run_pass, program, op, line
) -> None:
    findings = run_pass("remat{warn_share=0.99}", compiled / f"{program}.hlo")
    value = next(one for one in findings if one.message.startswith(f"{op} at programs.py:{line}"))
    assert "makes 1 value of" in value.message
    assert "4 times" in value.message
    assert value.estimate.bytes == 4 * 16 * 128 * 256 * 4
    assert value.where.source[0].line == line


def test_one_more_forward_pass_counts_the_loops_inside_it(run_pass) -> None:
    (flat,), (deep,) = (run_pass("remat", loops(nested)) for nested in (False, True))
    assert deep.estimate.seconds < 3 * flat.estimate.seconds < 0


def test_on_cpu_only_what_a_loop_stacks_is_promised(compiled: Path, run_pass) -> None:
    unrolled = run_pass("remat", compiled / "unrolled.hlo", machine="cpu-reference")
    assert {one.severity for one in unrolled} == {Severity.NOTE}
    assert all(one.estimate.bytes is None for one in unrolled)
    assert "XLA:CPU's scheduler often keeps the peak" in unrolled[0].message
    assert "`hlo-lab diff`" in unrolled[0].advice
    (loop,) = run_pass("remat", compiled / "scanned.hlo", machine="cpu-reference")
    assert loop.severity is Severity.WARNING
    assert loop.estimate.bytes


def test_the_bundle_says_what_a_module_was_compiled_for(compiled: Path, run_pass) -> None:
    class Compiled:
        manifest: ClassVar = {"target": "cpu:8"}

    (first, *_) = run_pass("remat", compiled / "unrolled.hlo", bundle=Compiled())
    assert first.severity is Severity.NOTE


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
    share = re.compile(r"(\d+)% of the peak")
    peak = memory_profile(read_module(compiled / "unrolled.hlo")).peak_bytes
    large = run_pass("remat{min_bytes=4KiB,min_share=0.05,top=50}", compiled / "unrolled.hlo")
    named = [one for one in large if share.search(one.message)]
    assert named == [one for one in every if one.estimate.bytes >= 0.05 * peak]
    assert 0 < len(named) < len(every)


def loops(nested: bool) -> str:
    """A scan that stacks two values per iteration, maybe with a loop of 100 sines inside."""
    inner = """
%turn (s: (s32[], f32[256,256])) -> (s32[], f32[256,256]) {
  %s = (s32[], f32[256,256]) parameter(0)
  %n = s32[] get-tuple-element(%s), index=0
  %v = f32[256,256] get-tuple-element(%s), index=1
  %w = f32[256,256] sine(%v)
  ROOT %t = (s32[], f32[256,256]) tuple(%n, %w)
}

%more (q: (s32[], f32[256,256])) -> pred[] {
  %q = (s32[], f32[256,256]) parameter(0)
  ROOT %yes = pred[] constant(true)
}
"""
    call = """  %start = (s32[], f32[256,256]) tuple(%i, %c)
  %spun = (s32[], f32[256,256]) while(%start), condition=%more, body=%turn, KNOWN
  %x = f32[256,256] get-tuple-element(%spun), index=1
""".replace("KNOWN", 'backend_config={"known_trip_count":{"n":"100"}}')
    name = 'metadata={op_name="jit(f)/jvp()/while/body/%s" source_file="m.py" source_line=%d}'
    return f"""HloModule m, is_scheduled=true
{inner if nested else ""}
%body (p: (s32[], f32[256,256], f32[64,256,256], f32[64,256,256])) -> (s32[], f32[256,256], f32[64,256,256], f32[64,256,256]) {{
  %p = (s32[], f32[256,256], f32[64,256,256], f32[64,256,256]) parameter(0)
  %i = s32[] get-tuple-element(%p), index=0
  %c = f32[256,256] get-tuple-element(%p), index=1
{call if nested else "  %x = f32[256,256] negate(%c)"}
  %one = s32[] constant(1)
  %next = s32[] add(%i, %one)
  %zero = s32[] constant(0)
  %e = f32[256,256] exponential(%x), {name % ("exp", 3)}
  %h = f32[256,256] tanh(%x), {name % ("tanh", 4)}
  %er = f32[1,256,256] reshape(%e)
  %hr = f32[1,256,256] reshape(%h)
  %a = f32[64,256,256] get-tuple-element(%p), index=2
  %b = f32[64,256,256] get-tuple-element(%p), index=3
  %au = f32[64,256,256] dynamic-update-slice(%a, %er, %i, %zero, %zero)
  %bu = f32[64,256,256] dynamic-update-slice(%b, %hr, %i, %zero, %zero)
  ROOT %r = (s32[], f32[256,256], f32[64,256,256], f32[64,256,256]) tuple(%next, %h, %au, %bu)
}}

%cond (q: (s32[], f32[256,256], f32[64,256,256], f32[64,256,256])) -> pred[] {{
  %q = (s32[], f32[256,256], f32[64,256,256], f32[64,256,256]) parameter(0)
  %k = s32[] get-tuple-element(%q), index=0
  %limit = s32[] constant(64)
  ROOT %lt = pred[] compare(%k, %limit), direction=LT
}}

ENTRY %main (c0: f32[256,256]) -> f32[64,256,256] {{
  %c0 = f32[256,256] parameter(0)
  %i0 = s32[] constant(0)
  %z = f32[] constant(0)
  %a0 = f32[64,256,256] broadcast(%z), dimensions={{}}
  %b0 = f32[64,256,256] broadcast(%z), dimensions={{}}
  %t0 = (s32[], f32[256,256], f32[64,256,256], f32[64,256,256]) tuple(%i0, %c0, %a0, %b0)
  %loop = (s32[], f32[256,256], f32[64,256,256], f32[64,256,256]) while(%t0), condition=%cond, body=%body, metadata={{op_name="jit(f)/jvp()/while" source_file="m.py" source_line=9}}
  %as = f32[64,256,256] get-tuple-element(%loop), index=2
  %bs = f32[64,256,256] get-tuple-element(%loop), index=3
  ROOT %g = f32[64,256,256] multiply(%as, %bs), metadata={{op_name="jit(f)/transpose(jvp())/mul"}}
}}
"""  # noqa: E501


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
