"""The text of ``--xla-flag``: options of XLA for one compile."""

from __future__ import annotations

import re
from collections.abc import Iterable

from hlo_lab.errors import UseError


def parse_flags(texts: Iterable[str]) -> dict[str, str]:
    """``xla_gpu_autotune_level=0`` (also with two dashes before it) as values by name.

    A flag given twice has its last value, as in ``XLA_FLAGS``.

    Raises:
        UseError: another form. Whether XLA knows it is found when it compiles.
    """
    flags: dict[str, str] = {}
    for text in texts:
        match = re.fullmatch(r"(?:--)?(xla_\w+)=(.*)", text.strip(), re.DOTALL)
        if match is None:
            raise UseError(f"--xla-flag {text!r}: not of the form xla_gpu_autotune_level=0")
        flags[match[1]] = match[2]
    return flags
