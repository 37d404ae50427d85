from __future__ import annotations

import math

import pytest

from hlo_lab.report.units import (
    format_bytes,
    format_count,
    format_flops,
    format_seconds,
    format_share,
)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1536, "1.5 KiB"),
        (1024**2 - 1, "1.0 MiB"),
        (100 * 1024**2, "100 MiB"),
        (5.5 * 1024**3, "5.5 GiB"),
        (2.0**70, "1048576 PiB"),
        (-2048, "-2.0 KiB"),
        (None, "-"),
        (math.nan, "-"),
    ],
)
def test_bytes(value: float | None, text: str) -> None:
    assert format_bytes(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0 s"),
        (2.5, "2.5 s"),
        (0.0021, "2.1 ms"),
        (3e-6, "3.0 us"),
        (9.999e-4, "1.0 ms"),
        (42e-9, "42.0 ns"),
        (1e-12, "0.001 ns"),
        (math.inf, "inf s"),
        (None, "-"),
    ],
)
def test_seconds(value: float | None, text: str) -> None:
    assert format_seconds(value) == text


def test_counts_flops_and_shares() -> None:
    assert format_count(43714) == "43,714"
    assert format_count(2.5) == "2.5"
    assert format_flops(2.5e12) == "2.5 T"
    assert format_flops(12) == "12"
    assert format_share(0.1234) == "12.3%"
