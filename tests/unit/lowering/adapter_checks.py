"""Run by ``test_adapter``: each check prints its name and ``ok``, or why not."""

from __future__ import annotations

import functools
import sys
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from hlo_lab.lowering import adapter

MESH = jax.make_mesh((4,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
COMPILED: list[tuple[str, Any]] = []


def f(w: Any, x: Any) -> Any:
    return jnp.sum(jnp.tanh(x @ w["a"]))


@cache
def lowered() -> Any:
    spread = NamedSharding(MESH, PartitionSpec("data"))
    w = {"a": jax.ShapeDtypeStruct((8, 8), jnp.float32)}
    x = jax.ShapeDtypeStruct((16, 8), jnp.float32, sharding=spread)
    return jax.jit(f).trace(w, x)


@cache
def mlir() -> Any:
    return lowered().lower().compiler_ir()


@cache
def executable() -> Any:
    return lowered().lower().compile().runtime_executable()


def check_versions() -> None:
    assert adapter.versions("cpu")["jax"] == jax.__version__


def check_has_shardings() -> None:
    def has(argument: str, mesh: str = '["data"=4]') -> bool:
        text = f"""module {{
            sdy.mesh @mesh = <{mesh}>
            func.func public @main(%0: tensor<8xf32> {{{argument}}}) -> tensor<8xf32> {{
                return %0 : tensor<8xf32>
            }}
        }}"""
        return adapter.has_shardings(adapter.parse_stablehlo(text))

    assert adapter.has_shardings(mlir())
    assert not adapter.has_shardings(
        jax.jit(f).lower({"a": np.ones((8, 8))}, np.ones((4, 8))).compiler_ir()
    )
    assert has('sdy.sharding = #sdy.sharding<@mesh, [{"data"}]>')
    assert has('sdy.sharding = #sdy.sharding<@mesh, [{"data":(1)2}]>')
    assert has('sdy.sharding = #sdy.sharding<@mesh, [{}], replicated={"data"}>')
    assert has(r'a.b = {xla.sdy.sharding = "[<@mesh, [{\22data\22}]>]"}')
    assert has('mhlo.sharding = "{devices=[4]<=[4]}"') and has('mhlo.sharding = "{manual}"')
    assert not has("sdy.sharding = #sdy.sharding<@mesh, [{}]>")
    assert not has("sdy.sharding = #sdy.sharding<@mesh, [{?}]>")
    assert not has("sdy.sharding = #sdy.sharding<@mesh, [{}]>", "[]")
    assert not has('mhlo.sharding = "{replicated}"')


def check_is_jitted() -> None:
    assert adapter.is_jitted(jax.jit(f))
    assert not adapter.is_jitted(f)


def check_jaxpr_of() -> None:
    class Wrapper:
        traced = lowered()

    assert adapter.jaxpr_of(lowered()) is adapter.jaxpr_of(Wrapper()) is lowered().jaxpr
    assert adapter.jaxpr_of(object()) is None


def check_dtypes() -> None:
    assert adapter.canonical_dtype(np.dtype("float64")) == np.dtype("float32")
    key = adapter.prng_key_dtype()
    assert adapter.canonical_dtype(key) == key
    shape = adapter.abstract_array((3,), key)
    assert jax.eval_shape(jax.random.normal, adapter.abstract_array((), key)).shape == ()
    assert shape.dtype == key


def check_is_committed() -> None:
    assert not adapter.is_committed(jnp.ones(4))
    assert adapter.is_committed(jax.device_put(jnp.ones(4), jax.devices()[1]))


def check_config() -> None:
    adapter.set_config("jax_enable_compilation_cache", False)
    assert adapter.get_config("jax_enable_compilation_cache") is False
    assert adapter.get_config("jax_use_shardy_partitioner") in (True, False)


def check_hlo_before() -> None:
    text = adapter.hlo_text(adapter.hlo_of_stablehlo(mlir()), large_constants=True)
    assert text.startswith("HloModule jit_f")
    assert "stack_frame_id" in text
    assert adapter.partitions(mlir()) == (1, 4)


def check_large_constants() -> None:
    table = np.arange(40, dtype=np.float32).reshape(4, 10) ** 2
    module = jax.jit(lambda x: x * table).lower(jnp.ones((4, 10))).compiler_ir()
    hlo = adapter.hlo_of_stablehlo(module)
    assert "constant({...})" in adapter.hlo_text(hlo, large_constants=False)
    assert "1521" in adapter.hlo_text(hlo, large_constants=True)


def check_hlo_after() -> None:
    module = adapter.optimised_module(executable())
    assert "is_scheduled=true" in adapter.hlo_text(module, large_constants=True)
    assert b"jit_f" in adapter.hlo_proto(module)


def check_analysis() -> None:
    memory = adapter.memory_analysis(executable())
    assert memory is not None
    assert set(memory) == set(adapter.MEMORY_FIELDS)
    assert memory["argument_size_in_bytes"] == 4 * (8 * 8 + 4 * 8)
    cost = adapter.cost_analysis(executable())
    assert cost is not None
    assert cost["flops"] >= 2 * 4 * 8 * 8


def check_stablehlo_round_trip() -> None:
    text = adapter.stablehlo_text(mlir())
    assert "loc(" in text
    module = adapter.parse_stablehlo(text)
    again = adapter.compile_stablehlo(module, {}, jax.devices())
    one, other = (
        adapter.hlo_text(adapter.optimised_module(each), large_constants=True)
        for each in (executable(), again)
    )
    # the locations of a reducer's parameters are not in the text
    assert one.splitlines()[0] == other.splitlines()[0]
    assert len(one.splitlines()) == len(other.splitlines())


def check_main_arguments() -> None:
    assert adapter.module_name(mlir()) == "jit_f"
    expected = [("[0]", "float32", [8, 8]), ("[1]", "float32", [16, 8])]
    found = adapter.main_arguments(mlir())
    assert [(each["path"], each["dtype"], each["shape"]) for each in found] == expected


def check_numpy_names() -> None:
    names = {"i1": "bool", "ui8": "uint8", "i32": "int32", "bf16": "bfloat16"}
    names |= {"f16": "float16", "complex<f32>": "complex64", "f8E4M3FN": "f8e4m3fn"}
    assert {each: adapter.numpy_name(each) for each in names} == names


def check_argument_names() -> None:
    assert adapter.argument_names(lowered().jaxpr) == ("w['a']", "x")
    assert adapter.argument_names(None) == ()


def check_pass_dumps() -> None:
    with tempfile.TemporaryDirectory() as folder:
        lowered().lower().compile(adapter.dump_flags(Path(folder), every_pass=True))
        names = [path.name for path in Path(folder).iterdir()]
    assert any(".after_" in name and name.endswith(".txt") for name in names)


def check_location_of() -> None:
    module = jax.jit(jnp.sin).lower(jnp.ones(4)).compiler_ir()
    block = adapter._main_function(module).regions[0].blocks[0]
    name, place = adapter.location_of(next(iter(block.operations)).operation)
    assert name.endswith("sin")
    assert place.startswith(__file__)


def check_around_compile_and_hidden_frames() -> None:
    def observe(module: Any, compile: Callable[[Any], Any]) -> Any:
        made = compile(module)
        text = adapter.hlo_text(adapter.optimised_module(made), large_constants=False)
        COMPILED.append((adapter.module_name(module), text))
        return made

    adapter.around_compile(observe)
    adapter.hide_frames_of(Path(__file__).parent)

    @jax.jit
    def seen(x: Any) -> Any:
        return x + 1

    seen(2.0)
    seen(3.0)
    found = [text for name, text in COMPILED if name == "jit_seen"]
    assert len(found) == 1
    assert "adapter_checks" not in found[0]


def check_around_execution() -> None:
    called = []

    def wrap(execution: adapter.Execution) -> Any:
        if "jit_unlike" not in adapter.optimised_module(execution.executable).name:
            return execution.run()
        called.append(execution.effects)
        (copied,) = execution.run_with(execution.executable, [0])
        assert copied.tolist() == [2.0] * 4
        return execution.run()

    adapter.around_execution(wrap)

    @functools.partial(jax.jit, donate_argnums=1)
    def unlike(unused: Any, x: Any) -> Any:
        return x + 1

    given = jnp.zeros(4) + 1
    assert unlike(3, given).tolist() == [2.0] * 4
    assert given.is_deleted()
    assert called == [""]


def check_stablehlo_like() -> None:
    @functools.partial(jax.jit, donate_argnums=0)
    def looped(x: Any, w: Any) -> Any:
        return jax.lax.fori_loop(0, 3, lambda i, y: jnp.tanh(y @ w), x)

    spread = NamedSharding(MESH, PartitionSpec("data"))
    for sharding in (None, spread):
        x = jax.device_put(jnp.ones((8, 8)), sharding)
        made = looped.lower(x, jnp.ones((8, 8)))
        raw = made.compiler_ir()
        text = adapter.hlo_text(adapter.hlo_of_stablehlo(raw), large_constants=True)
        back = adapter.stablehlo_like(text, raw)
        assert "@region" not in adapter.stablehlo_text(back)
        result = adapter.with_module(made, back).compile()(x, jnp.ones((8, 8)))
        assert x.is_deleted()
        assert sharding is None or result.sharding == sharding


def check_transform_inside() -> None:
    seen = []

    def transform(data: bytes) -> bytes | None:
        seen.append(data)
        return None

    adapter.transform_inside("post-scheduler", transform)
    jax.jit(lambda x: jnp.cosh(x) * 3).lower(jnp.ones(7)).compile()
    assert len(seen) >= 1
    text = adapter.hlo_text(mlir_as_hlo(), large_constants=True)
    assert b"jit_f" in adapter.hlo_proto_of(text)


def check_without_cache() -> None:
    with tempfile.TemporaryDirectory() as folder:
        names = {
            "jax_enable_compilation_cache": True,
            "jax_compilation_cache_dir": folder,
            "jax_persistent_cache_min_compile_time_secs": 0,
            "jax_persistent_cache_min_entry_size_bytes": -1,
        }
        old = {name: adapter.get_config(name) for name in names}
        for name, value in names.items():
            adapter.set_config(name, value)
        try:
            with adapter.without_cache():
                jax.jit(lambda x: jnp.sinh(x) * 5).lower(jnp.ones(7)).compile()
            assert not list(Path(folder).iterdir())
        finally:
            for name, value in old.items():
                adapter.set_config(name, value)


def mlir_as_hlo() -> Any:
    return adapter.hlo_of_stablehlo(mlir())


def check_plain_lowered() -> None:
    plain = lowered().lower()
    assert adapter.plain_lowered(plain) is plain

    class Wrapper:
        lowered = plain

    assert adapter.plain_lowered(Wrapper()) is plain


def check_with_module() -> None:
    @functools.partial(jax.jit, donate_argnums=0)
    def double(state: Any) -> Any:
        return {"x": state["x"] * 2}

    made = double.lower({"x": jnp.ones(4)})
    module = adapter.parse_stablehlo(adapter.stablehlo_text(made.compiler_ir()))
    text = adapter.stablehlo_text(module).replace("2.000000e+00", "3.000000e+00")
    changed = adapter.with_module(made, adapter.parse_stablehlo(text))
    given = {"x": jnp.ones(4)}
    assert changed.compile()(given)["x"].tolist() == [3.0] * 4
    assert given["x"].is_deleted()
    assert "input_output_alias" in changed.compile().as_text()
    # neither JAX's own module nor the first lowering is another now
    assert made.compile()({"x": jnp.ones(4)})["x"].tolist() == [2.0] * 4
    assert double({"x": jnp.ones(4)})["x"].tolist() == [2.0] * 4


def check_with_module_donates_more() -> None:
    made = jax.jit(lambda unused, x: x * 2).lower(jnp.ones(4), jnp.ones(4))
    text = adapter.stablehlo_text(made.compiler_ir())
    text = text.replace("xf32> loc", "xf32> {jax.buffer_donor = true} loc", 1)
    changed = adapter.with_module(made, adapter.parse_stablehlo(text))
    infos = jax.tree_util.tree_leaves(changed.args_info)
    assert [each.donated for each in infos] == [False, True]
    given = jnp.ones(4)
    assert changed.compile()(jnp.ones(4), given).tolist() == [2.0] * 4
    assert given.is_deleted()
    assert not any(each.donated for each in jax.tree_util.tree_leaves(made.args_info))


def check_with_module_keeps_shardings() -> None:
    made = lowered().lower()
    copied = adapter.parse_stablehlo(adapter.stablehlo_text(made.compiler_ir()))
    again = adapter.with_module(made, copied).compile()
    assert str(again.input_shardings) == str(made.compile().input_shardings)


def check_copy_module() -> None:
    module = adapter.parse_stablehlo(adapter.stablehlo_text(mlir()))
    with module.context:
        copied = adapter.copy_module(module)
    assert copied is not module
    assert adapter.stablehlo_text(copied) == adapter.stablehlo_text(module)


def check_set_results() -> None:
    donating = jax.jit(lambda x: jnp.sin(x) * 2, donate_argnums=0).lower(jnp.ones(4))
    module = adapter.parse_stablehlo(adapter.stablehlo_text(donating.compiler_ir()))
    block = adapter._main_function(module).regions[0].blocks[0]
    sine = next(each for each in block.operations if each.operation.name == "stablehlo.sine")
    adapter.set_results(module, [sine.operation.results[0]] * 2)
    module.operation.verify()
    made = adapter.compile_stablehlo(module, {}, jax.devices()[:1])
    found = adapter.execute(made, [jnp.ones(4)])
    assert [each.tolist() for each in found] == [jnp.sin(jnp.ones(4)).tolist()] * 2


for name in sys.argv[1:]:
    try:
        globals()[name]()
    except Exception as error:
        print(name, f"{type(error).__name__}: {error}".replace("\n", " "))
    else:
        print(name, "ok")
