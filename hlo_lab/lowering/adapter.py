"""Every name that JAX and jaxlib do not promise to keep, in one place.

Tested on JAX 0.10.2, 0.11 and 0.12. Runs only inside a worker process; nothing else in
hlo-lab may import ``jax._src`` or ``jaxlib``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

# CompiledMemoryStats: its integer attributes; which exist varies by version
_PARTS = ("argument", "output", "alias", "temp", "generated_code")
MEMORY_FIELDS = (
    *(f"{part}_size_in_bytes" for part in _PARTS),
    *(f"host_{part}_size_in_bytes" for part in _PARTS),
    "peak_memory_in_bytes",
)


def versions() -> dict[str, str]:
    """Versions of what compiles: Python, jax and jaxlib."""
    import platform
    from importlib import metadata

    return {
        "python": platform.python_version(),
        "jax": metadata.version("jax"),
        "jaxlib": metadata.version("jaxlib"),
    }


def is_jitted(function: Any) -> bool:
    """Whether it stages itself: ``jax.jit``, and wrappers that offer ``trace`` as it does.

    Those that only offer ``lower`` (equinox) do not take shapes for arrays; they are
    staged like a plain function.
    """
    return callable(getattr(function, "trace", None))


def jaxpr_of(traced: Any) -> Any:
    """The closed jaxpr of what ``trace`` gave; None where a wrapper hides it."""
    inner = getattr(traced, "traced", traced)  # flax wraps it
    return getattr(inner, "jaxpr", None)


def first_is_static(jitted: Any) -> bool:
    """Whether a jitted function takes its first positional argument as a static value."""
    information = getattr(jitted, "_jit_info", None)
    return 0 in (getattr(information, "static_argnums", None) or ())


def canonical_dtype(dtype: Any) -> Any:
    """The type that jit gives an array of this type: 64 bits become 32 unless x64 is on."""
    import jax

    if jax.numpy.issubdtype(dtype, jax.dtypes.extended):
        return dtype
    return jax.dtypes.canonicalize_dtype(dtype)


def prng_key_dtype() -> Any:
    """The element type of ``jax.random.key``."""
    import jax

    return jax.eval_shape(lambda: jax.random.key(0)).dtype


def abstract_array(shape: Any, dtype: Any, **options: Any) -> Any:
    """A ``jax.ShapeDtypeStruct``; its constructor has no types."""
    import jax

    make: Callable[..., Any] = jax.ShapeDtypeStruct
    return make(shape, dtype, **options)


def get_config(name: str) -> Any:
    """One of JAX's configuration values."""
    import jax

    return getattr(jax.config, name)


def set_config(name: str, value: object) -> None:
    """Set one of JAX's configuration values."""
    import jax

    update: Callable[[str, object], None] = jax.config.update
    update(name, value)


def is_committed(array: Any) -> bool:
    """Whether an array's sharding was chosen by the user rather than by default."""
    return bool(getattr(array, "_committed", getattr(array, "committed", False)))


def hlo_of_stablehlo(module: Any) -> Any:
    """The ``HloModule`` that XLA's converter makes of an MLIR module."""
    from jax._src.interpreters import mlir
    from jaxlib import _jax

    text = mlir.module_to_bytecode(module)
    return _jax.mlir.mlir_module_to_xla_computation(text, False, False).as_hlo_module()


def hlo_text(module: Any, *, large_constants: bool) -> str:
    """An ``HloModule`` as text, with metadata and layouts, every constant in full or elided."""
    from jaxlib import _hlo  # type: ignore[attr-defined]  # not in jaxlib's stubs

    options = _hlo.HloPrintOptions()
    options.print_large_constants = large_constants
    text: str = module.to_string(options)
    return text


def hlo_proto(module: Any) -> bytes:
    """An ``HloModule`` as a serialized ``HloModuleProto``."""
    data: bytes = module.as_serialized_hlo_module_proto()
    return data


def optimised_module(executable: Any) -> Any:
    """The optimised ``HloModule`` of a ``LoadedExecutable``."""
    return executable.hlo_modules()[0]


def memory_analysis(executable: Any) -> dict[str, int] | None:
    """What the compiler says the executable needs, in bytes; None where it says nothing."""
    try:
        stats = executable.get_compiled_memory_stats()
    except Exception:  # a backend without the figure raises its own error type
        return None
    if stats is None:
        return None
    return {name: int(getattr(stats, name)) for name in MEMORY_FIELDS if hasattr(stats, name)}


def cost_analysis(executable: Any) -> dict[str, float] | None:
    """The compiler's own operation counts, sorted by name; None where it has none."""
    try:
        costs = executable.cost_analysis()
    except Exception:  # a backend without the figure raises its own error type
        return None
    if isinstance(costs, Sequence):  # one per module on some versions
        costs = costs[0] if costs else None
    return None if costs is None else dict(sorted(costs.items()))


def parse_stablehlo(text: str) -> Any:
    """StableHLO text (or MLIR bytecode) as a module in a context that knows its dialects."""
    from jax._src.interpreters import mlir
    from jaxlib.mlir import ir

    context = mlir.make_ir_context()
    with context, ir.Location.unknown():
        module = ir.Module.parse(text)
        module.operation.verify()
        return module


def partitions(module: Any) -> tuple[int, int]:
    """(replicas, partitions) that an MLIR module asks for; one each where it says nothing."""
    from jaxlib.mlir import ir

    attributes = module.operation.attributes
    counts = (
        ir.IntegerAttr(attributes[name]).value if name in attributes else 1
        for name in ("mhlo.num_replicas", "mhlo.num_partitions")
    )
    replicas, parts = counts
    return int(replicas), int(parts)


