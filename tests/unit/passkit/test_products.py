"""Matrix products in the forms that compilers leave them in."""

from __future__ import annotations

import pytest

from hlo_lab.cost.machines import load
from hlo_lab.ir.text import read_text
from hlo_lab.passkit.patterns import Flow
from hlo_lab.passkit.products import batched_seconds, products

TEXT = """HloModule m

%add (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %s = f32[] add(%a, %b)
}

ENTRY %main (x: f32[4,8,16], y: f32[4,16,32], p: f32[8,16], q: f32[16,32], v: f32[16], flat: f32[16,32,1], long: f32[4,8,32], pair: f32[2,16,32]) -> f32[32] {
  %x = f32[4,8,16] parameter(0)
  %y = f32[4,16,32] parameter(1)
  %p = f32[8,16] parameter(2)
  %q = f32[16,32] parameter(3)
  %v = f32[16] parameter(4)
  %flat = f32[16,32,1] parameter(5)
  %long = f32[4,8,32] parameter(6)
  %pair = f32[2,16,32] parameter(7)
  %dot = f32[4,8,32] dot(%x, %y), lhs_batch_dims={0}, lhs_contracting_dims={2}, rhs_batch_dims={0}, rhs_contracting_dims={1}
  %conv = f32[8,32] convolution(%p, %q), dim_labels=bf_io->bf
  %many = f32[4,8,32] convolution(%x, %y), window={size=4 stride=3 lhs_dilate=4}, dim_labels=0bf_0io->0bf
  %vb = f32[16,32] broadcast(%v), dimensions={0}
  %vq = f32[16,32] multiply(%vb, %q)
  %zero = f32[] constant(0)
  %sum = f32[32] reduce(%vq, %zero), dimensions={0}, to_apply=%add, metadata={op_name="jit(f)/reduce_sum"}
  %rows = f32[4,8,32] convolution(%x, %flat), window={size=1}, dim_labels=0bf_io0->0bf
  %deep = f32[16,32,1] convolution(%x, %long), window={size=4}, dim_labels=0fb_0io->bf0
  %true = f32[4,8,32] convolution(%x, %pair), window={size=2 pad=0_1}, dim_labels=0bf_0io->0bf
  ROOT %vec = f32[32] reduce(%vq, %zero), dimensions={0}, to_apply=%add, metadata={op_name="jit(f)/dot_general"}
}
"""  # noqa: E501


def test_sizes_of_a_dot_a_convolution_and_a_vector_product() -> None:
    module = read_text(TEXT.splitlines(keepends=True))
    found = {module.instruction_names[one.at]: one for one in products(module, Flow(module))}
    sizes = {n: (one.batch, one.rows, one.depth, one.columns) for n, one in found.items()}
    assert sizes == {
        "dot": (4, 8, 16, 32),
        "many": (4, 8, 16, 32),
        "conv": (1, 8, 16, 32),
        "rows": (1, 32, 16, 32),
        "deep": (1, 16, 32, 32),
        "vec": (1, 1, 16, 32),
    }
    vector = found["vec"]
    assert module.instruction_names[vector.left] == "v"
    assert module.instruction_names[vector.right] == "q"
    assert (vector.turned.rows, vector.turned.columns) == (32, 1)
    assert vector.turned.flops == vector.flops == 2 * 16 * 32


SPLIT = """HloModule m

%add (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %s = f32[] add(%a, %b)
}

%gemm (x: f32[8,4,16], y: f32[4,16,32]) -> f32[4,8,32] {
  %x = f32[8,4,16] parameter(0)
  %y = f32[4,16,32] parameter(1)
  ROOT %dot = f32[4,8,32] dot(%x, %y), lhs_batch_dims={1}, lhs_contracting_dims={2}, rhs_batch_dims={0}, rhs_contracting_dims={1}, metadata={op_name="jit(f)/dot_general"}
}

ENTRY %main (x: f32[8,4,16], y: f32[4,16,32]) -> f32[8,32] {
  %x = f32[8,4,16] parameter(0)
  %y = f32[4,16,32] parameter(1)
  %parts = f32[4,8,32] fusion(%x, %y), kind=kCustom, calls=%gemm
  %zero = f32[] constant(0)
  ROOT %sum = f32[8,32] reduce(%parts, %zero), dimensions={0}, to_apply=%add, metadata={op_name="jit(f)/SUM"}
}
"""  # noqa: E501


@pytest.mark.parametrize(
    ("name", "sizes"),
    [("dot_general", (1, 8, 64, 32)), ("reduce_sum", (4, 8, 16, 32))],
    ids=["of the compiler", "of the program"],
)
def test_parts_of_the_depth_that_are_summed(name: str, sizes: tuple[int, ...]) -> None:
    module = read_text(SPLIT.replace("SUM", name).splitlines(keepends=True))
    (one,) = products(module, Flow(module))
    assert (one.batch, one.rows, one.depth, one.columns) == sizes


def test_joined_products_read_the_matrix_once() -> None:
    module = read_text(TEXT.splitlines(keepends=True))
    (one,) = [one for one in products(module, Flow(module)) if one.rows == 1]
    machine = load("tpu-v5e")
    once, often = (batched_seconds(one, times, machine) for times in (1, 16))
    assert machine.launch_overhead < once < often < 16 * once
