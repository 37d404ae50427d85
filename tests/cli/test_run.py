"""``hlo-lab run`` as a user runs it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.unit.api.test_analyze import check
from tests.unit.measure.test_rewriting import PASS

SCRIPT = """
import functools, multiprocessing, os, sys
os.environ["JAX_NUM_CPU_DEVICES"] = "2"  # before JAX: it still counts
import jax, jax.numpy as jnp
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from neighbour import scale

@functools.partial(jax.jit, donate_argnums=0)
def step(x):
    return x * jax.nn.sigmoid(x) * scale

@jax.jit
def loss(x):
    return jnp.mean(jax.nn.sigmoid(x))

@jax.jit
def loud(x):
    jax.debug.callback(lambda y: None, x)
    return jax.nn.sigmoid(x)

def child():
    print("child:", "hlo_lab" in sys.modules, [p for p in sys.path if "startup" in p])

if __name__ == "__main__":
    mesh = jax.make_mesh((2,), ("data",), axis_types=(AxisType.Auto,))
    print("run:", sys.argv, sys.path[0], __file__, jax.device_count())
    print("environment:", os.environ.get("PYTHONPATH"), os.environ.get("HLO_LAB_RUN"))
    spread = NamedSharding(mesh, PartitionSpec("data"))
    x = jax.device_put(jnp.arange(8.0), spread)
    for n in (8, 4, 4):
        y = step(x := jax.device_put(jnp.arange(float(n)), spread))
        print(x.is_deleted(), y.sharding == spread, y.shape)
    print(f"{float(loss(y)):.4f}", loud(y).shape)
    if "child" in sys.argv:
        process = multiprocessing.get_context("spawn").Process(target=child)
        process.start(), process.join()
    if "fail" in sys.argv:
        raise ValueError("of the script")
    if "wait" in sys.argv:
        print("waiting", flush=True)
        try:
            import time
            time.sleep(60)
        finally:
            print("cleaned up", flush=True)
    if "exit" in sys.argv:
        sys.exit("a word of farewell")
    if "die" in sys.argv:
        os._exit(9)
"""
WRONG = PASS.replace('"logistic"', '"tanh"').replace("SIG", "WRO").replace("sigmoid", "wrong")
RAISES = """
from dataclasses import dataclass
from typing import ClassVar
from hlo_lab.passkit.base import RewriteExample, RewritePass
from hlo_lab.passkit.rewriter import Rewriter

@dataclass(frozen=True)
class Raises(RewritePass):
    '''Raises.

    What it rewrites
        Nothing.

    Why it matters
        Not.

    Example
        None.

    When it does not pay
        Ever.

    What changes in the numbers
        Nothing.
    '''

    code: ClassVar[str] = "RAI001"
    name: ClassVar[str] = "raises"

    how: str = "raise"

    def rewrite(self, module: Rewriter) -> None:
        for op in module.ops("exponential"):
            if self.how == "raise":
                raise KeyError("gone")
            build = module.before(op)
            name = "transpose" if self.how == "invalid" else "custom_call"
            attributes = {} if self.how == "invalid" else {"call_target_name": "no_such_thing"}
            kind = [(op.result.shape, op.result.dtype)]
            module.replace(op, build.op(name, op.operands, kind, **attributes).result)
"""
DONATES = (
    RAISES.replace("class Raises", "class Donates")
    .replace("RAI001", "DOS001")
    .replace('"raises"', '"donates"')
    .partition("    how: str")[0]
    + """
    def rewrite(self, module: Rewriter) -> None:
        from hlo_lab.passkit.entry import arguments, donate, results

        for argument, result in zip(arguments(module), results(module)):
            if not argument.donated:
                donate(module, argument, result)
