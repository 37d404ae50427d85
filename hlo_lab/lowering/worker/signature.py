"""What the manifest says of a call: shapes, types, shardings, donation, static values."""

from __future__ import annotations

from typing import Any

from hlo_lab.lowering.worker.calling import Call
from hlo_lab.lowering.worker.stages import scrub

MAX_VALUE = 200  # characters of a static value's repr


def describe_call(
    call: Call, names: tuple[str, ...], lowered: Any, compiled: Any
) -> dict[str, Any]:
    """``arguments`` (one entry per array), ``static`` (Python values) and ``results``.

    ``names`` are the arrays' own, in order; positions stand in where they do not fit.
    """
    return {
        "arguments": _arguments(names, lowered, compiled),
        "static": _static(call),
        "results": _results(lowered),
    }


def _arguments(names: tuple[str, ...], lowered: Any, compiled: Any) -> list[dict[str, Any]]:
    import jax

    flat, _ = jax.tree_util.tree_flatten_with_path(lowered.args_info)
    shardings = _shardings(compiled) if compiled is not None else {}
    out = []
    if len(names) != len(flat):
        names = tuple(jax.tree_util.keystr(path) for path, _ in flat)
    for name, (path, info) in zip(names, flat, strict=True):
        entry: dict[str, Any] = {
            "path": name,
            "dtype": str(info.dtype),
            "shape": list(info.shape),
        }
        if info.donated:
            entry["donated"] = True
        sharding = shardings.get(jax.tree_util.keystr(path))
        if sharding is not None:
            entry["sharding"] = sharding
        out.append(entry)
    return out


def _shardings(compiled: Any) -> dict[str, str]:
    """Path to partition spec of the arguments that are spread over several devices."""
    import jax

    try:
        flat, _ = jax.tree_util.tree_flatten_with_path(compiled.input_shardings)
    except Exception:  # some executables do not know
        return {}
    return {
        jax.tree_util.keystr(path): str(getattr(sharding, "spec", sharding))
        for path, sharding in flat
        if sharding is not None and len(sharding.device_set) > 1
    }


def _results(lowered: Any) -> list[dict[str, Any]]:
    import jax

    flat, _ = jax.tree_util.tree_flatten_with_path(lowered.out_info)
    return [
        {
            "path": jax.tree_util.keystr(path),
            "dtype": str(info.dtype),
            "shape": list(info.shape),
        }
        for path, info in flat
    ]


def _static(call: Call) -> list[dict[str, str]]:
    """Values that are not arrays; a jitted function may still trace some of them."""
    return [{"name": name, "value": scrub(repr(value))[:MAX_VALUE]} for name, value in call.static]
