"""Which of many buffers is the first that is idle throughout an interval.

A binary tree over the hosts: each node has the gaps between the uses of its hosts that lie
in no wider gap of the same node, so that openings and closings rise together and one bisection
says whether any host below has room. A gap enters a node at most once and leaves it at most
once, which makes all searches and additions together n log^2 n, n hosts and additions.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence

Gaps = tuple[list[int], list[int]]  # (first, last) free times, both rising


class Vacancies:
    """The times at which each host is in use, and the gaps between them.

    Args:
        uses: per host, the (start, end) of each use, inclusive, rising and disjoint.
        until: the last time there is; times start at 0.
    """

    def __init__(self, uses: Sequence[Sequence[tuple[int, int]]], until: int):
        # a buffer that touches another may begin at the instant the other ends, so starts
        # and ends of a host's uses rise, but are not always apart
        self.starts = [[start for start, _ in own] for own in uses]
        self.ends = [[end for _, end in own] for own in uses]
        self.leaves = 1
        while self.leaves < len(uses):
            self.leaves *= 2
        self.gaps: list[Gaps] = [([], []) for _ in range(2 * self.leaves)]
        for host, own in enumerate(uses):
            opens = [0, *(end + 1 for _, end in own)]
            closes = [*(start - 1 for start, _ in own), until]
            free = [gap for gap in zip(opens, closes, strict=True) if gap[0] <= gap[1]]
            self.gaps[self.leaves + host] = _columns(free)
        for node in range(self.leaves - 1, 0, -1):
            left, right = self.gaps[2 * node], self.gaps[2 * node + 1]
            self.gaps[node] = _columns(
                _widest([*zip(*left, strict=True), *zip(*right, strict=True)])
            )

    def first(self, times: Sequence[tuple[int, int]], lowest: int) -> int:
        """The first host from ``lowest`` on that is idle during all of ``times``, or -1."""
        gaps, leaves = self.gaps, self.leaves
        if lowest >= leaves:
            return -1
        node = leaves + lowest
        while True:
            opens, closes = gaps[node]
            for start, end in times:
                at = bisect_right(opens, start) - 1
                if at < 0 or closes[at] < end:
                    break
            else:
                if node >= leaves:
                    return node - leaves
                node *= 2
                continue
            while node & 1:  # past a right child: on to what is right of its parent
                node >>= 1
            if not node:
                return -1
            node += 1

    def in_use(self, host: int, start: int, end: int) -> bool:
        """Whether a use begins by ``end`` and ends at ``start`` or later."""
        at = bisect_right(self.starts[host], end) - 1
        return at >= 0 and self.ends[host][at] >= start

    def add(self, host: int, start: int, end: int) -> None:
        """Use a host from ``start`` to ``end``."""
        starts, ends = self.starts[host], self.ends[host]
        at = bisect_left(starts, start)
        while at < len(starts) and starts[at] == start and ends[at] < end:
            at += 1
        starts.insert(at, start)
        ends.insert(at, end)
        opens, closes = self.gaps[self.leaves + host]
        at = bisect_left(closes, start)
        while at < len(opens) and opens[at] <= end:
            gap = opens[at], closes[at]
            parts = [(gap[0], start - 1)] if gap[0] < start else []
            parts += [(end + 1, gap[1])] if end < gap[1] else []
            opens[at : at + 1], closes[at : at + 1] = _columns(parts)
            self._narrow(self.leaves + host, gap)
            at += len(parts)

    def _narrow(self, node: int, gap: tuple[int, int]) -> None:
        """A gap is gone from a node: above it, gaps that lay within it take its place."""
        first, last = gap
        while node > 1:
            node //= 2
            opens, closes = self.gaps[node]
            at = bisect_left(opens, first)
            if at == len(opens) or opens[at] != first or closes[at] != last:
                return  # it lay in a wider one, as what is left of it does
            found: list[tuple[int, int]] = []
            for below_opens, below_closes in (self.gaps[2 * node], self.gaps[2 * node + 1]):
                low, high = bisect_left(below_opens, first), bisect_right(below_closes, last)
                if at:
                    low = max(low, bisect_right(below_closes, closes[at - 1]))
                if at + 1 < len(opens):
                    high = min(high, bisect_left(below_opens, opens[at + 1]))
                found += zip(below_opens[low:high], below_closes[low:high], strict=True)
            found = _widest(found)
            if found == [gap]:
                return  # the other child has the same
            opens[at : at + 1], closes[at : at + 1] = _columns(found)


def _widest(gaps: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """The gaps that lie in no other, by time."""
    if len(gaps) < 2:
        return gaps
    out: list[tuple[int, int]] = []
    reached = -1
    for first, last in sorted(gaps, key=lambda gap: (gap[0], -gap[1])):
        if last > reached:
            out.append((first, last))
            reached = last
    return out


def _columns(gaps: list[tuple[int, int]]) -> Gaps:
    return [first for first, _ in gaps], [last for _, last in gaps]
