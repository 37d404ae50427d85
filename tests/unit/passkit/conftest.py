"""A pass as text, to write to files and break."""

from __future__ import annotations

import pytest

GOOD = '''"""A pass for tests."""

from dataclasses import dataclass

from hlo_lab.passkit.base import AnalysisPass, Example

TEXT = """HloModule m

ENTRY %main (x: f32[4]) -> f32[4] {
  %x = f32[4] parameter(0)
  ROOT %y = f32[4] negate(%x)
}
"""


@dataclass(frozen=True)
class Negations(AnalysisPass):
    """Finds negations.

    What it finds
        Negations.

    Why it matters
        It does not.

    Example
        ``-x``

    What to do
        Nothing.

    How it is verified
        It is not.
    """

    code = "NEG001"
    name = "negations"
    examples = (Example("one", hlo=TEXT), Example("none", hlo=TEXT.replace("negate", "sine"), finds=0))

    least: int = 1
    share: float = 0.5
    loud: bool = False
    word: str = "found"

    def run(self, module, context):
        found = list(module.with_opcode("negate"))
        if len(found) >= self.least:
            for one in found:
                yield self.finding(one, self.word, context=context)
'''  # noqa: E501


@pytest.fixture
def good() -> str:
    return GOOD
