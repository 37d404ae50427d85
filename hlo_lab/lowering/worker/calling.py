"""The arguments of a program: found, checked against its signature, never allocated."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

from hlo_lab.errors import InputError, ProgramError
from hlo_lab.lowering import adapter
from hlo_lab.lowering.arguments import ArraySpec, parse_arguments
from hlo_lab.lowering.worker.devices import TargetDevices
from hlo_lab.lowering.worker.failure import explain, with_article
from hlo_lab.lowering.worker.loading import JittedMethod


@dataclass(frozen=True)
class Call:
    """What to lower: arrays are ``jax.ShapeDtypeStruct``, other values are themselves.

    ``static`` lists the leaves that cannot be traced, as (path, value); a function that
    is already jitted decides by itself what is static, and gets everything as given.
    ``examples`` are the leaves that may be traced, as the user gave them, for a call that is
    to be made; otherwise empty.
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    static: tuple[tuple[str, Any], ...]
    _traced: tuple[bool, ...]
    examples: tuple[Any, ...] = ()

    @property
    def is_sharded(self) -> bool:
        """Whether an argument says on which devices it is."""
        import jax

        leaves = jax.tree_util.tree_leaves((self.args, self.kwargs))
        return any(getattr(leaf, "sharding", None) is not None for leaf in leaves)

    @property
    def mesh(self) -> Any:
        """The mesh that an argument is sharded on; None where none is."""
        import jax

        for leaf in jax.tree_util.tree_leaves((self.args, self.kwargs)):
            sharding = getattr(leaf, "sharding", None)
            if isinstance(sharding, jax.sharding.NamedSharding):
                return sharding.mesh
        return None

    def on(self, device: Any) -> Call:
        """The call with every array on one device."""
        import jax

        sharding = jax.sharding.SingleDeviceSharding(device)
        leaves, structure = jax.tree_util.tree_flatten((self.args, self.kwargs))
        placed = [
            adapter.abstract_array(
                leaf.shape, leaf.dtype, sharding=sharding, weak_type=leaf.weak_type
            )
            if isinstance(leaf, jax.ShapeDtypeStruct)
            else leaf
            for leaf in leaves
        ]
        args, kwargs = jax.tree_util.tree_unflatten(structure, placed)
        return replace(self, args=args, kwargs=kwargs)

    def staged(self, function: Callable[..., Any]) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        """A function to jit, and its positional and keyword arguments.

        It takes what can be traced, and puts the static leaves back in. So a pytree may
        hold both, such as a model with its weights and its activation function.
        """
        import jax

        leaves, structure = jax.tree_util.tree_flatten((self.args, self.kwargs))
        arrays = [
            leaf if traced else None for leaf, traced in zip(leaves, self._traced, strict=True)
        ]

        @functools.wraps(function)
        def run(*args: Any, **kwargs: Any) -> Any:
            given = iter(jax.tree_util.tree_leaves((args, kwargs)))
            whole = [
                next(given) if traced else leaf
                for leaf, traced in zip(leaves, self._traced, strict=True)
            ]
            own_args, own_kwargs = jax.tree_util.tree_unflatten(structure, whole)
            return function(*own_args, **own_kwargs)

        run.__name__ = _name(function)
        return run, jax.tree_util.tree_unflatten(structure, arrays)


def _name(function: Any) -> str:
    """What the module is called after: a function's name, that of a partial, or of a class."""
    while isinstance(function, functools.partial):
        function = function.func
    return str(getattr(function, "__name__", type(function).__name__))


