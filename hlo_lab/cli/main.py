"""The ``hlo-lab`` command: its verbs, its help and what it does with errors.

Importing typer costs five times as much as starting Python, so the top-level help and
``--version`` are printed without it, and a verb's module is imported only when that verb
is on the command line (or the shell asks for completions).
"""

from __future__ import annotations

import contextlib
import errno
import functools
import importlib
import os
import sys
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from hlo_lab import __version__
from hlo_lab.errors import HloLabError, HloLabWarning

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence

    import typer

INTERRUPTED = 130  # 128 + SIGINT, as shells have it
BROKEN_PIPE = 141  # 128 + SIGPIPE
COMPLETION = "_HLO_LAB_COMPLETE"  # set by the scripts that --install-completion installs
SCRIPT = {"allow_interspersed_args": False, "ignore_unknown_options": True}  # -m is no option
HELP_NAMES = {"help_option_names": ["-h", "--help"]}


@dataclass(frozen=True)
class Verb:
    """A command.

    Attributes:
        target: ``module:attribute``: a function, or a typer app that has verbs of its own.
        runs_script: whether its first word, and all that follows, is a script's.
    """

    target: str
    summary: str
    example: str
    runs_script: bool = False


VERBS: dict[str, Verb] = {
    "dump": Verb(
        "hlo_lab.cli.dump:dump",
        "Compile a program and keep each stage: jaxpr, StableHLO, HLO.",
        "hlo-lab dump train.py:step -o step.bundle",
    ),
    "analyze": Verb(
        "hlo_lab.cli.analyze:analyze",
        "Say what costs time and memory, where, and what to do.",
        "hlo-lab analyze train.py:step --fail-on warning",
    ),
    "measure": Verb(
        "hlo_lab.cli.measure:measure",
        "Run a program here; measured time of each op beside estimates.",
        "hlo-lab measure train.py:step --record step.measured",
    ),
    "compare": Verb(
        "hlo_lab.cli.compare:compare",
        "Compile for several targets and show them side by side.",
        "hlo-lab compare train.py:step --target tpu:v5e:2x2 --target gpu:h100",
    ),
    "calibrate": Verb(
        "hlo_lab.cli.calibrate:calibrate",
        "Measure the device at hand, so that estimates are its own.",
        "hlo-lab calibrate --seconds 120",
    ),
    "diff": Verb(
        "hlo_lab.cli.diff:diff",
        "Compare two revisions, files or bundles; fail on a budget.",
        "hlo-lab diff main..HEAD train.py:step --fail-on 'flops>1%'",
    ),
    "rewrite": Verb(
        "hlo_lab.cli.rewrite:rewrite",
        "Apply a rewrite pass: the same numbers? faster?",
        "hlo-lab rewrite sort-to-top-k train.py:step --measure",
    ),
    "run": Verb(
        "hlo_lab.cli.run:run",
        "Run a script as it is, with rewrite passes applied in it.",
        "hlo-lab run --with-pass sort-to-top-k --check train.py --steps 20",
        runs_script=True,
    ),
    "graph": Verb(
        "hlo_lab.cli.graph:graph",
        "Draw a program, a computation or what surrounds an instruction.",
        "hlo-lab graph train.py:step -o step.svg",
    ),
    "targets": Verb(
        "hlo_lab.cli.targets:targets",
        "List the devices to compile for: rates, and what is installed.",
        "hlo-lab targets",
    ),
    "doctor": Verb(
        "hlo_lab.cli.doctor:doctor",
        "Show versions, which targets are usable, where caches are.",
        "hlo-lab doctor",
    ),
    "passes": Verb(
        "hlo_lab.cli.passes:passes_app",
        "List the passes, explain one, start a new one.",
        "hlo-lab passes show FUS001",
    ),
}

