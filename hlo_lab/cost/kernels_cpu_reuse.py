"""Which bytes a kernel finds in a cache: by what was touched since they were last used."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hlo_lab.cost.counts import Counts
from hlo_lab.cost.tables import Bools, Floats
from hlo_lab.ir.module import Ints, Module

_RECENT = 0.5  # of a call: how long ago memory that a result takes was used for something else
_BACK = 0.5  # of writing where nothing was read before: that the cache gives the bytes back
_FITS = 0.6  # of a cache: what is used again after so much is all there, after all of it nothing


@dataclass(frozen=True)
class Far:
    """Bytes of each kernel that do not come from a cache.

    Attributes:
        read, written: float64[N, limits]; share: float64[N, limits], of all that it reads.
    """

    read: Floats
    written: Floats
    share: Floats


def beyond(
    module: Module, counted: Counts, kernels: Bools, loops: Bools, limits: tuple[float, ...]
) -> Far:
    """Bytes of each kernel that come from beyond the caches of these sizes.

    A kernel reads an operand from a cache when neither its own bytes nor those that other
    kernels moved since the operand was last used exceed the cache; in the order of the
    module's schedule. What no kernel of its computation used before (a parameter) was last
    used one call or iteration ago, by when all bytes of the computation have gone by. Of an
    operand that is larger than all that a kernel moves, it takes another part each time, which
    lies as far as the operand is large. A result goes to memory that was used as long ago,
    unless it takes that of an operand.

    Args:
        kernels: bool[N], what runs as one; loops: those of XLA's own loop fusions.
        limits: bytes that the caches hold.
    """
    moved = np.where(kernels, counted.bytes, 0).astype(np.float64)
    size = module.shape_values("bytes").astype(np.float64)
    user, source, made = _uses(module, kernels)
    # uses of the same source follow each other, in order
    order = np.lexsort((user, source))
    user, source, made = user[order], source[order], made[order]
    place = _in_place(size, user, source, made, loops)
    # of all that a kernel moves, the part that is its result's, and those of its operands
    weight = np.minimum(size[source], moved[user])
    own = np.minimum(size, moved)
    parts = np.maximum(np.bincount(user, weight, len(module)) + own, 1)
    weight *= moved[user] / parts[user]
    own *= moved / parts
    touched = np.where(place, moved - own, moved)
    # what was there before, others touched already
    new = np.where(place, 0.0, own)
    new += np.bincount(user, weight * (made < 0), len(module))
    clock, total = _clock(module, new)
    before = np.where(made >= 0, made, -1)
    again = np.zeros(len(user), np.bool_)
    again[1:] = source[1:] == source[:-1]
    before[again] = user[np.nonzero(again)[0] - 1]
    # what touched a part of it did not bring all of it
    before[moved[before] < size[source]] = -1
    start = clock[user] - new[user]
    whole = total[module.computation_of]
    ago = np.where(before >= 0, start - clock[before], whole[user])
    ago = np.maximum(ago, touched[user])
    ago = np.where(size[source] > moved[user], np.maximum(ago, size[source]), ago)
    since = np.where(place, touched, np.maximum(_RECENT * whole, touched))
    own[place] *= _BACK
    read, written = np.zeros((2, len(module), len(limits)))
    for level, limit in enumerate(limits):
        read[:, level] = np.bincount(user, weight * missed(ago, limit), len(module))
        written[:, level] = own * missed(since, limit)
    given = np.bincount(user, weight, len(module))
    return Far(read, written, read / np.maximum(given, 1)[:, None])


def _in_place(size: Floats, user: Ints, source: Ints, made: Ints, loops: Bools) -> Bools:
    """bool[N]: those of ``loops`` whose result takes the place of an operand used last there."""
    last = np.ones(len(user), np.bool_)
    last[:-1] = source[1:] != source[:-1]
    fits = last & (made >= 0) & loops[user] & (size[source] == size[user])
    out = np.zeros(len(size), np.bool_)
    out[user[fits]] = True
    return out


def missed(ago: Floats, limit: float) -> Floats:
    """The share of data that a cache no longer has after so many bytes."""
    share: Floats = np.clip((ago / limit - _FITS) / (1 - _FITS), 0, 1)
    return share


def _clock(module: Module, moved: Floats) -> tuple[Floats, Floats]:
    """(float64[N], float64[C]): bytes moved in its computation up to and with each
    instruction, and by all of it; control flow counts what its computations move, once."""
    count = len(module.computation_names)
    spent = moved.copy()
    caller = np.repeat(np.arange(len(module)), np.diff(module.callee_start))
    flow = module.opcode_mask("while", "conditional", "call")[caller]
    inside = np.bincount(module.computation_of, moved, count)
    np.add.at(spent, caller[flow], inside[module.callee[flow]])
    running = np.cumsum(spent)
    first = module.computation_start[:-1]
    base = np.where(first > 0, running[np.maximum(first - 1, 0)], 0.0)
    last = module.computation_start[1:] - 1
    return running - base[module.computation_of], running[np.maximum(last, 0)] - base


def _uses(module: Module, kernels: Bools) -> tuple[Ints, Ints, Ints]:
    """(user, source, made) of each operand of a kernel: the instruction whose data it shows,
    and the one that wrote that data (-1 where none of this computation did)."""
    source = np.arange(len(module))
    first = module.operand_start[:-1]
    shown = module.opcode_mask("bitcast") & (first < module.operand_start[1:])
    for _ in range(4):  # a bitcast of a bitcast; XLA makes no longer chains
        source[shown] = source[module.operand[first[shown]]]
    made = np.where(module.opcode_mask("parameter", "constant", "iota"), -1, source)
    parts = module.opcode_mask("get-tuple-element") & (first < module.operand_start[1:])
    whole = module.operand[first[parts]]
    made[parts] = np.where(module.parameter_number[whole] >= 0, -1, whole)
    user = np.repeat(np.arange(len(module)), np.diff(module.operand_start))
    edges = kernels[user]
    user, operand = user[edges], source[module.operand[edges]]
    return user, operand, made[operand]
