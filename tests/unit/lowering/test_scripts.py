"""Scripts run unmodified."""

from __future__ import annotations

import io
import json
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from hlo_lab import lowering
from hlo_lab.api.dump import describe_script
from hlo_lab.errors import InputError, NotFoundError, ProgramError, UseError
from hlo_lab.lowering import Bundle, ScriptRun, open_index
from hlo_lab.report import text

TRAIN = """
import sys
import jax, jax.numpy as jnp
from neighbour import scale

@jax.jit
def step(w, x):
    return jnp.tanh(x @ w) * scale

print("arguments:", sys.argv[1:], __name__)
w = jnp.ones((8, 8))
for rows in (1, 2):
    step(w, jnp.ones((rows, 8))).block_until_ready()
step(w, jnp.ones((2, 8)))
"""


@pytest.fixture(scope="module")
def train(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("script")
    (folder / "neighbour.py").write_text("scale = 3.0\n")
    (folder / "train.py").write_text(TRAIN)
    return folder / "train.py"


@pytest.fixture(scope="module")
def run(train: Path, tmp_path_factory: pytest.TempPathFactory) -> ScriptRun:
    out = tmp_path_factory.mktemp("captured") / "out"
    return lowering.dump_script(train, ["--rows", "2"], out=out, target="cpu:2")


def test_each_program_is_captured_once(run: ScriptRun) -> None:
    names = [bundle.path.name for bundle in run.bundles]
    assert {"jit_step", "jit_step.2"} < set(names)
    assert "jit_step.3" not in names
    assert (run.status, run.failure, run.lost, run.skipped) == (0, None, [], 0)


def test_captured_bundles_have_what_the_compiler_sees(run: ScriptRun, train: Path) -> None:
    bundle = next(each for each in run.bundles if each.path.name == "jit_step.2")
    assert bundle.stages == ["stablehlo", "hlo-before", "hlo-after", "schedule", "analysis"]
    assert bundle.manifest["absent"] == ["jaxpr", "passes"]
    assert bundle.manifest["program"] == {
        "reference": str(train),
        "file": str(train),
        "argv": ["--rows", "2"],
    }
    assert [each["shape"] for each in bundle.manifest["arguments"]] == [[8, 8], [2, 8]]
    assert bundle.manifest["devices"] == 1
    module = bundle.module()
    assert module.name == "jit_step"
    files = {frame.file for index in range(len(module)) for frame in module.source_stack(index)}
    assert files == {str(train)}


def test_the_index_lists_them(run: ScriptRun) -> None:
    index = json.loads((run.path / "index.json").read_text())
    assert (index["schema"], index["schema_version"]) == ("hlo-lab/script", 1)
    assert [entry["name"] for entry in index["programs"]] == [b.path.name for b in run.bundles]
    for entry, bundle in zip(index["programs"], run.bundles, strict=True):
        assert entry["instructions"] == len(bundle.module())
    assert [each.path for each in open_index(run.path)] == [each.path for each in run.bundles]


def test_filters_and_what_the_script_prints(
    train: Path, run: ScriptRun, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    printed = io.StringIO()
    sizes = {bundle.path.name: len(bundle.module()) for bundle in run.bundles}
    chosen = lowering.dump_script(
        train,
        out=tmp_path / "out",
        name_filter="st.p$",
        min_size=max(sizes.values()),
        echo=printed,
    )
    assert all(len(bundle.module()) == max(sizes.values()) for bundle in chosen.bundles)
    assert len(chosen.bundles) + chosen.skipped == len(run.bundles)
    assert 1 <= len(chosen.bundles) < 3
    assert "arguments: [] __main__" in printed.getvalue()
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("ending", "status", "failure"),
    [
        (
            "raise ValueError('boom')",
            1,
            "the program failed while running: ValueError: boom at {}:6",
        ),
        ("import sys; sys.exit(5)", 5, "the script ended with status 5"),
        ("import sys; sys.exit('a message')", 1, "the script ended with status 1"),
        ("import sys; sys.exit()", 0, None),
    ],
)
def test_the_scripts_end_is_told_and_its_programs_are_kept(
    ending: str, status: int, failure: str | None, write: Callable[..., Path], tmp_path: Path
) -> None:
    file = write(
        "ends.py",
        f"""
        import jax
        @jax.jit
        def f(x): return x + 1
        f(2.0)
        {ending}
        """,
    )
    printed = io.StringIO()
    run = lowering.dump_script(file, out=tmp_path / "out", name_filter="jit_f", echo=printed)
    assert [bundle.path.name for bundle in run.bundles] == ["jit_f"]
    assert run.status == status
    assert run.failure == (failure and failure.format(file))
    if "message" in ending:
        assert "a message" in printed.getvalue()
    if "boom" in ending:
        assert "lowering/worker" not in printed.getvalue()


def test_a_script_that_compiles_nothing(write: Callable[..., Path], tmp_path: Path) -> None:
    run = lowering.dump_script(write("idle.py", "print(1)"), out=tmp_path / "out")
    assert run.bundles == []
    assert open_index(tmp_path / "out") == []


def test_a_script_that_does_not_end(write: Callable[..., Path], no_trace: Path) -> None:
    file = write("forever.py", "import time\nwhile True: time.sleep(1)")
    with pytest.raises(ProgramError, match=r"still running after 2 s \(stage: script\)"):
        lowering.dump_script(file, out=no_trace / "out", time_limit=2)


LATE = """
import os, sys, time
import jax

@jax.jit
def f(x): return x * 2

for rows in range(1, 4):
    f(jax.numpy.ones(rows))
print("compiled", flush=True)
{}
"""


def test_the_time_limit_keeps_what_was_captured(write: Callable[..., Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    file = write("late.py", LATE.format("time.sleep(600)"))
    run = lowering.dump_script(file, out=out, name_filter="jit_f", time_limit=8)
    assert run.status is None and run.failure is not None
    assert "still running after 8 s" in run.failure
    assert f"; 3 programs were kept in {out} (log: " in run.failure
    assert [bundle.path.name for bundle in run.bundles] == ["jit_f", "jit_f.2", "jit_f.3"]
    for bundle in open_index(out):
        again = Bundle.open(bundle.path, check_hashes=True)
        assert len(again.module()) > 1
        assert set(again.manifest["versions"]) == {"hlo-lab", "python", "jax", "jaxlib"}
        assert again.manifest["program"]["file"] == str(file)
    index = json.loads((out / "index.json").read_text())
    assert (index["status"], index["failure"]) == (None, run.failure)
    assert sorted(path.name for path in out.iterdir()) == ["index.json", *(
        bundle.path.name for bundle in run.bundles)]  # fmt: skip


def test_a_crash_keeps_what_was_captured_and_nothing_half_done(
    write: Callable[..., Path], tmp_path: Path
) -> None:
    text = """
    from hlo_lab.lowering.worker import stages
    stages.write_after = lambda *_: os.abort()
    f(jax.numpy.ones(9))
    """
    file = write("crash.py", LATE.format(textwrap.dedent(text)))
    run = lowering.dump_script(file, out=tmp_path / "out", name_filter="jit_f")
    assert run.failure is not None and "was killed by SIGABRT" in run.failure
    assert [bundle.path.name for bundle in run.bundles] == ["jit_f", "jit_f.2", "jit_f.3"]
    assert not (tmp_path / "out" / "jit_f.4").exists()


def test_a_script_is_stopped_after_so_many_programs(
    write: Callable[..., Path], tmp_path: Path
) -> None:
    file = write("late.py", LATE.format("time.sleep(600)"))
    printed = io.StringIO()
    run = lowering.dump_script(
        file, out=tmp_path / "out", name_filter="jit_f", stop_after=2, echo=printed
    )
    assert [bundle.path.name for bundle in run.bundles] == ["jit_f", "jit_f.2"]
    assert (run.status, run.failure) == (None, None)
    assert "compiled" not in printed.getvalue()
    with pytest.raises(UseError, match="1 or more"):
        lowering.dump_script(file, out=tmp_path / "none", stop_after=0)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_keeps_what_was_captured(
    number: signal.Signals, code: int, write: Callable[..., Path], tmp_path: Path
) -> None:
    write("late.py", LATE.format("time.sleep(600)"))
    command = [sys.executable, "-m", "hlo_lab", "dump", "--script", "late.py", "-o", "out"]
    stopped = subprocess.Popen(
        [*command, "--filter", "jit_f"], cwd=tmp_path, stderr=subprocess.PIPE, text=True
    )
    assert stopped.stderr is not None
    while "compiled" not in stopped.stderr.readline():
        assert stopped.poll() is None
    stopped.send_signal(number)
    assert "3 programs were kept in out" in stopped.stderr.read()
    assert stopped.wait(timeout=30) == code
    assert len(open_index(tmp_path / "out")) == 3
    assert not [path for path in tmp_path.iterdir() if path.name.endswith(".tmp")]


def test_what_differs_from_the_program_of_the_same_name(run: ScriptRun) -> None:
    entries = {entry["name"]: entry for entry in run.programs}
    assert entries["jit_step"]["arguments"] == ["f32[8,8]", "f32[1,8]"]
    assert "again" not in entries["jit_step"]
    assert entries["jit_step.2"]["again"] == {
        "of": "jit_step",
        "changes": [{"argument": 1, "before": "f32[1,8]", "after": "f32[2,8]"}],
    }
    assert json.loads((run.path / "index.json").read_text())["programs"] == run.programs
    (again,) = [one for one in run.recompiled if one["place"]]
    assert (again["function"], again["programs"]) == ("step", ["jit_step", "jit_step.2"])
    assert again["place"].endswith("train.py:6")
    assert [(one["argument"], one["cause"]) for one in again["changes"]] == [("x", "shape")]
    assert Bundle.open(run.path / "jit_step.2").manifest["recompiled"] == again
    report = text.to_string(describe_script(run))
    assert "x f32[1,8] -> f32[2,8]" in report
    row = next(line for line in report.splitlines() if line.startswith("  jit_step.2"))
    assert "f32[8,8], f32[2,8]" in row
    assert row.split()[1] == str(entries["jit_step.2"]["instructions"])


def test_names_are_plain_folder_names(write: Callable[..., Path], tmp_path: Path) -> None:
    file = write(
        "names.py",
        """
        import jax
        def f(x): return x + 1
        f.__name__ = "../../escape/" + "x" * 300
        jax.jit(f)(1.0)
        jax.jit(lambda x: x * 2)(1.0)
        """,
    )
    run = lowering.dump_script(file, out=tmp_path / "deep" / "out", name_filter="escape|lambda")
    assert len(run.bundles) == 2
    assert {bundle.path.parent for bundle in run.bundles} == {tmp_path / "deep" / "out"}


def test_wrong_use(write: Callable[..., Path], no_trace: Path, train: Path) -> None:
    with pytest.raises(NotFoundError, match="no such file"):
        lowering.dump_script("missing.py", out=no_trace / "out")
    with pytest.raises(UseError, match="not a regular expression"):
        lowering.dump_script(train, out=no_trace / "out", name_filter="(")
    with pytest.raises(InputError, match="not a folder of captured programs"):
        open_index(no_trace)


@pytest.mark.parametrize("name", ["../outside", "/etc", "a/b"])
def test_an_index_that_points_elsewhere(name: str, tmp_path: Path) -> None:
    index = {"schema": "hlo-lab/script", "programs": [{"name": name}]}
    (tmp_path / "index.json").write_text(json.dumps(index))
    with pytest.raises(InputError, match="not a folder of captured programs"):
        open_index(tmp_path)
