"""Modules that the tests of ``ir`` share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

SMALL = """HloModule small, is_scheduled=true, entry_computation_layout={(f32[4]{0})->f32[4]{0}}

FileNames
1 "/tmp/model.py"
2 "/tmp/train.py"

FunctionNames
1 "layer"
2 "step"

FileLocations
1 {file_name_id=1 function_name_id=1 line=7 end_line=7 column=3 end_column=9}
2 {file_name_id=2 function_name_id=2 line=40 end_line=40 column=1 end_column=2}

StackFrames
1 {file_location_id=2 parent_frame_id=1}
2 {file_location_id=1 parent_frame_id=2}

%fused (p: f32[4]) -> f32[4] {
  %p = f32[4]{0} parameter(0)
  ROOT %twice = f32[4]{0} add(%p, %p), metadata={op_name="jit(step)/add" stack_frame_id=2}
}

ENTRY %main (x: f32[4]) -> f32[4] {
  %x = f32[4]{0} parameter(0)
  %one = f32[] constant(1)
  %ones = f32[4]{0} broadcast(%one), dimensions={}
  %fusion = f32[4]{0} fusion(%x), kind=kLoop, calls=%fused
  %dead = f32[4]{0} negate(%ones)
  ROOT %product = f32[4]{0} multiply(%fusion, %ones), control-predecessors={%dead}
}
"""


@pytest.fixture
def small() -> Any:
    from hlo_lab.ir import read_text

    return read_text(SMALL)


@pytest.fixture(scope="session")
def every_attribute(fixtures: Path) -> Any:
    """The fixture with one instruction per attribute, as jaxlib parses it."""
    hlo = pytest.importorskip("jaxlib._hlo")
    text = (fixtures / "hlo" / "every_attribute.hlo").read_text()
    try:
        return hlo.hlo_module_from_text(text)
    except Exception as error:  # an older or newer XLA knows other attributes
        pytest.skip(f"this jaxlib does not parse the fixture: {error}")


@pytest.fixture(scope="session")
def newest_attributes(fixtures: Path) -> Any:
    """What XLA prints since mid-2026, as jaxlib parses it."""
    hlo = pytest.importorskip("jaxlib._hlo")
    text = (fixtures / "hlo" / "attributes_2026.hlo").read_text()
    try:
        return hlo.hlo_module_from_text(text)
    except Exception as error:
        pytest.skip(f"this jaxlib does not parse the fixture: {error}")


@pytest.fixture
def small_text() -> str:
    return SMALL
