"""Fits the rates of a machine to measured kernels."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from hlo_lab.cost.callgraph import callees_first
from hlo_lab.cost.categories import CATEGORIES, categories
from hlo_lab.cost.counts import counts
from hlo_lab.cost.kernels import kernel_times
from hlo_lab.cost.kernels_cpu import PARTS, rates_of, together
from hlo_lab.cost.kernels_cpu_units import UNITS
from hlo_lab.cost.kernels_cpu_work import work
from hlo_lab.cost.machines import Machine
from hlo_lab.cost.tables import Bools, Floats
from hlo_lab.ir.module import Ints, Module

_STEPS = 60
_OUTLIER = 0.35  # of the logarithm: an error beyond it weighs as its size, not as its square
_MATTERS = 2e-5  # seconds of a kernel, from which on its residual weighs fully
_LEAST = 0.2  # what it weighs at least
_PULL = 0.3  # towards the rate one began with, against a residual of 1
_BEST = 0.97  # the quantile of what kernels reach that is called their best
_FEW = 5  # kernels, from which on a bandwidth is believed
_USUAL = 2 / 3  # of kernels keep the error that is claimed
_MOST = 3.0  # a relative error counts as no more
_REACH = 12.0  # of the logarithm: as far as a rate may leave where it began


def fit(work: Floats, seconds: Floats, start: Floats, parts: Ints | None = None) -> Floats:
    """Rates float64[U] at which ``work`` takes nearly ``seconds``, in the logarithm.

    Args:
        work: float64[K, U], the units of work of each measured kernel.
        seconds: float64[K], above 0.
        start: float64[U], above 0: where the search begins, and what a rate stays near where
            few or no measurements tell.
        parts: int64[U], which units add up and which go on together (``kernels_cpu.PARTS``);
            None where all add up.

    Gauss-Newton on the logarithms of the rates, so that each stays positive, with the weights
    of a Huber loss, so that a measurement gone wrong counts little.
    """
    shift = np.zeros(work.shape[1])
    parts = np.zeros(len(start), np.int64) if parts is None else parts
    target = np.log(seconds)
    damping, best = 1.0, np.inf
    system = _system(work, target, start, shift, parts)
    for _ in range(_STEPS):
        gradient, curvature, loss = system
        best = min(best, loss)
        step = np.linalg.solve(curvature + damping * np.diag(np.diag(curvature)), -gradient)
        tried = np.clip(shift + np.clip(step, -1, 1), -_REACH, _REACH)
        new = _system(work, target, start, tried, parts)
        if new[2] < best:
            shift, system, damping = tried, new, max(damping / 3, 1e-6)
            continue
        damping *= 4
        if damping > 1e8:
            break
    rates: Floats = start * np.exp(shift)
    return rates


def _evened(estimated: Floats, seconds: Floats) -> float:
    """What estimates of the middle are multiplied by, so that their sum is that of the measured.

    Times spread further above the middle than below it (N. Duan, "Smearing estimate", 1983).
    """
    long = seconds > _MATTERS
    if not long.any():
        return 1.0
    believed = np.minimum(seconds, _MOST * estimated)
    return float(believed[long].sum() / estimated[long].sum())


def _system(
    work: Floats, target: Floats, start: Floats, shift: Floats, parts: Ints
) -> tuple[Floats, Floats, float]:
    """Gradient, curvature and loss at ``start * exp(shift)``."""
    spent = work * (start * np.exp(shift))
    total, slopes = together(spent, parts)
    total = np.maximum(total, 1e-15)
    residual = np.log(total) - target
    # a kernel of a microsecond is mostly its start, which others tell as well
    matters = np.clip(np.exp(target) / _MATTERS, _LEAST, 1)
    weight = matters * np.minimum(1, _OUTLIER / np.maximum(np.abs(residual), 1e-12))
    slope = spent * slopes / total[:, None]
    weighted = slope * weight[:, None]
    gradient = weighted.T @ residual + _PULL**2 * shift
    curvature = weighted.T @ slope + _PULL**2 * np.eye(len(shift))
    size = np.abs(residual)
    huber = np.where(size < _OUTLIER, size**2 / 2, _OUTLIER * (size - _OUTLIER / 2))
    return gradient, curvature, float((matters * huber).sum() + _PULL**2 * (shift**2).sum() / 2)


def held_out(names: list[str], every: int = 5) -> Bools:
    """bool[K]: what a fit is tested on, by name, so that a program is wholly in or out."""
    from zlib import crc32

    out: Bools = np.array([crc32(name.encode()) % every == 0 for name in names])
    return out


@dataclass(frozen=True)
class Sample:
    """A measured kernel: instruction ``at`` of a module took ``seconds`` for one execution.

    ``name`` is that of the microbenchmark.
    """

    name: str
    module: Module
    at: int
    seconds: float


@dataclass(frozen=True)
class Held:
    """Errors of a category on the microbenchmarks that a fit to the others did not see.

    ``before`` and ``after`` are mean relative errors of the machine begun with and of the fit.
    ``usual`` is what two thirds of the fit's estimates are off by at most, by the ratio.
    """

    category: str
    kernels: int
    before: float
    after: float
    usual: float


@dataclass(frozen=True)
class Fit:
    """A machine fitted to ``kernels`` samples; ``held`` says how good it is."""

    machine: Machine
    kernels: int
    held: tuple[Held, ...]

    @property
    def before(self) -> float | None:
        """Mean of ``held`` over its kernels, of the machine begun with; None of none."""
        return self._mean([each.before for each in self.held])

    @property
    def after(self) -> float | None:
        """The same of the fit."""
        return self._mean([each.after for each in self.held])

    @property
    def better(self) -> bool:
        """Whether estimates are nearer than before on what the fit did not see."""
        return self.before is not None and self.after is not None and self.after < self.before

    def _mean(self, errors: list[float]) -> float | None:
        kernels = [each.kernels for each in self.held]
        return float(np.average(errors, weights=kernels)) if kernels else None


def fit_machine(base: Machine, samples: list[Sample], facts: dict[str, Any]) -> Fit:
    """A machine as measured: ``base`` with new figures and ``facts``.

    Peaks and bandwidths are the best that kernels reached. A machine with rates of work has
    these fitted as well, twice: to most samples, for the errors on the rest, then to all.
    """
    caches = facts.pop("caches", ())
    if caches:
        levels = base.bandwidth[len(caches) :]
        rates = [rate for _, rate in base.bandwidth]
        base = replace(base, bandwidth=(*zip(caches, rates, strict=False), *levels))
    facts = {key: value for key, value in facts.items() if value}
    samples = _once(samples)
    seconds = np.array([sample.seconds for sample in samples])
    looked = _look(base, samples)
    out = held_out([sample.name for sample in samples])
    held: list[Held] = []
    if out.any() and not out.all():
        part = _fitted(base, looked, seconds, ~out)
        held = _held(base, part, samples, looked, seconds, out)
    machine = _fitted(base, looked, seconds, np.ones(len(out), np.bool_))
    errors = {each.category: each.usual for each in held}
    return Fit(replace(machine, **{"errors": errors, **facts}), len(samples), tuple(held))


def _once(samples: list[Sample]) -> list[Sample]:
    """Kernels that a module has several of, as one that takes the median of their times."""
    alike: dict[tuple[object, ...], list[Sample]] = {}
    for sample in samples:
        module, at = sample.module, sample.at
        operands = module.operand[module.operand_start[at] : module.operand_start[at + 1]]
        inside = module.callee[module.callee_start[at] : module.callee_start[at + 1]]
        opcodes = tuple(
            module.opcode[module.computation_start[c] : module.computation_start[c + 1]].tobytes()
            for c in inside.tolist()
        )
        shapes = module.shape[operands].tobytes()
        key = id(module), int(module.opcode[at]), int(module.shape[at]), shapes, opcodes
        alike.setdefault(key, []).append(sample)
    return [
        replace(same[0], seconds=float(np.median([each.seconds for each in same])))
        for same in alike.values()
    ]


@dataclass(frozen=True)
class _Looked:
    """Columns over samples: units of work, category, and what peaks are made of."""

    work: Floats
    category: Ints
    matrix_flops: Floats
    dtype: list[str]
    bytes: Floats
    transcendentals: Floats
    sent: Floats


def _look(base: Machine, samples: list[Sample]) -> _Looked:
    rows, seen = [], {}
    for sample in samples:
        key = id(sample.module)
        if key not in seen:
            module = sample.module
            counted = counts(module, callees_first(module))
            units = work(module, base, counted) if base.rates else np.ones((len(module), 1))
            seen[key] = counted, units, categories(module)
        counted, units, kinds = seen[key]
        at = sample.at
        dtype = counted.dtypes[counted.matrix_dtype[at]] if counted.matrix_dtype[at] >= 0 else ""
        rows.append((
            units[at], kinds[at], counted.matrix_flops[at], dtype, counted.bytes[at],
            counted.transcendentals[at], counted.sent[at],
        ))  # fmt: skip
    columns = list(zip(*rows, strict=True))
    arrays = [np.array(columns[n], np.float64) for n in (2, 4, 5, 6)]
    return _Looked(
        np.array(columns[0]), np.array(columns[1]), arrays[0], list(columns[3]), *arrays[1:]
    )


def _fitted(base: Machine, looked: _Looked, seconds: Floats, use: Bools) -> Machine:
    machine = replace(
        base,
        matrix_flops=_peaks(base, looked, seconds, use),
        bandwidth=_bandwidth(base, looked, seconds, use),
        launch_overhead=float(np.quantile(seconds[use], 0.02)),
    )
    calls = looked.transcendentals > 1e4
    if (use & calls).any():
        rate = float(np.quantile((looked.transcendentals / seconds)[use & calls], _BEST))
        machine = replace(machine, vector_flops={**base.vector_flops, "transcendental": rate})
    sending = use & (looked.sent > 1 << 20)
    if sending.any():
        rate = float(np.quantile((looked.sent / seconds)[sending], _BEST))
        machine = replace(machine, interconnect_bandwidth=rate)
    if not base.rates:
        return machine
    # a kernel of a category that no rate describes tells nothing
    start = np.array([base.rates.get(name, 1e-10) for name in UNITS])
    told = use & (looked.work.sum(1) > 0)
    rates = fit(looked.work[told], seconds[told], start, PARTS)
    estimated = together(looked.work[told] * rates, PARTS)[0]
    rates[PARTS > 0] *= _evened(estimated, seconds[told])
    return replace(machine, rates=dict(zip(UNITS, map(float, rates), strict=True)))


def _peaks(base: Machine, looked: _Looked, seconds: Floats, use: Bools) -> dict[str, float]:
    out = dict(base.matrix_flops)
    for dtype in set(looked.dtype) - {""}:
        mine = use & (np.array(looked.dtype) == dtype) & (looked.matrix_flops > 1e6)
        if mine.any():
            out[dtype] = float(np.quantile((looked.matrix_flops / seconds)[mine], _BEST))
    if base.kind == "cpu" and "f32" in out:
        # widened to f32 on a CPU without units for them
        out |= {name: out["f32"] for name in ("bf16", "f16") if name in out}
    return out


def _bandwidth(
    base: Machine, looked: _Looked, seconds: Floats, use: Bools
) -> tuple[tuple[float, float], ...]:
    levels, low = [], 0.0
    for limit, known in base.bandwidth:
        mine = use & (looked.bytes > max(low, 4096)) & (looked.bytes <= limit)
        rate = (
            float(np.quantile((looked.bytes / seconds)[mine], _BEST))
            if mine.sum() >= _FEW
            else known
        )
        levels.append((limit, rate))
        low = limit
    # a nearer level is no slower: its kernels are short, and mostly launch
    rates = np.maximum.accumulate([rate for _, rate in reversed(levels)])[::-1].tolist()
    return tuple(zip([limit for limit, _ in levels], rates, strict=True))


def _held(
    base: Machine,
    machine: Machine,
    samples: list[Sample],
    looked: _Looked,
    seconds: Floats,
    out: Bools,
) -> list[Held]:
    at = np.nonzero(out)[0]
    took = seconds[at]
    errors, off = [], took
    for one in (base, machine):
        times = np.array([_estimate(samples[number], one, looked.work[number]) for number in at])
        errors.append(np.abs(times - took) / took)
        off = np.maximum(times, took) / np.maximum(np.minimum(times, took), 1e-12) - 1
    long = took > min(_MATTERS, float(np.median(took)))
    found = []
    for number in np.unique(looked.category[at]).tolist():
        mine = looked.category[at] == number
        # one kernel that was paused must not speak for its category
        before, after = (float(np.minimum(each[mine], _MOST).mean()) for each in errors)
        # the time is in the long ones
        some = mine & long if (mine & long).any() else mine
        usual = float(np.quantile(np.minimum(off[some], _MOST), _USUAL))
        found.append(Held(CATEGORIES[number], int(mine.sum()), before, after, usual))
    return found


def _estimate(sample: Sample, machine: Machine, units: Floats) -> float:
    if machine.rates:
        return float(together(units[None] * rates_of(machine), PARTS)[0][0])
    module = sample.module
    times = kernel_times(module, machine, counts(module, callees_first(module)))
    return float(times.seconds[sample.at])
