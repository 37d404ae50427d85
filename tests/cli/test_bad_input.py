"""Bad input of every kind, through the real command: one clear line, the right exit code,
no traceback, nothing half-written."""

from __future__ import annotations

import contextlib
import gzip
import itertools
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import pytest

HLO = """\
HloModule small, entry_computation_layout={(f32[64,64]{1,0}, f32[64,64]{1,0})->f32[64,64]{1,0}}

ENTRY main {
  a = f32[64,64]{1,0} parameter(0)
  b = f32[64,64]{1,0} parameter(1)
  product = f32[64,64]{1,0} dot(a, b), lhs_contracting_dims={1}, rhs_contracting_dims={0}
  ROOT shifted = f32[64,64]{1,0} add(product, b)
}
"""
PROGRAM = """\
import jax.numpy as jnp

def f(x):
    return jnp.tanh(x @ x)

def example_args():
    import jax
    return jax.ShapeDtypeStruct((16, 16), jnp.float32)
"""


@dataclass
class Done:
    code: int
    out: str
    err: str
    peak_bytes: int = 0


def hlo_lab(
    *words: str | Path,
    cwd: Path,
    stdin: bytes | None = None,
    stdout: IO[Any] | None = None,
    env: dict[str, str] | None = None,
) -> Done:
    done = subprocess.run(
        [sys.executable, "-m", "hlo_lab", *map(str, words)],
        cwd=cwd,
        input=stdin,
        stdout=stdout or subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "GIT_CEILING_DIRECTORIES": str(cwd.parent), **(env or {})},
    )
    return Done(done.returncode, (done.stdout or b"").decode(), done.stderr.decode())


