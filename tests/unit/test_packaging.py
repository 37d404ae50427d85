"""What is installed: the dependencies, and the bundled passes from a wheel or a checkout."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PASSES = sorted(path.stem for path in (ROOT / "passes").glob("[a-z]*.py"))
PASS_NAMES = [
    name
    for stem in PASSES
    for name in re.findall(
        r'name: ClassVar\[str\] = "([^"]+)"', (ROOT / "passes" / f"{stem}.py").read_text()
    )
]


def names(requirements: list[str]) -> set[str]:
    """Names of distributions, without versions, extras or the project's own."""
    found = {re.match(r"[\w.-]+", line)[0].lower() for line in requirements}  # type: ignore[index]
    return found - {"hlo-lab"}


def imported(*folders: str) -> set[str]:
    """Top-level modules from outside the standard library that the folders' files import."""
    found = set()
    for folder in folders:
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Import):
                    found |= {alias.name.partition(".")[0] for alias in node.names}
                elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                    top, _, rest = node.module.partition(".")
                    found.add("protobuf" if top == "google" and rest else top)
    return found - set(sys.stdlib_module_names) - {"hlo_lab"}


def test_dependencies_are_what_is_imported() -> None:
    extras = PROJECT["optional-dependencies"]
    converters = names([*extras["torch"], *extras["tensorflow"]]) - {"flax"}  # for torchax
    needed = names(PROJECT["dependencies"]) | converters
    # jax.export imports flatbuffers, and jaxlib is jax's other half
    assert imported("hlo_lab", "passes") | {"jaxlib", "flatbuffers"} == needed


def test_contributing_gives_a_reason_for_each_dependency() -> None:
    extras = PROJECT["optional-dependencies"].values()
    wanted = names(PROJECT["dependencies"] + [each for extra in extras for each in extra])
    rows = re.findall(r"^\| `([\w-]+)` \| \S.*\|$", (ROOT / "CONTRIBUTING.md").read_text(), re.M)
    assert wanted == set(rows)


@pytest.fixture(autouse=True)
def no_path_to_the_checkout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTHONPATH", raising=False)  # which comes before what is installed


def pip(python: Path | str, *words: str | Path) -> None:
    command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    done = subprocess.run(
        [*command, "--python", str(python), *words], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture
def environment(tmp_path: Path) -> Path:
    """The Python of a new virtual environment that sees our dependencies, but not hlo-lab."""
    venv = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
    python = venv / "bin" / "python"
    ask = "import sysconfig; print(sysconfig.get_path('purelib'))"
    site = subprocess.run([python, "-c", ask], capture_output=True, text=True, check=True).stdout
    # A .pth line adds a folder without reading the .pth files in it, such as our own editable one.
    (Path(site.strip()) / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    return python


def run_in(folder: Path, *command: str | Path) -> str:
    done = subprocess.run(list(command), cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_a_wheel_brings_the_passes(environment: Path, tmp_path: Path) -> None:
    pip(sys.executable, "wheel", ".", "--no-deps", "--no-build-isolation", "-w", str(tmp_path))
    (wheel,) = tmp_path.glob("*.whl")
    inside = set(zipfile.ZipFile(wheel).namelist())
    assert {f"hlo_lab/bundled_passes/{name}.py" for name in PASSES} <= inside
    assert "hlo_lab/py.typed" in inside
    assert not [name for name in inside if name.startswith(("tests/", "fixtures/", "passes/"))]

    pip(environment, "install", "--no-deps", str(wheel))
    where = run_in(tmp_path, environment, "-c", "import hlo_lab; print(hlo_lab.__file__)")
    assert str(environment.parent.parent) in where
    listed = run_in(tmp_path, environment.parent / "hlo-lab", "passes", "list")
    assert all(name in listed for name in PASS_NAMES)
    listed = run_in(tmp_path, environment, "-m", "hlo_lab", "passes", "list")
    assert all(name in listed for name in PASS_NAMES)


@pytest.mark.slow
def test_an_editable_install_finds_the_passes_of_the_checkout(
    environment: Path, tmp_path: Path
) -> None:
    pip(environment, "install", "--no-deps", "--no-build-isolation", "-e", ".")
    where = run_in(tmp_path, environment, "-c", "import hlo_lab; print(hlo_lab.__file__)")
    assert where.strip() == str(ROOT / "hlo_lab" / "__init__.py")
    listed = run_in(tmp_path, environment.parent / "hlo-lab", "passes", "list")
    assert all(name in listed for name in PASS_NAMES)
