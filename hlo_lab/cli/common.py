"""What the commands share: options, progress on stderr, and writing results."""

from __future__ import annotations

import contextlib
import enum
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hlo_lab import __version__
from hlo_lab.errors import InputError, UseError

if TYPE_CHECKING:
    from hlo_lab.report.document import Report

PATIENCE = 2.0  # seconds before progress shows
INTERVAL = 15.0  # seconds between progress lines where stderr is no terminal
_settings = {"quiet": False}


class Format(enum.StrEnum):
    """What a report is printed as."""

    TEXT = "text"
    JSON = "json"
    MD = "md"


def _set_quiet(value: bool) -> bool:
    _settings["quiet"] = _settings["quiet"] or value
    return value


def refuse_empty(value: str | None) -> str | None:
    """Raises ``UseError`` where the target is an empty text, as of a variable that is not set."""
    if value is not None and not value.strip():
        raise UseError("--target names nothing: leave it out for this machine's CPU")
    return value


def _print_version(value: bool) -> None:
    if value:
        print(f"hlo-lab {__version__}")
        raise typer.Exit


SourceArgument = Annotated[
    str,
    typer.Argument(
        metavar="PROGRAM|FILE|BUNDLE",
        help="file.py:name, package.module:name, an HLO file (text or proto, .gz, or -), "
        "or a bundle folder.",
        show_default=False,
    ),
]
Target = Annotated[
    str | None,
    typer.Option(
        "--target",
        metavar="TARGET",
        callback=refuse_empty,
        help="What to compile for: cpu, cpu:8, tpu:v5e:2x2, gpu:h100:4; `hlo-lab targets` lists "
        "them. For an HLO file the machine of the estimates.",
    ),
]
Args = Annotated[
    str | None,
    typer.Option("--args", metavar="SHAPES", help="The program's arguments: 'f32[8,128], i32[8]'."),
]
Mesh = Annotated[
    str | None,
    typer.Option(
        "--mesh",
        metavar="AXES",
        help="The mesh that the target's devices form: 'data=4,model=2'.",
    ),
]
XlaFlags = Annotated[
    list[str] | None,
    typer.Option(
        "--xla-flag", metavar="KEY=VALUE", help="Compile with this flag of XLA; repeatable."
    ),
]
Python = Annotated[
    str | None,
    typer.Option("--python", metavar="PATH", help="Compile with this interpreter's jax."),
]
FormatOption = Annotated[Format, typer.Option("--format", "-f", help="What to print.")]
Output = Annotated[
    Path | None,
    typer.Option("--output", "-o", metavar="FILE", help="Write to FILE instead of stdout."),
]
FailOn = Annotated[
    str | None,
    typer.Option(
        "--fail-on",
        metavar="LEVEL",
        help="Exit 1 on a finding of this severity (note, warning, error) or worse, or of this "
        "code; several with commas.",
    ),
]
Passes = Annotated[
    list[str] | None,
    typer.Option(
        "--pass", metavar="PASS", help="Run only this pass: fusion, or 'fusion{min_bytes=1MiB}'."
    ),
]
PassesDir = Annotated[
    list[Path] | None,
    typer.Option("--passes-dir", metavar="DIR", help="Also find passes in this folder."),
]
TimeLimit = Annotated[
    float,
    typer.Option("--time-limit", metavar="SECONDS", help="Stop a program that runs longer."),
]
MemoryLimit = Annotated[
    str | None,
    typer.Option(
        "--memory-limit",
        metavar="SIZE",
        help="Stop a compilation that takes more of this machine's memory: 8GiB.",
    ),
]
Quiet = Annotated[
    bool,
    typer.Option("--quiet", "-q", callback=_set_quiet, help="No progress and no notes on stderr."),
]
Version = Annotated[
    bool,
    typer.Option(
        "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
    ),
]


def is_quiet() -> bool:
    """Whether nothing but errors is to go to stderr."""
    return _settings["quiet"]


def note(text: str) -> None:
    """One line on stderr for the user to know; nothing with ``--quiet``."""
    if not _settings["quiet"]:
        line = "".join(char if char.isprintable() else "?" for char in text)
        print(f"note: {line}", file=sys.stderr)


@contextlib.contextmanager
def progress(text: str) -> Iterator[Callable[[str], None]]:
    """Show on stderr what is going on once it has taken ``PATIENCE`` seconds.

    Yields a function that changes the text. A terminal gets one line that moves; anything
    else a plain line, again every ``INTERVAL`` seconds. Nothing with ``--quiet``.
    """
    if _settings["quiet"]:
        yield lambda _: None
        return
    current = [text]
    done = threading.Event()
    show = _show_on_terminal if sys.stderr.isatty() else _show_in_lines
    thread = threading.Thread(target=show, args=(current, done), daemon=True)
    thread.start()
    try:
        yield lambda new: current.__setitem__(0, new)
    finally:
        done.set()
        thread.join()


def _show_in_lines(current: list[str], done: threading.Event) -> None:
    start = time.monotonic()
    wait = PATIENCE
    while not done.wait(wait):
        print(f"hlo-lab: {current[0]} ({time.monotonic() - start:.0f} s so far)", file=sys.stderr)
        wait = INTERVAL


def _show_on_terminal(current: list[str], done: threading.Event) -> None:
    start = time.monotonic()
    if done.wait(PATIENCE):
        return
    from rich.console import Console
    from rich.text import Text

    with Console(stderr=True).status("") as status:
        while not done.wait(0.2):
            status.update(Text(f"{current[0]} ({time.monotonic() - start:.0f} s so far)"))


def print_report(
    format: Format,
    output: Path | None,
    to_dict: Callable[[], Mapping[str, Any]],
    to_report: Callable[[], Report],
) -> None:
    """Write a result in the format asked for to ``output``, or to stdout for None."""
    if format is Format.JSON:
        from hlo_lab.report.json_ import dumps

        write_result(dumps(to_dict()), output)
    elif format is Format.MD:
        from hlo_lab.report import markdown

        write_result(markdown.render(to_report()), output)
    else:
        from hlo_lab.report import text

        if output is None:
            text.render(to_report())
        else:
            write_result(text.to_string(to_report()), output)


def check_writable(path: Path | None) -> None:
    """Refuse an output that cannot be written before the work for it begins.

    Raises:
        InputError: it is a folder, or its folder is missing or not to be written in.
    """
    if path is None or str(path) == "-":
        return
    if path.is_dir():
        raise InputError(f"{path}: is a folder; name a file with -o")
    if not path.parent.is_dir():
        raise InputError(f"{path}: cannot be written: there is no folder {path.parent}")
    if not os.access(path.parent, os.W_OK):
        raise InputError(f"{path}: cannot be written: {path.parent} is not to be written in")


def write_result(data: str | bytes, path: Path | None) -> None:
    """Write to stdout (None or ``-``), or to a temporary name that is then renamed to ``path``.

    Raises:
        InputError: the file cannot be written (no such folder, not allowed, disk full);
            what stood at ``path`` before still stands.
    """
    raw = data.encode() if isinstance(data, str) else data
    if path is None or str(path) == "-":
        if isinstance(data, str):
            sys.stdout.write(data)
        else:
            sys.stdout.buffer.write(raw)
        return
    check_writable(path)
    temporary = None
    try:
        with tempfile.NamedTemporaryFile(
            dir=path.parent, prefix=f".{path.name}.", delete=False
        ) as file:
            temporary = Path(file.name)
            file.write(raw)
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputError(f"{path}: cannot be written: {reason}; choose another with -o") from None
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
