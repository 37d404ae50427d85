"""Reader for HLO protos."""

from __future__ import annotations

from pathlib import Path

from hlo_lab.errors import ReadError
from hlo_lab.ir.module import Module


def check_head(head: bytes, path: str | Path | None) -> None:
    """Refuse what cannot be an HLO proto by its first bytes."""
    if head[:1] != b"\n":
        raise ReadError("neither HLO text nor an HLO proto", path)


def read_proto(data: bytes, path: str | Path | None = None) -> Module:
    raise ReadError("HLO protos are not read yet", path)
