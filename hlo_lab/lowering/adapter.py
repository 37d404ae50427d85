"""Every name that JAX and jaxlib do not promise to keep, in one place.

Tested on JAX 0.10.2, 0.11 and 0.12. Runs only inside a worker process; nothing else in
hlo-lab may import ``jax._src`` or ``jaxlib``.
"""

from __future__ import annotations

import contextlib
import dataclasses
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

# CompiledMemoryStats: its integer attributes; which exist varies by version
_PARTS = ("argument", "output", "alias", "temp", "generated_code")
MEMORY_FIELDS = (
    *(f"{part}_size_in_bytes" for part in _PARTS),
    *(f"host_{part}_size_in_bytes" for part in _PARTS),
    "peak_memory_in_bytes",
)


_COMPILERS = {
    "tpu": ("libtpu",),
    "gpu": ("jax-cuda12-pjrt", "jax-cuda13-pjrt", "nvidia-cuda-nvcc-cu12", "nvidia-cuda-nvcc"),
}


def versions(platform: str, converters: Sequence[str] = ()) -> dict[str, str]:
    """Versions of what compiles: Python, jax, jaxlib, and the platform's own compiler.

    Args:
        converters: modules that the program came through, such as ``torchax``.
    """
    import platform as running
    from importlib import metadata

    out = {
        "python": running.python_version(),
        "jax": metadata.version("jax"),
        "jaxlib": metadata.version("jaxlib"),
    }
    for package in _COMPILERS.get(platform, ()):
        with contextlib.suppress(metadata.PackageNotFoundError):
            out[package] = metadata.version(package)
    # by their own word: tensorflow comes as packages of several names
    return out | {name: str(sys.modules[name].__version__) for name in converters}


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


def keys_of(data: Any, dtype: Any) -> Any:
    """Typed PRNG keys of that element type, made of their data."""
    import jax

    return jax.random.wrap_key_data(data, impl=dtype._impl)


def key_data_of(shape: tuple[int, ...], dtype: Any) -> Any:
    """Shape and type of the data behind typed PRNG keys, as a ``jax.ShapeDtypeStruct``."""
    import jax

    return jax.eval_shape(jax.random.key_data, abstract_array(shape, dtype))


def dtype_of_number(value: complex) -> Any:
    """The type that jit gives a Python number."""
    import jax

    return jax.numpy.result_type(type(value))


def largest(dtype: Any) -> int:
    """The largest integer of a type, numpy's own or one of JAX's narrow ones."""
    import jax

    information: Callable[[Any], Any] = jax.numpy.iinfo
    return int(information(dtype).max)


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


def parse_stablehlo(text: str | bytes) -> Any:
    """StableHLO as text, bytecode or portable artifact, in a context that knows its dialects."""
    from jax._src.interpreters import mlir
    from jaxlib.mlir import ir
    from jaxlib.mlir.dialects import stablehlo

    context = mlir.make_ir_context()
    with context, ir.Location.unknown():
        if isinstance(text, bytes) and text[4:].startswith(b"\rStableHLO_v"):
            module = stablehlo.deserialize_portable_artifact(context, text)
        else:
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


def compile_stablehlo(module: Any, options: dict[str, Any], devices: Sequence[Any]) -> Any:
    """Compile a whole MLIR module for the first of these devices that it needs.

    Raises:
        ValueError: it needs more devices than there are.
    """
    import numpy as np
    from jax._src import compiler

    replicas, parts = partitions(module)
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
    """Element type, shape and donation of the arguments of an MLIR module's main function."""
    from jaxlib.mlir import ir

    main = _main_function(module)
    types = ir.FunctionType(ir.TypeAttr(main.attributes["function_type"]).value).inputs
    out: list[dict[str, Any]] = []
    for number, each in enumerate(types):
        tensor = ir.RankedTensorType(each)
        dtype = numpy_name(str(tensor.element_type))
        out.append({"path": f"[{number}]", "dtype": dtype, "shape": list(tensor.shape)})
    for entry, donated in zip(out, donations(module), strict=True):
        if donated:
            entry["donated"] = True
    return out