OPTIONS = {
    "-q, --quiet": "No progress and no notes on stderr.",
    "--version": "Print the version and exit.",
    "--install-completion": "Install completion for the current shell.",
    "--show-completion": "Print the completion script for the current shell.",
    "-h, --help": "Print this help and exit.",
}


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit: 0 clean, 1 findings, 2 bad input or use, 3 failed code."""
    args = list(sys.argv[1:] if arguments is None else arguments)
    raise SystemExit(guarded(lambda: _run(args)))


def _run(args: list[str]) -> int:
    completing = COMPLETION in os.environ
    if not completing and args[:1] in (["-h"], ["--help"]):
        print(top_help(), end="")
        return 0
    if not completing and args == ["--version"]:
        print(f"hlo-lab {__version__}")
        return 0
    if not completing and not args:
        print(top_help(), end="", file=sys.stderr)
        return 2
    first = next((arg for arg in args if not arg.startswith("-")), "")
    try:
        application(VERBS if completing else (first,))(args, prog_name="hlo-lab")
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    return 0


def top_help() -> str:
    """What ``hlo-lab --help`` prints; within 80 columns."""
    lines = ["Usage: hlo-lab [OPTIONS] COMMAND [ARGS]...", ""]
    lines += ["  See what XLA does with a JAX program; learn what costs time and memory.", ""]
    lines += ["Commands:", *(f"  {name:<11}{verb.summary}" for name, verb in VERBS.items()), ""]
    lines += ["Options:", *(f"  {name:<23}{text}" for name, text in OPTIONS.items()), ""]
    lines += ["A program is path/file.py:name, package.module:name, an HLO file (text or proto,"]
    lines += ["also .gz, or - for standard input) or a bundle that `hlo-lab dump` wrote.", ""]
    lines += ["Examples:", *(f"  {verb.example}" for verb in VERBS.values()), ""]
    lines += ["`hlo-lab COMMAND --help` explains one command.", ""]
    return "\n".join(lines)


def application(verbs: Collection[str]) -> typer.Typer:
    """The typer application. Only the modules of ``verbs`` are imported."""
    import typer

    app = typer.Typer(
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings=HELP_NAMES,
    )
    app.callback()(_options_callback())
    for name, verb in VERBS.items():
        target = _resolve(verb.target) if name in verbs else _not_loaded
        epilog = f"Example: {verb.example}"
        if isinstance(target, typer.Typer):
            for info in target.registered_commands:
                info.callback = info.callback and _shielded(info.callback)
            app.add_typer(
                target, name=name, help=verb.summary, epilog=epilog, context_settings=HELP_NAMES
            )
        else:
            # a loaded function's docstring is its help
            summary = None if name in verbs else verb.summary
            settings = {**HELP_NAMES, **(SCRIPT if verb.runs_script else {})}
            register = app.command(name, help=summary, epilog=epilog, context_settings=settings)
            register(_shielded(target))
    return app


def _options_callback() -> Callable[..., None]:
    from hlo_lab.cli.common import Quiet, Version

    def options(quiet: Quiet = False, version: Version = False) -> None:
        """See what XLA does with a JAX program; learn what costs time and memory."""

    # typer resolves annotations in the function's module, which has no typer at hand
    options.__annotations__.update(quiet=Quiet, version=Version)
    return options


def _not_loaded() -> None:
    """Stands in for a verb that is not on the command line."""


def _shielded(function: Callable[..., None]) -> Callable[..., None]:
    """Keep typer from answering a broken pipe with 1, which would read as findings."""

    @functools.wraps(function)
    def run(*args: object, **kwargs: object) -> None:
        try:
            with _warnings_as_notes():
                function(*args, **kwargs)
            sys.stdout.flush()
        except KeyboardInterrupt:
            raise SystemExit(_say("interrupted", INTERRUPTED)) from None
        except BrokenPipeError:
            raise SystemExit(_broken_pipe()) from None

    return run


@contextlib.contextmanager
def _warnings_as_notes() -> Iterator[None]:
    """Show our own warnings as the notes that ``--quiet`` leaves out."""
    from hlo_lab.cli.common import note

    with warnings.catch_warnings():
        show = warnings.showwarning

        def show_note(message: Warning | str, category: type[Warning], *where: Any) -> None:
            if issubclass(category, HloLabWarning):
                note(str(message))
            else:
                show(message, category, *where)

        warnings.showwarning = show_note  # type: ignore[assignment]
        yield


def _resolve(target: str) -> Any:
    module, _, attribute = target.partition(":")
    return getattr(importlib.import_module(module), attribute)


def guarded(run: Callable[[], int]) -> int:
    """Run, and turn what is raised into one line on stderr and an exit code."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            # a terminal without UTF-8 shows ? where it would otherwise stop the report
            stream.reconfigure(errors="replace")
    try:
        code = run()
        sys.stdout.flush()
        return code
    except HloLabError as error:
        return _say(f"error: {error}", error.exit_code)
    except KeyboardInterrupt:
        return _say("interrupted", INTERRUPTED)
    except BrokenPipeError:
        return _broken_pipe()
    except Exception as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            _drop_stdout()
            where = f" ({error.filename})" if error.filename else ""
            return _say(f"error: no space left on the disk{where}; free some and run again", 2)
        log = _log_of(error)
        what = f"{type(error).__name__}: {error}"
        return _say(f"internal error: {what} (traceback in {log}; please report it)", 3)


def _say(message: str, code: int) -> int:
    """One line on stderr, whatever the message holds."""
    line = " ".join(message.split())
    printable = "".join(char if char.isprintable() else "?" for char in line)
    with contextlib.suppress(OSError):
        print(printable, file=sys.stderr)
    return code


def _broken_pipe() -> int:
    _drop_stdout()
    return BROKEN_PIPE


def _drop_stdout() -> None:
    # the interpreter flushes once more at exit, which must not fail again
    with contextlib.suppress(OSError):  # a stdout that is no file
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _log_of(error: Exception) -> str:
    """Write the traceback to a file of its own; its path."""
    import tempfile
    import traceback

    descriptor, path = tempfile.mkstemp(prefix="hlo-lab-", suffix=".log", text=True)
    with os.fdopen(descriptor, "w") as log:
        log.write(f"hlo-lab {__version__}: {sys.argv}\n")
        traceback.print_exception(error, file=log)
    return path
