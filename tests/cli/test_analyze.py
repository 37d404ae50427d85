from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from syrupy.assertion import SnapshotAssertion

HLO = """\
HloModule step, is_scheduled=true

ENTRY main {
  x = f32[2048,2048]{1,0} parameter(0)
  a = f32[2048,2048]{1,0} negate(x)
  b = f32[2048,2048]{1,0} exponential(a)
  ROOT c = f32[2048,2048]{1,0} add(b, b)
}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "m.hlo").write_text(HLO)
    return tmp_path


def analyze(folder: Path, *words: str, **options: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "hlo_lab", "analyze", *words]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, **options)  # type: ignore[call-overload,no-any-return]


def test_formats(folder: Path) -> None:
    text = analyze(folder, "m.hlo", "-q")  # on a slow machine it says what it does
    assert text.returncode == 0 and text.stderr == ""
    assert "Peak memory, by source line" in text.stdout and "\x1b" not in text.stdout
    assert max(map(len, text.stdout.splitlines())) <= 80
    document = json.loads(analyze(folder, "m.hlo", "--format", "json").stdout)
    assert document["schema"] == "hlo-lab/analyze"
    assert document["summary"]["instructions"] == 4
    assert analyze(folder, "m.hlo", "-f", "md").stdout.startswith("# m.hlo\n")


def test_standard_input(folder: Path) -> None:
    assert analyze(folder, "-", "-f", "json", input=HLO).returncode == 0


def test_a_file_for_the_result(folder: Path) -> None:
    done = analyze(folder, "m.hlo", "-f", "json", "-o", "out.json")
    assert done.stdout == "" and done.returncode == 0
    assert json.loads((folder / "out.json").read_text())["module"] == "step"
    done = analyze(folder, "m.hlo", "-o", "no/such/out.txt")
    assert done.returncode == 2 and "no/such/out.txt: cannot be written" in done.stderr
    assert sorted(path.name for path in folder.iterdir()) == ["m.hlo", "out.json"]


def test_fail_on(folder: Path) -> None:
    found = json.loads(analyze(folder, "m.hlo", "-f", "json", "--pass", "fusion").stdout)
    codes = [finding["code"] for finding in found["findings"]]
    assert codes and set(codes) == {"FUS001"}
    assert analyze(folder, "m.hlo", "--pass", "fusion", "--fail-on", "FUS001").returncode == 1
    assert analyze(folder, "m.hlo", "--pass", "fusion", "--fail-on", "note").returncode == 1
    assert analyze(folder, "m.hlo", "--pass", "fusion", "--fail-on", "error").returncode == 0
    wrong = analyze(folder, "m.hlo", "--fail-on", "fatal")
    assert wrong.returncode == 2 and "--fail-on 'fatal'" in wrong.stderr


def test_a_pass_that_raises(folder: Path) -> None:
    new = [sys.executable, "-m", "hlo_lab", "passes", "new", "broken", "-o", str(folder)]
    subprocess.run(new, check=True, capture_output=True)
    path = folder / "broken.py"
    lines = path.read_text().splitlines()
    at = next(n for n, line in enumerate(lines) if "def run(" in line)
    while not lines[at].rstrip().endswith(":"):
        at += 1
    lines.insert(at + 1, "        raise ValueError('boom')")
    path.write_text("\n".join(lines) + "\n")
    done = analyze(folder, "m.hlo", "--passes-dir", ".", "--fail-on", "note", "-f", "json")
    assert done.returncode == 3
    assert f"broken.py:{at + 2}" in done.stderr and "boom" in done.stderr
    document = json.loads(done.stdout)
    assert len(document["failures"]) == 1
    assert "FUS001" in {finding["code"] for finding in document["findings"]}


@pytest.mark.slow
def test_a_large_module_is_quick(corpus: Path, folder: Path) -> None:
    source = corpus / "openxla" / "hlo_mixtral_8x7b_bf16_2x8.hlo.gz"
    code = (
        "import resource, sys\nfrom hlo_lab.cli.main import main\n"
        f"try: main(['analyze', {str(source)!r}])\nexcept SystemExit: pass\n"
        "use = resource.getrusage(resource.RUSAGE_SELF)\n"
        "print(use.ru_utime + use.ru_stime, use.ru_maxrss / 1024, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    seconds, mebibytes = map(float, done.stderr.split()[-2:])
    assert "43,714" in done.stdout
    assert seconds < 6 and mebibytes < 500  # twice the goal for time: the machine is shared


@pytest.mark.parametrize("format", ["text", "md"])
def test_what_users_read(folder: Path, format: str, snapshot: SnapshotAssertion) -> None:
    """On a machine whose figures are in a file, so that the estimates are the same anywhere."""
    done = analyze(folder, "m.hlo", "--target", "gpu:h100", "--pass", "sharding", "-f", format)
    assert done.stdout == snapshot


def test_a_target_that_is_empty(folder: Path) -> None:
    done = analyze(folder, "m.hlo", "--target", "")
    assert done.returncode == 2 and "--target names nothing" in done.stderr


def test_a_record_of_measure(folder: Path) -> None:
    (folder / "record").mkdir()
    (folder / "record" / "measurement.json").write_text("{}")
    done = analyze(folder, "record")
    assert done.returncode == 2
    assert "record: a measurement, not a bundle: show it with `hlo-lab measure" in done.stderr
