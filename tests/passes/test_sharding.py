"""SHD001 on programs compiled for eight devices, and on text where a layout is the point."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from hlo_lab.passkit.finding import Severity


def kinds(findings) -> set[str]:
    return {one.message.split(":")[0] for one in findings if one.severity is Severity.NOTE}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("dp", {"gradient reduction", "partial sum, forward"}),
        ("fsdp", {"gradient reduction", "partial sum, forward", "parameter gather"}),
        ("tp", {"gradient reduction", "partial sum, forward", "partial sum, backward"}),
        ("explicit", {"explicit"}),
    ],
)
def test_usual_layouts_have_no_reshards(compiled: Path, run_pass, name, expected) -> None:
    findings = run_pass("sharding", compiled / f"{name}.hlo")
    assert kinds(findings) == expected
    assert {one.severity for one in findings} == {Severity.NOTE}


def test_a_wrong_layer_is_named_with_both_lines_and_its_weight(compiled: Path, run_pass) -> None:
    findings = run_pass("sharding", compiled / "wrong.hlo")
    worst = findings[0]
    assert worst.severity is Severity.WARNING
    assert "all-gather" in worst.message
    assert "result of mul at programs.py:24 for dot_general at programs.py:25" in worst.message
    assert "params[0]['w2'] split 4 ways on dimension 1" in worst.message
    assert "over 4 devices" in worst.message
    places = re.search(r" in (\d+) messages \((\d) places\)", worst.message)
    assert places and int(places[1]) == 3 * int(places[2]), "a ring of 4 sends 3 each"
    assert worst.where.source[0].line == 25
    assert worst.estimate.machine == "tpu-v5e"
    # 4 x 128 x 256 f32, of which each of 4 devices sends its quarter 3 times
    assert worst.estimate.bytes % (4 * 128 * 256 * 4 // 4 * 3) == 0


def test_what_bounds_a_reshard_is_said_where_it_is_not_the_bytes_sent(run_pass) -> None:
    text = LOOP.format(gathered="%h")
    (small,) = run_pass("sharding", text)
    # 4 KiB at 100 GB/s take 0.04 us, each message waits 1 us
    assert small.message.endswith("in 24 messages, bound by latency")
    (large,) = run_pass("sharding", text.replace(",64]", ",65536]").replace("[0:64]", "[0:65536]"))
    assert large.message.endswith("in 24 messages")


def test_the_data_gathered_from_a_parameter_is_fsdp(compiled: Path, run_pass) -> None:
    findings = run_pass("sharding", compiled / "fsdp.hlo")
    gather = next(one for one in findings if one.message.startswith("parameter gather"))
    assert "params[0]['w1'] split 8 ways on dimension 0" in gather.message
    assert "4 values" in gather.message


GATHERED = """HloModule m, is_scheduled=true, num_partitions=8{header}

ENTRY %main (x: f32[8,4], w: f32[8,4]) -> f32[{result}] {{
  %x = f32[8,4]{{1,0}} parameter(0), metadata={{op_name="x"}}
  %w = f32[8,4]{{1,0}} parameter(1){sharding}, metadata={{op_name="w"}}
  %g = f32[{result}] all-gather(%w), channel_id=1, replica_groups={groups}, dimensions={{{along}}}, use_global_device_ids=true, metadata={{op_name="w"}}
  ROOT %d = f32[{result}] negate(%g), metadata={{op_name="jit(f)/neg"}}
}}
"""  # noqa: E501
_MESH = "mesh['a'=2,'b'=4]"
_ROWS = "w split 2 ways on dimension 0"


@pytest.mark.parametrize(
    ("sharding", "said"),
    [
        ("{devices=[2,1,4]<=[8] last_tile_dim_replicate}", _ROWS),
        ("{devices=[2,4]<=[8]}", f"{_ROWS} and 4 ways on dimension 1"),
        ("{devices=[1,1,8]<=[8] last_tile_dim_replicate}", "w held whole"),
        ("{replicated}", "w held whole"),
        (f"{{{_MESH}, [{{'a'}}, {{}}]}}", _ROWS),
        (f"{{{_MESH}, [{{'a', ?}}, {{'b'}}], replicated={{'b'}}}}", f"{_ROWS} and 4 ways on"),
        (f"{{{_MESH}, device_ids=([4,2]T(1,0)), [{{}}, {{'a','b'}}]}}", "w split 8 ways on"),
        (f"{{{_MESH}, [{{'b':(1)2}}, {{}}]}}", _ROWS),
        (f"{{{_MESH}, [{{}}, {{}}]}}", "w held whole"),
        (f"{{{_MESH}, replicated}}", "w held whole"),
    ],
)
@pytest.mark.parametrize("place", ["parameter", "header"])
def test_a_parameter_is_said_to_be_split_as_its_sharding_tells(
    run_pass, sharding, said, place
) -> None:
    text = GATHERED.format(
        header=f", spmd_parameters_shardings={{{{replicated}},{sharding}}}"
        if place == "header"
        else "",
        sharding=f", sharding={sharding}" if place == "parameter" else "",
        result="16,4", groups="[4,2]<=[8]", along=0,
    )  # fmt: skip
    (finding,) = run_pass("sharding", text)
    assert f"the largest is {said}" in finding.message


def test_without_a_sharding_the_gather_tells_how_a_parameter_is_split(run_pass) -> None:
    text = GATHERED.format(
        header="", sharding="", result="8,16", groups="[2,4]<=[8]", along=1
    )  # fmt: skip
    (finding,) = run_pass("sharding", text)
    assert finding.message.endswith("the largest is w split 4 ways on dimension 1")


NAMED_AFTER_PRODUCER = """HloModule m, is_scheduled=true, num_partitions=4

