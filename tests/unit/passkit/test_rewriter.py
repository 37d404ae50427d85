"""Looking at StableHLO and changing it."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import pytest

from hlo_lab.passkit.mlir_module import count_ops, mark, marked, unmark
from hlo_lab.passkit.stablehlo_patterns import anything, capture, op, splat
from tests.unit.passkit.modules import rewriting, traced

X = jax.ShapeDtypeStruct((4, 8), jnp.float32)
SIGMOID = op("divide", splat(1), op("add", splat(1), op("exponential", op("negate", capture("x")))))


def test_values_and_operations() -> None:
    def program(x: Any, y: Any) -> Any:
        z = x.T + 2
        return z * z, y @ y

    y = jax.ShapeDtypeStruct((8, 8), jnp.bfloat16)
    with rewriting(traced(program, X, y)) as module:
        (add,) = module.ops("add")
        assert (add.result.shape, add.result.dtype, add.result.rank) == ((8, 4), "f32", 2)
        assert [value.splat for value in add.operands] == [None, 2.0]
        assert [user.name for user in add.result.users] == ["multiply"]
        assert add.operands[0].op is not None
        assert add.operands[0].op.attribute("permutation") == (1, 0)
        assert add.operands[0].op.operands[0].op is None
        assert add.place.endswith("/add")
        (dot,) = module.ops("dot_general")
        assert (dot.dot.lhs_contracting, dot.dot.rhs_contracting) == ((1,), (0,))
        assert dot.attribute("precision_config") == ("DEFAULT", "DEFAULT")
        assert dot.result.is_float
        assert add.is_before(dot)
        assert not dot.is_before(add)


def test_a_pattern_captures_and_a_rewrite_leaves_nothing_behind() -> None:
    raw = traced(lambda x: jax.nn.silu(x) + x, X)
    with rewriting(raw) as module:
        for match in module.matches(SIGMOID):
            build = module.before(match.root)
            module.replace(match.root, build.elementwise("logistic", match["x"]))
        assert module.changes == 1
        # also what is not erased yet is out of sight
        assert {each.name for each in module.ops()} >= {"logistic", "multiply", "add"}
        assert not list(module.ops("exponential", "negate", "divide"))
    assert set(count_ops(raw)) == {"logistic", "multiply", "add"}


def test_both_orders_and_the_same_value_twice() -> None:
    square = op("multiply", capture("x", op("add", anything(), splat(1))), capture("x"))
    with rewriting(traced(lambda x: ((1 + x) * (1 + x), (x + 1) * x), X)) as module:
        assert [match["x"].is_a("add") for match in module.matches(square)] == []

    def once(x: Any) -> Any:
        y = 1 + x
        return y * y, y * x

    with rewriting(traced(once, X)) as module:
        (match,) = module.matches(square)
        assert match.op("x").name == "add"


def test_what_is_used_elsewhere_and_conditions() -> None:
    inner = op("negate", capture("x"), used_once=True)

    def program(x: Any) -> Any:
        y = -x
        return jnp.sin(y), jnp.cos(y), jnp.sin(-(x + 1))

    with rewriting(traced(program, X)) as module:
        assert len(list(module.matches(op(("sine", "cosine"), inner)))) == 1
        assert len(list(module.matches(op(("sine", "cosine"), op("negate"))))) == 3
        assert not list(module.matches(op("sine", where=lambda each: each.result.rank == 1)))
        assert not list(module.matches(op("sine", capture("x", where=lambda x: x.dtype == "f16"))))


def test_the_bodies_of_loops_are_rewritten_too() -> None:
    def program(x: Any) -> Any:
        return jax.lax.scan(lambda c, _: (jax.nn.sigmoid(c), None), x, None, length=3)[0]

    raw = traced(program, X)
    with rewriting(raw) as module:
        for match in module.matches(SIGMOID):
            module.replace(
                match.root, module.before(match.root).elementwise("logistic", match["x"])
            )
    assert count_ops(raw)["logistic"] == 1
    assert "exponential" not in count_ops(raw)


def test_the_builder_infers_types() -> None:
    def program(x: Any) -> Any:
        return x + 1

    with rewriting(traced(program, X)) as module:
        (add,) = module.ops("add")
        build, x = module.before(add), add.operands[0]
        turned = build.transpose(x, (1, 0))
        dot = build.dot_general(x, turned, contract=((1,), (0,)), dtype="f64")
        assert (turned.shape, dot.shape, dot.dtype) == ((8, 4), (4, 4), "f64")
        batched = build.dot_general(x, x, contract=((1,), (1,)), batch=((0,), (0,)))
        assert batched.shape == (4,)
        values, where = build.top_k(x, 3)
        assert (values.shape, where.dtype) == ((4, 3), "i32")
        rows = build.take_rows(x, build.constant(1, (5, 1), "i32"))
        assert rows.shape == (5, 1, 8)
        both = build.concatenate([x, x], 1)
        assert both.shape == (4, 16)
        assert build.slice(both, [0, 2], [4, 9], [1, 3]).shape == (4, 3)
        assert build.slice_along(both, 1, 0, 16) == both
        assert build.reverse(x, 0).shape == x.shape
        assert build.iota((2, 3), 1).dtype == "i32"
        assert build.compare("LT", x, x).dtype == "i1"
        assert build.select(build.compare("LT", x, x), x, x).dtype == "f32"
        zero = build.constant(0, (), "i32")
        assert build.dynamic_update_slice(both, x, [zero, zero]).shape == (4, 16)
        assert build.full_like(x, 3).splat == 3.0
        assert build.convert(x, "bf16").dtype == "bf16"
        # what would do nothing is not built
        same = build.convert(x, "f32"), build.reshape(x, (4, 8)), build.transpose(x, (0, 1))
        assert set(same) == {x}
        with pytest.raises(ValueError, match="convert or broadcast"):
            build.elementwise("add", x, turned)
        with pytest.raises(ValueError, match="cannot be reshaped"):
            build.reshape(x, (5,))
        with pytest.raises(ValueError, match="cannot be replaced"):
            module.replace(add, turned)


def test_what_has_an_effect_stays() -> None:
    def program(x: Any) -> Any:
        jax.debug.callback(lambda _: None, x * 3)
        return x + 1

    raw = traced(program, X)
    with rewriting(raw) as module:
        (call,) = module.ops("custom_call")
        multiply = next(iter(module.ops("multiply")))
        module.set_operand(call, call.operands.index(multiply.result), multiply.operands[0])
    counts = count_ops(raw)
    assert counts["custom_call"] == 1
    assert "multiply" not in counts


def test_marks_follow_what_stands_for_a_value() -> None:
    raw = traced(lambda x: jax.nn.sigmoid(x) * 2, X)
    with raw.context:
        numbers = mark(raw)
    names = {number: str(value.owner.name) for number, value in numbers.items()}
    with rewriting(raw) as module:
        (match,) = module.matches(SIGMOID)
        module.replace(match.root, module.before(match.root).elementwise("tanh", match["x"]))
    found = marked(raw)
    (replaced,) = [number for number in found if names[number] == "stablehlo.divide"]
    assert str(found[replaced].owner.name) == "stablehlo.tanh"
    assert len(found) < len(names)
    unmark(raw)
    assert not marked(raw)


def test_inlined_operations_keep_names_and_lines() -> None:
    @jax.jit
    def inner(x: Any) -> Any:
        return jnp.sin(x)

    def program(x: Any) -> Any:
        return inner(x) + inner(x * 2)

    raw = traced(program, X)
    assert "func.call" not in count_ops(raw)
    with rewriting(raw) as module:
        first, second = module.ops("sine")
        assert first.place.endswith("jit(inner)/sin")
        assert first.place == second.place
    text = raw.operation.get_asm(enable_debug_info=True)
    assert "callsite" in text
    assert "test_rewriter.py" in text


def test_what_is_left_behind_stays_so_when_its_operands_change() -> None:
    def program(x: Any) -> Any:
        return jnp.tanh(jnp.sin(x))

    with rewriting(traced(program, X)) as module:
        (sine,), (tanh,) = module.ops("sine"), module.ops("tanh")
        module.replace(tanh, sine.result)
        module.replace(sine, module.before(sine).elementwise("cosine", sine.operands[0]))
        assert [each.name for each in module.ops("sine", "tanh", "cosine")] == ["cosine"]
    assert "tanh" not in count_ops(module.raw)
