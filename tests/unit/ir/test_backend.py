from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hlo_lab.ir.backend import NOTHING, backend_of
from hlo_lab.ir.files import read_module

FIXTURES = Path(__file__).parents[3] / "fixtures" / "hlo"


def record(config: dict[str, Any], **others: str):  # type: ignore[no-untyped-def]
    return backend_of({"backend_config": json.dumps(config), **others})


def test_cycles_windows_and_vector_memory() -> None:
    module = read_module(FIXTURES / "mlp_v5e.hlo")
    found = backend_of(module.instruction("fusion.63").attributes)
    assert found.cycles is not None and found.cycles > 1000
    assert found.window and found.kernel.startswith("Emit")
    assert any(backend_of(attributes).vector_bytes > 1 << 20 for attributes in module.attributes)
    assert backend_of(module.instruction("copy-start.5").attributes).cycles is None


def test_triton_tiles_and_seconds() -> None:
    module = read_module(FIXTURES / "mlp_h100.hlo")
    records = [backend_of(each.attributes) for each in module.with_opcode("fusion")]
    products = [each for each in records if each.kernel == "Triton"]
    assert len(products) == 6
    assert all(each.tiles and each.seconds for each in products)
    assert str(products[0]).startswith("Triton ")
    pair = backend_of(next(iter(module.with_opcode("all-reduce-start"))).attributes)
    assert pair.synchronous and pair.seconds is not None and 1e-6 < pair.seconds < 1e-3


def test_the_model_of_the_kernel_comes_before_the_table() -> None:
    costs = [{"exec_time_us": 15.0, "name": ""}, {"exec_time_us": 11.0, "name": "sol"}]
    loop = record({"reification_cost": costs})
    product = record(
        {"reification_cost": costs, "gemm_backend_config": {}},
        custom_call_target='"__cublas$lt$matmul"',
    )
    assert loop.seconds == pytest.approx(15e-6)
    table = record({"reification_cost": costs[1:]})
    assert table.seconds == pytest.approx(11e-6)
    assert product.seconds == pytest.approx(15e-6) and product.kernel == "cuBLASLt"


def test_libraries_without_a_config() -> None:
    assert backend_of({"custom_call_target": '"tpu_custom_call"'}).kernel == "Pallas"
    assert backend_of({"custom_call_target": '"Sharding"'}) is NOTHING
    assert backend_of({}) is NOTHING


def test_what_makes_no_sense_is_left_out() -> None:
    assert backend_of({"backend_config": "not json"}) == NOTHING
    assert backend_of({"backend_config": "[1]"}) == NOTHING
    odd = record(
        {
            "window_config": {"estimated_cycles": "-77", "iteration_bounds": "no"},
            "used_scoped_memory_configs": {"size": 1},
            "reification_cost": [3, {"exec_time_us": "x"}],
            "fusion_backend_config": ["?"],
        }
    )
    assert odd == NOTHING


def test_kernels_in_tiles_take_the_model_of_tiles() -> None:
    costs = [
        {"exec_time_us": 67484.0, "name": ""},
        {"exec_time_us": 7.7, "name": "indexing-cost-model"},
    ]
    assert record({"reification_cost": costs}).seconds == pytest.approx(7.7e-6)
