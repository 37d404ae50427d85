"""The flat view: what is inlined, merged, dropped, and where it stops."""

from __future__ import annotations

import time

from hlo_lab.diff.flatten import INLINE_FACTOR, INLINE_FREE, FlatGraph, flatten
from hlo_lab.diff.labels import label
from tests.unit.diff.modules import FUSED, MODEL, module


def flat(text: str) -> FlatGraph:
    read = module(text)
    return flatten(read, label(read))


def test_fusions_are_inlined_and_tuples_dropped() -> None:
    graph = flat(FUSED)
    assert graph.opcode == ["parameter", "exponential", "negate", "sine"]
    assert graph.group_instruction.tolist() == [graph.module.instruction("one").index]


def test_equal_operations_are_one_node_with_a_count() -> None:
    graph = flat("""\
HloModule m
ENTRY e {
  p = f32[8]{0} parameter(0)
  a = f32[8]{0} exponential(p)
  b = f32[8]{0} exponential(p)
  m = f32[8]{0} multiply(a, p)
  n = f32[8]{0} multiply(p, b)
  ROOT s = f32[8]{0} subtract(m, n)
}
""")
    assert graph.opcode == ["parameter", "exponential", "multiply", "subtract"]
    assert graph.count.tolist() == [1, 2, 2, 1]


def test_what_has_an_effect_is_never_merged() -> None:
    graph = flat("""\
HloModule m
ENTRY e {
  c = f32[] constant(0)
  a = f32[8]{0} rng(c, c), distribution=rng_uniform
  b = f32[8]{0} rng(c, c), distribution=rng_uniform
  ROOT s = f32[8]{0} subtract(a, b)
}
""")
    assert graph.opcode.count("rng") == 2


def test_bodies_are_regions_whose_roots_their_callers_use() -> None:
    graph = flat(MODEL)
    loop = graph.opcode.index("while")
    operands = graph.operand[graph.start[loop] : graph.start[loop + 1]].tolist()
    assert [graph.opcode[node] for node in operands] == ["tuple", "tuple", "compare"]
    assert graph.roots[-1] == len(graph) - 1
    assert graph.opcode.count("cosine") == 1


def test_exponential_inlining_is_refused() -> None:
    depth = 40
    text = ["HloModule bomb", "f0 {", "  p = f32[] parameter(0)",
            "  ROOT r = f32[] negate(p)", "}"]  # fmt: skip
    for i in range(1, depth):
        text += [f"f{i} {{", "  p = f32[] parameter(0)",
                 f"  a = f32[] call(p), to_apply=f{i - 1}",
                 f"  ROOT r = f32[] call(a), to_apply=f{i - 1}", "}"]  # fmt: skip
    text += ["ENTRY e {", "  x = f32[] parameter(0)",
             f"  ROOT c = f32[] call(x), to_apply=f{depth - 1}", "}"]  # fmt: skip
    start = time.process_time()
    graph = flat("\n".join(text) + "\n")
    assert time.process_time() - start < 2
    assert len(graph) < INLINE_FACTOR * len(graph.module) + INLINE_FREE
    assert "shared computations are compared by themselves" in graph.notes[0]


def test_deep_nesting_needs_no_stack() -> None:
    depth = 3000
    text = ["HloModule deep", "f0 {", "  p = f32[] parameter(0)",
            "  ROOT r = f32[] negate(p)", "}"]  # fmt: skip
    for i in range(1, depth):
        text += [f"f{i} {{", "  p = f32[] parameter(0)",
                 f"  ROOT r = f32[] call(p), to_apply=f{i - 1}", "}"]  # fmt: skip
    text += ["ENTRY e {", "  x = f32[] parameter(0)",
             f"  ROOT c = f32[] call(x), to_apply=f{depth - 1}", "}"]  # fmt: skip
    assert flat("\n".join(text) + "\n").opcode == ["parameter", "negate"]
