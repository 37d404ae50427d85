"""The numbers of a rewritten function's first call in a script; see ``lowering.worker.live``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hlo_lab.measure.numbers import compare_all
from hlo_lab.measure.rewriting import as_array


def compare(
    before: Sequence[Any], after: Sequence[Any], tolerance: float | None
) -> list[dict[str, Any]]:
    """Each result of the original and of the rewritten function, as ``Agreement.to_dict``.

    Raises:
        ValueError: they do not fit together.
    """
    agreements = compare_all(
        [as_array(each) for each in before], [as_array(each) for each in after], tolerance
    )
    return [each.to_dict() for each in agreements]