def donations(module: Any) -> list[bool]:
    """Whether a call of an MLIR module uses each argument up, tokens included."""
    main = _main_function(module)
    block = main.regions[0].blocks[0]
    if "arg_attrs" not in main.attributes:
        return [False] * len(block.arguments)
    return [
        "tf.aliasing_output" in own or "jax.buffer_donor" in own
        for own in main.attributes["arg_attrs"]
    ]


def parameter_shardings(executable: Any, count: int) -> list[Any]:
    """Where a ``LoadedExecutable`` wants each of its parameters."""
    import jax
    from jax._src.sharding_impls import GSPMDSharding

    devices = tuple(executable.local_devices())
    if len(devices) == 1:
        return [jax.sharding.SingleDeviceSharding(devices[0])] * count
    found = executable.get_parameter_shardings()
    if found is None or len(found) != count:
        return [GSPMDSharding.get_replicated(devices)] * count
    return [GSPMDSharding(devices, each) for each in found]


def execute(executable: Any, arguments: list[Any]) -> list[Any]:
    """Call a ``LoadedExecutable``; the results' parts on each device, one after another."""
    results = executable.execute_sharded(arguments).disassemble_into_single_device_arrays()
    return [part for result in results for part in result]


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


def around_compile(wrap: Callable[[Any, Callable[[Any], Any]], Any]) -> None:
    """Let ``wrap(mlir_module, compile)`` give the executable of each compilation from now on.

    ``compile`` takes an MLIR module and does what JAX would have done, its persistent cache
    included; ``compile_or_get_cached`` is the only way from a jitted function to XLA.
    """
    from jax._src import compiler, traceback_util

    original = compiler.compile_or_get_cached

    def compile_wrapped(backend: Any, computation: Any, *args: Any, **kwargs: Any) -> Any:
        return wrap(computation, lambda module: original(backend, module, *args, **kwargs))

    compiler.compile_or_get_cached = compile_wrapped
    # what the compiler raises is shown without our frames, as without JAX's own
    traceback_util.register_exclusion(str(Path(__file__).parents[1]))


def on_retrace(tell: Callable[[str], None]) -> None:
    """Let ``tell`` have what JAX says of each function that it traces: why its caches missed.

    Its messages are printed as before only where ``jax_explain_cache_misses`` was on already.
    """
    import logging

    import jax

    config: Any = jax.config
    was_on = bool(config.jax_explain_cache_misses)
    config.update("jax_explain_cache_misses", True)

    def take(record: logging.LogRecord) -> bool:
        message = record.getMessage()
        if not message.startswith("TRACING CACHE MISS"):
            return True
        tell(message)
        return was_on

    logging.getLogger("jax._src.interpreters.partial_eval").addFilter(take)


class Execution:
    """A call of a compiled function that is about to happen.

    Attributes:
        executable: the ``LoadedExecutable``.
    """

    def __init__(self, raw: Any, call: Callable[..., Any], args: tuple[Any, ...]):
        self.executable = raw.xla_executable
        self._raw = raw
        self._call = call
        self._args = args

    def run(self) -> Any:
        """Do it."""
        return self._call(self._raw, *self._args)

    def run_with(self, executable: Any, donated: Sequence[int]) -> Any:
        """Do it with another executable of the same arguments and results.

        Args:
            donated: numbers of the parameters that it uses up, and gets copies of.
        """
        import copy

        import jax

        args = list(self._args)
        kept = [at for at in range(len(args)) if at in self._raw.kept_var_idx]
        for at in (kept[number] for number in donated):
            if isinstance(args[at], jax.Array):
                args[at] = jax.device_put(args[at], args[at].sharding, may_alias=False)
        other = copy.copy(self._raw)
        other.xla_executable = executable
        return self._call(other, *args)

    @property
    def effects(self) -> str:
        """What the function does besides its results, which it must not do twice; mostly ""."""
        raw = self._raw
        if raw.ordered_effects or raw.has_unordered_effects or raw.has_host_callbacks:
            return "it calls the host"
        return "it writes to references" if raw.mut is not None else ""


def around_execution(wrap: Callable[[Execution], Any]) -> None:
    """Let ``wrap(execution)`` give the results of each call that goes through Python.

    That is the first one of every executable; JAX's fast path may do those that follow.
    """
    from jax._src.interpreters import pxla

    execute = pxla.ExecuteReplicated.__call__

    def execute_wrapped(self: Any, *args: Any) -> Any:
        return wrap(Execution(self, execute, args))

    kind: Any = pxla.ExecuteReplicated
    kind.__call__ = execute_wrapped


