"""Microbenchmarks of arithmetic: products, convolutions, elementwise, reductions, sorts."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

from hlo_lab.measure import microbenchmarks_memory as memory
from hlo_lab.measure.microbenchmarks import Argument, Microbenchmark, case, floats, integers

# m, k, n of a product [m, k] x [k, n]
_PRODUCTS = (
    (512, 512, 512), (64, 64, 64), (128, 512, 2048), (16, 16, 16), (1024, 256, 1024),
    (256, 256, 256), (8, 768, 768), (100, 300, 70), (2048, 64, 512), (32, 32, 32),
    (1000, 37, 250), (256, 2048, 64), (128, 128, 128), (4, 1024, 4096), (8, 8, 8),
    (768, 768, 768), (64, 1024, 16), (2048, 512, 128), (33, 65, 129), (1024, 1024, 1024),
    (16, 256, 4096), (4096, 128, 8), (512, 4, 512), (2, 512, 512), (4096, 256, 3),
    (8192, 2, 128), (4, 256, 768), (300, 600, 50), (64, 4, 1000), (128, 8192, 2), (2048, 16, 64),
)  # fmt: skip
# b, m, k, n of a batched product
_BATCHED = (
    (32, 64, 32, 64), (8, 256, 64, 256), (96, 128, 64, 128), (64, 16, 16, 16), (512, 8, 8, 8),
    (8, 512, 64, 512), (16, 128, 128, 32), (4, 1, 64, 512), (64, 1, 64, 256), (2, 300, 40, 300),
    (32, 128, 128, 16), (256, 1, 512, 2), (128, 2, 64, 512), (8, 160, 512, 128),
)  # fmt: skip
_VECTORS = ((512, 512), (2048, 2048), (128, 64), (64, 8192), (8192, 64), (4096, 1024))


def dots() -> Iterator[Microbenchmark]:
    """Matrix products by shape, layout and type; vectors; batches."""
    import jax.numpy as jnp

    forms = {
        "mk,kn->mn": (0, 1, 1, 2), "mk,nk->mn": (0, 1, 2, 1), "km,kn->mn": (1, 0, 1, 2),
        "km,nk->mn": (1, 0, 2, 1),
    }  # fmt: skip
    for number, sizes in enumerate(_PRODUCTS):
        for form, axes in list(forms.items())[: 4 if number < 14 or number > 24 else 1]:
            dims = [sizes[axis] for axis in axes]
            function = functools.partial(jnp.einsum, form)
            yield case("dot", form, function, floats(*dims[:2]), floats(*dims[2:]))
    for rows, columns in _VECTORS:
        matrix = floats(rows, columns)
        yield case("dot", "matrix vector", jnp.matmul, matrix, floats(columns))
        yield case("dot", "vector matrix", jnp.matmul, floats(rows), matrix)
        yield case("dot", "outer", jnp.outer, floats(rows), floats(columns))
    for rows, inputs, outputs in (
        (1, 4096, 8192), (1, 8192, 8192), (8, 768, 50_000), (8, 3072, 8192), (16, 4096, 8192),
        (64, 1024, 16_384),
    ):  # fmt: skip
        for form, matrix in (
                ("mk,kn->mn", floats(inputs, outputs)), ("mk,nk->mn", floats(outputs, inputs)),
            ):  # fmt: skip
            function = functools.partial(jnp.einsum, form)
            yield case("dot", f"large {form}", function, floats(rows, inputs), matrix)
    for m, k, n in ((512, 4096, 1024), (1024, 512, 4096)):
        for form, axes in forms.items():
            dims = [(m, k, n)[axis] for axis in axes]
            function = functools.partial(jnp.einsum, form)
            yield case("dot", form, function, floats(*dims[:2]), floats(*dims[2:]))
    for rows, inputs, outputs in ((1, 2048, 1024), (8, 1024, 1024), (64, 512, 1024)):
        for form, one, other in (("mk,kn->mn", inputs, outputs), ("mk,nk->mn", outputs, inputs)):
            cold = memory.swept(functools.partial(jnp.einsum, form))
            yield case("dot", f"cold {form}", cold, floats(rows, inputs), floats(one, other))
    for size in (1024, 2048):
        # a batch of matrices as experts have
        experts = functools.partial(jnp.einsum, "emk,ekn->emn")
        yield case("dot", "experts", experts, floats(8, 80, 512), floats(8, 512, size))
    batched = ("bmk,bkn->bmn", "bmk,bnk->bmn", "bkm,bkn->bmn", "mbk,nbk->bmn", "bmn,nbk->mbk")
    for number, (b, m, k, n) in enumerate(_BATCHED):
        for form in batched[: 5 if number < 5 or number > 9 else 2]:
            sizes_of = {"b": b, "m": m, "k": k, "n": n}
            left, right = form.partition("->")[0].split(",")
            function = functools.partial(jnp.einsum, form)
            lhs = floats(*(sizes_of[axis] for axis in left))
            yield case("dot", form, function, lhs, floats(*(sizes_of[axis] for axis in right)))
    for dtype in ("bfloat16", "float16", "float64", "int32", "int8"):
        for m, k, n in _PRODUCTS[:4]:
            yield case("dot", dtype, jnp.matmul, Argument((m, k), dtype), Argument((k, n), dtype))


# batch, height and width, input and output features, window, stride, feature groups
_CONVOLUTIONS = (
    (8, 32, 16, 32, 3, 1, 1), (4, 16, 64, 64, 3, 1, 1), (8, 32, 32, 64, 1, 1, 1),
    (4, 64, 3, 32, 7, 2, 1), (8, 16, 32, 64, 3, 2, 1), (1, 28, 128, 128, 3, 1, 1),
    (16, 8, 128, 128, 3, 1, 1), (4, 32, 32, 32, 3, 1, 32), (8, 64, 3, 16, 3, 1, 1),
    (2, 56, 64, 64, 3, 1, 1), (8, 16, 64, 128, 1, 2, 1), (16, 28, 1, 8, 5, 1, 1),
    (2, 14, 256, 256, 3, 1, 1), (4, 24, 24, 48, 3, 1, 2), (2, 7, 512, 512, 3, 1, 1),
    (4, 2, 64, 64, 3, 1, 1), (4, 2, 512, 512, 3, 1, 1), (4, 2, 256, 256, 3, 1, 1),
    (4, 4, 64, 64, 3, 1, 1), (4, 16, 16, 16, 3, 1, 1),
    (8, 8, 16, 32, 3, 2, 1), (4, 48, 3, 24, 5, 1, 1), (4, 32, 5, 32, 3, 1, 1),
    (4, 48, 4, 32, 5, 1, 1), (4, 40, 24, 24, 3, 1, 1),
)  # fmt: skip


def convolutions() -> Iterator[Microbenchmark]:
    """Convolutions in two dimensions, and the gradients to their operands."""
    import jax

    for batch, size, inputs, outputs, window, stride, groups in _CONVOLUTIONS:
        apply = functools.partial(_convolve, stride=stride, groups=groups)
        image = floats(batch, size, size, inputs)
        kernel = floats(window, window, inputs // groups, outputs)
        out = floats(batch, -(-size // stride), -(-size // stride), outputs)
        label = f"stride {stride} groups {groups}"
        yield case("convolution", label, apply, image, kernel)
        for operand, other in ((0, kernel), (1, image)):
            shape = (image, kernel)[operand]

            def gradient(
                at: Any, other: Any, out: Any, apply: Any = apply, operand: int = operand
            ) -> Any:
                call = (lambda x: apply(x, other)) if operand == 0 else (lambda w: apply(other, w))
                return jax.vjp(call, at)[1](out)[0]

            yield case("convolution", f"gradient {operand} {label}", gradient, shape, other, out)


def _convolve(image: Any, kernel: Any, stride: int, groups: int) -> Any:
    import jax

    return jax.lax.conv_general_dilated(
        image, kernel, (stride, stride), "SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=groups,
    )  # fmt: skip


def elementwise() -> Iterator[Microbenchmark]:
    """One function at a time, in cache; then chains of several."""
    import jax
    import jax.numpy as jnp

    unary: tuple[Any, ...] = (
        jnp.exp, jnp.tanh, jnp.log, jnp.sqrt, jax.lax.rsqrt, jax.nn.sigmoid, jnp.sin, jnp.cos,
        jax.lax.erf, jnp.log1p, jnp.expm1, jnp.abs, jnp.floor, jnp.sign, jnp.cbrt, jnp.negative,
        jnp.isfinite, jnp.square, jnp.tan, jax.lax.erf_inv, jnp.arctan, jnp.rint,
    )  # fmt: skip
    binary: tuple[Any, ...] = (
        jnp.divide,
        jnp.maximum,
        jnp.power,
        jnp.arctan2,
        jnp.greater,
        jnp.mod,
    )
    for size in (1 << 16, 1 << 11, 1 << 20):
        for function in unary[: None if size == 1 << 16 else 9]:
            yield case("elementwise", function.__name__, function, floats(size))
        for function in binary[: None if size == 1 << 16 else 3]:
            yield case("elementwise", function.__name__, function, floats(size), floats(size))
    whole: dict[str, Any] = {
        "add": jnp.add, "multiply": jnp.multiply, "xor": jnp.bitwise_xor, "divide": jax.lax.div,
        "remainder": jax.lax.rem, "shift": jnp.left_shift, "less": jnp.less,
        "popcount": lambda x, y: jax.lax.population_count(x), "minimum": jnp.minimum,
    }  # fmt: skip
    for dtype in ("int32", "uint32", "int8", "int64"):
        for name, function in list(whole.items())[: None if dtype == "int32" else 4]:
            pair = (Argument((1 << 16,), dtype), Argument((1 << 16,), dtype))
            yield case("elementwise", name, lambda x, y, f=function: f(x, y | 1), *pair)
    for dtype in ("bfloat16", "float16", "float64"):
        for function in (jnp.exp, jnp.tanh, jnp.square, jnp.sqrt, jnp.log):
            yield case("elementwise", function.__name__, function, floats(1 << 16, dtype=dtype))
    for start, end in (
        ("float32", "bfloat16"), ("bfloat16", "float32"), ("float32", "int32"),
        ("int32", "float32"),
        ("float32", "float64"), ("int32", "bool"), ("float32", "float16"), ("int8", "float32"),
    ):  # fmt: skip
        one = Argument((1 << 17,), start)
        yield case("elementwise", f"to {end}", lambda x, t=end: x.astype(t), one)
    for size, terms in ((1 << 16, 4), (1 << 12, 16), (1 << 18, 8), (1 << 14, 40), (1 << 20, 16)):
        chain = functools.partial(_polynomial, terms=terms)
        yield case("elementwise", f"polynomial {terms}", chain, floats(size), floats(size))
    for size in (1 << 12, 1 << 16, 1 << 20):
        three = (floats(size),) * 3
        yield case("elementwise", "select", lambda x, y, z: jnp.where(x > y, z, x + y), *three)
        yield case("elementwise", "gated", lambda x, y, z: jax.nn.silu(x) * y + jnp.tanh(z), *three)
        yield case("elementwise", "clip", lambda x: jnp.clip(x, 0.7, 1.2) * 3 - x, floats(size))


def chains() -> Iterator[Microbenchmark]:
    """Several functions in one loop, which vectorise or hide each other's latency together."""
    import jax
    import jax.numpy as jnp

    rsqrt: Any = jax.lax.rsqrt
    forms: dict[str, Any] = {
        "softplus": lambda x, y: jnp.logaddexp(x, y),
        "decay": lambda x, y: jnp.exp(-jnp.abs(x)) * jnp.log1p(y),
        "rsqrt": lambda x, y: x * rsqrt(y * y + 1e-5),
        "rsqrt tanh": lambda x, y: jnp.tanh(x) * rsqrt(y + 1.0) - x,
        "log1p": lambda x, y: jnp.log1p(x * x) + y,
        "log1p rsqrt": lambda x, y: jnp.log1p(jnp.exp(-x)) * rsqrt(y + x),
        "three": lambda x, y: jnp.exp(-x) * jnp.log1p(y) + rsqrt(x + y) * jnp.tanh(x),
        "exp twice": lambda x, y: jnp.exp(x - 1) / (1 + jnp.exp(-y)),
        "bias tanh": lambda x, y: jnp.tanh(x + y[0]),
        "sqrt divide": lambda x, y: x / (jnp.sqrt(y) + 1e-8),
        "log exp": lambda x, y: jnp.log(jnp.exp(x) + jnp.exp(y)),
        "sine": lambda x, y: jnp.sin(x) * jnp.cos(y) + jnp.exp(-x),
    }
    for size in (1 << 16, 1 << 20, 1 << 12):
        for name, function in forms.items():
            pair = floats(size // 64, 64), floats(size // 64, 64)
            yield case("chain", name, function, *pair)


def _polynomial(x: Any, y: Any, terms: int) -> Any:
    total = x
    for number in range(terms):
        total = total * y + (number + 0.5)
    return total


def reductions() -> Iterator[Microbenchmark]:
    """Sums, maxima and others over each axis, with and without work before."""
    import jax
    import jax.numpy as jnp

    shapes = (
        ((512, 512), 1), ((512, 512), 0), ((8, 256, 512), (0, 1)), ((1 << 18,), 0),
        ((64, 64, 64), 1), ((4096, 16), 1), ((16, 4096), 1), ((16, 4096), 0), ((4096, 16), 0),
        ((8, 32, 32, 64), (0, 1, 2)), ((2048, 1024), 1), ((2048, 1024), 0), ((4, 100, 30), 2),
        ((32, 8, 128, 128), 3), ((64, 3), 1), ((20, 30), None), ((8, 16, 16, 128), (1, 2)),
        ((1 << 22,), 0), ((256, 8, 256), (0, 2)),
    )  # fmt: skip
    for number, (dims, axis) in enumerate(shapes):
        some: dict[str, Any] = {
            "sum": jnp.sum, "max": jnp.max, "squares": lambda x, axis: jnp.sum(x * x, axis),
            "argmax": jnp.argmax if not isinstance(axis, tuple) else jnp.prod,
            "variance": jnp.var,
            "exponentials": lambda x, axis: jnp.exp(x - 1).sum(axis), "prod": jnp.prod,
            "centred": lambda x, axis: jnp.sum((x - x.mean(axis, keepdims=True)) ** 2, axis),
        }  # fmt: skip
        for label, function in list(some.items())[: None if number < 6 else 5]:
            call = functools.partial(function, axis=axis)
            yield case("reduce", f"{label} {axis}", call, floats(*dims))
        pair = (floats(*dims), floats(*dims))
        yield case("reduce", f"dot {axis}", lambda x, y, a=axis: (x * y).sum(a), *pair)
    for dtype in ("bfloat16", "float64", "int32", "bool"):
        for axis in (0, 1):
            call = functools.partial(jnp.sum, axis=axis)
            yield case("reduce", f"sum {axis}", call, Argument((512, 512), dtype))
            call = functools.partial(jnp.max, axis=axis)
            yield case("reduce", f"max {axis}", call, Argument((512, 512), dtype))
    for dims in ((4, 128, 256), (8, 64, 512)):
        call = functools.partial(jnp.sum, axis=(0, 1))
        yield case("reduce", "sum (0, 1)", call, floats(*dims, dtype="bfloat16"))
    for dims in ((512, 512), (64, 4096), (32, 8, 64, 64)):
        one = floats(*dims)
        yield case("reduce", "logsumexp", functools.partial(jax.nn.logsumexp, axis=-1), one)
        yield case("reduce", "transposed", lambda x: jnp.swapaxes(x, 0, 1).sum(-1) * 2, one)


def sorts() -> Iterator[Microbenchmark]:
    """Sorts and selections by length, number and payload."""
    import jax
    import jax.numpy as jnp

    for dims in ((4096,), (64, 256), (1 << 17,), (512, 32), (8, 8192), (1024, 8), (4, 1 << 15)):
        # of both signs: comparing floats branches on them
        yield case("sort", "keys", lambda x: jnp.sort(x - 1), floats(*dims))
        yield case("sort", "arguments", lambda x: jnp.argsort(x - 1), floats(*dims))
        yield case("sort", "integers", jnp.argsort, integers(*dims, below=1 << 32, dtype="uint32"))
    for dims, k in (((64, 1024), 8), ((1024, 8), 2), ((8, 32768), 50), ((4096, 64), 4)):
        yield case("sort", f"top {k}", functools.partial(jax.lax.top_k, k=k), floats(*dims))
    for dims in ((1 << 16,), (256, 512)):
        for axis in range(len(dims)):
            add = functools.partial(jnp.cumsum, axis=axis)
            yield case("sort", f"cumsum {axis}", add, floats(*dims))


def windows() -> Iterator[Microbenchmark]:
    """Pooling and its gradient."""
    import jax
    import jax.numpy as jnp

    def pool(x: Any, size: int) -> Any:
        window, strides = (1, size, size, 1), (1, 2, 2, 1)
        return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, window, strides, "SAME")

    for dims, size in (((8, 32, 32, 32), 2), ((4, 56, 56, 64), 3), ((16, 14, 14, 16), 2)):
        call = functools.partial(pool, size=size)
        yield case("window", f"maximum {size}", call, floats(*dims))
        gradient = jax.grad(lambda x, c=call: c(x).sum())
        yield case("window", f"gradient {size}", gradient, floats(*dims))


def factorisations() -> Iterator[Microbenchmark]:
    """Linear algebra of libraries, and Fourier transforms."""
    import jax
    import jax.numpy as jnp

    for size in (64, 256, 512):
        matrix = floats(size, size)
        spd = lambda x: x @ x.T + jnp.eye(x.shape[0]) * x.shape[0]  # noqa: E731
        yield case("factorisation", "cholesky", lambda x, f=spd: jnp.linalg.cholesky(f(x)), matrix)
        yield case(
            "factorisation", "triangular",
            lambda x, f=spd: jax.scipy.linalg.solve_triangular(f(x), x, lower=True), matrix,
        )  # fmt: skip
        yield case("factorisation", "qr", jnp.linalg.qr, matrix)
    for dims in ((64, 256), (16, 4096), (1 << 16,)):
        yield case("factorisation", "fourier", jnp.fft.fft, floats(*dims))
        yield case("factorisation", "real fourier", jnp.fft.rfft, floats(*dims))
