from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from hlo_lab.cost.callgraph import callees_first
from hlo_lab.cost.counts import counts
from hlo_lab.cost.kernels_cpu import PARTS, kernel_times, together
from hlo_lab.cost.kernels_cpu_move import Caches, moved
from hlo_lab.cost.kernels_cpu_units import UNITS
from hlo_lab.cost.kernels_cpu_work import work
from hlo_lab.cost.machines import Machine, load
from hlo_lab.cost.roofline import BOUNDS, roofline
from hlo_lab.ir.shapes import Shape
from hlo_lab.ir.text import read_text

REFERENCE = load("cpu-reference")
CACHES = Caches.of(REFERENCE)


def seconds(text: str, machine: Machine = REFERENCE, name: str = "root") -> float:
    module = read_text(text)
    times = kernel_times(module, machine, counts(module, callees_first(module)))
    return float(times.seconds[module.instruction(name).index])


def units(text: str, name: str = "root") -> dict[str, float]:
    module = read_text(text)
    done = work(module, REFERENCE, counts(module, callees_first(module)))
    row = done[module.instruction(name).index]
    return {UNITS[at]: float(row[at]) for at in np.nonzero(row)[0]}


def entry(line: str, *parameters: str) -> str:
    made = "\n".join(f"  p{n} = {shape} parameter({n})" for n, shape in enumerate(parameters))
    return f"HloModule m, is_scheduled=true\n\nENTRY e {{\n{made}\n  ROOT root = {line}\n}}\n"


def fused(body: str, shape: str, *parameters: str, config: str = "") -> str:
    made = "\n".join(f"  q{n} = {one} parameter({n})" for n, one in enumerate(parameters))
    names = ", ".join(f"p{n}" for n in range(len(parameters)))
    call = f"{shape} fusion({names}), kind=kLoop, calls=f{config}"
    return entry(call, *parameters).replace("ENTRY", f"f {{\n{made}\n{body}\n}}\n\nENTRY", 1)


LIBRARY = ', backend_config={"fusion_config":{"kind":"__ynn_fusion"}}'


def dot(m: int, k: int, n: int, dtype: str = "f32") -> str:
    line = "dot(p0, p1), lhs_contracting_dims={1}, rhs_contracting_dims={0}"
    return entry(f"{dtype}[{m},{n}] {line}", f"{dtype}[{m},{k}]", f"{dtype}[{k},{n}]")


def test_every_unit_has_a_rate_on_the_reference_machine() -> None:
    assert set(REFERENCE.rates) == set(UNITS)


@pytest.mark.parametrize(
    "make",
    [
        lambda n: dot(n, 64, 64),
        lambda n: dot(64, n, 64),
        lambda n: dot(1, n, 300),
        lambda n: entry(f"f32[{n},64] add(p0, p1)", *[f"f32[{n},64]"] * 2),
        lambda n: entry(f"f32[{n},64] exponential(p0)", f"f32[{n},64]"),
        lambda n: entry(f"f32[64,{n}] transpose(p0), dimensions={{1,0}}", f"f32[{n},64]"),
        lambda n: entry(f"f32[{n},64]{{0,1}} copy(p0)", f"f32[{n},64]{{1,0}}"),
        lambda n: entry(f"f32[{n}] sort(p0), dimensions={{0}}, to_apply=less", f"f32[{n}]"),
        lambda n: entry(f"f32[{n},8] slice(p0), slice={{[0:{n}], [0:8]}}", f"f32[{n},64]"),
    ],
)
def test_more_work_is_never_faster(make: object) -> None:
    less = "less {\n  a = f32[] parameter(0)\n  b = f32[] parameter(1)\n"
    less += "  ROOT c = pred[] compare(a, b), direction=LT\n}\n\nENTRY"
    times = [
        seconds(make(size).replace("ENTRY", less, 1))  # type: ignore[operator]
        for size in (2, 8, 16, 64, 256, 1024, 4096, 16384, 65536)
    ]
    assert times == sorted(times) and times[0] > 0 and times[-1] > 5 * times[0]


