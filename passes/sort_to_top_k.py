"""TOP001: a sort of which only the first or last elements are taken, as a top-k."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from hlo_lab.passkit.base import RewriteExample, RewritePass
from hlo_lab.passkit.builder import Builder
from hlo_lab.passkit.rewriter import Op, Rewriter, Value

_PROGRAM = """
import jax
import jax.numpy as jnp

def f(x):
    return TAKEN

def example_args():
    return (jax.ShapeDtypeStruct((16, 512), jnp.float32),)
"""


def _program(taken: str) -> str:
    return _PROGRAM.replace("TAKEN", taken)


@dataclass(frozen=True)
class SortToTopKPass(RewritePass):
    """A sort of which few elements are taken, as a top-k.

    What it rewrites
        Sorts along the last dimension, with or without the positions that ``argsort`` wants
        (``descending`` or not), where everything that takes the result takes its first or its last
        elements, at most ``most`` of them (a share of the length).

    Why it matters
        A sort orders everything; a top-k keeps a few elements beside those seen so far.

    Example
        ``jnp.sort(logits)[:, -8:]``, or ``jnp.argsort(-scores)[:, :10]``.

    When it does not pay
        Short dimensions, and many elements taken. Some compilers make a sort of it again.

    What changes in the numbers
        Nothing, but for NaNs whose sign bit is set, which a top-k takes for the smallest, and
        for zeros: a top-k takes -0 for less than 0, a sort for the same.
        Positions of the last elements are left alone unless ``any_order_of_ties``: of equal
        elements ``argsort`` has the later ones last, a top-k the earlier ones first (as
        ``argsort(x, descending=True)`` has them).
    """

    code: ClassVar[str] = "TOP001"
    name: ClassVar[str] = "sort-to-top-k"
    examples: ClassVar[tuple[RewriteExample, ...]] = (
        RewriteExample(
            "the largest eight",
            _program("jnp.sort(x)[:, -8:]"),
            has=("chlo.top_k",),
            lacks=("sort",),
        ),
        RewriteExample(
            "the largest, largest first",
            _program("jnp.sort(x)[:, ::-1][:, :8]"),
            has=("chlo.top_k",),
            lacks=("sort",),
        ),
        RewriteExample(
            "the smallest, and where they are",
            _program("jnp.sort(x)[:, 2:4], jnp.argsort(-x)[:, :4]"),
            changes=2,
            has=("chlo.top_k",),
            lacks=("sort",),
        ),
        RewriteExample(
            "integers",
            _program("jnp.sort(jnp.round(x * 100).astype(jnp.int32))[:, :5]"),
            lacks=("sort",),
        ),
        RewriteExample("the median", _program("jnp.sort(x)[:, 256]"), changes=0),
        RewriteExample("along rows", _program("jnp.sort(x, axis=0)[:1]"), changes=0),
        RewriteExample(
            "where the largest are, of equal ones the first",
            _program("jnp.argsort(jnp.round(jnp.abs(x)), descending=True)[:, :10]"),
            has=("chlo.top_k",),
            lacks=("sort",),
        ),
        RewriteExample(
            "where the smallest are, of equal ones the last",
            _program("jnp.argsort(x, descending=True)[:, -4:]"),
            changes=0,
        ),
        RewriteExample("where the largest are", _program("jnp.argsort(x)[:, -4:]"), changes=0),
    )

    most: float = 0.25
    any_order_of_ties: bool = False

    def rewrite(self, module: Rewriter) -> None:
        """Replace what takes the sorts' results; the sorts are then unused."""
        for sort in module.ops("sort"):
            ends = self._ends(sort)
            if ends is not None:
                self._replace(module, sort, ends)

    def _ends(self, sort: Op) -> list[_End] | None:
        """What takes the results; None where that is not one end of few elements."""
        last = sort.operands[0].rank - 1
        if sort.attribute("dimension") != last or not _ascending(sort) or not _sorts(sort):
            return None
        length = sort.operands[0].shape[last]
        ends: list[_End] = []
        for value in sort.results:
            for user in value.users:
                reverse = user if user.name == "reverse" else None
                if reverse is not None and reverse.attribute("dimensions") != (last,):
                    return None
                takers = [user] if reverse is None else reverse.result.users
                for taker in takers:
                    end = _end(taker, value == sort.results[0], reverse is not None, length)
                    if end is None:
                        return None
                    ends.append(end)
        if not ends or len({end.largest for end in ends}) > 1:
            return None
        # of equal elements a stable sort has the earlier ones first: not at its end, unless it
        # was given them last first
        first = ends[0].largest == _is_turned(sort)
        ambiguous = not first and any(not end.is_key for end in ends)
        if ambiguous and not self.any_order_of_ties:
            return None
        return ends if max(end.stop for end in ends) <= self.most * length else None

    def _replace(self, module: Rewriter, sort: Op, ends: list[_End]) -> None:
        build = module.before(sort)
        key, largest = _straight(sort.operands[0], _is_turned(sort)), ends[0].largest
        count = max(end.stop for end in ends)
        values, positions = build.top_k(key if largest else _opposite(build, key), count)
        if not largest:
            values = _opposite(build, values)
        for end in ends:
            found = values if end.is_key else positions
            taken = build.slice_along(found, found.rank - 1, end.start, end.stop)
            # counted from its own end: the sort has the largest last
            if end.turned:
                taken = build.reverse(taken, taken.rank - 1)
            module.replace(end.taker, build.reshape(taken, end.taker.result.shape))


