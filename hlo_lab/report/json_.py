"""JSON documents: keys in the order given, no NaN, the same bytes for the same result."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hlo_lab.ir.source import Frame
from hlo_lab.passkit.finding import Finding, Verification


def dumps(document: Mapping[str, Any]) -> str:
    """Indented JSON text with a newline at its end; NaN and infinities become null."""
    return json.dumps(plain(document), indent=2, allow_nan=False) + "\n"


def plain(value: Any) -> Any:
    """The value in JSON's own types. Raises ``TypeError`` for what has no such form."""
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, int):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            return None
        return int(value) if value.is_integer() and abs(value) < 2**53 else value
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, Sequence):
        return [plain(item) for item in value]
    raise TypeError(f"{type(value).__name__} has no JSON form")


def frames(stack: Sequence[Frame]) -> list[dict[str, Any]]:
    """Source lines, innermost first."""
    return [{"file": f.file, "line": f.line, "function": f.function} for f in stack]


def finding(found: Finding) -> dict[str, Any]:
    """A finding as ``docs/json.md`` has it."""
    where, estimate = found.where, found.estimate
    return {
        "code": found.code,
        "pass": found.pass_name,
        "severity": str(found.severity),
        "message": found.message,
        "advice": found.advice,
        "where": {
            "computation": where.computation,
            "instruction": where.instruction,
            "op_name": where.op_name,
            "source": frames(where.source),
        },
        "estimate": {
            "seconds": estimate.seconds,
            "bytes": estimate.bytes,
            "machine": estimate.machine,
        },
        "remedy": list(found.remedy),
        "verification": verification(found.verification),
    }


def verification(found: Verification) -> dict[str, Any]:
    """What came of trying advice, as ``docs/json.md`` has it."""
    sides = {"seconds": found.seconds, "peak_bytes": found.peak_bytes}
    return {
        "status": str(found.status),
        **{
            name: None if both is None else {"before": both.before, "after": both.after}
            for name, both in sides.items()
        },
        "basis": found.basis,
        "coverage": found.coverage,
        "ratio": found.ratio,
        "agrees": found.agrees,
        "place": found.place,
        "reason": found.reason,
    }
