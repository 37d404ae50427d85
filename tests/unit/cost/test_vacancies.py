"""The search for idle hosts against trying each of them."""

from __future__ import annotations

import random

import pytest

from hlo_lab.cost.vacancies import Vacancies

UNTIL = 40


def overlaps(uses: list[tuple[int, int]], start: int, end: int) -> bool:
    return any(first <= end and last >= start for first, last in uses)


def uses(draw: random.Random) -> list[tuple[int, int]]:
    """Disjoint, rising; some meet."""
    cuts = sorted(draw.sample(range(UNTIL + 1), 2 * draw.randrange(4)))
    return list(zip(cuts[::2], cuts[1::2], strict=True))


@pytest.mark.parametrize("seed", range(60))
def test_the_first_idle_host_is_found(seed: int) -> None:
    draw = random.Random(seed)
    hosts = [uses(draw) for _ in range(draw.randrange(1, 20))]
    idle = Vacancies(hosts, UNTIL)
    placed = 0
    for _ in range(80):
        spans = uses(draw) or [(7, 7)]
        lowest = draw.randrange(len(hosts) + 1)
        free = [
            number >= lowest and not any(overlaps(own, *span) for span in spans)
            for number, own in enumerate(hosts)
        ]
        host = idle.first(spans, lowest)
        assert host == (free.index(True) if any(free) else -1)
        start, end = spans[0]
        touched = draw.randrange(len(hosts))
        inner = overlaps(hosts[touched], start + 1, end - 1)
        assert idle.in_use(touched, start + 1, end - 1) == inner
        if not inner and draw.random() < 0.2:  # touching its neighbours at one instant
            host, spans = touched, spans[:1]
        if host >= 0:
            placed += 1
            for span in spans:
                idle.add(host, *span)
            hosts[host] = sorted(hosts[host] + spans)
    assert placed


def test_one_host_that_is_never_in_use() -> None:
    idle = Vacancies([[]], 3)
    assert idle.first([(0, 3)], 0) == 0
    idle.add(0, 1, 3)
    assert idle.first([(0, 0)], 0) == 0
    assert idle.first([(0, 1)], 0) == -1
