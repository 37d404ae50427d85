"""Small modules that the tests of ``hlo_lab.diff`` edit as text."""
# ruff: noqa: E501

from __future__ import annotations

from hlo_lab.diff import DiffResult, diff_modules
from hlo_lab.ir.module import Module
from hlo_lab.ir.text import read_text

# Two layers, a loop, a reducer; metadata on the activations.
MODEL = """\
HloModule jit_f, entry_computation_layout={(f32[4,8]{1,0}, f32[8,8]{1,0}, f32[8,8]{1,0})->f32[]}

add_f32 {
  p0 = f32[] parameter(0)
  p1 = f32[] parameter(1)
  ROOT sum = f32[] add(p0, p1)
}

body {
  state = (s32[], f32[4,8]{1,0}) parameter(0)
  i = s32[] get-tuple-element(state), index=0
  one = s32[] constant(1)
  next = s32[] add(i, one)
  value = f32[4,8]{1,0} get-tuple-element(state), index=1
  scaled = f32[4,8]{1,0} cosine(value), metadata={op_name="jit(f)/while/cos" source_file="model.py" source_line=30}
  ROOT both = (s32[], f32[4,8]{1,0}) tuple(next, scaled)
}

cond {
  state.1 = (s32[], f32[4,8]{1,0}) parameter(0)
  i.1 = s32[] get-tuple-element(state.1), index=0
  limit = s32[] constant(3)
  ROOT less = pred[] compare(i.1, limit), direction=LT
}

ENTRY main {
  x = f32[4,8]{1,0} parameter(0)
  w1 = f32[8,8]{1,0} parameter(1)
  w2 = f32[8,8]{1,0} parameter(2)
  h1 = f32[4,8]{1,0} dot(x, w1), lhs_contracting_dims={1}, rhs_contracting_dims={0}
  a1 = f32[4,8]{1,0} tanh(h1), metadata={op_name="jit(f)/layer1/tanh" source_file="model.py" source_line=10}
  h2 = f32[4,8]{1,0} dot(a1, w2), lhs_contracting_dims={1}, rhs_contracting_dims={0}
  a2 = f32[4,8]{1,0} tanh(h2), metadata={op_name="jit(f)/layer2/tanh" source_file="model.py" source_line=20}
  d = f32[4,8]{1,0} subtract(a2, a1)
  m = f32[4,8]{1,0} multiply(d, a1)
  zero = s32[] constant(0)
  start = (s32[], f32[4,8]{1,0}) tuple(zero, m)
  loop = (s32[], f32[4,8]{1,0}) while(start), condition=cond, body=body
  out = f32[4,8]{1,0} get-tuple-element(loop), index=1
  nothing = f32[] constant(0)
  ROOT total = f32[] reduce(out, nothing), dimensions={0,1}, to_apply=add_f32
}
"""

# The same three operations in one fusion, and in two.
FUSED = """\
HloModule m, is_scheduled=true

together (p: f32[64]) -> f32[64] {
  p = f32[64]{0} parameter(0)
  e = f32[64]{0} exponential(p)
  n = f32[64]{0} negate(e)
  ROOT s = f32[64]{0} sine(n)
}

ENTRY main {
  x = f32[64]{0} parameter(0)
  ROOT one = f32[64]{0} fusion(x), kind=kLoop, calls=together
}
"""
APART = """\
HloModule m, is_scheduled=true

first (p: f32[64]) -> f32[64] {
  p = f32[64]{0} parameter(0)
  e = f32[64]{0} exponential(p)
  ROOT n = f32[64]{0} negate(e)
}

ENTRY main {
  x = f32[64]{0} parameter(0)
  one = f32[64]{0} fusion(x), kind=kLoop, calls=first
  ROOT two = f32[64]{0} sine(one)
}
"""


def module(text: str) -> Module:
    return read_text(text.splitlines(keepends=True))


def compare(before: str, after: str) -> DiffResult:
    return diff_modules(module(before), module(after))


def edited(*replacements: tuple[str, str], text: str = MODEL) -> DiffResult:
    """MODEL against itself with each text replaced; every one must be there."""
    after = text
    for old, new in replacements:
        assert old in after, old
        after = after.replace(old, new)
    return compare(text, after)
