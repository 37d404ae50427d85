"""The arguments of a program: found, checked against its signature, never allocated."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from hlo_lab.errors import InputError
from hlo_lab.lowering import adapter
from hlo_lab.lowering.arguments import ArraySpec, parse_arguments

MESH_AXIS = "data"


@dataclass(frozen=True)
class Call:
    """What to lower: arrays are ``jax.ShapeDtypeStruct``, static arguments are themselves.

    ``static`` holds positions and names that plain functions get as Python values; a
    function that is already jitted decides by itself, and gets everything as given.
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    static_positions: tuple[int, ...]
    static_names: tuple[str, ...]


def find_arguments(
    function: Callable[..., Any], owner: Any, module: ModuleType, text: str | None, where: str
) -> Call:
    """The call to lower, from the first of: ``text``, ``NAME.example_args``, ``example_args()``.

    Example arguments are a tuple or list (positional), a dict (by parameter name), or
    one array (the only argument). Values of type str, bool, and anything that is not an
    array or number are static for a plain function; in ``text`` so are numbers.

    Raises:
        InputError: no arguments found, or they do not fit the signature.
    """
    if text is not None:
        args, kwargs = parse_arguments(text)
        numbers_are_static = True
    else:
        args, kwargs = _example(function, owner, module, where)
        numbers_are_static = False
    _check_signature(function, args, kwargs, where)

    def static(value: Any) -> bool:
        return _is_static(value, numbers_are_static)

    positions = tuple(index for index, value in enumerate(args) if static(value))
    names = tuple(name for name, value in kwargs.items() if static(value))
    return Call(
        tuple(value if i in positions else _abstract(value) for i, value in enumerate(args)),
        {name: value if name in names else _abstract(value) for name, value in kwargs.items()},
        positions,
        names,
    )


def _example(
    function: Any, owner: Any, module: ModuleType, where: str
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    for place in (function, getattr(function, "func", None)):  # functools.partial keeps .func
        if place is not None and hasattr(place, "example_args"):
            return _normal(_evaluate(place.example_args, where), where)
    if _takes_nothing(function):
        return (), {}
    for place in (owner, module):
        if hasattr(place, "example_args"):
            return _normal(_evaluate(place.example_args, where), where)
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


def _takes_nothing(function: Any) -> bool:
    try:
        return not inspect.signature(function).parameters
    except (TypeError, ValueError):  # a builtin without a signature
        return False


def _evaluate(example: Any, where: str) -> Any:
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
    return example(mesh=_mesh()) if "mesh" in parameters else example()


def _mesh() -> Any:
    """All devices of the target in one axis."""
    import jax

    auto = (jax.sharding.AxisType.Auto,)
    return jax.make_mesh((jax.device_count(),), (MESH_AXIS,), axis_types=auto)


def _normal(example: Any, where: str) -> tuple[tuple[Any, ...], dict[str, Any]]:
    # a NamedTuple is one pytree argument, such as a train state
    if isinstance(example, tuple | list) and not hasattr(example, "_fields"):
        return tuple(example), {}
    if isinstance(example, Mapping) and all(isinstance(key, str) for key in example):
        return (), dict(example)
    if hasattr(example, "shape"):
        return (example,), {}
    raise InputError(
        f"{where}: example_args gives a {type(example).__name__}; "
        f"it must be a tuple (positional), a dict (by name) or one array"
    )


def _check_signature(
    function: Any, args: tuple[Any, ...], kwargs: dict[str, Any], where: str
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
        raise InputError(
            f"{where} takes {_parameters(signature)} but was given ({', '.join(given)}): {error}"
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


def _is_static(value: Any, numbers_are_static: bool) -> bool:
    """Whether no leaf of the value can be traced. An empty pytree, such as None, can."""
    import jax

    leaves = jax.tree_util.tree_leaves(value, is_leaf=_is_leaf)
    if not leaves or any(_is_traceable(leaf, numbers_are_static) for leaf in leaves):
        return False
    return isinstance(value, Hashable)  # jit refuses the others, and says so


def _is_leaf(value: Any) -> bool:
    return isinstance(value, ArraySpec)


def _is_traceable(leaf: Any, numbers_are_static: bool) -> bool:
    if isinstance(leaf, bool | str):
        return False
    if isinstance(leaf, int | float | complex):
        return not numbers_are_static
    return isinstance(leaf, ArraySpec) or (hasattr(leaf, "shape") and hasattr(leaf, "dtype"))


def _abstract(value: Any) -> Any:
    import jax

    return jax.tree_util.tree_map(_abstract_leaf, value, is_leaf=_is_leaf)


def _abstract_leaf(leaf: Any) -> Any:
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
    return adapter.abstract_array(
        leaf.shape,
        adapter.canonical_dtype(leaf.dtype),
        sharding=sharding,
        weak_type=getattr(leaf, "weak_type", False),
    )