def stablehlo_text(module: Any) -> str:
    """An MLIR module as text with its debug locations."""
    text: str = module.operation.get_asm(enable_debug_info=True)
    return text


def copy_module(module: Any) -> Any:
    """Another MLIR module of the same content, in the same context, which has to be entered."""
    from jaxlib.mlir import ir

    return ir.Module.parse(stablehlo_text(module))


def with_module(lowered: Any, module: Any) -> Any:
    """A ``jax.stages.Lowered`` as another, which stays as it is, with another MLIR module.

    What JAX knows of the call is kept: donation, shardings, the trees of arguments and
    results. The module has to take and give the same; it may donate more.
    """
    import copy

    import jax

    other = copy.copy(lowered)
    other._lowering = copy.copy(lowered._lowering)
    other._lowering._hlo = module
    other._lowering._executable = None
    infos, tree = jax.tree_util.tree_flatten(lowered.args_info)
    kept = sorted(lowered._lowering.compile_args["kept_var_idx"])
    # tokens and arrays that the function closes over come first
    for number, donated in zip(kept[::-1], donations(module)[::-1], strict=False):
        if donated:
            infos[number] = dataclasses.replace(infos[number], donated=True)
    other.args_info = jax.tree_util.tree_unflatten(tree, infos)
    return other


def set_results(module: Any, values: Sequence[Any]) -> None:
    """Let main of an MLIR module give these values of its own block, and donate nothing.

    For looking at what is inside: shardings of the results are the partitioner's choice.
    """
    from jaxlib.mlir import ir

    main = _main_function(module).operation
    block = main.regions[0].blocks[0]
    last = list(block.operations)[-1].operation
    with module.context, ir.Location.unknown():
        ir.Operation.create(
            "func.return", operands=list(values), ip=ir.InsertionPoint(last), loc=last.location
        )
        last.erase()
        inputs = ir.FunctionType(ir.TypeAttr(main.attributes["function_type"]).value).inputs
        kind = ir.FunctionType.get(list(inputs), [value.type for value in values])
        main.attributes["function_type"] = ir.TypeAttr.get(kind)
        if "res_attrs" in main.attributes:
            del main.attributes["res_attrs"]
        if "arg_attrs" in main.attributes:
            aliases = ("tf.aliasing_output", "jax.buffer_donor")
            main.attributes["arg_attrs"] = ir.ArrayAttr.get(
                [
                    ir.DictAttr.get(
                        {each.name: each.attr for each in own if each.name not in aliases}
                    )
                    for own in main.attributes["arg_attrs"]
                ]
            )


def location_of(operation: Any) -> tuple[str, str]:
    """What JAX calls an MLIR operation, and ``FILE:LINE`` of where the user asked for it."""
    location = operation.location
    name = location.name_str if type(location).__name__ == "NameLoc" else ""
    found = re.search(r'"([^"]+)":(\d+):\d+', str(location))
    return name, f"{found[1]}:{found[2]}" if found else ""


def module_name(module: Any) -> str:
    """The MLIR module's symbol name, such as ``jit_step``."""
    from jaxlib.mlir import ir

    attributes = module.operation.attributes
    return ir.StringAttr(attributes["sym_name"]).value if "sym_name" in attributes else "module"


def dump_flags(folder: Path, *, every_pass: bool) -> dict[str, Any]:
    """Compiler options that make XLA write its reports to a folder.

    Args:
        every_pass: and the module after every pass that changed it.
    """
    reports = {"xla_dump_to": str(folder)}
    return {**reports, "xla_dump_hlo_pass_re": ".*"} if every_pass else reports


