"""``hlo-lab targets``: what can be compiled for, and what each device can do."""

from __future__ import annotations

from hlo_lab.cli.common import Format, FormatOption, Output, check_writable, print_report


def targets(format: FormatOption = Format.TEXT, output: Output = None) -> None:
    """List the devices that a program can be compiled for, none of which need be here.

    Memory, bandwidth, peak rate and network of each, whether its compiler is installed,
    and the command that installs it.
    """
    from hlo_lab.api.targets import document, report
    from hlo_lab.api.targets import targets as look

    check_writable(output)
    found = look()
    print_report(format, output, lambda: document(found), lambda: report(found))