def test_rates_alone_decide() -> None:
    text = dot(512, 512, 512)
    half = {name: rate / 2 for name, rate in REFERENCE.rates.items()}
    faster = dataclasses.replace(REFERENCE, rates=half)
    assert seconds(text, faster) == pytest.approx(seconds(text) / 2)


def test_a_machine_without_rates_keeps_the_roofline() -> None:
    module = read_text(dot(64, 64, 64))
    counted = counts(module, callees_first(module))
    plain = dataclasses.replace(REFERENCE, rates={})
    found = kernel_times(module, plain, counted).seconds
    assert found == pytest.approx(roofline(plain, counted).seconds)


def test_a_fusion_is_one_kernel_with_the_work_of_its_body() -> None:
    body = "  t = f32[4096] tanh(q0)\n  ROOT s = f32[4096] add(t, q0)"
    found = units(fused(body, "f32[4096]", "f32[4096]"))
    assert found["loop.tanh"] == 4096 and found["loop.cheap"] == 4096
    assert found["kernel.launch"] == 1 and "kernel.library" not in found
    # nothing is left on the body's own rows
    assert "loop.tanh" not in units(fused(body, "f32[4096]", "f32[4096]"), "t")


def test_the_library_has_rates_of_its_own() -> None:
    body = "  ROOT d = f32[64,64] dot(q0, q1), lhs_contracting_dims={1}, rhs_contracting_dims={0}"
    text = fused(body, "f32[64,64]", *["f32[64,64]"] * 2, config=LIBRARY)
    found = units(text)
    assert found["dot.flop"] == 2 * 64**3 and found["kernel.library"] == 1
    assert units(dot(64, 64, 64))["dot.plain_flop"] == 2 * 64**3


def test_rows_that_do_not_fill_a_register_are_padded() -> None:
    body = "  ROOT d = f32[64,17] dot(q0, q1), lhs_contracting_dims={1}, rhs_contracting_dims={0}"
    text = fused(body, "f32[64,17]", "f32[64,64]", "f32[64,17]", config=LIBRARY)
    assert units(text)["dot.padded_flop"] == 2 * 64 * 64 * (32 - 17)


def test_a_vector_streams_its_matrix() -> None:
    found = units(dot(1, 2048, 2048))
    assert found["vector.column"] == 2048**2 and "dot.plain_flop" not in found
    assert found["bytes.read_1"] > 2048**2 and "bytes.read_1" not in units(dot(1, 64, 64))
    assert units(dot(2048, 2048, 1))["vector.element"] == 2048**2
    assert units(dot(1, 2048, 2))["vector.narrow"] == 2 * 2048


def order(dims: tuple[int, ...], layout: str) -> Shape:
    return Shape.parse(f"f32[{','.join(map(str, dims))}]{{{layout}}}")


def test_moves_by_the_run_that_stays_together() -> None:
    assert moved(order((8, 64), "1,0"), order((8, 64), "1,0"), (0, 1), CACHES) == {}
    rows = moved(order((8, 64, 32), "2,1,0"), order((64, 8, 32), "2,1,0"), (1, 0, 2), CACHES)
    assert rows == {"move.run": 8 * 64}
    across = moved(order((64, 64), "1,0"), order((64, 64), "1,0"), (1, 0), CACHES)
    assert across == {"move.element": 4096}
    # the same change, told by the layout instead of the dimensions
    assert moved(order((64, 64), "1,0"), order((64, 64), "0,1"), (0, 1), CACHES) == across


def test_a_power_of_two_between_lines_misses_the_cache_sooner() -> None:
    def beyond(columns: int) -> bool:
        source, result = order((256, columns), "1,0"), order((columns, 256), "1,0")
        return "move.fused_beyond_0" in moved(source, result, (1, 0), CACHES)

    assert beyond(1024) and not beyond(1040)


