from __future__ import annotations

import itertools

import pytest

from hlo_lab.cost.windows import (
    MAX_TAPS,
    WindowDimension,
    parse_dim_labels,
    parse_window,
    valid_positions,
)


def test_parse_window() -> None:
    first, second = parse_window("{size=3x5 stride=2x1 pad=0_1x-2_4 lhs_dilate=1x2 rhs_dilate=3x1}")
    assert first == WindowDimension(3, 2, 0, 1, 1, 3)
    assert second == WindowDimension(5, 1, -2, 4, 2, 1)
    assert parse_window("") == ()


def test_parse_window_refuses_words() -> None:
    with pytest.raises(ValueError):
        parse_window("{size=axb}")


def test_parse_dim_labels() -> None:
    dims = parse_dim_labels("b01f_01io->b01f")
    assert (dims.input_batch, dims.input_feature, dims.output_feature) == (0, 3, 3)
    assert dims.input_spatial == (1, 2) and dims.kernel_spatial == (0, 1)
    assert parse_dim_labels("fb01_io01->01bf").output_spatial == (0, 1)


def counted(window: WindowDimension, source: int, kernel: int, result: int) -> int:
    """By the definition, position by position."""
    total = 0
    for tap, output in itertools.product(range(kernel), range(result)):
        index = output * window.stride - window.padding_low + tap * window.window_dilation
        inside = 0 <= index <= (source - 1) * window.base_dilation
        total += inside and index % window.base_dilation == 0
    return total


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("base", [1, 2, 3, 4])
@pytest.mark.parametrize("dilation", [1, 2])
@pytest.mark.parametrize("low", [-2, 0, 1, 4])
def test_positions_follow_the_definition(stride: int, base: int, dilation: int, low: int) -> None:
    for source, kernel, result in itertools.product((1, 5, 8), (1, 3, 4), (1, 4, 9)):
        window = WindowDimension(kernel, stride, low, 1, base, dilation)
        expected = counted(window, source, kernel, result)
        assert valid_positions(window, source, kernel, result) == expected


def test_a_huge_window_is_bounded() -> None:
    window = WindowDimension(size=10**12, stride=2)
    assert valid_positions(window, 10, MAX_TAPS + 1, 10) == 10 * (MAX_TAPS + 1)
