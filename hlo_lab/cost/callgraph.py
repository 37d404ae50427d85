"""Which computation calls which, in an order where callees come first."""

from __future__ import annotations

from hlo_lab.errors import ReadError
from hlo_lab.ir.module import Module

# These run their callees' instructions; every other caller applies its callee per element
# (reduce, sort, scatter ...) or as one kernel (fusion).
CONTROL_FLOW = frozenset(("while", "conditional", "call", "async-start"))


def callees_first(module: Module) -> list[int]:
    """Computation indices, each after everything it calls.

    Raises:
        ReadError: computations that call each other in a cycle, which no HLO does.
    """
    count = len(module.computation_names)
    callers: list[set[int]] = [set() for _ in range(count)]
    waiting = [0] * count
    at = module.callee_start.searchsorted(range(len(module.callee)), "right") - 1
    for caller, callee in zip(
        module.computation_of[at].tolist(), module.callee.tolist(), strict=True
    ):
        if caller not in callers[callee]:
            callers[callee].add(caller)
            waiting[caller] += 1
    order = [index for index in range(count) if not waiting[index]]
    for index in order:
        for caller in callers[index]:
            waiting[caller] -= 1
            if not waiting[caller]:
                order.append(caller)
    if len(order) < count:
        stuck = next(index for index in range(count) if waiting[index])
        name = module.computation_names[stuck]
        raise ReadError(f"module {module.name}: computation {name!r} is part of a cycle of calls")
    return order
