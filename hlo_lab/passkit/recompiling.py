"""How findings and reports say why a function was compiled again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from hlo_lab.passkit.wording import counted, seconds_text

_SHOWN = 3  # changes that are told one by one
_ADVICE = {
    "shape": "Pad to a few sizes (the next power of two, a mask for the rest) and drop or pad the "
    "last batch.",
    "dtype": "Convert the argument to one dtype before the call.",
    "weak type": "Give arrays or NumPy scalars each time, such as jnp.float32(2), or Python "
    "numbers each time.",
    "sharding": "Place the arguments in the same way before each call: jax.device_put with one "
    "sharding, and out_shardings for what goes around.",
    "static value": "Make the argument an array where its value does not shape the program; else "
    "each value is a program of its own.",
    "structure": "Give a pytree of the same structure each time: the same keys, None always or "
    "never.",
    "context": "Set configuration and context managers once, before the first call.",
    "function": "Jit the function once, outside the loop or at module level, and give what differs "
    "as an argument: each new lambda, partial or nested function is another one.",
    "unexplained": "Compare the values of static arguments between the calls.",
}


def advice(recompiled: Mapping[str, Any]) -> str:
    """What to do about the most frequent cause; empty where that is not known."""
    return _ADVICE.get(_causes(recompiled)[0][0], "")


def story(recompiled: Mapping[str, Any]) -> str:
    """``4 times (450 ms of XLA more): x f32[8,64] -> f32[16,64]``, of a manifest's entry."""
    changes = list(recompiled["changes"])
    shown = [_change_text(one) for one in changes[:_SHOWN]]
    more = len(changes) - len(shown)
    shown += [f"{more} more"] * bool(more)
    times = counted(len(recompiled["programs"]), "time")
    return f"{times} ({seconds_text(recompiled['seconds'])} of XLA more): {', '.join(shown)}"


def _change_text(change: Mapping[str, Any]) -> str:
    cause, argument = str(change["cause"]), str(change["argument"])
    if change["before"] or change["after"]:
        what = f"{argument} {change['before']} -> {change['after']}"
        return f"{cause} of {what}" if cause == "static value" else what
    if cause == "function":
        return "a new function object" + _times(change)
    if cause == "unknown":
        return "another function, other constants or static values" + _times(change)
    if cause == "unexplained":
        return "a reason that JAX does not give, such as a static value" + _times(change)
    return (f"{cause} of {argument}" if argument else f"another {cause}") + _times(change)


def _times(change: Mapping[str, Any]) -> str:
    return f" ({change['times']} times)" if change["times"] > 1 else ""


def _causes(recompiled: Mapping[str, Any]) -> list[tuple[str, int]]:
    counts: Counter[str] = Counter()
    for change in recompiled["changes"]:
        counts[str(change["cause"])] += int(change["times"])
    return counts.most_common() or [("unknown", 0)]
