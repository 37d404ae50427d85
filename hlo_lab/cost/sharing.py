"""Buffers that take over the memory of others: dying operands, and outputs not yet written.

Both follow XLA's buffer assignment (xla/service/buffer_assignment.cc): a result may
overwrite an operand that dies there, and before the heap is packed each temporary is
tried, largest first, in the smallest output (or donated argument) that is idle while it lives.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from hlo_lab.cost.buffers import TEMPORARY, Buffers
from hlo_lab.cost.tables import Bools
from hlo_lab.cost.values import Walk
from hlo_lab.ir.module import Ints

# Temporaries below this part of all temporaries are not tried: they cannot matter.
_SMALLEST = 1e-5


@dataclass
class Sharing:
    """Who takes over whose memory.

    Attributes:
        end: int64[B], last time of each buffer once results took over dying operands.
        inside: int64[B], the output or donated argument whose memory a temporary uses
            while that is idle; -1 for one with memory of its own.
        touching: (temporary, other buffer) pairs that may overlap at the one instruction
            that reads one and writes the other.
    """

    end: Ints
    inside: Ints
    touching: set[tuple[int, int]] = field(default_factory=set)


def share(walk: Walk, buffers: Buffers) -> Sharing:
    """Find both kinds of sharing."""
    count = len(buffers.bytes)
    sharing = Sharing(buffers.end.copy(), np.full(count, -1, np.int64))
    _overwrite_dying(walk, buffers, sharing)
    _use_idle(buffers, sharing)
    return sharing


def _overwrite_dying(walk: Walk, buffers: Buffers, sharing: Sharing) -> None:
    """An elementwise result takes the place of an operand of its size that dies there."""
    ends, starts = buffers.end.tolist(), buffers.start.tolist()
    size, kind = buffers.bytes.tolist(), buffers.kind.tolist()
    row = buffers.row.tolist()
    taken: set[int] = set()
    for time, mine, given in walk.sharing:
        at = walk.at_time[time]
        for leaf in range(mine, mine + len(walk.layout(at).bytes)):
            result = row[leaf]
            if not size[result]:
                continue
            for number, operand in enumerate(given):
                other = row[operand]
                if other == result or size[other] < size[result] or other in taken:
                    continue
                temporaries = (kind[result] == TEMPORARY) + (kind[other] == TEMPORARY)
                if not temporaries or not walk.aliasing.may_share(at, number):
                    continue
                if temporaries == 1:
                    sharing.touching.add((result, other))
                    sharing.touching.add((other, result))
                elif (
                    starts[result] == time == ends[other] > starts[other]
                    and size[other] == size[result]
                ):
                    taken.add(other)
                    sharing.end[other] = time - 1
                    break


def _use_idle(buffers: Buffers, sharing: Sharing) -> None:
    """Place temporaries in outputs and donated arguments that are idle while they live."""
    hosts = buffers.reusable[np.argsort(buffers.bytes[buffers.reusable], kind="stable")]
    temporary = buffers.kind == TEMPORARY
    smallest = max(_SMALLEST * float(buffers.bytes[temporary].sum()), 1.0)
    guests = np.nonzero(temporary & (buffers.bytes >= smallest))[0]
    guests = guests[np.argsort(-buffers.bytes[guests], kind="stable")]
    if not len(hosts) or not len(guests):
        return
    host_bytes = buffers.bytes[hosts]
    busy = _Busy(buffers, hosts, len(guests))
    friends: dict[int, set[int]] = {}
    for one, other in sharing.touching:
        friends.setdefault(one, set()).add(other)
    place = {int(host): number for number, host in enumerate(hosts)}
    for guest in guests.tolist():
        start, end = int(buffers.start[guest]), int(sharing.end[guest])
        fits = int(np.searchsorted(host_bytes, buffers.bytes[guest]))
        free = ~busy.between(start, end)
        for friend in friends.get(guest, ()):
            if friend in place and not busy.between(start + 1, end - 1)[place[friend]]:
                free[place[friend]] = True
        candidates = np.nonzero(free[fits:])[0]
        if len(candidates):
            host = fits + int(candidates[0])
            busy.add(host, start, end)
            sharing.inside[guest] = hosts[host]


class _Busy:
    """The times at which each host is in use."""

    def __init__(self, buffers: Buffers, hosts: Ints, guests: int):
        self.count = len(hosts)
        number = np.full(len(buffers.bytes), -1, np.int64)
        number[hosts] = np.arange(len(hosts))
        known = number[buffers.use_row] >= 0
        self.used = int(known.sum())
        room = self.used + guests
        self.host = np.zeros(room, np.int64)
        self.start = np.zeros(room, np.int64)
        self.end = np.zeros(room, np.int64)
        self.host[: self.used] = number[buffers.use_row[known]]
        self.start[: self.used] = buffers.use_start[known]
        self.end[: self.used] = buffers.use_end[known]

    def between(self, start: int, end: int) -> Bools:
        """bool[hosts]: in use at some time of [start, end]."""
        used = slice(0, self.used)
        overlaps = (self.start[used] <= end) & (self.end[used] >= start)
        out = np.zeros(self.count, np.bool_)
        out[self.host[used][overlaps]] = True
        return out

    def add(self, host: int, start: int, end: int) -> None:
        self.host[self.used], self.start[self.used], self.end[self.used] = host, start, end
        self.used += 1
