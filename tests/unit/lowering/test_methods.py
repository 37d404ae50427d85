"""Methods that are jitted, named through an instance."""

from __future__ import annotations

from pathlib import Path

import pytest

from hlo_lab import lowering
from hlo_lab.errors import InputError
from hlo_lab.lowering import Bundle

METHODS = """
import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

S = jax.ShapeDtypeStruct


class Net:
    width = 3

    @functools.partial(jax.jit, static_argnums=0, donate_argnums=1)
    def step(self, w, x):
        return w * self.width + x

    @functools.partial(jax.jit, static_argnames=("self", "train"))
    def named(self, x, *, train):
        return x * self.width if train else x

    @functools.partial(jax.jit, static_argnums=0)
    def example(self, x):
        return x - self.width

    example.example_args = (S((5,), np.float32),)


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Layer:
    w: jax.Array
    b: jax.Array

    @jax.jit
    def apply(self, x):
        return x @ self.w + self.b


class BoundMethod:
    # as equinox has it: no attribute of the function is seen through it
    def __init__(self, function, instance):
        self.__func__, self.__self__ = function, instance

    def __call__(self, *args):
        return self.__func__(self.__self__, *args)


class Static(Layer):
    @functools.partial(jax.jit, static_argnums=0)
    def apply(self, x):
        return x @ self.w + self.b

    __hash__ = object.__hash__


jax.tree_util.register_dataclass(Static, ["w", "b"], [])

net = Net()
layer = Layer(jnp.ones((4, 2)), jnp.zeros(2))
static = Static(jnp.ones((4, 2)), jnp.zeros(2))


class Holder:
    apply = BoundMethod(Layer.apply, layer)


def example_args():
    return S((16,), np.float32), S((16,), np.float32)
"""


@pytest.fixture(scope="module")
def methods(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("methods") / "methods.py"
    path.write_text(METHODS)
    return path


def arguments(bundle: Bundle) -> list[tuple[str, list[int], bool]]:
    return [
        (each["path"], each["shape"], each.get("donated", False))
        for each in bundle.manifest["arguments"]
    ]


def test_a_static_self_and_a_donated_argument(methods: Path, tmp_path: Path) -> None:
    bundle = lowering.dump(f"{methods}:net.step", out=tmp_path / "out")
    assert arguments(bundle) == [("w", [16], True), ("x", [16], False)]
    (static,) = bundle.manifest["static"]
    assert static["name"] == "self" and "Net object" in static["value"]
    assert bundle.module().name == "jit_step"
    assert "input_output_alias" in bundle.text("hlo-after").partition("\n")[0]


def test_static_names_and_an_example_of_its_own(methods: Path, tmp_path: Path) -> None:
    text = "f32[7], train=True"
    bundle = lowering.dump(f"{methods}:net.named", out=tmp_path / "named", args=text)
    assert arguments(bundle) == [("x", [7], False)]
    assert [each["name"] for each in bundle.manifest["static"]] == ["self", "train"]
    assert "multiply" in bundle.text("hlo-before")
    bundle = lowering.dump(f"{methods}:net.example", out=tmp_path / "example")
    assert arguments(bundle) == [("x", [5], False)]


@pytest.mark.parametrize("name", ["layer.apply", "Holder.apply"])
def test_a_self_that_is_a_pytree_is_traced(name: str, methods: Path, tmp_path: Path) -> None:
    bundle = lowering.dump(f"{methods}:{name}", out=tmp_path / "out", args="f32[3,4]")
    assert arguments(bundle) == [
        ("self.w", [4, 2], False),
        ("self.b", [2], False),
        ("x", [3, 4], False),
    ]
    assert bundle.manifest["static"] == []


def test_a_static_self_that_is_a_pytree_stays_what_it_is(methods: Path, tmp_path: Path) -> None:
    bundle = lowering.dump(f"{methods}:static.apply", out=tmp_path / "out", args="f32[3,4]")
    assert arguments(bundle) == [("x", [3, 4], False)]


def test_self_is_not_among_what_is_to_be_given(methods: Path, no_trace: Path) -> None:
    with pytest.raises(InputError, match=r"net\.step takes \(w, x\) but was given \(.*\[3\]"):
        lowering.dump(f"{methods}:net.step", out=no_trace / "out", args="f32[3]")
