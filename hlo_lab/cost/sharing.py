"""Results that overwrite an operand's buffer where it dies."""

from __future__ import annotations

from hlo_lab.cost.buffers import TEMPORARY, Buffers
from hlo_lab.cost.values import Walk
from hlo_lab.ir.module import Ints


def ends_after_sharing(walk: Walk, buffers: Buffers) -> Ints:
    """int64[B]: last time of each buffer once results take over dying operands' memory.

    An elementwise result, or that of a fusion that uses the operand elementwise only,
    takes the place of an operand of the same size whose last use this is: XLA's buffer
    assignment does the same, so at that moment the two count once.
    """
    end = buffers.end.copy()
    ends, starts = buffers.end.tolist(), buffers.start.tolist()
    size, kind = buffers.bytes.tolist(), buffers.kind.tolist()
    row = buffers.row.tolist()
    taken: set[int] = set()
    for time, mine, given in walk.sharing:
        at = walk.at_time[time]
        for leaf in range(mine, mine + len(walk.layout(at).bytes)):
            result = row[leaf]
            if kind[result] != TEMPORARY or starts[result] != time or not size[result]:
                continue
            for number, operand in enumerate(given):
                other = row[operand]
                dies = kind[other] == TEMPORARY and ends[other] == time > starts[other]
                if (
                    dies
                    and other not in taken
                    and size[other] == size[result]
                    and walk.aliasing.may_share(at, number)
                ):
                    taken.add(other)
                    end[other] = time - 1
                    break
    return end
