"""Microbenchmarks of data movement: bandwidth by size and pattern, gathers, scatters, networks."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

from hlo_lab.measure.microbenchmarks import Argument, Microbenchmark, case, floats, integers


def swept(function: Any) -> Any:
    """The function, then so much written that no call finds its arguments in a cache."""
    import jax.numpy as jnp

    def call(*values: Any) -> Any:
        result = function(*values)
        return result, jnp.full((1 << 25,), result.ravel()[0])

    return call


def streams() -> Iterator[Microbenchmark]:
    """Contiguous reads and writes from the smallest cache to main memory."""
    import jax.numpy as jnp

    for power in (16, 10, 20, 13, 23, 18, 4, 22, 15, 24, 19, 12, 21, 17):
        size = 1 << power
        yield case("stream", "scale", lambda x: x * 2, floats(size))
        yield case("stream", "add", lambda x, y: x + y, floats(size), floats(size))
        if power < 23:
            three = (floats(size),) * 3
            yield case("stream", "four", lambda x, y, z: (x + y * z, x - z), *three)
            yield case("stream", "copy", jnp.copy, floats(size))
            yield case("stream", f"fill {size}", lambda x, n=size: jnp.full((n,), x), floats())
    for power in (26, 25):
        yield case("stream", "scale", lambda x: x * 2, floats(1 << power))
        yield case("stream", "add", lambda x, y: x + y, floats(1 << power), floats(1 << power))
        yield case("stream", "sum", lambda x: x.sum(), floats(1 << power))
    for power in (16, 20, 18, 22, 14):
        one = floats(1 << power)
        yield case("stream", "cold scale", swept(lambda x: x * 2), one)
        yield case("stream", "cold add", swept(lambda x, y: x + y), one, one)
        yield case("stream", "cold sum", swept(lambda x: x.sum()), one)
    for dtype in ("bfloat16", "int8", "float64"):
        for power in (12, 16, 20, 22):
            argument = Argument((1 << power,), dtype)
            yield case("stream", "scale", lambda x: x + x, argument)


def broadcasts() -> Iterator[Microbenchmark]:
    """Rows, columns and blocks repeated."""
    import jax.numpy as jnp

    for rows, columns in ((512, 512), (64, 1024), (2048, 1024), (1024, 16), (16, 65536)):
        both = floats(rows, columns)
        yield case("broadcast", "row", lambda x, r: x + r, both, floats(columns))
        yield case("broadcast", "column", lambda x, c: x * c[:, None], both, floats(rows))
        yield case(
            "broadcast", "row and column", lambda x, r, c: (x - c[:, None]) * r,
            both, floats(columns), floats(rows),
        )  # fmt: skip
        outer = lambda r, c: r[None] - c[:, None]  # noqa: E731
        yield case("broadcast", "outer", outer, floats(columns), floats(rows))
        target = functools.partial(jnp.broadcast_to, shape=(4, rows, columns))
        yield case("broadcast", "blocks", target, both)
    for batch, length, width in ((8, 256, 512), (32, 64, 64), (4, 16, 2048)):
        call = lambda x, y: x[:, :, None] * y[:, None]  # noqa: E731
        yield case("broadcast", "middle", call, floats(batch, length), floats(batch, width))
        shown = lambda i, n=width: jnp.repeat((i > 7)[..., None], n, 2).astype(jnp.float32)  # noqa: E731
        yield case("broadcast", "shown", shown, integers(batch, length, below=20))
        worked = lambda x, y: jnp.exp(x / 3)[:, :, None] * y[:, None]  # noqa: E731
        yield case("broadcast", "worked", worked, floats(batch, length), floats(batch, width))
        full = floats(batch, length, width)
        yield case("broadcast", "mask", lambda x, m: x * m[:, None], full, floats(batch, width))
    for size in (128, 512, 1024):
        causal = lambda x: jnp.where(jnp.tril(jnp.ones(x.shape[-2:], bool)), x, -1e9)  # noqa: E731
        yield case("broadcast", "causal", causal, floats(4, size, size))
        yield case("broadcast", "iota", lambda x: x + jnp.arange(x.shape[1]), floats(size, size))
        one_hot = lambda i, n=size: (i[:, None] == jnp.arange(n)).astype(jnp.float32)  # noqa: E731
        yield case("broadcast", "one hot", one_hot, integers(size * 4, below=size))


def transposes() -> Iterator[Microbenchmark]:
    """Permutations by size, order and type; alone, and before arithmetic."""
    import jax.numpy as jnp

    orders: tuple[tuple[tuple[int, ...], tuple[int, ...]], ...] = (
        ((512, 512), (1, 0)), ((8, 64, 8, 32), (0, 2, 1, 3)), ((8, 64, 8, 32), (0, 2, 3, 1)),
        ((64, 64), (1, 0)), ((16, 128, 256), (1, 0, 2)), ((16, 128, 256), (0, 2, 1)),
        ((2048, 1024), (1, 0)), ((8, 32, 32, 64), (0, 3, 1, 2)), ((8, 64, 32, 32), (0, 2, 3, 1)),
        ((1024, 16), (1, 0)), ((16, 1024), (1, 0)), ((4, 256, 12, 64), (0, 2, 1, 3)),
        ((4, 256, 12, 64), (2, 0, 1, 3)), ((32, 3, 64, 64), (0, 2, 3, 1)),
        ((3, 3, 64, 64), (0, 1, 3, 2)),
        ((3, 3, 32, 64), (3, 0, 1, 2)), ((100, 200, 30), (2, 1, 0)), ((4096, 4096), (1, 0)),
        ((4, 12, 256, 64), (0, 2, 1, 3)), ((12, 4, 64, 256), (1, 3, 0, 2)), ((300, 700), (1, 0)),
        ((2, 16, 512, 64), (0, 1, 3, 2)),
        ((8, 512, 12, 64), (0, 2, 3, 1)),
        ((4, 512, 16, 32), (0, 2, 3, 1)), ((8, 8, 64, 512), (0, 3, 1, 2)),
        ((64, 50, 128), (1, 0, 2)), ((50, 64, 8), (2, 0, 1)),
    )  # fmt: skip
    for number, (dims, order) in enumerate(orders):
        label = "".join(map(str, order))
        moved = tuple(dims[axis] for axis in order)
        plain = functools.partial(jnp.transpose, axes=order)
        yield case("transpose", label, plain, floats(*dims))
        if number % 3 == 0:
            yield case("transpose", f"{label} bf16", plain, floats(*dims, dtype="bfloat16"))
        if max(dims) >= 4096:
            continue
        after = lambda x, y, t=plain: t(x) * y + 1  # noqa: E731
        yield case("transpose", f"{label} add", after, floats(*dims), floats(*moved))
        if number % 3 == 2:
            continue
        wave = lambda x, t=plain: jnp.tanh(t(x))  # noqa: E731
        yield case("transpose", f"{label} tanh", wave, floats(*dims))
        many = lambda x, y, z, t=plain: t((x * y - z) * x + y)  # noqa: E731
        yield case("transpose", f"{label} three", many, *([floats(*dims)] * 3))
    for dims, order in (
        ((8, 512, 12, 64), (0, 2, 3, 1)), ((1024, 2048), (1, 0)), ((4, 256, 12, 64), (0, 2, 1, 3)),
        ((512, 512), (1, 0)), ((16, 128, 256), (0, 2, 1)), ((1000, 3000), (1, 0)),
    ):  # fmt: skip
        cold = swept(functools.partial(jnp.transpose, axes=order))
        yield case("transpose", f"cold {order}", cold, floats(*dims))
    for rows, columns in ((8192, 2048), (2000, 9000)):
        yield case("transpose", "far", jnp.transpose, floats(rows, columns))
    for rows, columns in ((256, 128), (2048, 1024), (1024, 8192)):
        hot = lambda i, n=columns: (i[:, None] == jnp.arange(n)).astype(jnp.float32).T  # noqa: E731
        yield case("transpose", "one hot", hot, integers(rows, below=columns))
        square = floats(rows, columns)
        chosen = lambda x, y: jnp.where(x > 1, y, 0).T + 0.0  # noqa: E731
        yield case("transpose", "select", chosen, square, square)
    for size in (64, 256, 512):
        turned = lambda w: jnp.transpose(w[::-1, ::-1], (0, 1, 3, 2))  # noqa: E731
        yield case("transpose", "reversed", turned, floats(3, 3, size, size))


def parts() -> Iterator[Microbenchmark]:
    """Slices, concatenations, padding, reversal; parts read or written at an index."""
    import jax
    import jax.numpy as jnp

    for rows, columns in ((512, 512), (64, 256), (2048, 1024)):
        x, half = floats(rows, columns), columns // 2
        yield case("part", "rows", lambda x, n=rows // 2: x[n:] + 0.0, x)
        yield case("part", "columns", lambda x, n=half: x[:, n:] * 2, x)
        yield case("part", "stride", lambda x: x[:, ::2] + 1, x)
        yield case("part", "row stride", lambda x: x[::2] + 1, x)
        yield case("part", "halves", lambda x, n=half: x[:, :n] * x[:, n:], x)
        yield case("part", "differences", lambda x: x[1:] - x[:-1], x)
        yield case("part", "join rows", lambda x, y: jnp.concatenate([x, y], 0), x, x)
        yield case("part", "join columns", lambda x, y: jnp.concatenate([x, y], 1), x, x)
        yield case("part", "rotate", lambda x, n=half: jnp.concatenate([-x[:, n:], x[:, :n]], 1), x)
        yield case("part", "stack", lambda x, y: jnp.stack([x, y], -1), x, x)
        yield case("part", "pad", lambda x: jnp.pad(x, 1), x)
        yield case("part", "dilate", lambda x: jax.lax.pad(x, 0.0, ((0, 0, 0), (0, 0, 1))), x)
        yield case("part", "roll", lambda x: jnp.roll(x, 3, -1), x)
        yield case("part", "reverse", lambda x: x[:, ::-1], x)
        at = integers(below=3)
        yield case(
            "part", "at index",
            lambda x, i, n=half: jax.lax.dynamic_slice(x, (i, i), (x.shape[0] // 2, n)), x, at,
        )  # fmt: skip
        update = floats(rows // 4, half)
        write = lambda x, u, i: jax.lax.dynamic_update_slice(x, u, (i, i))  # noqa: E731
        yield case("part", "update", write, x, update, at)


def gathers() -> Iterator[Microbenchmark]:
    """Rows and elements of a table, by table size, number and width."""
    import jax.numpy as jnp

    def take(x: Any, i: Any) -> Any:
        return x[i]

    for table, rows, width in (
        (1024, 512, 256), (512, 4096, 16), (1000, 8192, 1), (128, 128, 512), (10000, 16384, 8),
        (1024, 2048, 512),
    ):  # fmt: skip
        index = integers(rows, below=table)
        yield case("gather", "rows", take, floats(table, width), index)
        yield case("gather", "rows scaled", lambda x, i: x[i] * 2 + 1, floats(table, width), index)
        square = integers(rows // 16, 16, below=table)
        yield case("gather", "rows summed", lambda x, i: x[i].sum(1), floats(table, width), square)
    for table, rows, width in ((12_000, 70_000, 80), (5000, 30_000, 128), (80_000, 100_000, 12)):
        index = integers(rows, below=table)
        yield case("gather", "many", take, floats(table, width), index)
        yield case("gather", "many scaled", lambda x, i: x[i] * 2 + 1, floats(table, width), index)
    for table, rows, width in (
        (200_000, 6400, 64), (1 << 20, 6400, 64), (50_000, 512, 512), (400_000, 2048, 16),
        (1 << 20, 128, 64), (1 << 24, 1 << 14, 1), (30_000, 1024, 256), (20_000, 4096, 128),
    ):  # fmt: skip
        index = integers(rows, below=table)
        yield case("gather", "cold", swept(lambda x, i: x[i] * 2), floats(table, width), index)
    for table, rows, width in ((20_000, 4096, 64), (100_000, 4096, 16), (4000, 512, 512)):
        # other rows of it each time, so that they come from where all of it lies
        some = integers(8, rows, below=table)
        each = lambda x, i: [x[i[number]] + number for number in range(8)]  # noqa: E731
        yield case("gather", "in turn", each, floats(table, width), some)
    for size, count in ((1024, 4096), (1 << 16, 1 << 14), (1 << 18, 1 << 16)):
        yield case("gather", "elements", take, floats(size), integers(count, below=size))
    for rows, columns in ((2048, 1024), (256, 64), (4096, 8)):
        along = lambda x, i: jnp.take_along_axis(x, i[:, None], 1)  # noqa: E731
        yield case("gather", "along", along, floats(rows, columns), integers(rows, below=columns))
        pairs = (integers(rows, below=rows), integers(rows, below=columns))
        yield case("gather", "pairs", lambda x, i, j: x[i, j], floats(rows, columns), *pairs)


def scatters() -> Iterator[Microbenchmark]:
    """Rows and elements added or set, by table size, number and width."""
    import jax

    def add(x: Any, i: Any, u: Any) -> Any:
        return x.at[i].add(u)

    for table, rows, width in (
        (1024, 512, 256), (10000, 2048, 64), (512, 4096, 16), (4096, 64, 512), (128, 128, 512),
        (1000, 8192, 8), (1024, 2048, 512), (50000, 512, 32), (12_000, 70_000, 80),
        (80_000, 100_000, 12),
    ):  # fmt: skip
        arguments = floats(table, width), integers(rows, below=table), floats(rows, width)
        yield case("scatter", "add", add, *arguments)
        yield case("scatter", "set", lambda x, i, u: x.at[i].set(u), *arguments)
        total = functools.partial(jax.ops.segment_sum, num_segments=table)
        yield case("scatter", "segments", total, arguments[2], arguments[1])
    for size, count in ((1024, 4096), (1 << 16, 1 << 12), (1 << 18, 1 << 15)):
        index = integers(count, below=size)
        yield case("scatter", "elements", add, floats(size), index, floats(count))
    for rows, columns in ((2048, 1024), (256, 64)):
        pairs = (integers(rows, below=rows), integers(rows, below=columns))
        yield case(
            "scatter", "pairs", lambda x, i, j: x.at[i, j].add(1.0), floats(rows, columns), *pairs
        )


def collectives(devices: int) -> Iterator[Microbenchmark]:
    """Reductions, gathers and exchanges between devices, by size."""
    import jax
    import numpy as np
    from jax.sharding import Mesh, PartitionSpec

    mesh = Mesh(np.array(jax.devices()[:devices]), ("x",))
    lax: Any = jax.lax
    spec: Any = PartitionSpec
    split, whole = spec("x"), spec()
    ring = [(at, (at + 1) % devices) for at in range(devices)]
    kinds = {
        "all-reduce": (lambda x: lax.psum(x, "x"), whole),
        "all-gather": (lambda x: lax.all_gather(x, "x"), split),
        "reduce-scatter": (lambda x: lax.psum_scatter(x, "x", tiled=True), split),
        "all-to-all": (lambda x: lax.all_to_all(x, "x", 0, 0, tiled=True), split),
        "permute": (lambda x: lax.ppermute(x, "x", ring), split),
    }
    for power in (10, 16, 20, 22):
        for name, (function, out) in kinds.items():
            call = jax.shard_map(function, mesh=mesh, in_specs=split, out_specs=out)
            yield case("collective", name, call, floats(devices << power))