def find_arguments(
    function: Callable[..., Any],
    owner: Any,
    module: ModuleType,
    text: str | None,
    where: str,
    target: TargetDevices,
    *,
    keep_examples: bool = False,
) -> Call:
    """The call to lower, from the first of: ``text``, ``NAME.example_args``, ``example_args()``.

    Example arguments are a tuple or list (positional), a dict (by parameter name), or
    one array (the only argument). Leaves of type str, bool, and anything that is not an
    array or number are static for a plain function; in ``text`` so are numbers.

    Raises:
        InputError: no arguments found, or they do not fit the signature.
    """
    import jax

    if text is not None:
        args, kwargs = parse_arguments(text)
    else:
        args, kwargs = _example(function, owner, module, where, target)
    source = _source(function, owner, module) if text is None else ""
    _check_signature(function, args, kwargs, where, source)
    if isinstance(function, JittedMethod):
        args = (function.first, *args)
    flat, structure = jax.tree_util.tree_flatten_with_path((args, kwargs))
    traced = tuple(_is_traceable(leaf, numbers=text is None) for _, leaf in flat)
    whole = [
        _abstract(leaf, target, where) if each else leaf
        for (_, leaf), each in zip(flat, traced, strict=True)
    ]
    args, kwargs = jax.tree_util.tree_unflatten(structure, whole)
    names = _parameter_names(function)
    static = [
        (_path(path, names), leaf)
        for (path, leaf), each in zip(flat, traced, strict=True)
        if not each
    ]
    # they may be as large as the model: not kept where nobody asks for them
    examples = [leaf for (_, leaf), each in zip(flat, traced, strict=True) if each]
    return Call(args, kwargs, tuple(static), traced, tuple(examples if keep_examples else ()))


def _parameter_names(function: Any) -> list[str]:
    first = ["self"] if isinstance(function, JittedMethod) else []
    try:
        return first + list(inspect.signature(function).parameters)
    except (TypeError, ValueError):  # a builtin without a signature
        return []


def _path(path: tuple[Any, ...], names: list[str]) -> str:
    """Where in ``(args, kwargs)`` a leaf is, by parameter name: ``model.layers[0]``."""
    import jax

    side, first, *rest = path
    if side.idx == 1:
        name = str(first.key)
    else:
        name = names[first.idx] if first.idx < len(names) else f"[{first.idx}]"
    return name + jax.tree_util.keystr(tuple(rest))


