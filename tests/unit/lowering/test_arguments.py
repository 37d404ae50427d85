from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hlo_lab.errors import UseError
from hlo_lab.lowering.arguments import ArraySpec, narrowed, parse_arguments, short_shape

F32 = ArraySpec("float32", (4, 4))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ()),
        ("f32[8,128], i32[8]", (ArraySpec("float32", (8, 128)), ArraySpec("int32", (8,)))),
        ("f32[], bool[ ]", (ArraySpec("float32", ()), ArraySpec("bool", ()))),
        ("s32[1], pred[2], bf16[3]", tuple(
            ArraySpec(dtype, (n,)) for dtype, n in (("int32", 1), ("bool", 2), ("bfloat16", 3)))),
        ("{'w': f32[4,4], 'b': [f32[4,4], (f32[4,4],)]}", ({"w": F32, "b": [F32, (F32,)]},)),
        ("3, -2.5, 'relu', True, None", (3, -2.5, "relu", True, None)),
        ("'f32[]', \"x[ ]\"", ("f32[]", "x[ ]")),
        ("float8_e4m3fn[2], f8e5m2[0], u4[7], key[]", (
            ArraySpec("float8_e4m3fn", (2,)), ArraySpec("float8_e5m2", (0,)),
            ArraySpec("uint4", (7,)), ArraySpec("key", ()))),
    ],
)  # fmt: skip
def test_values(text: str, expected: tuple[Any, ...]) -> None:
    assert parse_arguments(text) == (expected, {})


def test_names() -> None:
    assert parse_arguments("f32[4,4], n=3, x={'a': f32[4,4]}") == (
        (F32,),
        {"n": 3, "x": {"a": F32}},
    )


def test_what_64_bit_types_became() -> None:
    text = "{'w': [f64[2], s64[]]}, n=(c128[1],), x=f32[3], y=u64[1]"
    assert narrowed(text, ["float32", "uint64", "complex64", "int32"]) == (
        "--args has c128, f64, s64, which JAX takes as c64, f32, s32: "
        "set JAX_ENABLE_X64=1 for 64 bits"
    )
    assert narrowed(text, ["float64", "int64", "complex128", "uint64"]) is None
    assert narrowed("f32[2], 3, 'f64'", ["float32"]) is None


def test_short_shapes() -> None:
    assert short_shape("float32", [8, 128]) == "f32[8,128]"
    assert short_shape("bool", []) == "pred[]"
    assert short_shape("int8", (3,)) == "s8[3]"
    assert short_shape("key<fry>", [2]) == "key<fry>[2]"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("f32", r"a scalar is written f32\[\]"),
        ("relu", "quote a string"),
        ("f31[8]", "unknown element type f31"),
        ("f32[-1]", "not a list of dimensions"),
        ("f32[2.5]", "not a list of dimensions"),
        ("f32[True]", "not a list of dimensions"),
        ("f32[1:2]", "neither a shape nor a value"),
        ("f32[n]", "neither a shape nor a value"),
        ("f32[8", "not of the form"),
        ("f32[8]) or (1", "not of the form"),
        ("f32[8])(1", "not of the form"),
        ("open('/etc/passwd')", "neither a shape nor a value"),
        ("x := 1", "neither a shape nor a value"),
        ("**{'a': 1}", "is not understood"),
        ("{**{'a': 1}}", "neither a shape nor a value"),
        ("{f32[8]: 1}", "neither a shape nor a value"),
        ("{[]: 1}", "not a key"),
        ("{(1, 2): 1}", "not a key"),
        ("(" * 500 + ")" * 500, "not of the form"),
    ],
)
def test_what_is_not_in_the_syntax_is_refused(text: str, reason: str) -> None:
    with pytest.raises(UseError, match=reason):
        parse_arguments(text)


@given(st.text(max_size=40) | st.text("f32[]{}()',:8 *=.", max_size=30))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        positional, named = parse_arguments(text)
    except UseError:
        return
    assert isinstance(positional, tuple) and isinstance(named, dict)


SHAPES = st.builds(
    ArraySpec,
    st.sampled_from(["float32", "int8", "bool"]),
    st.tuples() | st.tuples(st.integers(0, 9)),
)
TREES = st.recursive(
    SHAPES | st.integers() | st.text(max_size=5).filter(str.isalnum),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text("abc", max_size=3), inner, max_size=3)
        | st.tuples(inner, inner)
    ),
    max_leaves=6,
)


def _write(value: Any) -> str:
    match value:
        case dict():
            return "{" + ", ".join(f"{key!r}: {_write(item)}" for key, item in value.items()) + "}"
        case list():
            return "[" + ", ".join(map(_write, value)) + "]"
        case tuple():
            return "(" + "".join(f"{_write(item)}, " for item in value) + ")"
        case ArraySpec():
            return str(value)
    return repr(value)


@given(st.lists(TREES, max_size=3))
def test_what_is_written_reads_back(values: list[Any]) -> None:
    assert parse_arguments(", ".join(map(_write, values))) == (tuple(values), {})
