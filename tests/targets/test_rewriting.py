"""A rewritten program over several TPUs."""

from __future__ import annotations

from pathlib import Path

import pytest

from hlo_lab.lowering.availability import of_tpu
from tests.unit.measure.test_rewriting_devices import check_kept, rewritten

pytestmark = pytest.mark.targets


def test_shardings_donation_and_lines_on_several_tpus(tmp_path: Path) -> None:
    if not of_tpu().usable:
        pytest.skip("no TPU compiler")
    bundle, _ = rewritten(tmp_path, "tpu:v5e:2x2", run=False)
    check_kept(bundle)
