from __future__ import annotations

import os

from hlo_lab.lowering.process import _pipe


def test_an_end_that_was_closed_is_not_closed_again() -> None:
    with _pipe() as (reading, _):
        reading.close()
        another = os.open(os.devnull, os.O_RDONLY)  # takes the number that became free
    os.fstat(another)
    os.close(another)
