"""What a compiler wrote about one instruction into ``backend_config``, as a small typed record.

XLA:TPU writes the cycles that it expects, the windows (tiles) that a kernel works in, and
the on-chip memory that it uses. XLA:GPU names the library or kind of kernel, the tiles of
Triton kernels, and, compiled with ``--xla_gpu_collect_cost_model_stats``, the time that it
expects (``reification_cost``). XLA:CPU writes nothing of the kind.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_VECTOR_MEMORY = "1"
_LIBRARIES = {
    "__cublas$lt$": "cuBLASLt",
    "__cublas$": "cuBLAS",
    "__cudnn$": "cuDNN",
    "__cusparse": "cuSPARSE",
    "cusolver": "cuSOLVER",
    "__cub$": "CUB",
    "__triton": "Triton",
    "triton": "Triton",
    "tpu_custom_call": "Pallas",
    "mosaic_gpu": "Pallas",
    "__gpu$xla.gpu.triton": "Pallas",
}


@dataclass(frozen=True, slots=True)
class Backend:
    """One instruction's record; what the compiler did not write is None, 0 or empty.

    Attributes:
        cycles: TPU: core cycles of one execution.
        seconds: GPU: of one execution.
        vector_bytes: TPU: scoped vector memory (VMEM) that the kernel uses.
        window: TPU: tiles of the iteration space, ``(1, 4, 1)``.
        tiles: GPU: output tile of a Triton kernel, ``(16, 64)``.
        kernel: who computes it: Triton, cuBLASLt, cuDNN, Pallas, or XLA's emitter by name.
        synchronous: GPU: a pair of start and done that waits at its start.
    """

    cycles: float | None = None
    seconds: float | None = None
    vector_bytes: int = 0
    window: tuple[int, ...] = ()
    tiles: tuple[int, ...] = ()
    kernel: str = ""
    synchronous: bool = False

    def __str__(self) -> str:
        sizes = self.tiles or self.window
        text = "x".join(map(str, sizes))
        return f"{self.kernel} {text}".strip() if self.tiles else self.kernel


NOTHING = Backend()


def backend_of(attributes: Mapping[str, str]) -> Backend:
    """The record of one attribute list; ``NOTHING`` when there is no ``backend_config``."""
    config = decode(attributes)
    target = attributes.get("custom_call_target", "").strip('"')
    kernel = next((name for key, name in _LIBRARIES.items() if target.startswith(key)), "")
    if not config:
        return Backend(kernel=kernel) if kernel else NOTHING
    fusion = _mapping(config, "fusion_backend_config")
    kind = str(fusion.get("kind", ""))
    if not kernel and "triton" in kind:
        kernel = "Triton"
    elif not kernel and "cudnn" in kind:
        kernel = "cuDNN"
    block = _mapping(fusion, "block_level_fusion_config")
    tiles = block.get("output_tiles")
    first = tiles[0] if isinstance(tiles, list) and tiles and isinstance(tiles[0], dict) else {}
    gemm = _mapping(fusion, "triton_gemm_config")
    sizes = first.get("sizes") or [gemm[key] for key in _GEMM_BLOCKS if key in gemm]
    for name in ("convolution_algorithm_config", "collective_algorithm_config"):
        kernel = kernel or str(_mapping(config, name).get("emitter", ""))
    window = _mapping(config, "window_config")
    return Backend(
        cycles=_positive(window.get("estimated_cycles")),
        seconds=_seconds(config.get("reification_cost")),
        vector_bytes=_scoped(config) or int(_positive(window.get("estimated_vmem_bytes")) or 0),
        window=_integers(window.get("iteration_bounds")),
        tiles=_integers(sizes),
        kernel=kernel,
        synchronous=_mapping(config, "collective_backend_config").get("is_sync") is True,
    )


_GEMM_BLOCKS = ("block_m", "block_n", "block_k")


def decode(attributes: Mapping[str, str]) -> dict[str, Any]:
    """The decoded ``backend_config``; empty when it is absent or no JSON object."""
    text = attributes.get("backend_config", "")
    if text.startswith('"'):
        text = text[1:-1].replace('\\"', '"')
    try:
        config = json.loads(text) if text else {}
    except (ValueError, RecursionError):
        return {}
    return config if isinstance(config, dict) else {}


def _mapping(config: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = config.get(key)
    return found if isinstance(found, dict) else {}


def _positive(value: Any) -> float | None:
    """A number above zero, which XLA prints as a string where it has 64 bits."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if 0 < number < 1e300 else None


def _integers(values: Any) -> tuple[int, ...]:
    if not isinstance(values, list):
        return ()
    return tuple(int(number) for number in map(_positive, values) if number is not None)


def _scoped(config: Mapping[str, Any]) -> int:
    used = config.get("used_scoped_memory_configs")
    if not isinstance(used, list):
        return 0
    rows = [row for row in used if isinstance(row, dict)]
    own = [row for row in rows if str(row.get("memory_space")) == _VECTOR_MEMORY]
    return int(sum(_positive(row.get("size")) or 0 for row in own))


_MODELS = ("indexing-cost-model", "", "sol")  # the first that is there


def _seconds(costs: Any) -> float | None:
    """One of the models in ``reification_cost``.

    Kernels that work in tiles have the ``indexing-cost-model`` (XLA's own choice for Triton;
    the others are thousands of times off where a tile is read again); other kernels the
    nameless ``GpuPerformanceModel``; library calls and collectives only ``sol`` (speed of
    light), from measured tables of flops or sent bytes, which knows nothing of a product that
    is bound by memory.
    """
    if not isinstance(costs, list):
        return None
    by_name = {
        str(cost.get("name", "")): _positive(cost.get("exec_time_us"))
        for cost in costs
        if isinstance(cost, dict)
    }
    found = next((by_name[name] for name in _MODELS if by_name.get(name)), None)
    return None if found is None else found * 1e-6
