"""Who may import whom, beyond what the contracts in pyproject.toml can say."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
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


SMALL = """\
HloModule small
ENTRY main {
  a = f32[8]{0} parameter(0)
  ROOT b = f32[8]{0} negate(a)
}
"""
# Each costs a tenth of a second or more, so a command that does not need it must not pay.
HEAVY = {"flax", "graphviz", "jax", "jaxlib", "jinja2", "networkx", "optax", "pydot", "scipy"}
EVERY_COMMAND = "import importlib, pkgutil, hlo_lab.api, hlo_lab.cli as cli\n" + (
    "[importlib.import_module(f'hlo_lab.cli.{m.name}') for m in pkgutil.iter_modules(cli.__path__)]"
)
RUNS = {
    "help": ("import hlo_lab.cli.main as m; m.main(['--help'])", {"numpy", "rich", "typer"}),
    "version": ("import hlo_lab.cli.main as m; m.main(['--version'])", {"numpy", "rich", "typer"}),
    "every command's module": (EVERY_COMMAND, {"numpy", "rich"}),
    "analyze": ("import hlo_lab.cli.main as m; m.main(['analyze', 'a.hlo'])", set()),
    "diff": ("import hlo_lab.cli.main as m; m.main(['diff', 'a.hlo', 'a.hlo'])", set()),
}


@pytest.mark.parametrize("name", RUNS)
def test_nothing_heavy_is_imported_in_vain(name: str, tmp_path: Path) -> None:
    code, too = RUNS[name]
    names = "print(*sorted({n.partition('.')[0] for n in sys.modules}), file=sys.stderr)"
    body = "".join(f"    {line}\n" for line in code.splitlines())
    whole = f"import sys\ntry:\n{body}finally:\n    {names}\n"
    (tmp_path / "a.hlo").write_text(SMALL)
    done = subprocess.run(
        [sys.executable, "-c", whole], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    loaded = done.stderr.splitlines()[-1].split()
    assert "hlo_lab" in loaded
    assert not (HEAVY | too) & set(loaded)