@dataclass(frozen=True)
class _End:
    """A slice of a sorted array, counted from the end that it takes from.

    ``turned``: it has the elements in the other order than counted.
    """

    taker: Op
    is_key: bool
    largest: bool
    start: int
    stop: int
    turned: bool


def _end(taker: Op, is_key: bool, is_reversed: bool, length: int) -> _End | None:
    if taker.name != "slice" or set(taker.attribute("strides")) != {1}:
        return None
    starts, limits = taker.attribute("start_indices"), taker.attribute("limit_indices")
    shape = taker.operands[0].shape
    if any(starts[:-1]) or tuple(limits[:-1]) != shape[:-1]:
        return None
    start, stop = starts[-1], limits[-1]
    # the nearer end of the array that is sliced
    at_end = stop > length - start
    if at_end:
        start, stop = length - stop, length - start
    return _End(taker, is_key, at_end != is_reversed, start, stop, at_end)


def _ascending(sort: Op) -> bool:
    """Whether the comparison is that of ``jnp.sort`` by the first operand."""
    last = sort.inner[-1]
    compare = last.operands[0].op
    if compare is None or compare.name != "compare":
        return False
    if compare.attribute("comparison_direction") != "LT":
        return False
    return [_argument(value, sort.arguments) for value in compare.operands] == [0, 1]


def _argument(value: Value, arguments: list[Value]) -> int:
    """Which argument a value is, but for the signs of zeros and NaNs; -1 for none."""
    while value not in arguments:
        if not value.is_a("select") or value.op is None:
            return -1
        value = value.op.operands[2]
    return arguments.index(value)


def _sorts(sort: Op) -> bool:
    """Whether it sorts numbers alone, or along with their positions."""
    operands = sort.operands
    if not (operands[0].is_float or operands[0].dtype.startswith("i")):
        return False
    if len(operands) == 1:
        return True
    iota = _straight(operands[1], _is_turned(sort)).op
    return (
        len(operands) == 2
        and iota is not None
        and iota.name == "iota"
        and operands[1].dtype == "i32"
        and iota.attribute("iota_dimension") == operands[1].rank - 1
    )


def _is_turned(sort: Op) -> bool:
    """Whether all that it sorts is given last first, as ``argsort(x, descending=True)`` does."""
    last = sort.operands[0].rank - 1
    made = [value.op for value in sort.operands]
    return len(made) > 1 and all(
        op is not None and op.name == "reverse" and op.attribute("dimensions") == (last,)
        for op in made
    )


def _straight(value: Value, is_turned: bool) -> Value:
    return value.op.operands[0] if is_turned and value.op is not None else value


def _opposite(build: Builder, value: Value) -> Value:
    """In which the smallest is the largest."""
    return build.elementwise("negate" if value.is_float else "not", value)
