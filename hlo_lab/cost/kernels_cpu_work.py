"""What a kernel of XLA:CPU does, in units that a machine has a rate for.

Three kinds of kernels behave differently: loops that XLA writes itself (``loop`` fusions and
most single instructions), products, convolutions and reductions of its library of
micro-kernels (custom fusions of kind ``__ynn_fusion``), and what it leaves to Eigen, LAPACK or
plain loops. Units are counted for each instruction of a fused computation
(:mod:`hlo_lab.cost.kernels_cpu_count`) and added up for its fusion; some depend on what stands
beside it.
"""

from __future__ import annotations

import numpy as np

from hlo_lab.cost.bytes import FREE
from hlo_lab.cost.callgraph import callees_first
from hlo_lab.cost.counts import Counts
from hlo_lab.cost.kernels_cpu_count import Counter
from hlo_lab.cost.kernels_cpu_move import Caches
from hlo_lab.cost.kernels_cpu_reuse import beyond, missed
from hlo_lab.cost.kernels_cpu_units import FUNCTIONS, NUMBER, UNITS
from hlo_lab.cost.machines import Machine
from hlo_lab.cost.tables import Bools, Floats, attributes_at, shape_at
from hlo_lab.ir.module import ROLES, Ints, Module

_SMALL_CALL = 'xla_cpu_small_call="true"'
# read with the share of their kernel's bytes that come from beyond the second or third cache:
# unlike a stream, these are not fetched ahead
_WAITING = {
    "row.gather": "row.gather", "row.line": "row.line", "row.scatter": "row.scatter",
    "move.element": "move.far", "move.fused": "move.fused", "move.run": "move.run",
    "dot.right": "dot.right", "dot.right_turned": "dot.right_turned",
    "dot.plain_right": "dot.plain_right",
}  # fmt: skip


def work(module: Module, machine: Machine, counted: Counts) -> Floats:
    """float64[N, units]: the work of each instruction as a kernel, fused computations folded in."""
    caches = Caches.of(machine)
    row, library = _kernels(module)
    counter = Counter(module, caches)
    places: list[int] = []
    numbers: list[int] = []
    amounts: list[float] = []
    counted_rows = np.nonzero(row >= 0)[0]
    for at, kernel, own in zip(
        counted_rows.tolist(),
        row[counted_rows].tolist(),
        library[counted_rows].tolist(),
        strict=True,
    ):
        units = counter.units(at, own)
        places += [kernel] * len(units[0])
        numbers += units[0]
        amounts += units[1]
    where = np.array(places, np.int64) * len(UNITS) + np.array(numbers, np.int64)
    flat = np.zeros(len(module) * len(UNITS))
    np.add.at(flat, where, amounts)
    done = flat.reshape(len(module), len(UNITS))
    _within_loops(module, done, row, library, counter)
    _loops_against_the_grain(done)
    own = row == np.arange(len(module))
    _kernel_units(module, done, own, library)
    _traffic(module, done, counted, row, library, caches)
    return done


def _traffic(
    module: Module,
    done: Floats,
    counted: Counts,
    row: Ints,
    library: Bools,
    caches: Caches,
) -> None:
    """Bytes by the cache that they come from; a copy in the same order is the C library's."""
    own = row == np.arange(len(module))
    loops = own & module.opcode_mask("fusion") & ~library
    far = beyond(module, counted, own, loops, caches.limits)
    copied = own & module.opcode_mask("copy") & (done[:, NUMBER["move.element"]] == 0)
    copied &= done[:, NUMBER["move.run"]] == 0
    looped = own & ~copied
    done[copied, NUMBER["bytes.copied"]] = counted.bytes[copied]
    done[looped, NUMBER["bytes.near"]] = counted.bytes[looped]
    table, first = _tables(module, row)
    # bytes that are fetched ahead use all of the third cache, others less of it
    for level, ahead, alone in ((1, 1, 1), (2, 3, 2)):
        done[own, NUMBER[f"bytes.read_{level}"]] = far.read[own, ahead]
        done[own, NUMBER[f"bytes.written_{level}"]] = far.written[own, ahead]
        share = far.share[:, alone]
        rows = first * share + (1 - first) * missed(table, caches.limits[alone])
        for name, out in _WAITING.items():
            part = rows if name.startswith("row.") else share
            done[:, NUMBER[f"{out}_{level}"]] = done[:, NUMBER[name]] * part
    thrashing = done[:, NUMBER["move.fused_beyond_1"]]
    done[:, NUMBER["move.thrash_2"]] = thrashing * far.share[:, 2]


