"""Every bundled pass does on its own examples what they promise, and hits nothing else there."""

from __future__ import annotations

import pytest

from hlo_lab.api.passes import lower_example
from hlo_lab.passkit.discovery import BUNDLED, bundled_folder, folder_passes
from hlo_lab.passkit.loading import PassInfo
from hlo_lab.passkit.testing import check_examples

PASSES = list(folder_passes(bundled_folder(), BUNDLED))


@pytest.mark.parametrize("info", PASSES, ids=lambda info: info.name)
def test_examples(info: PassInfo) -> None:
    check_examples(info.pass_class, lower=lower_example)


@pytest.mark.parametrize("info", PASSES, ids=lambda info: info.name)
def test_a_pass_has_examples_of_both_kinds(info: PassInfo) -> None:
    finds = [example.finds for example in info.pass_class.examples]
    assert any(finds)
    assert 0 in finds