"""
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    (folder / "train.py").write_text(SCRIPT)
    (folder / "neighbour.py").write_text("scale = 3.0\n")
    (folder / "mine").mkdir()
    for name, text in (
        ("sigmoid", PASS),
        ("wrong", WRONG),
        ("raises", RAISES),
        ("donates", DONATES),
    ):
        (folder / "mine" / f"{name}.py").write_text(text)
    return folder


def command(*args: str) -> list[str]:
    return [sys.executable, "-m", "hlo_lab", "run", "--passes-dir", "mine", *args]


def environment() -> dict[str, str]:
    return {**os.environ, "NO_COLOR": "1", "JAX_PLATFORMS": "cpu"}


def run(*args: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*args), cwd=cwd, capture_output=True, text=True, timeout=110, env=environment()
    )


def test_a_script_is_rewritten_and_notices_nothing(folder: Path) -> None:
    done = run(
        "--with-pass", "sigmoid", "--check", "-o", "out.json", "--format", "json",
        "train.py", "--with-pass", "child", cwd=folder,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    plain = subprocess.run(
        [sys.executable, "train.py", "--with-pass", "child"],
        cwd=folder, capture_output=True, text=True, env=environment(),
    )  # fmt: skip
    assert done.stdout == plain.stdout
    assert "child: False []" in done.stdout
    assert done.stdout.count("True True") == 3
    document = json.loads((folder / "out.json").read_text())
    check(document, "run")
    assert (document["schema"], document["status"]) == ("hlo-lab/run", 0)
    found = {each["function"]: each for each in document["functions"]}
    step, loss, loud = (found[f"jit_{name}"] for name in ("step", "loss", "loud"))
    assert step["compilations"] == 2
    assert step["changes"] == [{"pass": "sigmoid", "changes": 2}]
    assert (step["numbers"]["agrees"], step["numbers"]["calls"]) == (True, 2)
    assert (loss["numbers"]["agrees"], loss["numbers"]["calls"]) == (True, 1)
    assert loud["numbers"]["not_compared"] == ["it calls the host"]


def test_wrong_numbers_are_found(folder: Path) -> None:
    done = run("--with-pass", "wrong", "--only", "loss", "--check", "train.py", cwd=folder)
    assert done.returncode == 1
    assert "hlo-lab: wrong numbers in jit_loss after wrong: result [0] is off by" in done.stderr
    table = done.stderr[done.stderr.index("train.py, rewritten") :]
    assert "loss             1      1  WRONG, " in table
    assert "step" not in table


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("raise", "pass raises (RAI001) raised KeyError: 'gone' at "),
        ("invalid", "pass raises (RAI001) left a module that is not valid: "),
        ("refused", "XLA could not compile what raises made: "),
    ],
)
def test_a_pass_that_fails_leaves_the_function_as_it_was(folder: Path, how: str, said: str) -> None:
    chosen = f"raises{{how={how}}}"
    done = run("--with-pass", chosen, "--only", "l*", "train.py", cwd=folder)
    assert done.returncode == 3, done.stderr
    line = next(line for line in done.stderr.splitlines() if line.startswith("hlo-lab: "))
    assert line.startswith(f"hlo-lab: {said}")
    assert line.endswith("; jit_loss is compiled as it was")
    assert done.stdout.count("True True") == 3
    assert "Traceback" not in done.stderr


SCHEDULED = """
import jax, jax.numpy as jnp

@jax.jit
def branches(xs):
    ranked = [jnp.sort(x @ x, 0).sum(1) for x in xs]
    return sum(ranked[1:], ranked[0])

