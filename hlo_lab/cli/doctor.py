"""``hlo-lab doctor``: versions, targets and folders."""

from __future__ import annotations

import enum
import json
from typing import Annotated

import typer


class DoctorFormat(enum.StrEnum):
    """What the diagnosis is printed as."""

    TEXT = "text"
    JSON = "json"


FormatOption = Annotated[DoctorFormat, typer.Option("--format", "-f", help="What to print.")]


def doctor(format: FormatOption = DoctorFormat.TEXT) -> None:
    """Show versions, which targets are usable and why not, and where caches and logs are.

    Exits 2 where something that every command needs is missing.
    """
    from hlo_lab.api.doctor import REQUIRED
    from hlo_lab.api.doctor import doctor as look
    from hlo_lab.report import text

    found = look()
    if format is DoctorFormat.JSON:
        print(json.dumps(found.document, indent=1))
    else:
        text.render(found.report)
    if any(found.versions[name] is None for name in REQUIRED):
        raise typer.Exit(2)
