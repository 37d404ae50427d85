"""What makes two instructions the same operation: labels without names, order or metadata.

Semantic, so part of a label: opcode, element types and dimensions, every attribute not
named below, the value of a constant, the number of a parameter. Not semantic:

* ``metadata``, ``origin``, ``original_value``, ``statistics``: where it came from.
* the *number* of a ``channel_id`` (its presence is kept: it selects the group mode).
* in ``backend_config``: estimates of the compiler and where it put scratch memory
  (``VOLATILE_CONFIG``). Everything else there (tile sizes, emitters, trip counts,
  algorithms) changes what runs and is kept, in sorted order.

Versions of XLA spell some attributes differently: ``type=TOTALORDER`` of a comparison and
``order=TOTAL``, its name since mid-2026, are one label.

Layouts stand apart, so that a layout change does not break the match. Hashes are
blake2b of canonical text: stable between processes, machines and Python versions.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import numpy as np
import numpy.typing as npt

from hlo_lab.ir.module import Module
from hlo_lab.ir.shapes import Shape

Hashes = npt.NDArray[np.uint64]

IGNORED_ATTRIBUTES = frozenset(
    ("metadata", "origin", "original_value", "statistics", "visualization")
)
VOLATILE_CONFIG = frozenset((
    "barrier_config", "cost_model_type", "debug", "estimated_bundle_count", "estimated_cycles",
    "estimated_scoped_vmem_bytes", "estimated_vmem_bytes", "force_earliest_schedule", "fusion_id",
    "fusion_formation_source", "ml_estimated_microseconds", "operation_queue_id",
    "reification_cost", "retry_config", "used_scoped_memory_configs", "wait_on_operation_queues",
))  # fmt: skip
# What some versions of XLA print, and others leave out.
_DEFAULTS = frozenset((
    ("backend_config", "{}"), ("frontend_attributes", "{}"), ("has_dynamic_root", "false"),
))  # fmt: skip
COMMUTATIVE = frozenset(("add", "multiply", "maximum", "minimum", "and", "or", "xor"))
# XLA prints a constant of more elements than this as {...} unless told otherwise
# (HloConstantInstruction::PrintOperandsWithCanonicalNameMap).
PRINTED_ELEMENTS = 10

# Narrower floats are compared as f32, of which they are a part.
_FLOATS: dict[str, type[np.floating[Any]]] = {
    "f64": np.float64,
    "f32": np.float32,
    "bf16": np.float32,
    "f16": np.float32,
}
_NO_BRACES = str.maketrans("", "", "{}")
_BY_PARTITIONER = re.compile(r'(?<=[{,])is_spmd_generated="true"(?:,|(?=\}))')  # since mid-2026
_BLANKS = re.compile(r"/\*.*?\*/|\s+")
_METADATA = re.compile(r",?\s*metadata=\{(?:[^{}]*|(?:\{[^{}]*\}(?:,\s*)?)*)\}")
_REDUCTION = re.compile(r'op_type="sdy::reduction_op" op_name="(?!SUM")(\w+)"')


@dataclass(frozen=True)
class Labels:
    """One hash per instruction and level of detail.

    Attributes:
        exact: uint64[N], opcode, element type, dimensions, attributes, literal.
        rank: uint64[N], opcode, element type and number of dimensions.
        kind: uint64[N], opcode and number of dimensions.
        layout: uint64[N], the layout of the result; equal for layouts that mean the same.
        elided: whether constants were labelled by shape alone.
    """

    exact: Hashes
    rank: Hashes
    kind: Hashes
    layout: Hashes
    elided: bool


def hash64(*parts: str) -> int:
    """A stable 64-bit hash of a sequence of strings."""
    return int.from_bytes(blake2b("\x1f".join(parts).encode(), digest_size=8).digest(), "big")


def canonical_layout(shape: Shape) -> str:
    """The layout with defaults written out: none given and row-major are the same."""
    if shape.is_tuple:
        return "(" + ",".join(map(canonical_layout, shape.elements)) + ")"
    rest = shape.layout.partition(":")[2]
    order = shape.minor_to_major if len(shape.dims) > 1 else ()
    if order == tuple(range(len(order) - 1, -1, -1)):
        order = ()
    return ",".join(map(str, order)) + (":" + rest if rest else "")


def semantic_attributes(attributes: dict[str, str]) -> dict[str, str]:
    """Name to canonical value of the semantic attributes, sorted by name."""
    values = (
        (name, _canonical_value(name, value))
        for name, value in sorted(_respelt(attributes).items())
        if name not in IGNORED_ATTRIBUTES
    )
    return {name: value for name, value in values if (name, value) not in _DEFAULTS}


def _respelt(attributes: dict[str, str]) -> dict[str, str]:
    """Attributes in the words of the newest XLA, where versions say the same differently."""
    if attributes.get("type") == "TOTALORDER" and "order" not in attributes:
        attributes = {**attributes, "order": "TOTAL"}
        del attributes["type"]
    return attributes


def canonical_attributes(attributes: dict[str, str]) -> str:
    """The semantic attributes as one line."""
    return "\x1e".join(f"{name}={value}" for name, value in semantic_attributes(attributes).items())


def has_elided_constants(module: Module) -> bool:
    """Whether the printer left the value of a constant out."""
    return any("..." in text for text in module.literals.values())


def label(module: Module, *, elided: bool = False) -> Labels:
    """Label every instruction.

    ``elided`` labels constants of more than ``PRINTED_ELEMENTS`` elements by shape alone,
    for the comparison with a module whose constants were left out.
    """
    shapes = list(module.shapes)
    full = [str(shape.without_layout()) for shape in shapes]
    ranks = [_rank_text(shape, True) for shape in shapes]
    kinds = [_rank_text(shape, False) for shape in shapes]
    attributes = [canonical_attributes(values) for values in module.attributes]

    triple = (module.opcode * len(shapes) + module.shape) * max(len(attributes), 1)
    distinct, first, inverse = np.unique(
        triple + module.attribute, return_index=True, return_inverse=True
    )
    exact = np.empty(len(distinct), np.uint64)
    rank, kind, layout = exact.copy(), exact.copy(), exact.copy()
    layouts = [hash64(canonical_layout(shape)) for shape in shapes]
    for row, at in enumerate(first.tolist()):
        opcode, shape = module.opcodes[module.opcode[at]], int(module.shape[at])
        exact[row] = hash64(opcode, full[shape], attributes[module.attribute[at]])
        rank[row] = hash64(opcode, ranks[shape])
        kind[row] = hash64(opcode, kinds[shape])
        layout[row] = layouts[shape]
    out = exact[inverse]
    counts = [shape.element_count if not shape.is_tuple else PRINTED_ELEMENTS + 1
              for shape in shapes]  # fmt: skip
    for at, text in module.literals.items():
        if not (elided and (counts[module.shape[at]] > PRINTED_ELEMENTS or "..." in text)):
            out[at] = hash64(
                full[module.shape[at]],
                "constant",
                canonical_literal(text, shapes[module.shape[at]].dtype),
            )
    for at in np.nonzero(module.parameter_number >= 0)[0].tolist():
        out[at] = hash64(str(out[at]), "parameter", str(module.parameter_number[at]))
    return Labels(out, rank[inverse], kind[inverse], layout[inverse], elided)


def by_argument_name(a: Module, labels_a: Labels, b: Module, labels_b: Labels) -> None:
    """Label the arguments of two programs by name, where their numbers do not fit.

    An argument that is new in the middle (one more layer) shifts the numbers of those
    behind it. JAX names every argument by its path in ``op_name``; where both sides have
    distinct names and the shapes by position differ, the names are what pairs them.
    """
    sides = [_arguments(module) for module in (a, b)]
    shapes = [
        [str(m.shapes[m.shape[row]].without_layout()) for row in rows]
        for m, (rows, _) in zip((a, b), sides, strict=True)
    ]
    if shapes[0] == shapes[1]:
        return
    if not all(all(names) and len(set(names)) == len(names) for _, names in sides):
        return
    for labels, (rows, names), texts in zip((labels_a, labels_b), sides, shapes, strict=True):
        for row, name, shape in zip(rows, names, texts, strict=True):
            labels.exact[row] = hash64(shape, "argument", name)


def _arguments(module: Module) -> tuple[list[int], list[str]]:
    """Rows of the entry's parameters in the order of their numbers, and their op_names."""
    rows = [parameter.index for parameter in module.entry_computation.parameters]
    return rows, [module.metadatas[module.metadata[row]].op_name for row in rows]