def test_what_others_pushed_out_comes_from_further_away() -> None:
    lines = [f"  a{n} = f32[500000] negate(p{n})" for n in (1, 2)]
    text = entry("f32[1000] add(p0, p0)", "f32[1000]", *["f32[500000]"] * 2)
    first = "  early = f32[1000] negate(p0)\n"
    apart = text.replace("  ROOT", first + "\n".join(lines) + "\n  ROOT")
    beside = text.replace("  ROOT", "\n".join(lines) + "\n" + first + "  ROOT")
    assert units(apart)["bytes.read_1"] > 0
    assert "bytes.read_1" not in units(beside)
    assert seconds(apart) > seconds(beside)


def test_a_part_that_was_written_does_not_bring_the_whole() -> None:
    body = "  c = s32[] constant(0)\n  other = f32[900000] negate(p2)\n"
    body += (
        "  kept = f32[90000] dynamic-update-slice(p0, p1, c)\n  ROOT root = f32[90000] negate(kept)"
    )
    text = entry("f32[90000] negate(p0)", "f32[90000]", "f32[8]", "f32[900000]")
    text = text.replace("  ROOT root = f32[90000] negate(p0)", body)
    assert units(text)["bytes.read_1"] == 4 * 90000
    assert "bytes.read_1" not in units(text.replace("f32[8]", "f32[90000]"))


def test_a_result_in_the_place_of_an_operand_touches_less() -> None:
    def last(line: str) -> dict[str, float]:
        first = "  a = f32[300000] fusion(p0), kind=kLoop, calls=g\n"
        text = entry(line, "f32[300000]").replace("  ROOT", first + "  ROOT")
        body = "g {\n  q = f32[300000] parameter(0)\n  ROOT n = f32[300000] negate(q)\n}\n\nENTRY"
        return units(text.replace("ENTRY", body, 1))

    beside = last("f32[300000] fusion(p0), kind=kLoop, calls=g")
    inside = last("f32[300000] fusion(a), kind=kLoop, calls=g")
    assert beside["bytes.written_1"] > 0 and "bytes.written_1" not in inside


def test_a_change_of_order_with_other_work_is_element_by_element() -> None:
    mere = units(fused("  ROOT t = f32[64,64]{0,1} copy(q0)", "f32[64,64]{0,1}", "f32[64,64]"))
    assert mere["move.element"] == 4096 and "move.fused" not in mere
    two = "  s = f32[64,64] add(q0, q1)\n  ROOT t = f32[64,64]{0,1} copy(s)"
    many = units(fused(two, "f32[64,64]{0,1}", *["f32[64,64]"] * 2))
    assert many["move.fused"] == 4096 and "move.element" not in many
    made = "  i = f32[64,64] iota(), iota_dimension=0\n  ROOT t = f32[64,64]{0,1} copy(i)"
    assert not any(name.startswith("move.") for name in units(fused(made, "f32[64,64]{0,1}")))


def test_rows_of_a_table_lie_as_far_as_the_table_is_large() -> None:
    def rows(table: int) -> dict[str, float]:
        line = "f32[64,64] gather(p0, p1), offset_dims={1}, collapsed_slice_dims={0}, "
        line += "start_index_map={0}, index_vector_dim=1, slice_sizes={1,64}"
        return units(entry(line, f"f32[{table},64]", "s32[64,1]"))

    near, far = rows(100), rows(1 << 20)
    assert near["row.gather"] == far["row.gather"] == 64
    assert far["row.gather_2"] == pytest.approx(64, rel=0.05)
    assert "row.gather_1" not in near and far["row.line"] > 64 * 4


