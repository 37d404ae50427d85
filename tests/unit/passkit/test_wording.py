"""Quantities and places in words."""

from __future__ import annotations

import pytest

from hlo_lab.ir.source import Frame, user_frame
from hlo_lab.passkit.wording import (
    bytes_text,
    counted,
    op_text,
    seconds_text,
    times_text,
)


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (1 << 20, "1.0 MiB"), (5e12, "4.5 TiB")],
)
def test_bytes(count: float, text: str) -> None:
    assert bytes_text(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(2.0, "2.0 s"), (0.0125, "12.5 ms"), (1.2e-4, "120 us"), (5e-9, "5.0 ns")]
)
def test_seconds(seconds: float, text: str) -> None:
    assert seconds_text(seconds) == text


@pytest.mark.parametrize(
    ("op_name", "text"),
    [
        ("jit(f)/jit(main)/block/dot_general", "block/dot_general"),
        ("jit(train)/transpose(jvp())/while/body/closed_call/tanh", "tanh"),
        ("jit(f)/a/b/c", "b/c"),
        ("jit(f)/jvp(jit(_where))/select_n", "select_n"),
        ("jit(f)/dot_general[dimension_numbers=(((1,), (0,)), ((), ()))]", "dot_general"),
        ("jit(f)/transpose(jvp())/mul;jit(f)/transpose(jvp())/add", "add"),
        ("p['q']", "p['q']"),
        ("", ""),
    ],
)
def test_op_names(op_name: str, text: str) -> None:
    assert op_text(op_name) == text


def test_the_users_own_frame_comes_before_a_library() -> None:
    library = Frame("/x/site-packages/flax/linen.py", 3)
    own = Frame("/home/me/train.py", 7)
    assert user_frame((library, own)) is own
    assert user_frame((library,)) is library
    assert user_frame(()) is None


def test_counts() -> None:
    assert (counted(1, "value"), counted(2, "value")) == ("1 value", "2 values")
    assert (times_text(1.0), times_text(6.0)) == ("", ", 6 times")