def _tables(module: Module, row: Ints) -> tuple[Floats, Floats]:
    """(float64[N], float64[N]) of each kernel: bytes of the table that it gathers rows from or
    scatters them to, and the share of the rows that no row before has touched."""
    table, touched = np.zeros((2, len(module)))
    found = np.nonzero((row >= 0) & module.opcode_mask("gather", "scatter"))[0]
    size = module.shape_values("bytes")
    for at in found.tolist():
        operands = _operands(module, at)
        if not len(operands):
            continue
        rows = at if _opcode(module, at) == "gather" else int(operands[-1])
        table[row[at]] = max(table[row[at]], size[operands[0]])
        touched[row[at]] = max(touched[row[at]], size[rows])
    return table, np.minimum(table / np.maximum(touched, 1), 1)


def _kernel_units(module: Module, done: Floats, own: Bools, library: Bools) -> None:
    inlined = own & _inlined(module)
    starts = own & ~inlined
    done[inlined, NUMBER["kernel.inlined"]] = 1
    done[starts, NUMBER["kernel.launch"]] = 1
    done[starts & library, NUMBER["kernel.library"]] = 1
    done[starts, NUMBER["kernel.operand"]] = np.diff(module.operand_start)[starts]


def _inlined(module: Module) -> Bools:
    """bool[N]: instructions of small loops that XLA compiles into one kernel, their call."""
    calls = module.opcode_mask("call")
    small = [
        number
        for number in np.unique(module.attribute[calls]).tolist()
        if _SMALL_CALL in attributes_at(module, number).get("frontend_attributes", "")
    ]
    roots = np.nonzero(calls & np.isin(module.attribute, small))[0]
    inside = np.zeros(len(module.computation_names), np.bool_)
    caller = np.repeat(module.computation_of, np.diff(module.callee_start))
    for at in roots.tolist():
        inside[module.callee[module.callee_start[at] : module.callee_start[at + 1]]] = True
    for computation in reversed(callees_first(module)) if len(roots) else ():
        if inside[computation]:
            inside[module.callee[caller == computation]] = True
    return inside[module.computation_of]


def _within_loops(
    module: Module, done: Floats, row: Ints, library: Bools, counter: Counter
) -> None:
    """What depends on the neighbours of an instruction in its loop.

    A loop computes what stands before a broadcast again for every element that it is
    broadcast to; a change of order costs where an array is read in it.
    """
    inside = (row >= 0) & (row != np.arange(len(module))) & ~library
    elements = module.shape_values("element_count")
    first = module.operand_start[:-1]
    plain = module.opcode_mask("parameter", "constant", "broadcast", "iota", "bitcast")
    broadcasts = np.nonzero(inside & module.opcode_mask("broadcast"))[0]
    source = module.operand[first[broadcasts]]
    again = ~plain[source] & (elements[source] > 1)
    repeated = broadcasts[again]
    done[:, NUMBER["loop.again"]] += np.bincount(row[repeated], elements[repeated], len(done))
    moves = [NUMBER[name] for name in UNITS if name.startswith("move.")]
    dots = np.zeros(len(done), np.bool_)
    dots[row[inside & module.opcode_mask("dot")]] = True
    turned = np.nonzero(inside & module.opcode_mask("copy", "transpose"))[0]
    for at in turned.tolist():
        # a product reads it in the order that suits it
        if dots[row[at]] or not _reads_arrays(module, at, int(elements[at])):
            numbers, amounts = counter.units(at, False)
            for number, amount in zip(numbers, amounts, strict=True):
                if number in moves:
                    done[row[at], number] -= amount
    # padding branches, for each element that is computed from it
    for at in np.nonzero(inside & module.opcode_mask("pad"))[0].tolist():
        more = max(int(elements[row[at]] - elements[at]), 0)
        done[row[at], NUMBER["part.pad"]] += more
    # LLVM makes vectors of the root of what an operation with a constant gave, not of others
    for at in np.nonzero(inside & module.opcode_mask("rsqrt"))[0].tolist():
        if _of_a_constant(module, at):
            numbers, amounts = counter.units(at, False)
            done[row[at], NUMBER["loop.rsqrt_fast"]] += sum(amounts)
            done[row[at], NUMBER["loop.rsqrt"]] -= sum(amounts)
    np.maximum(done, 0, out=done)  # what was taken away again may leave a rounding