ENTRY %main (x: f32[64,256], w: f32[1024,64]) -> f32[64,64] {
  %x = f32[64,256]{1,0} parameter(0), metadata={op_name="x"}
  %w = f32[1024,64]{1,0} parameter(1), metadata={op_name="w"}
  %h = f32[64,256]{1,0} reverse(%x), dimensions={0}, metadata={op_name="jit(f)/rev" source_file="model.py" source_line=3}
  %g = f32[64,1024]{1,0} all-gather(%h), channel_id=1, replica_groups={{0,1,2,3}}, dimensions={1}, use_global_device_ids=true, frontend_attributes={is_spmd_generated="true"}, metadata={op_name="jit(f)/rev" source_file="model.py" source_line=3}
  %c = f32[64,1024]{0,1} copy(%g), metadata={op_name="jit(f)/rev" source_file="model.py" source_line=3}
  ROOT %d = f32[64,64]{1,0} dot(%c, %w), lhs_contracting_dims={1}, rhs_contracting_dims={0}, metadata={op_name="jit(f)/dot_general" source_file="model.py" source_line=4}
}
"""  # noqa: E501


def test_a_collective_named_after_its_producer_is_for_what_reads_it(run_pass) -> None:
    (finding,) = run_pass("sharding", NAMED_AFTER_PRODUCER)
    assert "reshards the result of rev at model.py:3 for dot_general at model.py:4" in (
        finding.message
    )
    assert (finding.where.instruction, finding.where.source[0].line) == ("g", 4)
    (halo,) = run_pass(
        "sharding", MESH.replace("METADATA", "sin")
        .replace("sine(%n)", 'sine(%n), metadata={op_name="jit(f)/sin"}')
        .replace("negate(%p)", 'negate(%p), metadata={op_name="jit(f)/conv_general_dilated"}'),
    )  # fmt: skip
    assert halo.message.startswith("halo exchange")


def test_small_reshards_are_summed_up(compiled: Path, run_pass) -> None:
    findings = run_pass("sharding{min_bytes=1GiB}", compiled / "wrong.hlo")
    assert not [one for one in findings if one.severity is Severity.WARNING]
    assert "reshard" in kinds(findings)


def test_notes_can_be_left_out(compiled: Path, run_pass) -> None:
    assert run_pass("sharding{notes=false}", compiled / "dp.hlo") == []


LOOP = """HloModule m, is_scheduled=true, num_partitions=4

%body (c: (s32[], f32[64,64], f32[8,16,64])) -> (s32[], f32[64,64], f32[8,16,64]) {{
  %c = (s32[], f32[64,64], f32[8,16,64]) parameter(0)
  %i = s32[] get-tuple-element(%c), index=0
  %x = f32[64,64] get-tuple-element(%c), index=1
  %ws = f32[8,16,64] get-tuple-element(%c), index=2
  %one = s32[] constant(1)
  %zero = s32[] constant(0)
  %n = s32[] add(%i, %one)
  %w = f32[1,16,64] dynamic-slice(%ws, %i, %zero, %zero), dynamic_slice_sizes={{1,16,64}}
  %s = f32[16,64] reshape(%w)
  %h = f32[16,64] slice(%x), slice={{[0:16], [0:64]}}
  %g = f32[64,64] all-gather({gathered}), channel_id=1, replica_groups=[1,4]<=[4], dimensions={{0}}, use_global_device_ids=true, metadata={{op_name="jit(f)/while/body/dot_general"}}
  %y = f32[64,64] dot(%x, %g), lhs_contracting_dims={{1}}, rhs_contracting_dims={{0}}
  ROOT %t = (s32[], f32[64,64], f32[8,16,64]) tuple(%n, %y, %ws)
}}

%cond (d: (s32[], f32[64,64], f32[8,16,64])) -> pred[] {{
  %d = (s32[], f32[64,64], f32[8,16,64]) parameter(0)
  %j = s32[] get-tuple-element(%d), index=0
  %e = s32[] constant(8)
  ROOT %l = pred[] compare(%j, %e), direction=LT
}}