def _example(
    function: Any, owner: Any, module: ModuleType, where: str, target: TargetDevices
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    for place in (function, getattr(function, "func", None)):  # functools.partial keeps .func
        if place is not None and hasattr(place, "example_args"):
            return _normal(_evaluate(place.example_args, where, target), where)
    if _takes_nothing(function):
        return (), {}
    for place in (owner, module):
        if hasattr(place, "example_args"):
            return _normal(_evaluate(place.example_args, where, target), where)
    try:
        inspect.signature(function).bind()
    except ValueError:  # a builtin without a signature
        pass
    except TypeError:
        raise InputError(
            f"{where} needs arguments: give --args 'f32[8,128], i32[8]', or write "
            f"example_args() beside it, returning a tuple of arrays or ShapeDtypeStructs"
        ) from None
    return (), {}


def _source(function: Any, owner: Any, module: ModuleType) -> str:
    """Where ``_example`` finds the arguments, for a message."""
    for place in (function, getattr(function, "func", None)):
        if place is not None and hasattr(place, "example_args"):
            return f"{_name(place)}.example_args"
    if owner is not module and hasattr(owner, "example_args"):
        return f"example_args of {getattr(owner, '__name__', type(owner).__name__)}"
    return f"example_args in {Path(getattr(module, '__file__', None) or module.__name__).name}"


def _takes_nothing(function: Any) -> bool:
    try:
        return not inspect.signature(function).parameters
    except (TypeError, ValueError):  # a builtin without a signature
        return False


def _evaluate(example: Any, where: str, target: TargetDevices) -> Any:
    if not callable(example):
        return example
    parameters = inspect.signature(example).parameters
    needed = {
        name
        for name, parameter in parameters.items()
        if parameter.default is parameter.empty
        and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    }
    if needed - {"mesh"}:
        raise InputError(
            f"{where}: example_args takes {', '.join(sorted(needed))}; "
            f"only a parameter named mesh can be filled in"
        )
    if "mesh" not in parameters:
        return example()
    mesh = target.mesh
    try:
        return example(mesh=mesh)
    except Exception as error:
        if mesh.size > 1:
            raise
        raise ProgramError(
            f"{explain(error, 'making its example arguments')}; example_args takes a mesh and "
            f"the target has 1 device: try --target cpu:8"
        ) from error


def _normal(example: Any, where: str) -> tuple[tuple[Any, ...], dict[str, Any]]:
    # a NamedTuple is one pytree argument, such as a train state
    if isinstance(example, tuple | list) and not hasattr(example, "_fields"):
        return tuple(example), {}
    if isinstance(example, Mapping) and all(isinstance(key, str) for key in example):
        return (), dict(example)
    if hasattr(example, "shape"):
        return (example,), {}
    raise InputError(
        f"{where}: example_args gives {with_article(type(example).__name__)}; "
        f"it must be a tuple (positional), a dict (by name) or one array"
    )


def _check_signature(
    function: Any, args: tuple[Any, ...], kwargs: dict[str, Any], where: str, source: str
) -> None:
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # a builtin: JAX will say
        return
    try:
        signature.bind(*args, **kwargs)
    except TypeError as error:
        given = [describe(value) for value in args]
        given += [f"{name}={describe(value)}" for name, value in kwargs.items()]
        came = f" from {source}" if source else ""
        advice = "; give --args" if source else ""
        raise InputError(
            f"{where} takes {_parameters(signature)} but was given ({', '.join(given)}){came}: "
            f"{error}{advice}"
        ) from None


def _parameters(signature: inspect.Signature) -> str:
    bare = [
        each.replace(annotation=inspect.Parameter.empty) for each in signature.parameters.values()
    ]
    return str(inspect.Signature(bare))


def describe(value: Any) -> str:
    """A value in one short phrase: a shape, or a pytree's kind and size."""
    if isinstance(value, ArraySpec):
        return str(value)
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return f"{value.dtype}[{','.join(map(str, value.shape))}]"
    if isinstance(value, bool | int | float | complex | str | None):
        return repr(value) if len(repr(value)) <= 40 else f"{repr(value)[:37]}..."
    if isinstance(value, dict | list | tuple):
        return f"{type(value).__name__} of {len(value)}"
    return type(value).__name__


def _is_traceable(leaf: Any, *, numbers: bool) -> bool:
    if isinstance(leaf, bool | str):
        return False
    if isinstance(leaf, int | float | complex):
        return numbers
    return isinstance(leaf, ArraySpec) or (hasattr(leaf, "shape") and hasattr(leaf, "dtype"))


def _abstract(leaf: Any, target: TargetDevices, where: str) -> Any:
    import jax

    if isinstance(leaf, ArraySpec):
        if leaf.dtype == "key":
            return adapter.abstract_array(leaf.shape, adapter.prng_key_dtype())
        dtype = adapter.canonical_dtype(jax.numpy.dtype(leaf.dtype))
        return adapter.abstract_array(leaf.shape, dtype)
    if not (hasattr(leaf, "shape") and hasattr(leaf, "dtype")):
        return leaf
    sharding = getattr(leaf, "sharding", None)
    if isinstance(leaf, jax.Array) and not adapter.is_committed(leaf):
        sharding = None
    if sharding is not None and target.target.is_ahead_of_time and target.is_foreign(sharding):
        if len(sharding.device_set) > 1:
            raise InputError(
                f"{where}: an argument is spread over devices that are not those of "
                f"{target.target}{target.explanation()}"
            )
        sharding = None  # an array that happens to be on this machine
    return adapter.abstract_array(
        leaf.shape,
        adapter.canonical_dtype(leaf.dtype),
        sharding=sharding,
        weak_type=getattr(leaf, "weak_type", False),
    )
