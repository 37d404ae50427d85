"""The examples of rewrite passes, tried: all in one worker, since starting JAX takes longest.

``try_examples`` starts the worker, ``run`` is what it does there.
"""

from __future__ import annotations

import sys
import tempfile
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from hlo_lab.errors import HloLabError
from hlo_lab.lowering.dumping import worker_environment
from hlo_lab.lowering.process import DEFAULT_TIME_LIMIT, Progress, run_worker
from hlo_lab.lowering.target import Target
from hlo_lab.passkit.loading import PassInfo
from hlo_lab.passkit.rewriting import PassSpec
from hlo_lab.passkit.testing import Trial


def try_examples(
    infos: Sequence[PassInfo],
    *,
    time_limit: float = DEFAULT_TIME_LIMIT,
    progress: Progress | None = None,
) -> dict[str, list[Trial]]:
    """What each rewrite pass does to each of its examples, by name of the pass.

    Raises:
        ExecutionError: the worker failed.
    """
    passes = [
        {
            "spec": PassSpec(str(info.path.resolve()), info.name, {}).to_dict(),
            "examples": _sources(info),
        }
        for info in infos
    ]
    with tempfile.TemporaryDirectory(prefix="hlo-lab-") as folder:
        request = {
            "mode": "task",
            "task": {"module": __name__, "passes": passes},
            "folder": folder,
            "cwd": folder,
            "target": "cpu",
        }
        info = run_worker(
            request,
            environment=worker_environment(Target.parse("cpu"), None),
            python=sys.executable,
            time_limit=time_limit,
            progress=progress,
        )
    return {name: [Trial(**each) for each in trials] for name, trials in info["trials"].items()}


def _sources(info: PassInfo) -> list[str]:
    examples: Sequence[Any] = vars(info.pass_class)["examples"]
    return [example.jax for example in examples]


def run(task: dict[str, Any], enter: Callable[[str], None]) -> dict[str, Any]:
    """In the worker: try every example of every pass."""
    trials: dict[str, list[dict[str, Any]]] = {}
    for one in task["passes"]:
        spec = PassSpec.from_dict(one["spec"])
        enter(f"try {spec.name}")
        trials[spec.name] = [vars(_try(spec, source)) for source in one["examples"]]
    return {"trials": trials}


def _try(spec: PassSpec, source: str) -> Trial:
    try:
        return _compared(spec, source)
    except HloLabError as error:
        return Trial(problem=str(error))
    except Exception as error:
        traceback.print_exc()
        return Trial(problem=f"{type(error).__name__}: {str(error).strip().splitlines()[0]}")


def _compared(spec: PassSpec, source: str) -> Trial:
    import jax

    from hlo_lab.lowering import adapter
    from hlo_lab.lowering.worker.calling import Call
    from hlo_lab.lowering.worker.executable import of_compiled
    from hlo_lab.lowering.worker.rewriting import Rewritten
    from hlo_lab.lowering.worker.stages import write_before
    from hlo_lab.measure.program import Program
    from hlo_lab.measure.rewriting import compare_programs

    names: dict[str, Any] = {}
    exec(compile(source, "<example>", "exec"), names)
    function, args = names["f"], names["example_args"]()
    jitted = function if adapter.is_jitted(function) else jax.jit(function)
    lowered = adapter.plain_lowered(jitted.lower(*args))
    rewriting = Rewritten.of(lowered.compiler_ir(), [spec])
    if rewriting.inside is None and not rewriting.changes:
        return Trial(changes=0, ops=rewriting.ops())
    call = Call(args, {}, (), (True,) * len(jax.tree_util.tree_leaves(args)))
    count = len(jax.tree_util.tree_leaves(lowered.args_info))
    paths = [f"[{number}]" for number in range(count)]
    sides = []
    with tempfile.TemporaryDirectory(prefix="hlo-lab-") as folder:
        changed = adapter.with_module(lowered, rewriting.plain())
        compiled = rewriting.compiled(changed.compile, lambda made: made.runtime_executable())
        for each, made in ((lowered, lowered.compile()), (changed, compiled)):
            sides.append(of_compiled(made, each, call, paths, Path(folder)))
        write_before(Path(folder), lowered.compiler_ir())
        before = Program.of(sides[0], None)
    after = Program(sides[1], before.inputs, [])
    wrong = [
        f"result {number} is off by {each.max_rel:.2g} ({each.tolerance:.2g} is rounding)"
        for number, each in enumerate(compare_programs(before, after, rewriting.tolerance))
        if not each.agrees
    ]
    return Trial(changes=rewriting.changes, ops=rewriting.ops(), problem="; ".join(wrong))
