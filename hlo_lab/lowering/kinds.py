"""The accelerators that can be compiled for without having one.

What they can do (memory, rates) is in ``hlo_lab.cost.machines`` under the same names.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources


@dataclass(frozen=True)
class TpuKind:
    """A TPU generation.

    Attributes:
        name: as targets and libtpu have it.
        dimensions: of its slices, in chips.
        devices_per_chip: as JAX counts devices.
        cloud: prefixes of Cloud TPU's names for slices (``v5litepod-8``).
        cloud_unit: what the number in such a name counts for each chip: its cores on v4
            and v5p, chips on v5e and v6e.
        slices: what Cloud TPU calls a slice by its number of chips; powers of two.
        config: libtpu's ``chip_config_name``; empty for its default.
    """

    name: str
    dimensions: int
    devices_per_chip: int
    cloud: tuple[str, ...]
    cloud_unit: int
    slices: tuple[str, ...]
    config: str = ""


_FLAT = ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")
_CUBES = (
    "1x1x1", "2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4", "4x4x8", "4x8x8", "8x8x8",
    "8x8x16", "8x16x16",
)  # fmt: skip

TPUS = {
    kind.name: kind
    for kind in (
        # without megacore libtpu compiles for each of v4's two cores by itself
        TpuKind("v4", 3, 1, ("v4",), 2, _CUBES, "megacore"),
        TpuKind("v5e", 2, 1, ("v5litepod", "v5e"), 1, _FLAT),
        TpuKind("v5p", 3, 1, ("v5p",), 2, _CUBES),
        TpuKind("v6e", 2, 1, ("v6e",), 1, _FLAT),
        TpuKind("tpu7x", 3, 2, ("tpu7x", "v7x", "ironwood"), 2, _CUBES),
    )
}


@dataclass(frozen=True)
class GpuKind:
    """A GPU model.

    Attributes:
        name: as targets have it; its XLA target config is ``data/gpu/NAME.txtpb``.
        aliases: other names that are understood.
        architecture: the compute capability that ptxas knows it by.
        measured: whether XLA has measured tables of matrix products and collectives that
            its cost model may use for it.
    """

    name: str
    aliases: tuple[str, ...]
    architecture: str
    measured: bool = False

    def config(self) -> str:
        """XLA's description of the device, a ``GpuTargetConfigProto`` as text."""
        path = resources.files("hlo_lab.lowering") / "data" / "gpu" / f"{self.name}.txtpb"
        return path.read_text(encoding="utf-8")


GPUS = {
    kind.name: kind
    for kind in (
        GpuKind("a100-40", (), "sm_80"),
        GpuKind("a100-80", ("a100",), "sm_80"),
        GpuKind("b200", (), "sm_100", measured=True),
        GpuKind("h100", ("h100-sxm",), "sm_90", measured=True),
        GpuKind("h100-pcie", (), "sm_90", measured=True),
        GpuKind("h200", (), "sm_90", measured=True),
        GpuKind("rtx-pro-6000", ("rtx6000pro",), "sm_120"),
        GpuKind("v100", (), "sm_70"),
    )
}