def flags_near(name: str, platform: str) -> list[str]:
    """Flags of XLA with a name close to this one, none of them another platform's.

    They are found in the text inside the installed compilers.
    """
    import difflib
    import importlib.util

    known: set[str] = set()
    words = set(name.split("_")[1:])
    for package, pattern in (("jaxlib", "libjax_common.so"), ("libtpu", "libtpu.so")):
        spec = importlib.util.find_spec(package)
        for place in spec.submodule_search_locations or () if spec is not None else ():
            for library in Path(place).glob(pattern):
                known.update(_flags_in(library))
    platforms = ("cpu", "gpu", "tpu")
    if platform in platforms:  # a local target may be any
        foreign = tuple(f"xla_{other}_" for other in platforms if other != platform)
        known = {each for each in known if not each.startswith(foreign)}
    # comparing by letters is slow: only names that share words
    likely = sorted(known, key=lambda each: (-len(words & set(each.split("_"))), each))[:500]
    return difflib.get_close_matches(name, likely, n=3, cutoff=0.75)


def _flags_in(library: Path) -> set[str]:
    import mmap

    with library.open("rb") as stream, mmap.mmap(stream.fileno(), 0, prot=mmap.PROT_READ) as data:
        return {name.decode() for name in re.findall(rb"xla_[a-z0-9_]{3,80}(?=\0)", data)}


def hide_frames_of(folder: Path) -> None:
    """Leave the code in a folder out of the source stacks that JAX records.

    And Python's own machinery for running a file, which JAX takes for the user's code.
    """
    import os

    from jax._src import source_info_util

    source_info_util.register_exclusion(str(folder) + os.sep)
    source_info_util.register_exclusion("<frozen ")


def make_mesh(shape: tuple[int, ...], names: tuple[str, ...], devices: Sequence[Any]) -> Any:
    """A mesh of devices, laid out so that its axes follow the network where that is known."""
    import jax
    import numpy as np
    from jax.experimental import mesh_utils

    try:
        placed = mesh_utils.create_device_mesh(shape, list(devices), allow_split_physical_axes=True)
    except (NotImplementedError, AssertionError):  # a shape that no placement of JAX's fits
        placed = np.array(devices, dtype=object).reshape(shape)
    auto = (jax.sharding.AxisType.Auto,) * len(shape)
    return jax.sharding.Mesh(placed, names, axis_types=auto)


def set_mesh(mesh: Any) -> Any:
    """A context in which ``mesh`` is the one that bare PartitionSpecs mean."""
    import jax

    return jax.set_mesh(mesh)


def tpu_devices(topology: str, chips: tuple[int, ...], config: str) -> list[Any]:
    """Compile-only devices of a TPU slice such as ``v5e:2x2``.

    Args:
        chips: the slice's dimensions.
        config: libtpu's ``chip_config_name``; empty for its default.
    """
    from jax.experimental import topologies

    # a host has 2x2 chips, which libtpu wants said where a slice is smaller
    bounds = [*(2 if size % 2 == 0 else 1 for size in chips[:2]), 1]
    options: dict[str, Any] = {"chip_config_name": config} if config else {}
    if any(size % 2 for size in chips[:2]):
        options["chips_per_host_bounds"] = bounds
    found = topologies.get_topology_desc(topology, platform="tpu", **options)
    return list(found.devices)


def gpu_devices(config: str, topology: str) -> list[Any]:
    """Compile-only devices of GPUs of one kind.

    Args:
        config: a ``GpuTargetConfigProto`` as text.
        topology: partitions x hosts x GPUs on each, such as ``1x1x8``.
    """
    from jax.experimental import topologies

    found = topologies.get_topology_desc(platform="cuda", target_config=config, topology=topology)
    return list(found.devices)


def cuda_toolkit() -> Path | None:
    """The folder with ``bin/ptxas`` that NVIDIA's wheels install; None where there is none."""
    import importlib.util

    spec = importlib.util.find_spec("nvidia")
    for place in spec.submodule_search_locations or () if spec is not None else ():
        for name in ("cuda_nvcc", "cu13"):
            if Path(place, name, "bin", "ptxas").is_file():
                return Path(place, name)
    return None


def has_cuda_compiler() -> bool:
    """Whether XLA's compiler for NVIDIA GPUs is installed (its plugin; no driver is needed)."""
    import importlib.util

    spec = importlib.util.find_spec("jax_plugins")
    places = spec.submodule_search_locations or () if spec is not None else ()
    return any(any(Path(place).glob("xla_cuda1?/xla_cuda_plugin.so")) for place in places)


