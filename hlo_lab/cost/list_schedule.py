"""How long a dependency graph takes on a few queues when whatever is ready starts."""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence


def makespan(
    seconds: Sequence[float], queue: Sequence[int], operands: Sequence[Sequence[int]]
) -> float:
    """Seconds of list scheduling, the node with the longest way to the end first.

    At most twice the best schedule for two queues of their own work (Graham, Bounds on
    Multiprocessing Timing Anomalies, 1969). Memory is not limited.

    Args:
        seconds: of each node; those that take none need no queue.
        queue: which queue a node runs on, a small number; nodes of one follow one another.
        operands: the nodes that each waits for, all before it in the order of nodes.
    """
    count = len(seconds)
    users: list[list[int]] = [[] for _ in range(count)]
    waits = [0] * count
    for node, needed in enumerate(operands):
        for one in set(needed):
            users[one].append(node)
            waits[node] += 1
    rest = list(seconds)  # the longest way from the start of a node to the end
    for node in reversed(range(count)):
        rest[node] += max((rest[user] for user in users[node]), default=0.0)
    pending = [(0.0, node) for node in range(count) if not waits[node]]  # from when on ready
    ready: list[list[tuple[float, int]]] = [[] for _ in range(max(queue, default=0) + 1)]
    free = [0.0] * len(ready)
    end = 0.0
    while pending or any(ready):
        starts = [free[at] if ready[at] else math.inf for at in range(len(ready))]
        if pending and pending[0][0] <= min(starts):
            done, node = heapq.heappop(pending)
            if seconds[node]:
                at = queue[node]
                free[at] = max(free[at], done) if not ready[at] else free[at]
                heapq.heappush(ready[at], (-rest[node], node))
                continue
        else:
            at = starts.index(min(starts))
            _, node = heapq.heappop(ready[at])
            done = free[at] = free[at] + seconds[node]
        end = max(end, done)
        for user in users[node]:
            waits[user] -= 1
            if not waits[user]:
                heapq.heappush(pending, (done, user))
    return end
