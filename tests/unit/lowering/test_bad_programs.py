"""Programs that misbehave: one line that says what and where, and nothing left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hlo_lab import lowering
from hlo_lab.errors import (
    CompilerError,
    ExecutionError,
    HloLabError,
    InputError,
    NotFoundError,
    ProgramError,
    UseError,
)
from hlo_lab.lowering import process
from hlo_lab.lowering.logs import last_lines, log_folder


@pytest.fixture
def fails(programs: Path, no_trace: Path) -> Callable[..., HloLabError]:
    """Dump a program that cannot be dumped; give the error."""

    def run(reference: str, **options: Any) -> HloLabError:
        if reference.startswith(":"):
            reference = f"{programs}{reference}"
        with pytest.raises(HloLabError) as caught:
            lowering.dump(reference, out=no_trace / "deep" / "out", **options)
        assert "\n" not in str(caught.value)
        return caught.value

    return run


Fails = Callable[..., HloLabError]
Write = Callable[..., Path]


# ---- the user named it wrongly: exit code 2


def test_no_such_file_module_or_name(fails: Fails, write: Write) -> None:
    assert isinstance(fails("missing.py:f"), NotFoundError)
    error = fails("no_such_package_here.module:f")
    assert isinstance(error, NotFoundError)
    assert "no module 'no_such_package_here'" in str(error)
    error = fails(":stepp")
    assert isinstance(error, NotFoundError)
    assert "has no 'stepp'; did you mean step" in str(error)
    file = write("imports.py", "import jax.numpy as jnp\nfrom math import tan\ndef f(): return 1.0")
    assert str(fails(f"{file}:jn")).endswith("has no 'jn'; it has f")
    file = write("many.py", "\n".join(f"def f{number}(): return 1.0" for number in range(7)))
    assert str(fails(f"{file}:other")).endswith("; it has f0, f1, f2, f3, f4 and 2 more")


def test_not_something_to_call(fails: Fails) -> None:
    error = fails(":number")
    assert isinstance(error, InputError)
    assert "number is an int, not something to call" in str(error)
    error = fails(":Needy.step")
    assert isinstance(error, InputError)
    assert "Needy needs arguments" in str(error)


def test_wrong_arguments_name_what_is_expected_and_given(fails: Fails) -> None:
    error = fails(":scaled", args="f32[8]")
    assert isinstance(error, InputError)
    assert "takes (x, power, activation) but was given (float32[8]): missing" in str(error)
    error = fails(":scaled", args="f32[8], 2, 'tanh', extra=f32[2]")
    assert "extra=float32[2]): got an unexpected keyword argument 'extra'" in str(error)


def test_wrong_arguments_say_where_they_came_from(fails: Fails, write: Write) -> None:
    file = write(
        "lm.py",
        """
        def f(x, p): return x
        def g(x): return x
        g.example_args = (1.0, 2.0)
        class Model:
            example_args = ({"a": 1.0, "b": 2.0},)
            def step(self, x, y): return x
        model = Model()
        def example_args(): return ({"w": 1.0, "b": 2.0},)
        """,
    )
    error = str(fails(f"{file}:f"))
    assert "f takes (x, p) but was given (dict of 2) from example_args in lm.py: " in error
    assert error.endswith("missing a required argument: 'p'; give --args")
    assert "but was given (1.0, 2.0) from g.example_args: " in str(fails(f"{file}:g"))
    assert "from example_args of Model: " in str(fails(f"{file}:model.step"))


def test_example_arguments_for_several_devices_without_them(fails: Fails, write: Write) -> None:
    file = write(
        "mesh.py",
        """
        import numpy
        def f(x): return x
        def example_args(mesh): return numpy.array(mesh.devices).reshape(2, 4),
        """,
    )
    error = fails(f"{file}:f")
    assert isinstance(error, ProgramError)
    assert "making its example arguments: ValueError: cannot reshape" in str(error)
    hint = "; example_args takes a mesh and the target has 1 device: try --target cpu:8"
    assert f"at {file}:4{hint} (log: " in str(error)
    assert "try --target" not in str(fails(f"{file}:f", target="cpu:2"))


def test_no_arguments_at_all(fails: Fails, write: Write) -> None:
    error = fails(f"{write('bare.py', 'def f(x): return x')}:f")
    assert isinstance(error, InputError)
    assert "--args" in str(error) and "example_args()" in str(error)


@pytest.mark.parametrize(
    ("example", "reason"),
    [
        ("example_args = 3", "gives an int"),
        ("def example_args(config): ...", "takes config"),
        ("def example_args(): pass", "gives a NoneType"),
    ],
)
def test_example_args_of_another_kind(
    example: str, reason: str, fails: Fails, write: Write
) -> None:
    error = fails(f"{write('odd.py', 'def f(x): return x' + chr(10) + example)}:f")
    assert isinstance(error, InputError)
    assert reason in str(error)


def test_bad_targets_and_arguments_are_refused_before_anything_runs(fails: Fails) -> None:
    began = time.monotonic()
    assert isinstance(fails(":step", target="tpu:v5x:2x2"), UseError)
    assert isinstance(fails(":step", args="f33[8]"), UseError)
    assert time.monotonic() - began < 0.5


def test_a_stablehlo_file_that_is_none(fails: Fails, write: Write) -> None:
    error = fails(str(write("junk.mlir", "module @jit_f {\n  stablehlo.nonsense\n}\n")))
    assert isinstance(error, InputError)
    assert "junk.mlir: not a StableHLO module" in str(error)


def test_a_stablehlo_file_for_more_devices(fails: Fails, write: Write) -> None:
    text = """
    module @jit_f attributes {mhlo.num_partitions = 4 : i32, mhlo.num_replicas = 1 : i32} {
      func.func public @main(%arg0: tensor<8xf32>) -> tensor<8xf32> {
        return %arg0 : tensor<8xf32>
      }
    }
    """
    error = fails(str(write("four.mlir", text)))
    assert "needs 4 devices, the target has 1" in str(error)


# ---- the program failed: exit code 3, with the line and a log


def check_log(error: HloLabError, *words: str) -> None:
    assert isinstance(error, ExecutionError)
    assert error.log is not None and Path(error.log).parent == log_folder()
    text = Path(error.log).read_text()
    for word in words:
        assert word in text


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (
            "import jax\nprint('so far')\n1 / 0",
            "being imported: ZeroDivisionError: division by zero at {}:3",
        ),
        ("def f(:", "being imported: SyntaxError: invalid syntax ({0.name}, line 1) at {0}:1"),
        ("import sys\nsys.exit('bye')", "being imported: called sys.exit('bye') at {}:2"),
        ("import sys\ndef f(): sys.exit(4)", "being traced: called sys.exit(4) at {}:2"),
        ("import no_such_thing", "ModuleNotFoundError: No module named 'no_such_thing' at {}:1"),
        ("def f():\n  raise KeyError('k')", "being traced: KeyError: 'k' at {}:2"),
        ("raise KeyboardInterrupt", "being imported: KeyboardInterrupt at {}:1"),
        (
            "import jax.numpy as jnp\ndef f():\n  return jnp.ones(3) @ jnp.ones(4)",
            "being traced: TypeError: dot_general requires contracting dimensions to have "
            "the same shape, got (3,) and (4,). at {}:3",
        ),
        (
            "def f(x): return x\ndef example_args():\n  1 / 0",
            "making its example arguments: ZeroDivisionError: division by zero at {}:3",
        ),
        ("import os\nos._exit(7)", "the program ended the process with status 7 (stage: import)"),
        ("import os\nos.abort()", "the program was killed by SIGABRT (stage: import) at {}:2"),
        ("def f(): return object()", "is not a valid JAX type"),
    ],
)  # fmt: skip
def test_programs_that_fail(text: str, reason: str, fails: Fails, write: Write) -> None:
    file = write("bad.py", text)
    error = fails(f"{file}:f")
    assert isinstance(error, ProgramError)
    assert reason.format(file) in str(error)
    check_log(error)


def test_what_the_program_printed_is_in_the_log(
    fails: Fails, write: Write, capfd: pytest.CaptureFixture[str]
) -> None:
    file = write(
        "loud.py", "import os\nprint('from python')\nos.system('echo from a shell >&2')\n1/0"
    )
    check_log(fails(f"{file}:f"), "from python", "from a shell", "Traceback")
    assert capfd.readouterr() == ("", "")


def test_a_program_that_never_returns(fails: Fails, write: Write, tmp_path: Path) -> None:
    file = write(
        "forever.py",
        f"""
        import subprocess, sys, time
        child = subprocess.Popen(["sleep", "600"])
        open({str(tmp_path / "pid")!r}, "w").write(str(child.pid))
        while True:
            time.sleep(1)
        """,
    )
    error = fails(f"{file}:f", time_limit=1.5)
    assert isinstance(error, ProgramError)
    assert "still running after 1.5 s (stage: import)" in str(error)
    _wait_until_gone(int((tmp_path / "pid").read_text()))


def _wait_until_gone(pid: int) -> None:
    """A killed process may stay a zombie where nobody waits for it."""
    for _ in range(100):
        try:
            if Path(f"/proc/{pid}/stat").read_text().split(")")[1].split()[0] == "Z":
                return
        except FileNotFoundError:
            return
        time.sleep(0.05)
    pytest.fail(f"process {pid} is still there")


def test_a_compiler_that_crashes_or_hangs(fails: Fails, write: Write) -> None:
    # the compile step is the only one that calls compile() on the lowered program
    text = """
    import os, sys, time, jax

    def broken(*args, **kwargs):
        print("F0000 something about fusion", file=sys.stderr, flush=True)
        {}

    jax.stages.Lowered.compile = broken

    def f():
        return 1.0
    """
    crash = write("crash.py", text.format("os.abort()"))
    error = fails(f"{crash}:f")
    assert isinstance(error, CompilerError)
    assert f"the compiler was killed by SIGABRT (stage: compile) at {crash}:6: " in str(error)
    assert "something about fusion" in str(error)
    error = fails(f"{write('hang.py', text.format('time.sleep(600)'))}:f", time_limit=6)
    assert isinstance(error, CompilerError)
    assert "the compiler was still running after 6 s" in str(error)
    error = fails(f"{write('no.py', text.format('raise RuntimeError(chr(73))'))}:f")
    assert isinstance(error, CompilerError)
    assert "XLA could not compile it: I" in str(error)


def test_a_disk_that_fills_up_half_way(small_disk: Path) -> None:
    file = small_disk.parent / "big.py"
    file.write_text("import numpy\ntable = numpy.random.rand(64, 64)\ndef f(x): return x @ table")
    with pytest.raises(InputError, match="no space left on the disk; nothing was written"):
        lowering.dump(f"{file}:f", out=small_disk / "out", args="f32[64]", passes=True)
    assert list(small_disk.iterdir()) == []


def test_a_program_that_leaves_processes_behind(write: Write, tmp_path: Path) -> None:
    file = write(
        "forks.py",
        f"""
        import os, time
        pid = os.fork()
        if pid == 0:
            time.sleep(600)
        open({str(tmp_path / "pid")!r}, "w").write(str(pid))
        def f(): return 1.0
        """,
    )
    lowering.dump(f"{file}:f", out=tmp_path / "out", time_limit=60)
    _wait_until_gone(int((tmp_path / "pid").read_text()))


def test_a_program_that_prints_without_end(
    fails: Fails, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "MAX_LOG", 200_000)
    error = fails(f"{write('loud.py', 'while True: print(chr(120) * 1000)')}:f", time_limit=1)
    assert isinstance(error, ProgramError) and error.log is not None
    assert Path(error.log).stat().st_size <= 200_000


def test_an_interpreter_that_is_none(fails: Fails) -> None:
    error = fails(":step", python="/nonexistent/python")
    assert isinstance(error, InputError)
    assert "cannot run /nonexistent/python" in str(error)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_stopping_hlo_lab_stops_the_program(
    number: signal.Signals, write: Write, tmp_path: Path
) -> None:
    file = write(
        "slow.py",
        f"""
        import os, time
        open({str(tmp_path / "pid")!r}, "w").write(str(os.getpid()))
        time.sleep(600)
        """,
    )
    code = "import sys; from hlo_lab import lowering; lowering.dump(sys.argv[1], out=sys.argv[2])"
    folder = tmp_path / "place"
    folder.mkdir()
    stopped = subprocess.Popen(
        [sys.executable, "-c", code, f"{file}:f", str(folder / "out")], stderr=subprocess.DEVNULL
    )
    pid_file = tmp_path / "pid"
    for _ in range(200):
        if pid_file.exists() and pid_file.read_text():
            break
        time.sleep(0.05)
    os.kill(stopped.pid, number)
    stopped.wait(timeout=10)
    _wait_until_gone(int(pid_file.read_text()))
    if number != signal.SIGKILL:  # nobody can clean up after that one
        assert list(folder.iterdir()) == []


def test_logs_of_runs_that_said_nothing_are_not_kept(programs: Path, tmp_path: Path) -> None:
    before = set(log_folder().glob("*"))
    lowering.dump(f"{programs}:nothing", out=tmp_path / "out")
    assert set(log_folder().glob("*")) == before


def test_the_last_lines_of_a_log(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("one\n\n" + "x" * 300 + "\nlast\n\n")
    assert last_lines(log, 2) == ["x" * 200, "last"]
    assert last_lines(tmp_path / "none") == []


def test_progress_is_told_stage_by_stage(programs: Path, tmp_path: Path) -> None:
    seen: list[tuple[str, float]] = []
    lowering.dump(
        f"{programs}:nothing",
        out=tmp_path / "out",
        progress=lambda stage, seconds: seen.append((stage, seconds)),
    )
    assert "import" in {stage for stage, _ in seen}
    assert [seconds for _, seconds in seen] == sorted(seconds for _, seconds in seen)
