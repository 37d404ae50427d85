"""List scheduling on graphs whose best schedule is plain."""

from __future__ import annotations

import pytest

from hlo_lab.cost.list_schedule import makespan


def test_a_chain_takes_the_sum() -> None:
    assert makespan([1.0, 2.0, 3.0], [0, 1, 0], [[], [0], [1]]) == 6.0


def test_independent_work_of_two_queues_runs_at_once() -> None:
    assert makespan([3.0, 2.0], [0, 1], [[], []]) == 3.0
    assert makespan([3.0, 2.0], [0, 0], [[], []]) == 5.0


def test_what_has_the_longest_way_to_the_end_goes_first() -> None:
    """A kernel that feeds a long transfer is not kept waiting by one that feeds nothing."""
    assert makespan([4.0, 1.0, 4.0], [0, 0, 1], [[], [], [1]]) == 5.0


def test_nodes_that_take_no_time_hand_on() -> None:
    assert makespan([1.0, 0.0, 1.0], [0, 0, 1], [[], [0], [1, 1]]) == 2.0
    assert makespan([], [], []) == 0.0


@pytest.mark.parametrize("parts", [1, 4])
def test_a_transfer_in_parts_starts_earlier(parts: int) -> None:
    """Four kernels, and the transfer of their results in one or in four parts."""
    kernels = [1.0] * 4
    sends = [4.0 / parts] * parts
    needed = [[0, 1, 2, 3]] if parts == 1 else [[n] for n in range(4)]
    taken = makespan([*kernels, *sends], [0] * 4 + [1] * parts, [[] for _ in kernels] + needed)
    assert taken == (8.0 if parts == 1 else 5.0)
