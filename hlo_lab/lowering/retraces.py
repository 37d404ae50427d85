"""Why JAX traced a function again, by what it says itself (``jax_explain_cache_misses``)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

MOST_CHANGES = 20  # of one function, in the index and the manifest
_FUNCTION = re.compile(r"^ *(?:for )?(\S+?)(?: id=\d+)? defined at (.*):(\d+)$", re.M)
_CHANGE = re.compile(r"^ *\* at (?:input path )?(.+?), now (.*) and before (.*)$", re.M)
_STATIC = re.compile(r"Static\(val=(.*?)\)(?:, so .*)?$")
_WEAK = re.compile(r"\{weak_type=\w+\}|https?://\S+$")
_ARRAY = re.compile(r"^(\w+)\[(.*?)\]")
_PATH = re.compile(r"^\[(\d)\]\[(.+?)\](.*)$")
_IS_WEAK = "weak_type=True"
_CONTEXT = "Tracing context"
MAX_VALUE = 60  # characters of a value that are kept


def explained(text: str) -> dict[str, Any] | None:
    """What one message of JAX says; None where it is of another kind.

    Returns:
        ``function``, ``place`` (``file:line`` of its definition) and ``changes``, a list of
        ``cause``, ``argument``, ``before`` and ``after``. Causes: shape, dtype, weak type,
        sharding, static value, structure, context, function (a new function object) and
        unexplained (JAX 0.12 says so of static values). A function that is traced for the first
        time has cause ``function`` too.
    """
    if not text.startswith("TRACING CACHE MISS"):
        return None
    match = _FUNCTION.search(text)
    if match is None:
        return None
    name, file, line = match.groups()
    if "never seen function" in text:
        changes = [_change("function")]
    elif _CONTEXT in text:
        changes = [_change("context")]
    else:
        changes = [_compared(*found) for found in _CHANGE.findall(text)] or [_change("unexplained")]
    return {"function": name, "place": f"{file}:{line}", "changes": changes}


def key(name: str) -> str:
    """By which a function and the module that it is compiled to are known to be the same."""
    return re.sub(r"[\W_]", "", name.removeprefix("jit_").removeprefix("pmap_"))


def _change(cause: str, argument: str = "", before: str = "", after: str = "") -> dict[str, str]:
    values = (
        value if len(value) <= MAX_VALUE else value[:MAX_VALUE] + "..." for value in (before, after)
    )
    return {
        "cause": cause,
        "argument": argument,
        **dict(zip(("before", "after"), values, strict=True)),
    }


def _compared(argument: str, after: str, before: str) -> dict[str, str]:
    static = _STATIC.search(before), _STATIC.search(after)
    if static[0] and static[1]:
        return _change("static value", _argument(argument), static[0][1], static[1][1])
    old, new = (_ARRAY.match(text) for text in (before, after))
    if old is None or new is None:
        return _change("structure", _argument(argument))
    texts = _WEAK.sub("", before), _WEAK.sub("", after)
    if texts[0] == texts[1] and "weak_type" in after:
        weak = (
            f"{'weak ' * (_IS_WEAK in whole)}{text}"
            for whole, text in zip((before, after), texts, strict=True)
        )
        return _change("weak type", argument, *weak)
    if old[1] != new[1]:
        return _change("dtype", argument, *texts)
    sizes = [re.sub(r"@[^,\]]*|\([^)]*\)", "", one[2]) for one in (old, new)]
    return _change("sharding" if sizes[0] == sizes[1] else "shape", argument, *texts)


def _argument(path: str) -> str:
    """``[0][1]`` is the second positional argument, ``[1]['k']`` the keyword k."""
    match = _PATH.match(path)
    if match is None:
        return path
    kind, inner, rest = match.groups()
    return f"argument {inner}{rest}" if kind == "0" else inner.strip("'") + rest


def recompiled(programs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The functions that a script compiled several times, most seconds first.

    Args:
        programs: in the order of compilation: ``name``, ``module``, ``seconds`` of XLA, and
            ``retrace``, what ``explained`` gives, None where nothing was traced.

    Returns:
        ``function``, ``place`` (empty where it is not the user's), ``programs`` (their
        names), ``seconds`` (of all but the first) and ``changes``, each once, with ``times``.
    """
    groups: dict[tuple[str, str], dict[str, Any]] = {}
    last: dict[str, tuple[str, str]] = {}
    for program in programs:
        why, module = program.get("retrace"), program["module"]
        own = (module, why["place"]) if why else last.get(module, (module, ""))
        last[module] = own
        group = groups.get(own)
        if group is None:
            groups[own] = {
                "function": why["function"] if why else module,
                "place": own[1],
                "programs": [program["name"]],
                "seconds": 0.0,
                "changes": [],
            }
            continue
        group["programs"].append(program["name"])
        group["seconds"] = round(group["seconds"] + program.get("seconds", 0.0), 3)
        # the trace was there already: only where its arguments are differs
        found = why["changes"] if why else [_change("sharding" if own[1] else "unknown")]
        for change in found:
            known = next((one for one in group["changes"] if _same(one, change)), None)
            if known is not None:
                known["times"] += 1
            elif len(group["changes"]) < MOST_CHANGES:
                group["changes"].append({**change, "times": 1})
    several = [group for group in groups.values() if len(group["programs"]) > 1]
    return sorted(several, key=lambda group: -group["seconds"])


def _same(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return all(one[name] == value for name, value in other.items())
