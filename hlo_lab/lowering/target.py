"""What a program is compiled for."""

from __future__ import annotations

import re
from dataclasses import dataclass

from hlo_lab.errors import UseError

SUPPORTED = "cpu, or cpu:N for N devices (cpu:8)"
MAX_DEVICES = 512  # each host device costs XLA threads and memory


@dataclass(frozen=True)
class Target:
    """A platform and how many of its devices the program sees.

    ``devices`` is None where the target does not say: the program's own settings
    (``XLA_FLAGS``, ``jax_num_cpu_devices``) decide, and JAX's default is one.
    """

    platform: str
    devices: int | None = None

    @classmethod
    def parse(cls, text: str) -> Target:
        """Read ``cpu`` or ``cpu:8``.

        Raises:
            UseError: anything else; the message lists what is supported.
        """
        match = re.fullmatch(r"cpu(?::(\d{1,6}))?", text.strip())
        if match is None:
            raise UseError(f"unknown target {text!r}: this version compiles for {SUPPORTED}")
        if match[1] is None:
            return cls("cpu")
        devices = int(match[1])
        if not 1 <= devices <= MAX_DEVICES:
            raise UseError(f"target {text!r}: the number of devices is 1 to {MAX_DEVICES}")
        return cls("cpu", devices)

    def __str__(self) -> str:
        return self.platform if self.devices is None else f"{self.platform}:{self.devices}"

    def environment(self) -> dict[str, str]:
        """Variables that a worker process needs before it imports JAX."""
        out = {"JAX_PLATFORMS": self.platform}
        if self.devices is not None:
            out["JAX_NUM_CPU_DEVICES"] = str(self.devices)
        return out
