"""Units of work of single instructions of XLA:CPU.

They depend on opcode, shapes, layouts and attributes alone, so each distinct combination is
looked at once.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from hlo_lab.cost.bytes import FREE
from hlo_lab.cost.custom_calls import custom_call_work, is_known, target
from hlo_lab.cost.kernels_cpu_matrix import convolution, dot
from hlo_lab.cost.kernels_cpu_move import LINE, Caches, Place, moved, resliced
from hlo_lab.cost.kernels_cpu_units import FUNCTIONS, NUMBER
from hlo_lab.cost.tables import Op, attributes_at, integers, shape_at, words
from hlo_lab.cost.windows import parse_window
from hlo_lab.ir.module import Ints, Module
from hlo_lab.ir.shapes import BITS, Shape

Units = dict[str, float]

_UNROLLED = 16  # steps of a loop that LLVM writes one after the other
_LOOKS_AHEAD = 64  # elements of a row, while which a core begins to fetch the next one
_NOTHING = FREE | words("fusion broadcast reshape infeed outfeed send recv")


class Counter:
    """Units of single instructions, each distinct combination counted once."""

    def __init__(self, module: Module, caches: Caches):
        self.module, self.caches = module, caches
        self.memo: dict[tuple[object, ...], tuple[list[int], list[float]]] = {}
        self.starts = module.operand_start.tolist()
        self.shape, self.opcode = module.shape.tolist(), module.opcode.tolist()
        self.attribute = module.attribute.tolist()
        self.called, self.callee = module.callee_start.tolist(), module.callee.tolist()
        # operations of each computation, and the opcodes that apply one to elements
        runs = module.computation_of[~module.opcode_mask(*FREE)]
        self.operations = np.bincount(runs, minlength=len(module.computation_names)).tolist()
        self.reducing = {
            number
            for number, name in enumerate(module.opcodes)
            if name in ("reduce", "reduce-window")
        }

    def units(self, at: int, library: bool) -> tuple[list[int], list[float]]:
        """(unit numbers, amounts) of one instruction."""
        operands = self.module.operand[self.starts[at] : self.starts[at + 1]]
        shapes = self.module.shape[operands]
        extra = 0
        if self.opcode[at] in self.reducing and self.called[at] < self.called[at + 1]:
            extra = self.operations[self.callee[self.called[at]]] - 1
        key = (
            self.opcode[at], self.shape[at], self.attribute[at], library, shapes.tobytes(), extra,
        )  # fmt: skip
        found = self.memo.get(key)
        if found is None:
            amounts = self._count(at, Place(library, self.caches, max(extra, 0)), shapes)
            found = self.memo[key] = (
                [NUMBER[name] for name in amounts], [float(value) for value in amounts.values()]
            )  # fmt: skip
        return found

    def _count(self, at: int, where: Place, shapes: Ints) -> Units:
        module = self.module
        opcode = module.opcodes[self.opcode[at]]
        if opcode in _NOTHING and opcode != "broadcast":
            return {}
        op = Op(
            opcode,
            shape_at(module, self.shape[at]),
            [shape_at(module, number) for number in shapes.tolist()],
            attributes_at(module, self.attribute[at]),
        )
        try:
            handler = HANDLERS.get(opcode)
            return handler(op, where) if handler else _elementwise(op, where)
        except (ValueError, KeyError, IndexError, TypeError, OverflowError, ZeroDivisionError):
            return {}


def _elementwise(op: Op, where: Place) -> Units:
    shape = op.first_array
    if shape.element_count <= 1:
        return {}
    kind = "library" if where.library else "loop"
    dtype = op.operands[0].dtype if op.operands and op.opcode == "compare" else shape.dtype
    width = max(BITS.get(dtype, 32), 8) / 32
    amount = shape.element_count * width
    if op.opcode not in FUNCTIONS:
        return {f"{kind}.cheap": amount}
    if op.opcode in ("divide", "remainder") and dtype[0] in "su":
        return {"loop.integer_divide": shape.element_count}
    if op.opcode == "convert":
        both = {dtype, op.operand(0).dtype}
        narrow = both & {"bf16", "f16"} or both in ({"pred", "f32"}, {"s32", "f32"})
        return {f"{kind}.convert": shape.element_count} if narrow else {f"{kind}.cheap": amount}
    units: Units = {f"{kind}.{op.opcode}": amount}
    if dtype in ("f16", "bf16"):
        units["loop.narrow_float"] = shape.element_count
    return units


def _broadcast(op: Op, where: Place) -> Units:
    return {} if where.library else {"loop.broadcast": op.shape.bytes / 4}


def _iota(op: Op, where: Place) -> Units:
    return {} if where.library else {"loop.iota": float(op.shape.element_count)}


def _copy(op: Op, where: Place) -> Units:
    source = op.operand(0)
    same = tuple(range(source.rank))
    return moved(source, op.first_array, same, where.caches) if source.is_array else {}


def _transpose(op: Op, where: Place) -> Units:
    dims = tuple(integers(op.attributes.get("dimensions", "")))
    return moved(op.operand(0), op.first_array, dims, where.caches)


def _slice(op: Op, where: Place) -> Units:
    return resliced(op.operand(0), op.shape, op.attributes.get("slice", ""))


def _part(op: Op, where: Place) -> Units:
    return {"part.element": op.first_array.bytes / 4}


def _update(op: Op, where: Place) -> Units:
    return {"part.element": op.operand(1).bytes / 4}


def _join(op: Op, where: Place) -> Units:
    return {"part.join": op.shape.element_count}


def _pad(op: Op, where: Place) -> Units:
    return {"part.pad": op.shape.element_count}


def _reverse(op: Op, where: Place) -> Units:
    return {"part.reverse": op.shape.element_count}


def _reduce(op: Op, where: Place) -> Units:
    source, dims = op.operand(0), integers(op.attributes.get("dimensions", ""))
    count = source.element_count * max(BITS.get(source.dtype, 32), 8) / 32
    order = [dim for dim in source.minor_to_major if source.dims[dim] > 1]
    minor = bool(order) and order[0] in dims
    rows = op.first_array.element_count
    if where.library:
        return {
            "reduce.library_minor" if minor else "reduce.library_major": count,
            "reduce.library_row": rows,
        }
    if len(op.operands) > 2:
        short = source.element_count <= _UNROLLED * rows
        kind = "variadic_short" if short else "variadic"
        return {f"reduce.{kind}": source.element_count, "reduce.row": rows}
    kind = "minor" if minor else "nested" if sum(dim in dims for dim in order) > 1 else "major"
    return {
        f"reduce.{kind}": count,
        "reduce.row": rows,
        "reduce.applied": source.element_count * where.extra,
    }


def _reduce_window(op: Op, where: Place) -> Units:
    window = parse_window(op.attributes.get("window", ""))
    size = math.prod(dimension.size for dimension in window)
    wide = [number for number, dimension in enumerate(window) if dimension.size > 1]
    count = float(op.first_array.element_count)
    if where.library:
        return {"window.library": count * size}
    units = {"window.output": count, "reduce.applied": count * size * where.extra}
    if len(op.operands) > 2:
        kind = "variadic"
    elif len(wide) > 1:
        kind = "nested"
    else:
        kind = "minor" if wide == list(op.operand(0).minor_to_major[:1]) else "element"
    return {**units, f"window.{kind}": count * size}


def _scatter_back(op: Op, where: Place) -> Units:
    return {"window.element": float(op.operand(0).element_count * 4)}


def _gather(op: Op, where: Place) -> Units:
    table, count = op.operand(0), op.shape.element_count
    run = _run_of_slice(table, integers(op.attributes.get("slice_sizes", "")))
    rows = count / run
    kind = "row.gather_element" if run < 8 else "part.element"
    width = max(BITS.get(table.dtype, 32) // 8, 1)
    return {
        "row.gather": rows * min(run / _LOOKS_AHEAD, 1),
        "row.line": rows * (1 + (run - 1) * width / LINE),
        kind: op.shape.bytes / 4,
    }


def _run_of_slice(table: Shape, sizes: list[int]) -> int:
    """Elements of a slice that lie beside each other in memory."""
    run = 1
    for dim in table.minor_to_major:
        run *= sizes[dim]
        if sizes[dim] != table.dims[dim]:
            break
    return max(run, 1)


def _scatter(op: Op, where: Place) -> Units:
    arrays = max(len(op.operands) // 2, 1)
    updates = op.operands[arrays + 1 :]
    elements = sum(shape.element_count for shape in updates)
    window = integers(op.attributes.get("update_window_dims", ""))
    shape = updates[0]
    run = 1
    for dim in window:
        run *= shape.dims[dim]
    return {"row.scatter": elements / max(run, 1), "row.scatter_element": elements}


def _sort(op: Op, where: Place) -> Units:
    source = op.operand(0)
    (dim,) = integers(op.attributes.get("dimensions", "")) or [source.rank - 1]
    length = source.dims[dim]
    comparisons = source.element_count * float(np.log2(max(length, 2)))
    return {
        "sort.comparison": comparisons,
        "sort.payload": comparisons * (len(op.operands) - 1),
        "sort.row": source.element_count / max(length, 1),
    }


def _custom_call(op: Op, where: Place) -> Units:
    name = target(op.attributes)
    if name in ("TopK", "__gpu$TopK"):
        source = op.operand(0)
        length = source.dims[-1]
        return {
            "topk.element": source.element_count * float(np.log2(max(length, 2))),
            "sort.row": source.element_count / max(length, 1),
        }
    work = custom_call_work(op).flops if is_known(op.attributes) else 0.0
    if work:
        columns = max((shape.dims[-1] for shape in op.operands if shape.rank >= 2), default=0)
        return {"factor.flop": work, "factor.column": columns}
    return {"call.unknown": 1}


def _factor(op: Op, where: Place) -> Units:
    shape = op.operand(0)
    size = shape.dims[-1]
    columns = op.first_array.element_count
    factor = 1 / 3 if op.opcode == "cholesky" else 1.0
    return {"factor.flop": factor * columns * size, "factor.column": columns / max(size, 1)}


def _fft(op: Op, where: Place) -> Units:
    length = 1
    for size in integers(op.attributes.get("fft_length", "")):
        length *= size
    return {"fourier.element": op.shape.element_count * float(np.log2(max(length, 2)))}


Handler = Callable[[Op, Place], Units]
HANDLERS: dict[str, Handler] = {
    "broadcast": _broadcast, "iota": _iota, "copy": _copy, "copy-start": _copy,
    "transpose": _transpose, "slice": _slice, "dynamic-slice": _part,
    "dynamic-update-slice": _update, "concatenate": _join, "pad": _pad, "reverse": _reverse,
    "reduce": _reduce, "reduce-window": _reduce_window, "select-and-scatter": _scatter_back,
    "gather": _gather, "scatter": _scatter, "sort": _sort, "custom-call": _custom_call,
    "cholesky": _factor, "triangular-solve": _factor, "fft": _fft, "dot": dot,
    "convolution": convolution, "topk": _custom_call,
}  # fmt: skip
