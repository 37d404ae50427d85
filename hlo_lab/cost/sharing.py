"""Buffers that take over the memory of others: dying operands, and outputs not yet written.

Both follow XLA's buffer assignment (xla/service/buffer_assignment.cc): a result may
overwrite an operand that dies there, and before the heap is packed each temporary is
tried, largest first, in the smallest output (or donated argument) that is idle while it lives.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from hlo_lab.cost.buffers import TEMPORARY, Buffers
from hlo_lab.cost.vacancies import Vacancies
from hlo_lab.cost.walk import Walk
from hlo_lab.ir.module import Ints

# Temporaries below this part of all temporaries are not tried: they cannot matter.
_SMALLEST = 1e-5


@dataclass
class Intervals:
    """Times at which buffers hold something: rows of (buffer, start, end), by buffer, disjoint.

    ``first`` int64[B + 1] gives the rows of each buffer.
    """

    buffer: Ints
    start: Ints
    end: Ints
    first: Ints


@dataclass
class Sharing:
    """Who takes over whose memory.

    Attributes:
        intervals: when each buffer is in use, once results took over dying operands.
        inside: int64[B], the output or donated argument whose memory a temporary uses
            while that is idle; -1 for one with memory of its own.
    """

    intervals: Intervals
    inside: Ints


def share(walk: Walk, buffers: Buffers) -> Sharing:
    """Find both kinds of sharing."""
    end, touching = _overwrite_dying(walk, buffers)
    intervals = _intervals(buffers, end)
    return Sharing(intervals, _use_idle(buffers, intervals, touching))


def _overwrite_dying(walk: Walk, buffers: Buffers) -> tuple[Ints, dict[int, set[int]]]:
    """An elementwise result takes the place of an operand of its size that dies there.

    Returns the end of each value, one earlier where that happens, and by temporary the other
    kinds of buffers that it may overlap with at the one instruction that touches both.
    """
    end = buffers.value_end.copy()
    ends, starts = buffers.value_end.tolist(), buffers.value_start.tolist()
    row, kind = buffers.row.tolist(), buffers.kind.tolist()
    size = buffers.bytes.tolist()
    # of whole buffers: what a loop carries comes back in its buffer later
    born, dies = np.full(len(size), end.max(initial=0)), np.zeros(len(size), np.int64)
    np.minimum.at(born, buffers.row, buffers.value_start)
    np.maximum.at(dies, buffers.row, end)
    taken: set[int] = set()
    touching: dict[int, set[int]] = {}
    for time, results, given in walk.sharing:
        for result in results:
            mine = row[result]
            if not size[mine]:
                continue
            for number, operand in enumerate(given):
                if len(operand) != 1 or operand[0] in taken:
                    continue
                value, other = operand[0], row[operand[0]]
                if other == mine or not size[mine] <= size[other]:
                    continue
                if not walk.aliasing.may_share(walk.at_time[time], number):
                    continue
                if kind[mine] != TEMPORARY or kind[other] != TEMPORARY:
                    touching.setdefault(mine, set()).add(other)
                    touching.setdefault(other, set()).add(mine)
                elif (
                    size[mine] == size[other]
                    and born[mine] == time == dies[other]
                    and starts[value] < time == ends[value]
                ):
                    taken.add(value)
                    end[value] = time - 1
                    break
    return end, touching


def _intervals(buffers: Buffers, end: Ints) -> Intervals:
    """The values' lives, merged per buffer where they meet."""
    order = np.lexsort((buffers.value_start, buffers.row))
    row, start, last = buffers.row[order], buffers.value_start[order], end[order]
    # a running maximum within each buffer: buffers are put one after the other in time
    span = int(last.max(initial=0)) + 2
    reached = np.maximum.accumulate(row * span + last)
    new = np.ones(len(row), np.bool_)
    new[1:] = (row[1:] != row[:-1]) | (row[1:] * span + start[1:] > reached[:-1])
    heads = np.nonzero(new)[0]
    tails = np.append(heads[1:], len(row))[: len(heads)] - 1
    first = np.searchsorted(row[heads], np.arange(len(buffers.bytes) + 1))
    return Intervals(row[heads], start[heads], reached[tails] - row[tails] * span, first)


def _use_idle(buffers: Buffers, intervals: Intervals, touching: dict[int, set[int]]) -> Ints:
    """Place temporaries in outputs and donated arguments that are idle while they live."""
    inside = np.full(len(buffers.bytes), -1, np.int64)
    hosts = np.nonzero(buffers.host & (buffers.bytes > 0))[0]
    hosts = hosts[np.argsort(buffers.bytes[hosts], kind="stable")]
    temporary = buffers.kind == TEMPORARY
    smallest = max(_SMALLEST * float(buffers.bytes[temporary].sum()), 1.0)
    guests = np.nonzero(temporary & (buffers.bytes >= smallest))[0]
    guests = guests[np.argsort(-buffers.bytes[guests], kind="stable")]
    if not len(hosts) or not len(guests):
        return inside
    times = _times(intervals)
    idle = Vacancies([times(host) for host in hosts.tolist()], int(intervals.end.max()))
    place = {host: number for number, host in enumerate(hosts.tolist())}
    lowest = np.searchsorted(buffers.bytes[hosts], buffers.bytes[guests]).tolist()
    for guest, fits in zip(guests.tolist(), lowest, strict=True):
        spans = times(guest)
        found = idle.first(spans, fits)
        for friend in touching.get(guest, ()):
            host = place.get(friend, -1)
            # one of the two starts where the other ends, so either may give way
            if (
                host >= fits
                and not 0 <= found <= host
                and not any(idle.in_use(host, start + 1, end - 1) for start, end in spans)
            ):
                found = host
        if found >= 0:
            for start, end in spans:
                idle.add(found, start, end)
            inside[guest] = hosts[found]
    return inside


def _times(intervals: Intervals) -> Callable[[int], list[tuple[int, int]]]:
    """A function from a buffer to its (start, end) pairs."""
    first = intervals.first.tolist()
    pairs = list(zip(intervals.start.tolist(), intervals.end.tolist(), strict=True))
    return lambda buffer: pairs[first[buffer] : first[buffer + 1]]
