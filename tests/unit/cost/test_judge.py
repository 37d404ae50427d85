"""Which of two modules is faster, and when that cannot be told."""

from __future__ import annotations

import pytest

from hlo_lab.cost.judge import Basis, Direction, Times, time_change
from hlo_lab.cost.machines import for_target
from hlo_lab.cost.model import cost
from hlo_lab.ir.text import read_text

TEXT = """HloModule m, is_scheduled=true

ENTRY %main (a: f32[1024,1024]) -> f32[1024,1024] {{
  %a = f32[1024,1024]{{1,0}} parameter(0)
  %b = f32[1024,1024]{{1,0}} negate(%a){cycles}
  ROOT %c = f32[1024,1024]{{1,0}} copy(%b)
}}
"""


def measured(before: float, after: float, low: float, high: float) -> dict[str, float]:
    return {"before_s": before, "after_s": after, "low": low, "high": high}


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (Times(1.0), Times(0.5), Direction.FASTER),
        (Times(1.0), Times(1.5), Direction.SLOWER),
        (Times(1.0), Times(0.995), Direction.SAME),
        (Times(1.0), Times(1.0, lower_bound=True), Direction.UNDECIDED),
        (Times(1.0, 2.0), Times(0.5, 1.0), Direction.FASTER),
        (Times(1.0, 2.0), Times(1.0, 1.0), Direction.FASTER),  # the model sees nothing of it
        (Times(1.0, 2.0), Times(0.5, 2.0), Direction.SAME),
        (Times(1.0, 2.0), Times(1.1, 1.0), Direction.UNDECIDED),
        (Times(1.0, 2.0), Times(0.9, 2.5), Direction.UNDECIDED),
        (Times(1.0, 2.0), Times(1.0, 2.5), Direction.SLOWER),
        (Times(1.0, 2.0), Times(0.5), Direction.FASTER),  # cycles on one side alone
        (Times(0.0), Times(0.0), Direction.SAME),
        (Times(0.0), Times(1.0), Direction.SLOWER),
    ],
)
def test_by_estimates(before: Times, after: Times, expected: Direction) -> None:
    assert time_change(before, after).direction(0.01) is expected


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.7, 0.9, Direction.FASTER),
        (1.1, 1.3, Direction.SLOWER),
        (0.995, 1.005, Direction.SAME),
        (0.99, 1.01, Direction.SAME),
        (0.8, 0.995, Direction.UNDECIDED),
        (1.005, 1.2, Direction.UNDECIDED),
        (0.8, 1.2, Direction.UNDECIDED),
    ],
)
def test_by_measurement(low: float, high: float, expected: Direction) -> None:
    after = (low + high) / 2
    change = time_change(Times(1.0), Times(9.0), measured(1.0, after, low, high))
    assert change.basis is Basis.MEASURED
    assert change.direction(0.01) is expected


def test_what_has_to_be_saved_at_least() -> None:
    change = time_change(Times(1.0), Times(0.9))
    assert change.direction(0.01, least=0.05) is Direction.FASTER
    assert change.direction(0.01, least=0.2) is Direction.SAME
    assert change.saved == pytest.approx(0.1)
    little = time_change(Times(1.0), Times(1.0), measured(1.0, 0.99, 0.97, 1.02))
    assert little.direction(0.001, least=0.05) is Direction.SAME
    assert little.direction(0.001, least=0.02) is Direction.UNDECIDED


def test_why_it_is_undecided() -> None:
    change = time_change(Times(1.0, 2.0), Times(1.1, 1.0))
    assert change.disagreement == (
        "the compiler's cycles and our model disagree: 0.5 and 1.1 times as long"
    )
    noisy = time_change(Times(1.0), Times(1.0), measured(1.0, 1.0, 0.8, 1.2))
    assert noisy.disagreement == (
        "measured, it takes between 0.8 and 1.2 times as long, too noisy to tell"
    )


def test_cycles_count_for_kernels_that_have_them() -> None:
    machine = for_target("tpu:v5e")
    assert machine.clock
    cycles = 1_000_000
    text = f', backend_config={{"window_config":{{"estimated_cycles":"{cycles}"}}}}'
    plain = read_text(TEXT.format(cycles=""))
    given = read_text(TEXT.format(cycles=text))
    alone = Times.of(plain, cost(plain, machine))
    assert alone.compiler is None and alone.coverage == 0
    own = cost(given, machine)
    both = Times.of(given, own)
    index = given.instruction("c").index
    expected = cycles / machine.clock + float(own.seconds[index])
    assert both.model == alone.model
    assert both.compiler == pytest.approx(expected)
    assert both.coverage == pytest.approx(cycles / machine.clock / expected)
    here = Times.of(given, cost(given, for_target("cpu")))
    assert here.compiler is None
