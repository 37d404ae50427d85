"""Who may import whom, beyond what the contracts in pyproject.toml can say."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# Each costs a tenth of a second or more, so commands that do not need it must not pay.
HEAVY = {
    "flax",
    "graphviz",
    "jax",
    "jaxlib",
    "jinja2",
    "networkx",
    "optax",
    "pydot",
    "rich",
    "scipy",
}
CATALOGUE_MAY_IMPORT = {"cost", "ir", "lowering", "passkit"}


def imports(tree: ast.AST, *, lazy: bool) -> Iterator[tuple[str, int]]:
    """Modules that a file imports at run time, with the line.

    ``lazy`` adds the imports inside functions; those under ``if TYPE_CHECKING`` never count.
    """
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield from ((f"{node.module}.{alias.name}", node.lineno) for alias in node.names)
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            continue
        elif lazy or not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield from imports(node, lazy=lazy)


def files(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


def test_imports_are_found_where_they_run() -> None:
    code = """
import a
from b.c import d
if TYPE_CHECKING:
    import never
if True:
    import e
def f():
    import g
"""
    tree = ast.parse(code)
    assert [name for name, _ in imports(tree, lazy=False)] == ["a", "b.c.d", "e"]
    assert [name for name, _ in imports(tree, lazy=True)] == ["a", "b.c.d", "e", "g"]


def test_the_contracts_hold() -> None:
    done = subprocess.run(
        [Path(sys.executable).parent / "lint-imports"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 broken" in done.stdout


def test_heavy_packages_are_imported_inside_functions() -> None:
    early = [
        f"{path.relative_to(ROOT)}:{line}: {name}"
        for path in files("hlo_lab")
        for name, line in imports(ast.parse(path.read_text()), lazy=False)
        if name.partition(".")[0] in HEAVY
    ]
    assert not early


def test_passes_use_only_what_a_pass_of_a_user_may() -> None:
    paths = files("passes")
    assert paths
    wrong = [
        f"{path.relative_to(ROOT)}:{line}: {name}"
        for path in paths
        for name, line in imports(ast.parse(path.read_text()), lazy=True)
        if name.startswith("hlo_lab.") and name.split(".")[1] not in CATALOGUE_MAY_IMPORT
    ]
    assert not wrong


@pytest.mark.parametrize("arguments", [["--help"], ["--version"]])
def test_help_loads_nothing_heavy(arguments: list[str]) -> None:
    code = (
        "import sys\n"
        f"sys.argv = ['hlo-lab', *{arguments}]\n"
        "import hlo_lab.cli.main as m\n"
        "try:\n    m.main()\n"
        "finally:\n    print(*sorted({n.partition('.')[0] for n in sys.modules}), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout
    assert not {"numpy", *HEAVY} & set(done.stderr.split())
