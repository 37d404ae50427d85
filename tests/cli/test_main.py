"""The frame of the command line: help, version, completion, errors, exit codes."""

from __future__ import annotations

import importlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest
import typer

import hlo_lab
from hlo_lab.cli import common
from hlo_lab.cli import main as frame
from hlo_lab.errors import CompilerError, UseError

HLO = "HloModule m\n\nENTRY e {\n  x = f32[8] parameter(0)\n  ROOT y = f32[8] negate(x)\n}\n"


def run(*words: str, **options: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "hlo_lab", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, **options)  # type: ignore[call-overload,no-any-return]


def exit_code(call: Callable[[], NoReturn]) -> int:
    with pytest.raises(SystemExit) as stop:
        call()
    assert isinstance(stop.value.code, int)
    return stop.value.code


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\nfrom hlo_lab.cli.main import main\n"
        "try: main(['--help'])\nexcept SystemExit as stop: assert not stop.code\n"
        "heavy = {'typer', 'click', 'rich', 'numpy', 'jax', 'networkx', 'graphviz'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "[]", done.stderr
    for verb in frame.VERBS:
        assert re.search(rf"^  {verb} ", done.stdout, re.M)


def test_the_static_help_tells_the_truth() -> None:
    command = typer.main.get_command(frame.application(frame.VERBS))
    assert list(command.commands) == list(frame.VERBS)  # type: ignore[attr-defined]
    options = {name for parameter in command.params for name in parameter.opts}
    told = {name for names in frame.OPTIONS for name in names.split(", ")}
    assert told == options | {"-h", "--help"}
    assert max(map(len, frame.top_help().splitlines())) <= 80


@pytest.mark.parametrize("verb", frame.VERBS)
def test_each_verb_explains_itself(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code(lambda: frame.main([verb, "--help"])) == 0
    printed = capsys.readouterr().out
    assert f"Usage: hlo-lab {verb}" in printed
    assert f"Example: {frame.VERBS[verb].example}"[:60] in printed


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["--version"], ["-q", "--version"]):
        assert exit_code(lambda words=words: frame.main(words)) == 0  # type: ignore[misc]
        assert capsys.readouterr().out == f"hlo-lab {hlo_lab.__version__}\n"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "Commands:"),
        (["frobnicate"], "No such command 'frobnicate'"),
        (["analyze"], "Missing argument"),
        (["analyze", "--frob", "x"], "No such option"),
        (["analyze", "x", "--top", "many"], "--top"),
        (["analyze", "x", "--format", "xml"], "--format"),
        (["graph", "x", "--hops", "-1"], "--hops"),
    ],
)
def test_wrong_use_exits_2(words: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code(lambda: frame.main(words)) == 2
    printed = capsys.readouterr()
    assert printed.out == "" and says in printed.err


def raising(error: BaseException) -> Callable[[], int]:
    def call() -> int:
        raise error

    return call


@pytest.mark.parametrize(
    ("error", "code", "says"),
    [
        (UseError("wrong\nuse \x1b[31m"), 2, "error: wrong use ?[31m"),
        (CompilerError("it crashed", "x.log"), 3, "error: it crashed (log: x.log)"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (
            OSError(28, "No space left on device", "out.svg"),
            2,
            "no space left on the disk (out.svg)",
        ),
    ],
    ids=["use", "compiler", "interrupt", "disk full"],
)
def test_errors_are_one_line(
    error: BaseException, code: int, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert frame.guarded(raising(error)) == code
    printed = capsys.readouterr().err
    assert says in printed and printed.count("\n") == 1


def test_a_bug_leaves_a_log_and_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert frame.guarded(raising(ZeroDivisionError("oops"))) == 3
    printed = capsys.readouterr().err
    match = re.fullmatch(
        r"internal error: ZeroDivisionError: oops \(.* (\S+\.log); .*\)\n", printed
    )
    assert match is not None
    log = Path(match[1])
    assert "raise error" in log.read_text()
    log.unlink()


def test_a_closed_pipe_is_quiet(tmp_path: Path) -> None:
    (tmp_path / "m.hlo").write_text(HLO)
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-m", "hlo_lab", "graph", "m.hlo"],
        cwd=tmp_path,
        stdout=write,
        stderr=subprocess.PIPE,
        text=True,
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_under_stdout(tmp_path: Path) -> None:
    (tmp_path / "m.hlo").write_text(HLO)
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "hlo_lab", "graph", "m.hlo"],
            cwd=tmp_path,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert done.returncode == 2 and "no space left" in done.stderr
    assert done.stderr.count("\n") == 1


def test_interrupting_a_program_that_hangs(tmp_path: Path) -> None:
    (tmp_path / "hang.py").write_text("import time\nprint('up', flush=True)\ntime.sleep(60)\n")
    process = subprocess.Popen(
        [sys.executable, "-m", "hlo_lab", "-q", "analyze", "hang.py:f"],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    time.sleep(1.5)
    os.kill(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=20)
    assert process.returncode == 130
    assert said == "interrupted\n"


def test_completion_knows_verbs_and_options() -> None:
    environment = {**os.environ, "_HLO_LAB_COMPLETE": "complete_bash", "COMP_CWORD": "1"}
    done = run(env={**environment, "COMP_WORDS": "hlo-lab an"})
    assert done.stdout.split() == ["analyze"]
    done = run(env={**environment, "COMP_WORDS": "hlo-lab analyze --fail", "COMP_CWORD": "2"})
    assert done.stdout.split() == ["--fail-on"]


def test_versions_agree() -> None:
    text = (Path(hlo_lab.__file__).parents[1] / "pyproject.toml").read_text()
    assert f'version = "{hlo_lab.__version__}"' in text


def test_progress_comes_after_a_while_and_not_when_quiet(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(common, "PATIENCE", 0.05)
    monkeypatch.setattr(common, "INTERVAL", 0.05)
    monkeypatch.setitem(common._settings, "quiet", False)
    with common.progress("reading a.hlo"):
        pass
    assert capsys.readouterr().err == ""
    with common.progress("reading a.hlo") as step:
        time.sleep(0.12)
        step("running passes")
        time.sleep(0.12)
    lines = capsys.readouterr().err.splitlines()
    assert "hlo-lab: reading a.hlo (0 s so far)" in lines
    assert "hlo-lab: running passes (0 s so far)" in lines
    monkeypatch.setitem(common._settings, "quiet", True)
    with common.progress("reading a.hlo"):
        time.sleep(0.12)
    common.note("nothing")
    assert capsys.readouterr().err == ""


def test_a_result_replaces_the_file_in_one_step(tmp_path: Path) -> None:
    path = tmp_path / "out.txt"
    path.write_text("old")
    common.write_result("new", path)
    assert path.read_text() == "new"
    assert path.stat().st_mode & 0o777 == 0o666 & ~common._umask()
    assert [entry.name for entry in tmp_path.iterdir()] == ["out.txt"]


def test_every_command_module_is_importable() -> None:
    for verb in frame.VERBS.values():
        module, _, attribute = verb.target.partition(":")
        assert getattr(importlib.import_module(module), attribute)
