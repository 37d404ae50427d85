"""Writing the stages of one compiled program into a folder.

Everything written here is the same for the same input: memory addresses are scrubbed
and JSON is sorted.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hlo_lab.lowering import adapter, timeline

if TYPE_CHECKING:
    from hlo_lab.lowering.worker.compiling import Compilation

# An HLO text with all its constants may be larger than one without by this much, in
# characters; beyond it constants of more than ten elements are left to the proto.
CONSTANT_LIMIT = 4 << 20

_ADDRESS = re.compile(r"\b0x[0-9a-f]{6,16}\b")


def scrub(text: str) -> str:
    """The text without memory addresses, which differ from run to run."""
    return _ADDRESS.sub("0x0", text)


def write_jaxpr(folder: Path, jaxpr: Any) -> None:
    _write(folder / "jaxpr.txt", scrub(str(jaxpr)) + "\n")


def write_before(folder: Path, mlir_module: Any) -> None:
    """StableHLO with its locations, and the HLO that XLA's converter makes of it."""
    _write(folder / "stablehlo.mlir", adapter.stablehlo_text(mlir_module))
    header = dict(
        zip(("replica_count", "num_partitions"), adapter.partitions(mlir_module), strict=True)
    )
    _write_hlo(folder, "hlo_before", adapter.hlo_of_stablehlo(mlir_module), header)


def write_after(folder: Path, executable: Any, compilation: Compilation | None = None) -> None:
    """The optimised, scheduled HLO and what the compiler says of it."""
    module = adapter.optimised_module(executable)
    _write_hlo(folder, "hlo_after", module, {})
    analysis: dict[str, Any] = {
        "memory_analysis": adapter.memory_analysis(executable),
        # XLA:GPU ahead of time has none; jaxlib's own counts leave out what libraries compute
        "cost_analysis": adapter.cost_analysis(executable) or adapter.count_flops(module),
    }
    if compilation is not None and compilation.ptx_bytes is not None:
        analysis["ptx_bytes"] = compilation.ptx_bytes
    _write(folder / "analysis.json", json.dumps(analysis, indent=1, sort_keys=True) + "\n")


def count_instructions(executable: Any) -> int:
    """Instructions of the optimised module in all computations."""
    module = adapter.optimised_module(executable)
    return timeline.count_instructions(adapter.hlo_text(module, large_constants=False))


def _write_hlo(folder: Path, name: str, module: Any, header: dict[str, int]) -> None:
    proto = adapter.hlo_proto(module)
    (folder / f"{name}.pb").write_bytes(proto)
    text = adapter.hlo_text(module, large_constants=False)
    if len(proto) < len(text) + CONSTANT_LIMIT:
        text = adapter.hlo_text(module, large_constants=True)
    # the converter's module has no compile options, and its text would say one device
    missing = [f"{key}={value}" for key, value in header.items() if value != 1]
    first, _, rest = text.partition("\n")
    _write(folder / f"{name}.txt", ", ".join([first, *missing]) + "\n" + rest.strip("\n") + "\n")


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8", errors="backslashreplace", newline="\n")