def _of_a_constant(module: Module, at: int) -> bool:
    """Whether the operand of ``at`` is computed from a constant and something else."""
    for source in _operands(module, at).tolist():
        for each in _operands(module, source).tolist():
            shown = _operands(module, each) if _opcode(module, each) == "broadcast" else ()
            if "constant" in (_opcode(module, each), *(_opcode(module, at) for at in shown)):
                return True
    return False


def _opcode(module: Module, at: int) -> str:
    name: str = module.opcodes[module.opcode[at]]
    return name


def _operands(module: Module, at: int) -> Ints:
    return module.operand[module.operand_start[at] : module.operand_start[at + 1]]


def _reads_arrays(module: Module, at: int, size: int) -> bool:
    """Whether a parameter as large as its result is among what ``at`` is computed from."""
    seen, pending = {at}, [at]
    parameter = module.parameter_number
    while pending:
        now = pending.pop()
        if parameter[now] >= 0:
            if 2 * shape_at(module, int(module.shape[now])).element_count >= size:
                return True
            continue
        new = set(_operands(module, now).tolist()) - seen
        seen |= new
        pending += new
    return False


def _loops_against_the_grain(done: Floats) -> None:
    """A loop that reads element by element computes that way too, not in vectors; a product
    with other work before it does not run at its own speed."""
    functions = [NUMBER[f"loop.{name}"] for name in sorted(FUNCTIONS)]
    scalar = done[:, [NUMBER["move.element"], NUMBER["row.gather_element"]]].sum(1) > 0
    done[scalar, NUMBER["loop.scalar_cheap"]] = done[scalar, NUMBER["loop.cheap"]]
    # a mere change of order is copied tile by tile, others element by element
    others = [NUMBER["loop.cheap"], NUMBER["part.reverse"], *functions]
    mere = done[:, others].sum(1) == 0
    done[~mere, NUMBER["move.fused"]] = done[~mere, NUMBER["move.element"]]
    done[~mere, NUMBER["move.element"]] = 0
    done[mere, NUMBER["move.fused_beyond_0"]] = 0
    done[mere, NUMBER["move.fused_beyond_1"]] = 0
    more = [NUMBER[f"library.{name}"] for name in ("cheap", *sorted(FUNCTIONS))]
    fused = done[:, more].sum(1) > 0
    done[fused, NUMBER["dot.fused_flop"]] = done[fused, NUMBER["dot.flop"]]
    done[scalar, NUMBER["loop.scalar_function"]] = done[scalar][:, functions].sum(1)


def _kernels(module: Module) -> tuple[Ints, Bools]:
    """(int64[N], bool[N]): the kernel that computes each instruction, and whether it is the
    library's; -1 for what no kernel does by itself (reducers, parameters, control flow)."""
    count = len(module)
    start = module.computation_start.tolist()
    owner = np.full(len(module.computation_names), -1, np.int64)
    inside = np.zeros(len(owner), np.bool_)
    caller = np.repeat(np.arange(count), np.diff(module.callee_start))
    fusions = module.opcode_mask("fusion")
    for computation in np.unique(module.callee).tolist():
        inside[computation] = True
    flow = module.opcode_mask("while", "conditional", "call", "async-start")
    inside[module.callee[flow[caller]]] = False
    edges = fusions[caller] & (module.callee_role == ROLES.index("calls"))
    called: dict[int, list[tuple[int, int]]] = {}
    for at, callee in zip(caller[edges].tolist(), module.callee[edges].tolist(), strict=True):
        called.setdefault(int(module.computation_of[at]), []).append((at, callee))
    row = np.full(count, -1, np.int64)
    for computation in reversed(callees_first(module)):
        rows = slice(start[computation], start[computation + 1])
        if inside[computation]:
            row[rows] = owner[computation]
        else:
            row[rows] = np.arange(start[computation], start[computation + 1])
        for at, callee in called.get(computation, ()):
            owner[callee] = row[at]
    row[module.opcode_mask(*FREE)] = -1
    library = np.zeros(count, np.bool_)
    for number in np.unique(module.attribute[fusions]).tolist():
        if "__ynn_fusion" in attributes_at(module, number).get("backend_config", ""):
            library |= fusions & (module.attribute == number)
    return row, np.where(row >= 0, library[row], False)