def computed_on_absent_device(error: Exception) -> bool:
    """Whether JAX tried to run something on devices that are only compiled for.

    It does for what a program computes with concrete values while it is traced inside
    ``set_mesh``.
    """
    # 'Executable' is what it has instead of a LoadedExecutable; 0.12 says its module as well
    return isinstance(error, AttributeError) and "Executable' object" in str(error)


def lacks_mesh(error: Exception) -> bool:
    """Whether JAX wanted a mesh in context, as bare PartitionSpecs do, and there was none."""
    said = str(error).lower()
    return "requires a non-empty mesh in context" in said or "mesh cannot be empty" in said


def allow_host_callbacks() -> None:
    """Let JAX compile host callbacks (``debug.print``, ``pure_callback``) for absent devices.

    Lowering wants the device's client, where a running program would look the callback up;
    what is only compiled does without, so any client will do. And the callbacks themselves, of
    no use to a GPU's compiler, are not in a form that it takes.
    """
    import jax
    from jax._src import compiler
    from jax._src.interpreters import mlir

    client_of = mlir.ModuleContext.get_backend
    compile_module = compiler.backend_compile_and_load

    def get_backend(self: Any, optional: bool = False) -> Any:
        try:
            return client_of(self, optional)
        except RuntimeError:  # no such platform here
            return jax.local_devices(backend="cpu")[0].client

    def without_callbacks(
        backend: Any, module: Any, devices: Any, options: Any, callbacks: Any
    ) -> Any:
        kept = callbacks if backend.platform == "tpu" else []
        return compile_module(backend, module, devices, options, kept)

    context: Any = mlir.ModuleContext
    context.get_backend = get_backend
    compiler.backend_compile_and_load = without_callbacks


def lowered_platform(lowered: Any) -> str:
    """The platform of the devices that a ``jax.stages.Lowered`` is for; empty if unknown."""
    arguments = getattr(lowered._lowering, "compile_args", {})
    return str(getattr(arguments.get("backend"), "platform", ""))


def count_flops(module: Any) -> dict[str, float] | None:
    """Operation counts of an HLO module by jaxlib; None where it cannot say."""
    import jax
    from jaxlib import _jax

    try:
        counts = _jax.hlo_module_cost_analysis(jax.local_devices(backend="cpu")[0].client, module)
    except Exception:  # jaxlib raises its own error type on what it does not know
        return None
    return dict(sorted(counts.items()))


# an axis in use, as in [{"data"}, {}] or manual_axes={"data"}, also inside a string (\22); what
# only replicates ([{}, {}], of @empty_mesh at that) splits nothing, nor do keys of dictionaries
_AXIS = re.compile(r'\{(?:"|\\22)[^"\\]+(?:"|\\22)(?! ?=|:(?!\())')
_GSPMD_TILES = re.compile(r'mhlo\.sharding = "[^"]*(?:devices=\[|manual)')


def has_shardings(module: Any) -> bool:
    """Whether an MLIR module splits any value over devices, in Shardy's or GSPMD's form."""
    text = module.operation.get_asm(large_elements_limit=16)
    return any(
        ("sdy." in line and _AXIS.search(line)) or _GSPMD_TILES.search(line)
        for line in text.splitlines()
    )


def stablehlo_of_hlo(text: str, replicas: int, partitions: int) -> Any:
    """An MLIR module of HLO text. Raises XLA's errors on what is not HLO."""
    import jax.extend.mlir
    from jaxlib import _hlo  # type: ignore[attr-defined]  # not in jaxlib's stubs
    from jaxlib.mlir import ir

    proto = _hlo.hlo_module_from_text(text).as_serialized_hlo_module_proto()
    module = parse_stablehlo(jax.extend.mlir.hlo_to_stablehlo(proto))
    with module.context, ir.Location.unknown():
        number = ir.IntegerType.get_signless(32)
        counts = {"mhlo.num_replicas": replicas, "mhlo.num_partitions": partitions}
        for name, count in counts.items():
            module.operation.attributes[name] = ir.IntegerAttr.get(number, count)
    return module


def read_export(data: bytes, platform: str) -> tuple[Any, bool]:
    """What ``jax.export`` serialized, and whether it was exported for another platform.

    Such a one is lowered all the same; kernels of the other platform are in it as they are.
    """
    import dataclasses

    from jax import export

    exported = export.deserialize(bytearray(data))
    if {"gpu": "cuda"}.get(platform, platform) in exported.platforms:
        return exported, False
    unchecked = (*exported.disabled_safety_checks, export.DisabledSafetyCheck.platform())
    return dataclasses.replace(exported, disabled_safety_checks=unchecked), True


