"""Programs rewritten by passes on HLO: what is kept of them, and what is refused."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import pytest

from hlo_lab import api
from hlo_lab.errors import PassError
from hlo_lab.passkit.base import Stage

PROGRAM = """
    import functools
    import jax
    import jax.numpy as jnp
    from jax.sharding import NamedSharding, PartitionSpec

    @jax.jit
    def branches(xs):
        total = 0.0
        for x in xs:
            total = total + jnp.sum(jnp.sort(x @ x, 0), 1)
        return total

    branches.example_args = lambda: ([jax.ShapeDtypeStruct((256, 256), jnp.float32)] * 8,)

    def plain(x):
        return jnp.tanh(x) * 2

    plain.example_args = lambda: (jax.ShapeDtypeStruct((64, 128), jnp.float32),)

    @functools.partial(jax.jit, donate_argnums=0)
    def step(x):
        def body(y, _):
            return jnp.tanh(y) * 2, None
        return jax.lax.scan(body, x, None, length=3)[0]

    step.example_args = lambda mesh: (
        jax.ShapeDtypeStruct(
            (64, 128), jnp.float32, sharding=NamedSharding(mesh, PartitionSpec("data"))
        ),
    )
"""
PASS = '''
from dataclasses import dataclass
from typing import ClassVar

from hlo_lab.passkit.base import HloRewritePass, RewriteExample
from hlo_lab.passkit.hlo_rewriter import HloRewriter


@dataclass(frozen=True)
class Changed(HloRewritePass):
    """Makes something else of a tanh.

    What it rewrites
        a
    Why it matters
        a
    Example
        a
    When it does not pay
        a
    What changes in the numbers
        a
    """

    code: ClassVar[str] = "CHA001"
    name: ClassVar[str] = "changed"
    stage: ClassVar[str] = "STAGE"
    to: str = "tanh"

    def rewrite(self, module: HloRewriter) -> None:
        for op in module.ops("tanh"):
            if self.to == "raise":
                raise KeyError("gone")
            module.replace(op, module.before(op).elementwise(self.to, *op.operands))
'''


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, own_folders: None) -> Path:
    folder = tmp_path_factory.mktemp("hlo")
    (folder / "prog.py").write_text(textwrap.dedent(PROGRAM))
    for stage in Stage:
        if stage is not Stage.STABLEHLO:
            (folder / stage).mkdir()
            (folder / stage / "changed.py").write_text(PASS.replace("STAGE", stage))
    return folder


def rewrite(folder: Path, stage: str, to: str, name: str = "step", **options: Any) -> api.Rewrite:
    chosen = {"target": "cpu:2", "passes_dirs": [folder / stage], **options}
    return api.rewrite(f"changed{{to={to}}}", f"{folder}/prog.py:{name}", **chosen)


def test_donation_shardings_and_lines_survive_the_way_through_hlo(folder: Path) -> None:
    found = rewrite(folder, "hlo", "tanh")
    assert (found.changes, found.agrees) == (1, True)
    assert "jax.buffer_donor = true" in found.stablehlo or "aliasing_output" in found.stablehlo
    assert "prog.py" in found.stablehlo
    deltas = found.comparison.result.deltas
    assert deltas["peak_bytes"]["before"] == deltas["peak_bytes"]["after"]
    # the operations of both sides are those of the same route
    assert found.ops["before"] == found.ops["after"]


def test_wrong_numbers_of_a_pass_on_hlo(folder: Path) -> None:
    found = rewrite(folder, "hlo", "sine")
    assert (found.verdict, found.exit_code) == ("wrong", 1)
    assert found.ops["after"]["sine"] == 1


@pytest.mark.parametrize("stage", ["hlo", "pre-scheduler"])
@pytest.mark.parametrize(
    ("to", "said"),
    [
        ("raise", "raised KeyError: 'gone' at .*changed.py"),
        ("no-such-op", "left a module that is not valid: .*no-such-op"),
    ],
)
def test_a_pass_on_hlo_that_fails(folder: Path, stage: str, to: str, said: str) -> None:
    with pytest.raises(PassError, match=rf"pass changed \(CHA001\) {said}"):
        rewrite(folder, stage, to, "plain", target="cpu")


def test_a_module_changed_inside_xla(folder: Path) -> None:
    found = rewrite(folder, "pre-scheduler", "sine", "plain", target="cpu")
    assert (found.verdict, found.changes) == ("wrong", 1)
    assert found.run is not None and found.run["first_difference"] is None


def test_another_schedule_takes_less_memory(folder: Path) -> None:
    found = api.rewrite("depth-first", f"{folder}/prog.py:branches")
    assert (found.changes, found.agrees) == (1, True)
    peak = found.comparison.result.deltas["peak_bytes"]
    assert peak["after"] < 0.8 * peak["before"]
    assert found.verdict == "no effect" and found.basis != "structure"


def test_a_compiler_that_asks_for_no_pass_is_not_believed(folder: Path) -> None:
    pytest.importorskip("libtpu")
    with pytest.raises(PassError, match=r"depth-first .* was not applied: XLA asked for no pass"):
        api.rewrite("depth-first", f"{folder}/prog.py:branches", target="tpu:v5e")
