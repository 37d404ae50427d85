"""Modules to draw."""

from __future__ import annotations

from hlo_lab.ir.module import Module
from hlo_lab.ir.text import read_text

LOOP = """\
HloModule loops

body {
  state = (s32[], f32[8]) parameter(0)
  counter = s32[] get-tuple-element(state), index=0
  one = s32[] constant(1)
  next = s32[] add(counter, one)
  value = f32[8] get-tuple-element(state), index=1
  twice = f32[8] add(value, value)
  ROOT out = (s32[], f32[8]) tuple(next, twice)
}

condition {
  state.1 = (s32[], f32[8]) parameter(0)
  counter.1 = s32[] get-tuple-element(state.1), index=0
  limit = s32[] constant(5)
  ROOT less = pred[] compare(counter.1, limit), direction=LT
}

ENTRY main {
  x = f32[8] parameter(0)
  zero = s32[] constant(0)
  start = f32[8] negate(x)
  init = (s32[], f32[8]) tuple(zero, start)
  loop = (s32[], f32[8]) while(init), condition=condition, body=body, TRIPS
  result = f32[8] get-tuple-element(loop), index=1
  ROOT y = f32[8] exponential(result)
}
""".replace("TRIPS", 'backend_config={"known_trip_count":{"n":"5"}}')


def parse(text: str) -> Module:
    return read_text(text.splitlines(keepends=True))


def layered(layers: int, *, names: bool = True) -> Module:
    """A stack of equal layers: dot, bias, tanh; with op_names as flax gives them."""

    def meta(number: int, what: str) -> str:
        return f', metadata={{op_name="jit(f)/Net/layer_{number}/{what}"}}' if names else ""

    lines = ["HloModule stack", "", "ENTRY main {", "  value.0 = f32[8,8] parameter(0)"]
    for number in range(layers):
        after = number + 1
        lines += [
            f"  w.{number} = f32[8,8] parameter({number + 1})",
            f"  dot.{number} = f32[8,8] dot(value.{number}, w.{number}), "
            "lhs_contracting_dims={1}, rhs_contracting_dims={0}"
            f"{meta(number, 'mlp/dot_general')}",
            f"  half.{number} = f32[] constant(0.5)",
            f"  spread.{number} = f32[8,8] broadcast(half.{number}), dimensions={{}}",
            f"  bias.{number} = f32[8,8] add(dot.{number}, spread.{number})"
            f"{meta(number, 'mlp/add')}",
            f"  scale.{number} = f32[8,8] multiply(bias.{number}, value.{number})"
            f"{meta(number, 'skip/mul')}",
            f"  value.{after} = f32[8,8] tanh(scale.{number}){meta(number, 'tanh')}",
        ]
    lines += [f"  ROOT out = f32[8,8] negate(value.{layers})", "}", ""]
    return parse("\n".join(lines))
