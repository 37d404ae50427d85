from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from hlo_lab.cost import machines
from hlo_lab.cost.calibration import Sample, fit, fit_machine, held_out
from hlo_lab.cost.callgraph import callees_first
from hlo_lab.cost.counts import counts
from hlo_lab.cost.kernels import kernel_times
from hlo_lab.ir.text import read_text

BASE = machines.shipped("cpu-reference")

RATES = np.array([4e-7, 2e-11, 6e-12, 3e-10])


def kernels(count: int = 400) -> np.ndarray:
    """Work of made-up kernels: a launch each, and three kinds of work over six decades."""
    random = np.random.default_rng(7)
    sizes = 10 ** random.uniform(2, 8, (count, 3))
    return np.column_stack([np.ones(count), sizes * (random.random((count, 3)) < 0.5)])


def test_known_rates_are_found() -> None:
    work = kernels()
    noise = np.random.default_rng(1).lognormal(0, 0.1, len(work))
    found = fit(work, work @ RATES * noise, np.full(4, 1e-9))
    assert np.abs(np.log(found / RATES)).max() < 0.1


def test_measurements_gone_wrong_count_little() -> None:
    work = kernels()
    measured = work @ RATES
    measured[::20] *= 30
    found = fit(work, measured, np.full(4, 1e-9))
    assert np.abs(np.log(found / RATES)).max() < 0.15


def test_a_kind_that_nothing_measured_keeps_its_rate() -> None:
    work = kernels()
    work[:, 2] = 0
    found = fit(work, work @ RATES, np.array([1e-6, 1e-10, 7e-12, 1e-9]))
    assert found[2] == 7e-12 and np.isfinite(found).all() and (found > 0).all()


def test_rates_stay_positive_where_the_measurements_cannot_be_met() -> None:
    work = np.column_stack([np.ones(50), np.arange(1.0, 51.0)])
    found = fit(work, 1.0 / np.arange(1.0, 51.0), np.ones(2))
    assert (found > 0).all() and np.isfinite(found).all()


def test_what_is_held_out_is_held_out_by_name_and_always_the_same() -> None:
    names = [f"case {number}" for number in range(500)]
    out = held_out(names)
    assert 0.1 < out.mean() < 0.3
    assert (held_out(names * 2)[500:] == out).all()


def samples(rates: dict[str, float]) -> list[Sample]:
    """Kernels of made-up programs, with the times that these rates give."""
    machine = dataclasses.replace(BASE, rates=rates)
    out = []
    for number, size in enumerate([2**power + 3 * power for power in range(3, 20)]):
        for shape in (f"{size}", f"{size},4", f"4,{size}"):
            line = f"f32[{shape}] %s(p0)"
            for kind in ("negate", "exponential", "tanh", "copy"):
                text = f"HloModule m\n\nENTRY e {{\n  p0 = f32[{shape}] parameter(0)\n"
                module = read_text(f"{text}  ROOT r = {line % kind}\n}}\n")
                counted = counts(module, callees_first(module))
                seconds = kernel_times(module, machine, counted).seconds[1]
                out.append(Sample(f"{kind} {shape} {number}", module, 1, float(seconds)))
    return out


def test_a_machine_is_fitted_to_kernels() -> None:
    wanted = {name: rate * 3 for name, rate in BASE.rates.items()}
    fitted = fit_machine(BASE, samples(wanted), {"name": "mine", "caches": (32768.0, 1048576.0)})
    machine = fitted.machine
    assert machine.name == "mine" and fitted.kernels == len(samples(wanted))
    assert [fits for fits, _ in machine.bandwidth[:2]] == [32768.0, 1048576.0]
    assert fitted.held and all(each.before > 0.5 > each.after for each in fitted.held)
    assert machine.errors == {each.category: each.usual for each in fitted.held}
    for sample in samples(wanted)[::7]:
        counted = counts(sample.module, callees_first(sample.module))
        found = kernel_times(sample.module, machine, counted).seconds[1]
        assert abs(np.log(found / sample.seconds)) < 0.7  # of log 3


def test_a_machine_without_rates_gets_peaks() -> None:
    plain = dataclasses.replace(machines.load("h100"), bandwidth=((math.inf, 1e12),))
    kernels = [dataclasses.replace(one, seconds=2e-6) for one in samples(BASE.rates)]
    machine = fit_machine(plain, kernels, {}).machine
    largest = max(one.module.shape_values("bytes").max() for one in kernels)
    assert machine.memory_bandwidth == pytest.approx(2 * largest / 2e-6, rel=0.9)
    assert machine.launch_overhead == 2e-6 and not machine.rates