def compile_stablehlo(module: Any, options: dict[str, Any]) -> Any:
    """Compile a whole MLIR module for the default backend.

    Raises:
        ValueError: it needs more devices than there are.
    """
    import jax
    import numpy as np
    from jax._src import compiler

    replicas, parts = partitions(module)
    devices = jax.devices()
    if replicas * parts > len(devices):
        raise ValueError(f"needs {replicas * parts} devices, the target has {len(devices)}")
    chosen = np.array(devices[: replicas * parts], dtype=object).reshape(replicas, parts)
    settings = compiler.get_compile_options(
        num_replicas=replicas,
        num_partitions=parts,
        device_assignment=np.vectorize(lambda device: device.id, otypes=[int])(chosen),
    )
    build = settings.executable_build_options
    build.use_shardy_partitioner = get_config("jax_use_shardy_partitioner")
    # as jit does: where nothing was asked for, the partitioner may choose
    build.allow_spmd_sharding_propagation_to_parameters = _unsharded(module, "arg_attrs")
    build.allow_spmd_sharding_propagation_to_output = _unsharded(module, "res_attrs")
    if options:
        settings.env_option_overrides = list(options.items())
    with module.context:
        return compiler.compile_or_get_cached(
            devices[0].client, module, chosen.flatten(), settings, [], _device_list(chosen)
        )


def _main_function(module: Any) -> Any:
    """The function that XLA enters.

    Raises:
        ValueError: there is none.
    """
    for operation in module.body.operations:
        if "sym_name" in operation.attributes and '"main"' in str(operation.attributes["sym_name"]):
            return operation
    raise ValueError("it has no function named main")


def _unsharded(module: Any, side: str) -> list[bool]:
    """Which arguments (``arg_attrs``) or results (``res_attrs``) of main name no sharding."""
    from jaxlib.mlir import ir

    main = _main_function(module)
    signature = ir.FunctionType(ir.TypeAttr(main.attributes["function_type"]).value)
    count = len(signature.inputs if side == "arg_attrs" else signature.results)
    if side not in main.attributes:
        return [True] * count
    return [
        not ("sdy.sharding" in each or "mhlo.sharding" in each) for each in main.attributes[side]
    ]


def main_arguments(module: Any) -> list[dict[str, Any]]:
    """Element type and shape of the arguments of an MLIR module's main function."""
    from jaxlib.mlir import ir

    main = _main_function(module)
    types = ir.FunctionType(ir.TypeAttr(main.attributes["function_type"]).value).inputs
    out: list[dict[str, Any]] = []
    for number, each in enumerate(types):
        tensor = ir.RankedTensorType(each)
        dtype = numpy_name(str(tensor.element_type))
        out.append({"path": f"[{number}]", "dtype": dtype, "shape": list(tensor.shape)})
    return out


def numpy_name(element_type: str) -> str:
    """numpy's name of an MLIR element type: ``bfloat16`` of ``bf16``, ``bool`` of ``i1``."""
    if element_type == "i1":
        return "bool"
    if match := re.fullmatch(r"(ui|i)(\d+)", element_type):
        return f"{'uint' if match[1] == 'ui' else 'int'}{match[2]}"
    if match := re.fullmatch(r"complex<f(\d+)>", element_type):
        return f"complex{2 * int(match[1])}"
    return re.sub(r"^(b?)f(\d+)$", r"\1float\2", element_type).lower()


def plain_lowered(lowered: Any) -> Any:
    """The ``jax.stages.Lowered`` inside that of a library that wraps jit (flax, equinox)."""
    inner = getattr(lowered, "lowered", lowered)
    return inner if hasattr(inner, "compiler_ir") else lowered


def argument_names(jaxpr: Any) -> tuple[str, ...]:
    """A name for each array that a closed jaxpr takes, such as ``params['w']``; may be empty."""
    information = getattr(getattr(jaxpr, "jaxpr", None), "debug_info", None)
    names = getattr(information, "arg_names", None)
    return tuple(str(name) for name in names) if names is not None else ()


def _device_list(devices: Any) -> Any:
    from jaxlib import _jax

    return _jax.DeviceList(tuple(devices.flatten()))


def on_compile(observe: Callable[[Any, Any], None]) -> None:
    """Call ``observe(mlir_module, executable)`` after each compilation in this process.

    ``compile_or_get_cached`` is the only way from a jitted function to XLA. The observer
    must not raise.
    """
    from jax._src import compiler

    original = compiler.compile_or_get_cached

    def compile_and_tell(backend: Any, computation: Any, *args: Any, **kwargs: Any) -> Any:
        executable = original(backend, computation, *args, **kwargs)
        observe(computation, executable)
        return executable

    compiler.compile_or_get_cached = compile_and_tell


def stablehlo_text(module: Any) -> str:
    """An MLIR module as text with its debug locations."""
    text: str = module.operation.get_asm(enable_debug_info=True)
    return text


def module_name(module: Any) -> str:
    """The MLIR module's symbol name, such as ``jit_step``."""
    from jaxlib.mlir import ir

    attributes = module.operation.attributes
    return ir.StringAttr(attributes["sym_name"]).value if "sym_name" in attributes else "module"


def dump_flags(folder: Path) -> dict[str, Any]:
    """Compiler options that make XLA write the module after every pass that changed it."""
    return {"xla_dump_to": str(folder), "xla_dump_hlo_pass_re": ".*"}


def hide_frames_of(folder: Path) -> None:
    """Leave the code in a folder out of the source stacks that JAX records.

    And Python's own machinery for running a file, which JAX takes for the user's code.
    """
    import os

    from jax._src import source_info_util

    source_info_util.register_exclusion(str(folder) + os.sep)
    source_info_util.register_exclusion("<frozen ")
