"""The order of computations: callees before callers, and who is inlined."""

from __future__ import annotations

import numpy as np

from hlo_lab.errors import InputError
from hlo_lab.ir.module import ROLES, Ints, Module

CALLS, TO_APPLY = ROLES.index("calls"), ROLES.index("to_apply")


def callees_first(module: Module) -> list[int]:
    """Every computation after those that it calls.

    Raises:
        InputError: a computation that calls itself, directly or through others.
    """
    count = len(module.computation_names)
    caller = module.computation_of[np.repeat(np.arange(len(module)), np.diff(module.callee_start))]
    edges = np.unique(caller * count + module.callee)
    waiting = np.bincount(edges // count, minlength=count).tolist()
    callers: list[list[int]] = [[] for _ in range(count)]
    for edge in edges.tolist():
        callers[edge % count].append(edge // count)
    order = [comp for comp in range(count) if not waiting[comp]]
    for comp in order:
        for other in callers[comp]:
            waiting[other] -= 1
            if not waiting[other]:
                order.append(other)
    if len(order) < count:
        name = next(module.computation_names[c] for c in range(count) if waiting[c])
        raise InputError(f"module {module.name}: computation {name!r} calls itself")
    return order


def inlined_callee(module: Module) -> Ints:
    """int64[N]: the computation that a fusion or call is replaced by, -1 for the rest."""
    out = np.full(len(module), -1, np.int64)
    for opcode, role in (("fusion", CALLS), ("call", TO_APPLY)):
        rows = np.nonzero(module.opcode_mask(opcode))[0]
        rows = rows[module.callee_start[rows + 1] - module.callee_start[rows] == 1]
        edges = module.callee_start[rows]
        keep = module.callee_role[edges] == role
        out[rows[keep]] = module.callee[edges[keep]]
    return out