xs = [jnp.ones((64, 64)) * n for n in range(8)]
print(branches.lower(xs).compile().memory_analysis().temp_size_in_bytes, branches(xs).sum())
"""


def test_a_pass_inside_xla(folder: Path) -> None:
    (folder / "scheduled.py").write_text(SCHEDULED)
    cache = {"JAX_COMPILATION_CACHE_DIR": str(folder / "cache")}
    cache |= {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    rewritten = command("--with-pass", "depth-first", "--only", "branches", "--check")
    runs = []
    # the second finds nothing of the first in the cache that it should not
    for words in (rewritten, [sys.executable], rewritten):
        done = subprocess.run(
            [*words, "scheduled.py"],
            cwd=folder, capture_output=True, text=True, env=environment() | cache,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        runs.append(done)
    assert re.search(r"branches +(\d) +\1 +ok, 0.0e\+00$", runs[0].stderr, re.M)
    sizes, sums = zip(*(each.stdout.split() for each in runs), strict=True)
    assert len(set(sums)) == 1
    assert sizes[0] == sizes[2] and int(sizes[0]) < 0.5 * int(sizes[1])


def test_a_pass_that_the_caller_would_notice_is_refused(folder: Path) -> None:
    (folder / "double.py").write_text(
        "import jax, jax.numpy as jnp\nx = jnp.ones((64, 64))\n"
        "print(jax.jit(lambda x: x * 2 + 1)(x).sum(), x.sum())\n"
    )
    passes = ("--with-pass", "sigmoid", "--with-pass", "donate-arguments")
    done = run(*passes, "double.py", cwd=folder)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert "donate-arguments changes donation or layouts" in done.stderr
    passes = ("--with-pass", "sigmoid", "--with-pass", "donates")  # does not say so beforehand
    done = run(*passes, "double.py", cwd=folder)
    assert (done.returncode, done.stdout) == (3, "12288.0 4096.0\n")
    assert "hlo-lab: donates changed which arguments are donated" in done.stderr


def test_the_scripts_own_end_passes_through(folder: Path) -> None:
    done = run("--with-pass", "sigmoid", "-m", "train", "fail", cwd=folder)
    assert done.returncode == 1
    assert "ValueError: of the script" in done.stderr
    assert "hlo_lab" not in done.stderr
    assert re.search(r"step +2 +2$", done.stderr, re.M)
    done = run("--with-pass", "sigmoid", "train.py", "exit", cwd=folder)
    assert (done.returncode, "a word of farewell" in done.stderr) == (1, True)
    done = run("-q", "--with-pass", "sigmoid", "-o", "died.txt", "train.py", "die", cwd=folder)
    assert (done.returncode, "rewritten" in done.stderr) == (9, False)
    assert "script ended with  9" in (folder / "died.txt").read_text()


def test_an_interrupt_reaches_the_script_once(folder: Path) -> None:
    process = subprocess.Popen(
        command("--with-pass", "sigmoid", "train.py", "wait"),
        cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(),
        start_new_session=True,
    )  # fmt: skip
    assert process.stdout is not None
    while "waiting" not in process.stdout.readline():
        assert process.poll() is None
    time.sleep(0.2)
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert out == "cleaned up\n"
    assert err.count("KeyboardInterrupt") == 1
    assert "script ended with  130" in err


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("--with-pass", "sigmoid", "gone.py"), "gone.py: no such file"),
        (("--with-pass", "sigmoid", "--onyl", "x", "train.py"), "no such option: --onyl"),
        (("--with-pass", "sigmoid", "-m"), "name a module"),
        (("--with-pass", "fusion", "train.py"), "rewrites nothing"),
        (("--with-pass", "sigmoid", "-f", "json", "train.py"), "--format json needs -o FILE"),
        (("--with-pass", "sigmoid", "--python", "/gone", "train.py"), "cannot run /gone"),
    ],
)
def test_use_that_is_wrong(folder: Path, args: tuple[str, ...], said: str) -> None:
    done = run(*args, cwd=folder)
    assert done.returncode == 2
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_script_without_jax_is_said_to_be_none(folder: Path) -> None:
    (folder / "plain.py").write_text("import sys\nprint('plain', 'hlo_lab' in sys.modules)\n")
    (folder / "site").mkdir()
    (folder / "site" / "sitecustomize.py").write_text(
        "import sys\nif sys.argv[0] != '-m': print('their own')\n"
    )
    place = os.pathsep.join(filter(None, [str(folder / "site"), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        command("--with-pass", "sigmoid", "plain.py"),
        cwd=folder, capture_output=True, text=True, env=environment() | {"PYTHONPATH": place},
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "their own\nplain False\n")
    assert "compiled nothing with JAX: no pass was applied" in done.stderr
