"""Runs the microbenchmarks and writes their modules and profiles. In the worker, under JAX.

``lowering.worker`` calls ``prepare`` before JAX is imported and ``run`` once ``nothing`` is
compiled, which is there because the worker compiles a program first.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hlo_lab.lowering.worker.executable import Executable
from hlo_lab.measure.capture import CALL
from hlo_lab.measure.execution import pin as pin_to
from hlo_lab.measure.microbenchmarks import Argument, Microbenchmark, suite

RESULT, PROFILES, MODULES = "result.json", "profiles", "modules"
BATCH = 60  # microbenchmarks in a profile
WARM = (4, 12)  # calls of each before those that are timed, fewest and most
CALLS = (5, 20)  # of each that are timed, fewest and most
CALL_SECONDS = 0.03  # of each, about
RANDOM = 1 << 20  # values of an array, which it repeats
LEFT = 0.85  # of the time: what comes after takes the rest


@dataclass(frozen=True)
class Options:
    """What to run: ``seconds`` bounds it, ``cores`` are those of a CPU, 0 for all."""

    folder: str
    seconds: float
    cores: int

    def request(self) -> dict[str, Any]:
        """As a request of the worker."""
        return {"module": __name__, **asdict(self)}

    @classmethod
    def of(cls, request: dict[str, Any]) -> Options:
        return cls(**{name: request[name] for name in cls.__dataclass_fields__})


def nothing(x: Any) -> Any:
    """What the worker compiles; its devices are what counts."""
    return x


def _example() -> Any:
    import numpy as np

    return (np.zeros((), np.float32),)


nothing.example_args = _example  # type: ignore[attr-defined]


def prepare(request: dict[str, Any]) -> None:
    """Pin the process before JAX looks how many threads to make."""
    pin_to(Options.of(request).cores)


def run(
    request: dict[str, Any], executable: Executable, enter: Callable[[str], None]
) -> dict[str, Any]:
    """Run as much of the suite as the time allows, and write what came of it."""
    import jax

    from hlo_lab.measure.devices import describe, target_of

    options = Options.of(request)
    folder = Path(options.folder)
    (folder / MODULES).mkdir()
    cases = suite(jax.device_count())
    began = time.monotonic()
    end = began + options.seconds * LEFT
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    names: dict[str, str] = {}
    failed: list[str] = []
    unsteady: list[str] = []
    most = _memory() / 16
    ready, held, tried = [], 0, 0
    for number, case in enumerate(cases):
        if time.monotonic() > end:
            break
        tried += 1
        enter(f"microbenchmarks: {number + 1} of {len(cases)}")
        size = sum(argument.bytes for argument in case.arguments)
        if size > most:
            failed.append(f"{case.name}: needs more memory")
            continue
        try:
            ready.append((f"jit_{_name(number)}", *_compile(case, number, folder)))
        except Exception as error:
            # a device need not have every type and operation
            failed.append(f"{case.name}: {str(error).splitlines()[0][:100]}")
            continue
        names[f"jit_{_name(number)}"] = case.name
        held += size
        if len(ready) == BATCH or held > most:
            unsteady += _profile(ready, folder / PROFILES / str(number))
            ready, held = [], 0
    unsteady += _profile(ready, folder / PROFILES / str(len(cases)))
    for name in unsteady:
        failed.append(f"{names.pop(name)}: its memory is mapped again at each call")
    result = {"names": names, "failed": failed, "cases": len(cases), "tried": tried, "load": load}
    result["took"] = time.monotonic() - began
    result["device"] = describe(jax.devices())
    (folder / RESULT).write_text(json.dumps(result))
    return {"target": target_of(executable.devices)}


def _memory() -> float:
    """Bytes of memory of the first device: the system's, or what an accelerator says."""
    import jax

    with contextlib.suppress(Exception):  # not every backend has it
        return float(jax.devices()[0].memory_stats()["bytes_limit"])
    with contextlib.suppress(OSError, ValueError, AttributeError):
        return float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    return float(8 << 30)


def _name(number: int) -> str:
    return f"microbenchmark_{number}"


def _compile(case: Microbenchmark, number: int, folder: Path) -> tuple[Any, list[Any]]:
    """(the executable, its arguments); it runs."""
    import jax

    wide = any(argument.dtype in ("float64", "int64") for argument in case.arguments)
    with jax.enable_x64(wide):
        arguments = [_make(argument, at) for at, argument in enumerate(case.arguments)]

        def call(*values: Any) -> Any:
            return case.function(*values)

        call.__name__ = _name(number)
        compiled = jax.jit(call).lower(*arguments).compile()
    (folder / MODULES / f"jit_{_name(number)}.txt").write_text(compiled.as_text() or "")
    _wait(compiled(*arguments))
    return compiled, arguments


def _warm(compiled: Any, arguments: list[Any]) -> int:
    """Call it until its times are those of a program that runs on; how often to time it.

    The first calls map the memory of results, which takes far longer than to write it, and find
    nothing in the caches. Results are freed late, so that more than one call maps.
    """
    took = 0.0
    for number in range(WARM[1]):
        mapped = _faults()
        began = time.perf_counter()
        _wait(compiled(*arguments))
        took = time.perf_counter() - began
        if number >= WARM[0] - 1 and _faults() == mapped:
            break
    return min(max(int(CALL_SECONDS / max(took, 1e-6)), CALLS[0]), CALLS[1])


def _faults() -> int:
    """Pages that the system mapped for this process so far, without reading any; 0 where it
    does not tell."""
    try:
        import resource
    except ImportError:
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


def _wait(results: Any) -> None:
    import jax

    for result in jax.tree.leaves(results):
        result.block_until_ready()


def _make(argument: Argument, seed: int) -> Any:
    import jax.numpy as jnp
    import numpy as np

    random = np.random.default_rng(seed)
    dtype = jnp.dtype(argument.dtype)
    count = min(math.prod(argument.dims), RANDOM)
    if dtype.kind == "b":
        values = random.integers(0, 2, count).astype(bool)
    elif jnp.issubdtype(dtype, jnp.floating):
        values = (random.random(count, np.float32) + 0.5).astype(dtype)
    else:
        values = random.integers(0, argument.below, count).astype(dtype)
    return jnp.asarray(np.resize(values, argument.dims))


def _profile(ready: list[tuple[str, Any, list[Any]]], folder: Path) -> list[str]:
    """Run each; the names of those whose calls had to wait for memory to be mapped."""
    import jax

    unsteady = []

    options = jax.profiler.ProfileOptions()
    options.python_tracer_level = 0
    jax.profiler.start_trace(folder, profiler_options=options)
    try:
        for name, compiled, arguments in ready:
            # what is not annotated does not count
            calls = _warm(compiled, arguments)
            mapped = _faults()
            for _ in range(calls):
                with jax.profiler.TraceAnnotation(CALL):
                    _wait(compiled(*arguments))
            if _faults() - mapped > calls / 2:
                unsteady.append(name)
    finally:
        stop: Callable[[], None] = jax.profiler.stop_trace
        stop()
    return unsteady