def test_rows_that_are_read_again_lie_no_further_than_their_table() -> None:
    def far(rows: int) -> float:
        line = f"f32[{rows},64] gather(p0, p1), offset_dims={{1}}, collapsed_slice_dims={{0}}, "
        line += "start_index_map={0}, index_vector_dim=1, slice_sizes={1,64}"
        found = units(entry(line, "f32[20000,64]", f"s32[{rows},1]"))
        return found.get("row.gather_2", 0.0) / rows

    assert far(400_000) < 0.1 < far(40_000)


def test_odd_features_with_few_outputs_are_no_vectors() -> None:
    def odd(inputs: int, outputs: int) -> bool:
        body = f"  ROOT c = f32[4,16,16,{outputs}] convolution(q0, q1), "
        body += "window={size=3x3 pad=1_1x1_1}, dim_labels=b01f_01io->b01f"
        image, kernel = f"f32[4,16,16,{inputs}]", f"f32[3,3,{inputs},{outputs}]"
        text = fused(body, f"f32[4,16,16,{outputs}]", image, kernel, config=LIBRARY)
        return "convolution.odd" in units(text)

    assert odd(3, 32) and not odd(3, 64) and not odd(4, 32) and not odd(1, 32)


def test_roots_of_what_a_constant_was_added_to_are_vectors() -> None:
    plain = units(fused("  ROOT r = f32[4096] rsqrt(q0)", "f32[4096]", "f32[4096]"))
    assert plain["loop.rsqrt"] == 4096
    body = "  c = f32[] constant(1)\n  b = f32[4096] broadcast(c), dimensions={}\n"
    body += "  s = f32[4096] add(q0, b)\n  ROOT r = f32[4096] rsqrt(s)"
    fast = units(fused(body, "f32[4096]", "f32[4096]"))
    assert fast["loop.rsqrt_fast"] == 4096 and "loop.rsqrt" not in fast


def test_a_loop_that_is_one_kernel_starts_once() -> None:
    body = "g {\n  q = f32[4] parameter(0)\n  ROOT n = f32[4] negate(q)\n}\n\nENTRY"
    called = entry("f32[4] call(p0), to_apply=g", "f32[4]").replace("ENTRY", body, 1)
    small = 'to_apply=g, frontend_attributes={xla_cpu_small_call="true"}'
    assert units(called, "n")["kernel.launch"] == 1
    inlined = units(called.replace("to_apply=g", small), "n")
    assert inlined["kernel.inlined"] == 1 and "kernel.launch" not in inlined


def test_computing_and_moving_go_on_together() -> None:
    spent = np.zeros((3, len(UNITS)))
    spent[:, UNITS.index("kernel.launch")] = 1
    spent[:2, UNITS.index("dot.flop")] = 8
    spent[1:, UNITS.index("bytes.near")] = 8
    alone, both, moving = together(spent, PARTS)[0]
    assert alone == moving == 9 and 9 < both < 13
    # as much more as the units' slopes say
    more = spent * 1.001
    slopes = together(spent, PARTS)[1]
    assert together(more, PARTS)[0] - (alone, both, moving) == pytest.approx(
        ((more - spent) * slopes).sum(1), rel=1e-2
    )


def test_malformed_instructions_cost_their_bytes() -> None:
    text = entry("f32[64,64] dot(p0), lhs_contracting_dims={7}", "f32[64,64]")
    assert math.isfinite(seconds(text)) and seconds(text) > 0


def test_bounds_and_errors() -> None:
    module = read_text(dot(512, 512, 512))
    machine = dataclasses.replace(REFERENCE, errors={"dot": 0.25})
    times = kernel_times(module, machine, counts(module, callees_first(module)))
    at = module.instruction("root").index
    assert BOUNDS[times.bound_index[at]] == "compute" and times.error[at] == 0.25
    module = read_text(entry("f32[4000000] negate(p0)", "f32[4000000]"))
    times = kernel_times(module, machine, counts(module, callees_first(module)))
    at = module.instruction("root").index
    assert BOUNDS[times.bound_index[at]] == "memory" and math.isnan(times.error[at])