ENTRY %main (a: f32[64,64], b: f32[8,16,64]) -> f32[64,64] {{
  %a = f32[64,64] parameter(0), metadata={{op_name="x"}}
  %b = f32[8,16,64] parameter(1), metadata={{op_name="ws"}}
  %z = s32[] constant(0)
  %in = (s32[], f32[64,64], f32[8,16,64]) tuple(%z, %a, %b)
  %loop = (s32[], f32[64,64], f32[8,16,64]) while(%in), condition=%cond, body=%body
  ROOT %r = f32[64,64] get-tuple-element(%loop), index=1
}}
"""  # noqa: E501


def test_a_stacked_parameter_sliced_in_a_loop_is_a_parameter(run_pass) -> None:
    (finding,) = run_pass("sharding", LOOP.format(gathered="%s"))
    assert finding.message.startswith("parameter gather: 1 value in all-gather, up to 8 times")
    assert "the largest is ws" in finding.message


def test_an_activation_carried_by_a_loop_is_a_reshard(run_pass) -> None:
    (finding,) = run_pass("sharding", LOOP.format(gathered="%h"))
    assert finding.severity is Severity.WARNING
    assert "in 24 messages" in finding.message, "8 runs in a ring of 4"
    assert finding.estimate.bytes == 8 * 3 * 16 * 64 * 4


MESH = """HloModule m, is_scheduled=true, num_partitions=8

ENTRY %main (x: f32[4096]) -> f32[4096] {
  %x = f32[4096] parameter(0)
  %n = f32[4096] negate(%x)
  %s = f32[4096] sine(%n)
  %p = f32[4096] collective-permute(%s), channel_id=1, source_target_pairs={{0,1},{1,0}}, metadata={op_name="jit(f)/METADATA"}
  ROOT %y = f32[4096] negate(%p)
}
"""  # noqa: E501


def test_the_halo_of_a_convolution_is_no_reshard(run_pass) -> None:
    (finding,) = run_pass("sharding", MESH.replace("METADATA", "conv_general_dilated"))
    assert finding.message.startswith("halo exchange")
    (finding,) = run_pass("sharding{min_bytes=1}", MESH.replace("METADATA", "concatenate"))
    assert finding.severity is Severity.WARNING


def test_a_move_of_one_ops_result_is_said_as_such(run_pass) -> None:
    text = MESH.replace("METADATA", "sin").replace(
        "sine(%n)", 'sine(%n), metadata={op_name="jit(f)/sin"}'
    )
    (finding,) = run_pass("sharding{min_bytes=1}", text)
    assert "over 2 devices moves the result of sin into another layout" in finding.message


def test_the_devices_of_a_mesh_in_another_order(run_pass) -> None:
    groups = "replica_groups=mesh['a'=1,'b'=4,'c'=2], device_ids=([2,4]T(1,0)) {'b'}"
    text = _all_to_all(groups, named=True)
    (finding,) = run_pass("sharding{min_bytes=1}", text)
    assert "over 4 devices" in finding.message
    assert finding.estimate.bytes == 2 * 512 * 4 * 3 // 4  # both operands, all but its own quarter
    assert "runs" not in finding.message


def test_an_all_to_all_may_be_dispatch_where_nothing_has_a_name(run_pass) -> None:
    groups = "replica_groups=[2,4]<=[8]"
    (finding,) = run_pass("sharding{min_bytes=1}", _all_to_all(groups, named=False))
    assert finding.severity is Severity.NOTE
    assert finding.message.startswith(
        "all-to-all (expert dispatch or reshard: the module carries no op_names) of f32[512] "
        "over 4 devices between sine and negate: 3.0 KiB sent"
    )
    assert finding.estimate.bytes is None
    (finding,) = run_pass("sharding{min_bytes=1}", _all_to_all(groups, named=True))
    assert finding.severity is Severity.WARNING


def _all_to_all(groups: str, *, named: bool) -> str:
    metadata = ', metadata={op_name="x"}' if named else ""
    return f"""HloModule m, is_scheduled=true, num_partitions=8

ENTRY %main (x: f32[512]) -> (f32[512], f32[512]) {{
  %x = f32[512] parameter(0){metadata}
  %s = f32[512] sine(%x)
  %c = f32[512] sine(%x)
  %a = (f32[512], f32[512]) all-to-all(%s, %c), channel_id=1, {groups}
  %l = f32[512] get-tuple-element(%a), index=0
  %r = f32[512] get-tuple-element(%a), index=1
  %m = f32[512] negate(%l)
  %n = f32[512] negate(%r)
  ROOT %t = (f32[512], f32[512]) tuple(%m, %n)
}}
"""


def test_a_module_before_partitioning_says_so(run_pass) -> None:
    text = """HloModule m, num_partitions=4

ENTRY %main (x: f32[64]) -> f32[64] {
  %x = f32[64] parameter(0), sharding={devices=[4]<=[4]}
  ROOT %y = f32[64] negate(%x)
}
"""
    (finding,) = run_pass("sharding", text)
    assert "before partitioning" in finding.message
