"""How long XLA:CPU's kernels take: work by kind, each kind at the machine's own rate.

What a kernel does is counted in named units (:mod:`hlo_lab.cost.kernels_cpu_work`): products
padded to vectors, elements packed, elements moved against the grain of a layout, calls of each
function, bytes beyond each cache. A machine file holds the seconds of one unit of each. Units of
computing add up, and so do bytes; as a core fetches ahead while it computes, the two together take
hardly longer than the longer of them (``OVERLAP``). Every rate is positive and every unit grows
with the sizes, so more work is never faster, and nothing leaves the range of what was measured by
more than the work does.
"""

from __future__ import annotations

import numpy as np

from hlo_lab.cost.categories import CATEGORIES, categories
from hlo_lab.cost.counts import Counts
from hlo_lab.cost.kernels_cpu_units import UNITS
from hlo_lab.cost.kernels_cpu_work import work
from hlo_lab.cost.machines import Machine
from hlo_lab.cost.roofline import BOUNDS, KernelTimes, network_seconds, roofline
from hlo_lab.cost.tables import Floats
from hlo_lab.ir.module import Ints, Module

OVERLAP = 3.0  # the power at which computing and moving add up: 1 one after the other, inf beside
# The bound that a unit counts towards, by the first word of its name.
_BOUND_OF = {"kernel": "overhead", "bytes": "memory", "move": "memory", "row": "memory"}


def kernel_times(module: Module, machine: Machine, counted: Counts) -> KernelTimes:
    """The time of each instruction as a kernel of XLA:CPU; the roofline without rates."""
    if not machine.rates:
        return roofline(machine, counted)
    spent = work(module, machine, counted) * rates_of(machine)
    parts = [spent[:, name == _BOUNDS].sum(1) for name in BOUNDS[:3]]
    seconds = together(spent, PARTS)[0]
    parts.append(network_seconds(machine, counted))
    errors = np.array([machine.errors.get(name, np.nan) for name in CATEGORIES])
    bound = np.argmax(parts, 0)
    return KernelTimes(seconds + parts[3], bound, errors[categories(module)])


def together(spent: Floats, parts: Ints) -> tuple[Floats, Floats]:
    """(seconds, slopes) of kernels whose units would take ``spent`` seconds one by one.

    Args:
        spent: float64[K, units]; parts: int64[units], as ``PARTS``.

    Returns:
        float64[K]; float64[K, units], the derivatives of it by each of ``spent``.
    """
    start, computed, moved = (spent[:, part == parts].sum(1) for part in range(3))
    longer = np.maximum(np.maximum(computed, moved), 1e-30)
    both = longer * ((computed / longer) ** OVERLAP + (moved / longer) ** OVERLAP) ** (1 / OVERLAP)
    slopes = np.ones((3, len(spent)))
    slopes[1:] = (np.array([computed, moved]) / np.maximum(both, 1e-30)) ** (OVERLAP - 1)
    return start + both, slopes[parts].T


def rates_of(machine: Machine) -> Floats:
    """float64[units]: seconds of one unit of each kind of work; 0 for a unit without a rate."""
    return np.array([machine.rates.get(name, 0.0) for name in UNITS])


_BOUNDS = np.array([_BOUND_OF.get(name.partition(".")[0], "compute") for name in UNITS])
# what adds up: starts (0), computing (1), bytes (2)
PARTS: Ints = np.array([{"kernel": 0, "bytes": 2}.get(name.partition(".")[0], 1) for name in UNITS])
