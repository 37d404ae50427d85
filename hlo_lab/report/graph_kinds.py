"""What kind of work an instruction is, and the colour of each kind."""

from __future__ import annotations

import numpy as np

from hlo_lab.ir.module import Module

# Kind, fill colour (Okabe and Ito's palette, lightened, apart for colour-blind eyes), opcodes.
_KINDS = (
    ("matmul, convolution", "#f4b183", "dot convolution ragged-dot scaled-dot cholesky"),
    ("collective", "#f4a6b8", "all-reduce all-gather reduce-scatter all-to-all collective-permute "
     "collective-broadcast ragged-all-to-all send recv"),
    ("control flow", "#d5c3e8", "while conditional call async"),
    ("reduction, sort", "#f6e39b", "reduce reduce-window select-and-scatter sort topk map"),
    ("data movement", "#a9cfe8", "gather scatter dynamic-slice dynamic-update-slice slice "
     "concatenate pad transpose copy reverse infeed outfeed reshape"),
    ("custom call", "#e0b090", "custom-call"),
    ("parameter, constant", "#dddddd", "parameter constant iota partition-id replica-id"),
    ("elementwise", "#bfe3c0", ""),
)  # fmt: skip
FILL = {kind: colour for kind, colour, _ in _KINDS}
_KIND_OF = {opcode: kind for kind, _, opcodes in _KINDS for opcode in opcodes.split()}
ELEMENTWISE = "elementwise"
_RANK = {kind: rank for rank, (kind, _, _) in enumerate(_KINDS)}


def kind_of(opcode: str) -> str:
    """The kind of one opcode; ``elementwise`` for what is none of the others."""
    base = opcode
    for suffix in ("-start", "-done", "-update"):
        base = base.removesuffix(suffix)
    return _KIND_OF.get(base, ELEMENTWISE)


def instruction_kind(module: Module, index: int) -> str:
    """The kind of an instruction; a fusion has the most telling kind of its body."""
    opcode = module.opcodes[module.opcode[index]]
    if opcode != "fusion":
        return kind_of(opcode)
    start, stop = module.callee_start[index], module.callee_start[index + 1]
    found = {ELEMENTWISE}
    for body in module.callee[start:stop].tolist():
        rows = slice(module.computation_start[body], module.computation_start[body + 1])
        opcodes = [module.opcodes[code] for code in np.unique(module.opcode[rows]).tolist()]
        found |= {kind_of(name) for name in opcodes if _KIND_OF.get(name) not in _INSIDE}
    return min(found, key=lambda kind: _RANK[kind])


# in every fusion, and says nothing of it
_INSIDE = frozenset(("parameter, constant",))


def heat(share: float) -> str:
    """White to red by a share of the whole, 0 to 1; a quarter is red already."""
    strength = min(share * 4, 1.0) ** 0.5
    low = round(255 - 175 * strength)
    return f"#ff{low:02x}{low:02x}"