def canonical_literal(text: str, dtype: str = "") -> str:
    """A literal without blanks and comments, its numbers as the element type holds them.

    Printers give a float as many digits as they like: 55906239035264 and 5.59062387e+13
    are one f32.
    """
    plain = text if len(text) < 8 and " " not in text else _BLANKS.sub("", text)
    exact = _FLOATS.get(dtype)
    if exact is None or "(" in plain or plain in ("0", "1", "-1"):
        return plain
    try:
        values = np.array(plain.translate(_NO_BRACES).split(","), exact)
    except ValueError:  # an elided one, or syntax of its own
        return plain
    return repr(values.item()) if values.size == 1 else blake2b(values.tobytes()).hexdigest()


def _rank_text(shape: Shape, with_dtype: bool) -> str:
    if shape.is_tuple:
        return "(" + ",".join(_rank_text(element, with_dtype) for element in shape.elements) + ")"
    return f"{shape.dtype if with_dtype else ''}/{len(shape.dims)}"


def _canonical_value(name: str, value: str) -> str:
    if name == "channel_id":
        return "*"
    if name == "backend_config":
        return _canonical_config(value)
    if name == "frontend_attributes":
        return _BY_PARTITIONER.sub("", value.strip()).replace(",}", "}")
    if name == "sharding" and "metadata=" in value:
        value = _METADATA.sub(_reduction, value)
    if '"' in value:
        return value.strip()
    return _BLANKS.sub("", value)


def _reduction(metadata: re.Match[str]) -> str:
    """What a sharding's metadata say on unreduced values; nothing, where they are summed."""
    found = _REDUCTION.search(metadata.group())
    return f" reduction={found.group(1)}" if found else ""


def _canonical_config(text: str) -> str:
    if text[:1] != "{":
        return text
    try:
        return json.dumps(_without_volatile(json.loads(text)), sort_keys=True)
    except (ValueError, RecursionError):
        return text


def _without_volatile(value: Any) -> Any:
    """The config without volatile members, and without those that are empty: unset, that is."""
    if isinstance(value, dict):
        pairs = ((k, _without_volatile(v)) for k, v in value.items() if k not in VOLATILE_CONFIG)
        return {key: inner for key, inner in pairs if inner not in ({}, [], None)}
    if isinstance(value, list):
        return [_without_volatile(inner) for inner in value]
    return value