def stablehlo_like(text: str, like: Any) -> Any:
    """An MLIR module of HLO text, with what HLO loses of the module that it was: donation, names.

    Raises XLA's errors on what is not HLO.
    """
    from jaxlib.mlir import ir, passmanager

    module = stablehlo_of_hlo(text, *partitions(like))
    new, old = _main_function(module), _main_function(like)
    with module.context, ir.Location.unknown():
        for side in ("arg_attrs", "res_attrs"):
            if side not in old.attributes:
                continue
            theirs = list(old.attributes[side])
            own = new.attributes[side] if side in new.attributes else [{}] * len(theirs)
            pairs = zip(own, theirs, strict=True)
            new.attributes[side] = ir.ArrayAttr.get([_joined(*pair) for pair in pairs])
        if "mhlo.input_output_alias" in module.operation.attributes:  # said by the arguments
            del module.operation.attributes["mhlo.input_output_alias"]
        # bodies of loops are left behind as functions
        passmanager.PassManager.parse("builtin.module(symbol-dce)").run(module.operation)
        module.operation.verify()
    return module


def _joined(own: Any, theirs: Any) -> Any:
    """Attributes of an argument or result that came back from HLO, with those that it had.

    A sharding is what HLO says, where Shardy finds its own in it: else XLA would leave Shardy.
    """
    from jaxlib.mlir import ir

    shardings = ("mhlo.sharding", "mhlo.frontend_attributes", "sdy.sharding")
    found = {each.name: each.attr for each in own}
    if "mhlo.sharding" not in theirs and "mhlo.frontend_attributes" not in found:
        found.pop("mhlo.sharding", None)
    kept = {each.name: each.attr for each in theirs if each.name not in shardings}
    # of another context, which shares nothing but text
    return ir.DictAttr.get(
        found | {name: ir.Attribute.parse(str(attr)) for name, attr in kept.items()}
    )


def hlo_proto_of(text: str) -> bytes:
    """A serialized ``HloModuleProto`` of HLO text. Raises XLA's errors on what is not HLO."""
    from jaxlib import _hlo  # type: ignore[attr-defined]  # not in jaxlib's stubs

    return hlo_proto(_hlo.hlo_module_from_text(text))


def call_contract(module: Any) -> dict[str, str]:
    """What a caller of main relies on, as text: types, donation, layouts."""
    main = _main_function(module)
    kept = ("tf.aliasing_output", "jax.buffer_donor", "mhlo.layout_mode", "mhlo.memory_kind")
    found = {"type": str(main.attributes["function_type"])}
    for side in ("arg_attrs", "res_attrs"):
        if side not in main.attributes:
            continue
        for number, own in enumerate(main.attributes[side]):
            found |= {f"{side} {number} {name}": str(own[name]) for name in kept if name in own}
    return found


def transform_inside(stage: str, transform: Callable[[bytes], bytes | None]) -> None:
    """Let XLA call ``transform`` with every module that it compiles from now on.

    Args:
        stage: ``pre-scheduler`` or ``post-scheduler``.
        transform: gives a serialized ``HloModuleProto`` for another one, or None to leave it.
    """
    import jax.extend.xla as extend
    from jax._src import xla_bridge

    for key, client in xla_bridge.backends().items():
        # 0.10 goes by the client's own word (gpu), 0.12 by the plugin's (cuda)
        for platform in dict.fromkeys((client.platform, key)):
            with contextlib.suppress(RuntimeError):  # one that takes no passes is never called
                extend.register_hlo_module_transformation(
                    transform,
                    name=f"hlo-lab {stage}",
                    stage=extend.PipelineStage[stage.upper().replace("-", "_")],
                    platforms=platform,
                )


@contextlib.contextmanager
def without_cache() -> Iterator[None]:
    """Let JAX's persistent cache of executables neither be read nor written meanwhile."""
    from jax._src import compilation_cache

    used = compilation_cache.is_cache_used
    compilation_cache.is_cache_used = lambda backend: False
    try:
        yield
    finally:
        compilation_cache.is_cache_used = used