def check_fails(done: Done, code: int, *says: str) -> None:
    """Exit code, exactly one line of error that says what is asked, and nothing else."""
    everything = done.out + done.err
    assert done.code == code, everything
    assert "Traceback" not in everything
    assert "internal error" not in everything
    errors = [line for line in done.err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, done.err
    for word in says:
        assert word in errors[0]
    assert done.out == ""


def files_in(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


@contextlib.contextmanager
def unchanged(folder: Path) -> Iterator[None]:
    """Nothing is written into the folder."""
    before = files_in(folder)
    yield
    new = {name for name in files_in(folder) - before if "__pycache__" not in name}
    assert not new


@pytest.fixture(autouse=True)
def nothing_left_behind(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """Caches and logs of the tests' own, and an empty folder for temporary files afterwards."""
    home = tmp_path_factory.mktemp("home")
    for name in ("XDG_CACHE_HOME", "XDG_STATE_HOME", "TMPDIR"):
        (home / name).mkdir()
        monkeypatch.setenv(name, str(home / name))
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)  # most users have buffers
    yield
    assert files_in(home / "TMPDIR") == set()


@pytest.fixture
def work(tmp_path: Path) -> Path:
    (tmp_path / "good.hlo").write_text(HLO)
    (tmp_path / "program.py").write_text(PROGRAM)
    return tmp_path


@pytest.fixture(scope="module")
def proto(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The optimised module of a small program, as XLA writes it."""
    folder = tmp_path_factory.mktemp("proto")
    (folder / "program.py").write_text(PROGRAM)
    done = hlo_lab("dump", "program.py:f", "-o", "bundle", cwd=folder)
    assert done.code == 0, done.err
    return (folder / "bundle" / "hlo_after.pb").read_bytes()


# Files. Each verb that reads one treats it the same way.

VERBS = [["analyze", "BAD"], ["diff", "BAD", "good.hlo"], ["graph", "BAD", "-o", "x.dot"]]


def commands(name: str) -> Iterator[list[str]]:
    for verb in VERBS:
        yield [name if word == "BAD" else word for word in verb]


def random_bytes() -> bytes:
    return random.Random(0).randbytes(100_000)


BAD_FILES = {
    "empty.hlo": b"",
    "random.hlo": random_bytes(),
    "random.pb": random_bytes(),
    "prose.txt": b"Dear reader,\n\nthis is a letter, and not a program.\n" * 100,
    "python.txt": PROGRAM.encode(),
    "json.txt": json.dumps({"HloModule": [1, 2, {"a": "b"}]}).encode(),
    "zeros.pb": bytes(100_000),
    "broken.hlo.gz": gzip.compress(HLO.encode())[:60],
    "notgzip.hlo.gz": b"\x1f\x8b" + random_bytes()[:1000],
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_files_that_are_no_hlo(work: Path, name: str) -> None:
    (work / name).write_bytes(BAD_FILES[name])
    with unchanged(work):
        for command in commands(name):
            check_fails(hlo_lab(*command, cwd=work), 2, name)


def test_missing_file(work: Path) -> None:
    with unchanged(work):
        for command in commands("missing.hlo"):
            check_fails(hlo_lab(*command, cwd=work), 2, "missing.hlo", "no such file")


def test_folder_that_is_no_bundle(work: Path) -> None:
    (work / "folder").mkdir()
    with unchanged(work):
        for command in commands("folder"):
            check_fails(hlo_lab(*command, cwd=work), 2, "folder", "bundle")


def test_bundle_without_its_module(work: Path) -> None:
    assert hlo_lab("dump", "program.py:f", "-o", "bundle", cwd=work).code == 0
    for path in (work / "bundle").glob("hlo_after.*"):
        path.unlink()
    check_fails(hlo_lab("analyze", "bundle", cwd=work), 2, "bundle", "hlo_after")
    (work / "bundle" / "manifest.json").write_text('{"schema": ')
    check_fails(hlo_lab("analyze", "bundle", cwd=work), 2, "manifest.json")


def test_empty_standard_input(work: Path) -> None:
    check_fails(hlo_lab("analyze", "-", cwd=work, stdin=b""), 2, "<stdin>", "empty")


@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.999])
def test_truncated_proto(work: Path, proto: bytes, share: float) -> None:
    (work / "cut.pb").write_bytes(proto[: int(len(proto) * share)])
    check_fails(hlo_lab("analyze", "cut.pb", cwd=work), 2, "cut.pb")


def test_truncated_text_is_read_with_a_warning(work: Path) -> None:
    (work / "cut.hlo").write_text(HLO[: HLO.index("rhs_contracting")])
    done = hlo_lab("analyze", "cut.hlo", cwd=work)
    assert done.code == 0, done.err
    assert "the file is cut after line 6" in " ".join(done.out.split())
    done = hlo_lab("analyze", "cut.hlo", "--format", "json", cwd=work)
    document = json.loads(done.out)
    assert any("the file is cut after line 6" in warning for warning in document["warnings"])
    assert document["summary"]["instructions"] >= 2


def test_text_cut_in_its_first_line(work: Path) -> None:
    (work / "cut.hlo").write_text(HLO[:30])
    check_fails(hlo_lab("analyze", "cut.hlo", cwd=work), 2, "cut.hlo")


def test_unknown_operations_and_attributes_are_kept(work: Path) -> None:
    odd = HLO.replace("add(product, b)", 'frobnicate(product, b), zork={1,{2}}, tint="x}"')
    (work / "odd.hlo").write_text(odd)
    (work / "other.hlo").write_text(odd.replace("zork={1,{2}}", "zork={1,{3}}"))
    done = hlo_lab("analyze", "odd.hlo", "--format", "json", cwd=work)
    assert done.code == 0, done.err
    assert "frobnicate" in {op["opcode"] for op in json.loads(done.out)["ops"]}
    same = hlo_lab("diff", "odd.hlo", "odd.hlo", "--format", "json", cwd=work)
    assert json.loads(same.out)["verdict"] == "identical"
    other = hlo_lab("diff", "odd.hlo", "other.hlo", "--format", "json", cwd=work)
    assert json.loads(other.out)["verdict"] == "changed"


# A gigabyte of braces must end in a refusal, soon, in bounded memory.

GIGABYTE = 1 << 30
BRACES = {
    "one_line": (b"", b"{"),
    "many_lines": (b"", b"{\n"),
    "in_a_module": (b"HloModule m\n\nENTRY main {\n  a = f32[] add(", b"{"),
    "in_attributes": (b"HloModule m\n\nENTRY main {\n  a = f32[] add(), x=", b"{\n"),
    "computations": (b"HloModule m\n\n", b"c {\n"),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", BRACES)
def test_a_gigabyte_of_nested_braces(work: Path, kind: str) -> None:
    head, unit = BRACES[kind]
    done = run_measured(work, head, unit, GIGABYTE)
    check_fails(done, 2, "<stdin>")
    assert done.peak_bytes < 500e6


def run_measured(work: Path, head: bytes, unit: bytes, size: int) -> Done:
    """``analyze -`` on ``head`` and ``size`` bytes of ``unit``s, with the peak of its memory."""
    with tempfile.TemporaryFile() as err:
        process = subprocess.Popen(
            [sys.executable, "-m", "hlo_lab", "analyze", "-"],
            cwd=work,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=err,
        )
        assert process.stdin is not None and process.stdout is not None
        feeder = threading.Thread(target=feed, args=(process.stdin, head, unit, size))
        feeder.start()
        out = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        feeder.join()
        process.stdout.close()
        err.seek(0)
        return Done(process.returncode, out.decode(), err.read().decode(), usage.ru_maxrss * 1024)


def feed(pipe: IO[bytes], head: bytes, unit: bytes, size: int) -> None:
    chunk = unit * ((8 << 20) // len(unit))
    with contextlib.suppress(BrokenPipeError), pipe:
        pipe.write(head)
        for _ in range(size // len(chunk)):
            pipe.write(chunk)


@pytest.mark.slow
def test_a_small_gzip_of_a_gigabyte(work: Path) -> None:
    member = gzip.compress(b"{" * (64 << 20))
    (work / "bomb.hlo.gz").write_bytes(member * 16)
    check_fails(hlo_lab("analyze", "bomb.hlo.gz", cwd=work), 2, "bomb.hlo.gz")


# Programs. The compiler runs in a process of its own, so nothing they do reaches ours.

BAD_PROGRAMS: dict[str, tuple[str, int, list[str]]] = {
    "raises_on_import": ("x = 1\nraise RuntimeError('no luck')\n", 3, ["RuntimeError", "no luck"]),
    "no_such_module": ("import not_installed_anywhere\n", 3, ["not_installed_anywhere"]),
    "syntax_error": ("def f(x)\n    return x\n", 3, ["SyntaxError"]),
    "exits_on_import": ("import sys\nsys.exit(0)\n", 3, ["sys.exit"]),
    "exits_when_called": ("import sys\ndef f():\n    sys.exit(7)\n", 3, ["sys.exit", "7"]),
    "exits_hard": ("import os\nos._exit(0)\n", 3, ["ended the process"]),
    "raises_when_called": ("def f():\n    return {}['missing']\n", 3, ["KeyError", "missing"]),
    "no_such_name": ("def g(x):\n    return x\n", 2, ["'f'", "g"]),
    "not_callable": ("f = 3\n", 2, ["f"]),
    "no_arguments": ("def f(x):\n    return x\n", 2, ["--args", "example_args"]),
    "wrong_count": ("def f(x):\n    return x\nf.example_args = (1.0, 2.0)\n", 2, ["f"]),
    "raising_arguments": (
        "def f(x):\n    return x\ndef example_args():\n    raise ValueError('none today')\n",
        3,
        ["ValueError", "none today"],
    ),
}


@pytest.mark.parametrize("name", BAD_PROGRAMS)
def test_programs_that_fail(work: Path, name: str) -> None:
    source, code, says = BAD_PROGRAMS[name]
    (work / "bad.py").write_text(source)
    with unchanged(work):
        check_fails(hlo_lab("dump", "bad.py:f", "-o", "out/bundle", cwd=work), code, *says)


def test_wrong_shapes(work: Path) -> None:
    with unchanged(work):
        done = hlo_lab("dump", "program.py:f", "--args", "f32[2,3]", "-o", "out", cwd=work)
        check_fails(done, 3, "program.py", "(3,)")
        done = hlo_lab("dump", "program.py:f", "--args", "f32[2", "-o", "out", cwd=work)
        check_fails(done, 2, "--args")


def test_a_program_that_never_returns(work: Path) -> None:
    (work / "bad.py").write_text("import time\ndef f():\n    time.sleep(600)\n")
    with unchanged(work):
        done = hlo_lab("dump", "bad.py:f", "-o", "out", "--time-limit", "3", cwd=work)
        check_fails(done, 3, "still running", "--time-limit")


@pytest.mark.parametrize("name", ["raises_on_import", "exits_when_called"])
def test_the_other_verbs_report_a_program_that_fails(work: Path, name: str) -> None:
    source, code, says = BAD_PROGRAMS[name]
    (work / "bad.py").write_text(source)
    with unchanged(work):
        for command in commands("bad.py:f"):
            check_fails(hlo_lab(*command, cwd=work), code, *says)


def test_names_that_are_no_program(work: Path) -> None:
    with unchanged(work):
        check_fails(hlo_lab("dump", "gone.py:f", "-o", "out", cwd=work), 2, "gone.py")
        check_fails(hlo_lab("dump", "program.py", "-o", "out", cwd=work), 2, "program.py:f")
        check_fails(hlo_lab("dump", "nonsense", "-o", "out", cwd=work), 2, "nonsense")
        done = hlo_lab("dump", "program.py:f", "-o", "out", "--target", "abacus", cwd=work)
        check_fails(done, 2, "abacus", "cpu")


# Revisions.


def git(folder: Path, *words: str) -> str:
    identity = ["-c", "user.name=T", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=no"]
    done = subprocess.run(
        ["git", *identity, *words], cwd=folder, check=True, capture_output=True, text=True
    )
    return done.stdout


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Two commits: the program appears in the second."""
    folder = tmp_path / "repository"
    folder.mkdir()
    git(folder, "init", "-q", "-b", "main")
    (folder / "README").write_text("empty\n")
    git(folder, "add", ".")
    git(folder, "commit", "-q", "-m", "first")
    (folder / "program.py").write_text(PROGRAM)
    git(folder, "add", ".")
    git(folder, "commit", "-q", "-m", "second")
    return folder


def test_no_repository(work: Path) -> None:
    with unchanged(work):
        check_fails(hlo_lab("diff", "HEAD~1", "HEAD", "program.py:f", cwd=work), 2, "git")


def test_unknown_revision(repository: Path) -> None:
    for words in (["HEAD", "elsewhere"], ["elsewhere..HEAD"], ["HEAD~9", "HEAD"]):
        done = hlo_lab("diff", *words, "program.py:f", cwd=repository)
        check_fails(done, 2, "elsewhere" if "HEAD~9" not in words else "HEAD~9")
    assert git(repository, "worktree", "list").count("\n") == 1


def test_program_that_one_revision_lacks(repository: Path) -> None:
    for words, word in ((["HEAD~1", "HEAD"], "added"), (["HEAD", "HEAD~1"], "removed")):
        done = hlo_lab("diff", *words, "program.py:f", "--format", "json", cwd=repository)
        assert done.code == 0, done.err
        assert json.loads(done.out)["verdict"] == word
        assert word in hlo_lab("diff", *words, "program.py:f", cwd=repository).out
    check_fails(hlo_lab("diff", "HEAD~1", "HEAD", "gone.py:f", cwd=repository), 2, "gone.py")


def test_a_dirty_tree_is_left_alone(repository: Path) -> None:
    (repository / "program.py").write_text(PROGRAM.replace("tanh", "sin"))
    (repository / "README").unlink()
    (repository / "untracked.txt").write_text("mine\n")
    git(repository, "add", "untracked.txt")
    before = git(repository, "status", "--porcelain"), files_in(repository / ".git")
    done = hlo_lab("diff", "HEAD", "HEAD", "program.py:f", "--format", "json", cwd=repository)
    assert done.code == 0, done.err
    assert json.loads(done.out)["verdict"] == "identical"
    assert git(repository, "status", "--porcelain") == before[0]
    assert "sin" in (repository / "program.py").read_text()
    assert git(repository, "worktree", "list").count("\n") == 1


# Places to write.


def test_folders_that_cannot_be_written(work: Path) -> None:
    (work / "file").write_text("in the way\n")
    with unchanged(work):
        for place in ("file", "file/bundle", "/proc/bundle"):
            check_fails(hlo_lab("dump", "program.py:f", "-o", place, cwd=work), 2, place)
        for verb, name in itertools.product(("analyze", "graph"), ("file/x.dot", "no/x.dot")):
            check_fails(hlo_lab(verb, "good.hlo", "-o", name, cwd=work), 2, name)
    assert (work / "file").read_text() == "in the way\n"


def test_a_full_standard_output(work: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    with Path("/dev/full").open("wb") as full:
        done = hlo_lab("analyze", "good.hlo", cwd=work, stdout=full)
    check_fails(done, 2, "space")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 64 KiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("cannot mount a small disk here")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_disk_that_fills_up(work: Path, small_disk: Path) -> None:
    program = work / "big.py"
    lines = "\n".join(f"    x = jnp.sin(x @ x) + {i}" for i in range(60))
    program.write_text(PROGRAM.replace("    return jnp", f"{lines}\n    return jnp"))
    done = hlo_lab("dump", f"{program}:f", "-o", small_disk / "bundle", cwd=work)
    check_fails(done, 2, "space", str(small_disk))
    assert files_in(small_disk) == set()

    old = small_disk / "report.json"
    old.write_text("old\n")
    (small_disk / "ballast").write_bytes(bytes(58_000))
    done = hlo_lab("analyze", "good.hlo", "--format", "json", "-o", old, cwd=work)
    if done.code != 0:  # a short report fits
        check_fails(done, 2, "space", str(old))
        assert old.read_text() == "old\n"
    assert files_in(small_disk) == {"report.json", "ballast"}


# Passes.

RAISING = '''\
"""Two passes, of which the first raises."""
from collections.abc import Iterator
from dataclasses import dataclass

from hlo_lab.passkit.base import AnalysisPass


@dataclass(frozen=True)
class Raising(AnalysisPass):
    """Raises on every module.

    What it finds
        The root.
    Why it matters
        It does not.
    Example
        Any module.
    What to do
        Nothing.
    How it is verified
        By its test.
    """

    code = "RAI001"
    name = "raising"

    def run(self, module, context) -> Iterator:
        yield self.finding(module.entry_computation.root, "found before it raised")
        raise ZeroDivisionError("by design")


@dataclass(frozen=True)
class Steady(AnalysisPass):
    """Finds the root of every module.

    What it finds
        The root.
    Why it matters
        It does not.
    Example
        Any module.
    What to do
        Nothing.
    How it is verified
        By its test.
    """

    code = "STE001"
    name = "steady"

    def run(self, module, context) -> Iterator:
        yield self.finding(module.entry_computation.root, "the root is here")
'''


def test_a_pass_that_raises(work: Path) -> None:
    (work / "mine").mkdir()
    (work / "mine" / "two.py").write_text(RAISING)
    line = RAISING.splitlines().index('        raise ZeroDivisionError("by design")') + 1
    done = hlo_lab("analyze", "good.hlo", "--passes-dir", "mine", cwd=work)
    assert done.code == 3, done.err
    errors = [each for each in done.err.splitlines() if each.startswith("error: ")]
    assert len(errors) == 1
    assert "raising" in errors[0] and f"two.py:{line}" in errors[0]
    assert "ZeroDivisionError" in errors[0]
    assert "Traceback" not in done.out + done.err
    assert "the root is here" in done.out


def test_pass_files_that_do_not_load(work: Path) -> None:
    (work / "mine").mkdir()
    file = work / "mine" / "broken.py"
    for source, line, says in (
        ("x = 1\ndef f(:\n", 2, "syntax error"),
        ("import nothing_like_this\n", 1, "nothing_like_this"),
    ):
        file.write_text(source)
        done = hlo_lab("analyze", "good.hlo", "--passes-dir", "mine", cwd=work)
        assert done.code in (2, 3)
        check_fails(done, done.code, f"broken.py:{line}", says)
    check_fails(hlo_lab("analyze", "good.hlo", "--passes-dir", "gone", cwd=work), 2, "gone")


def test_unknown_passes_and_options(work: Path) -> None:
    check_fails(hlo_lab("analyze", "good.hlo", "--pass", "fussion", cwd=work), 2, "fussion")
    done = hlo_lab("analyze", "good.hlo", "--pass", "fusion{colour=1}", cwd=work)
    check_fails(done, 2, "colour")
    check_fails(hlo_lab("analyze", "good.hlo", "--fail-on", "sometimes", cwd=work), 2, "sometimes")
    done = hlo_lab("diff", "good.hlo", "good.hlo", "--fail-on", "flops>lots", cwd=work)
    check_fails(done, 2, "flops>lots")
    check_fails(hlo_lab("passes", "show", "XYZ999", cwd=work), 2, "XYZ999")
