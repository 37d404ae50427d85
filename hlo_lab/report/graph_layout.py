"""From DOT source to SVG or PNG by the ``dot`` program; and reading DOT back."""

from __future__ import annotations

import shutil
import subprocess

from hlo_lab.errors import ExecutionError, InputError, MissingDependencyError

FORMATS = ("svg", "png", "dot")
LAYOUT_SECONDS = 60.0
HOW_TO_GET_DOT = (
    "install Graphviz (apt-get install graphviz, brew install graphviz, or conda install -c "
    "conda-forge graphviz), or write .dot, which does not need it"
)


def check_dot() -> None:
    """Raise ``MissingDependencyError`` where the ``dot`` program is not installed."""
    if shutil.which("dot") is None:
        raise MissingDependencyError(f"the dot program is missing: {HOW_TO_GET_DOT}")


def render(dot: str, format: str, *, time_limit: float = LAYOUT_SECONDS) -> bytes:
    """DOT source in ``svg``, ``png`` or ``dot`` form.

    Raises:
        MissingDependencyError: the ``dot`` program is not installed.
        InputError: it refuses the source.
        ExecutionError: it took longer than ``time_limit`` seconds, or crashed.
    """
    if format == "dot":
        return dot.encode()
    check_dot()
    resolution = ["-Gdpi=110"] if format == "png" else []
    try:
        done = subprocess.run(
            ["dot", f"-T{format}", *resolution],
            input=dot.encode(),
            capture_output=True,
            timeout=time_limit,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ExecutionError(
            f"dot did not lay the graph out in {time_limit:g} s; draw less with --max-nodes, "
            "--focus or --computation, or write .dot"
        ) from None
    if done.returncode < 0:
        raise ExecutionError(f"dot was killed by signal {-done.returncode}; draw less")
    if done.returncode or not done.stdout:
        said = done.stderr.decode("utf-8", "replace").strip().split("\n")[0]
        raise InputError(f"dot refused the graph: {said or 'it gave no output'}")
    return done.stdout


def read_dot(source: str, name: str) -> str:
    """Read DOT with pydot and write it again, in pydot's own form.

    Raises:
        InputError: not DOT.
    """
    import pydot

    try:
        graphs = pydot.graph_from_dot_data(source)
    except Exception as error:
        raise InputError(f"{name}: not DOT: {error}") from None
    if not graphs:
        raise InputError(f"{name}: not DOT; a graph begins with digraph or graph")
    return str(graphs[0].to_string())
