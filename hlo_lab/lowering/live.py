"""A script run as it is, with passes applied to what it compiles; see ``worker.live``."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hlo_lab.errors import InputError
from hlo_lab.lowering.worker.live import RECORDS
from hlo_lab.passkit.rewriting import PassSpec

STARTUP = Path(__file__).parent / "startup"
REQUEST = "HLO_LAB_RUN"


@dataclass(frozen=True)
class LiveRun:
    """How a script ended, and what was done on the way.

    Attributes:
        status: the exit status as a shell has it, 128 + N after signal N.
        started: whether its Python looked for what to apply at all.
        records: as ``worker.live`` writes them, in order.
    """

    status: int
    started: bool
    records: list[dict[str, Any]]


def run_live(
    command: Sequence[str],
    passes: Sequence[PassSpec],
    *,
    only: str | None = None,
    check: str | None = None,
    python: str = sys.executable,
    env: Mapping[str, str] | None = None,
) -> LiveRun:
    """Run ``python COMMAND`` on this process's terminal, and wait for it.

    Args:
        command: what follows ``python``: ``script.py ARGS`` or ``-m MODULE ARGS``.
        only: a glob that the name of a function has to match.
        check: module with the ``worker.live.Check`` of each first call; None for none.

    Raises:
        InputError: the interpreter cannot be run.
    """
    environment = dict(os.environ if env is None else env)
    paths = [str(STARTUP), *filter(None, [environment.get("PYTHONPATH")])]
    with tempfile.TemporaryDirectory(prefix="hlo-lab-") as scratch:
        request = Path(scratch, "request.json")
        request.write_text(
            json.dumps(
                {
                    "passes": [spec.to_dict() for spec in passes],
                    "only": only,
                    "check": check,
                    "folder": scratch,
                }
            )
        )
        environment |= {"PYTHONPATH": os.pathsep.join(paths), REQUEST: str(request)}
        try:
            status = _run([python, *command], environment)
        except OSError as error:
            raise InputError(f"cannot run {python}: {error.strerror}") from None
        started = Path(f"{request}.started").exists()
        return LiveRun(status, started, list(_records(Path(scratch, RECORDS))))


def _run(command: list[str], environment: dict[str, str]) -> int:
    """The exit status of a process that gets every signal once.

    On a terminal, Ctrl-C goes to both by itself. Elsewhere the process has a group of its own,
    and what this one is sent goes on to it.
    """
    at_terminal = _in_foreground()
    with _forwarded(interrupts=not at_terminal) as targets:
        process = subprocess.Popen(
            command, env=environment, process_group=None if at_terminal else 0
        )
        targets.append(process)
        code = process.wait()
    return code if code >= 0 else 128 - code


@contextlib.contextmanager
def _forwarded(*, interrupts: bool) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Send signals that would end this process to those in the list instead.

    Those that this process ignores are left, and SIGINT comes to nothing where ``interrupts``
    says no. Only the main thread can do so.
    """
    targets: list[subprocess.Popen[bytes]] = []

    def forward(number: int, _: object) -> None:
        for process in targets if interrupts or number != signal.SIGINT else ():
            process.send_signal(number)

    handlers = {}
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:
                handlers[number] = signal.signal(number, forward)
    try:
        yield targets
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _in_foreground() -> bool:
    try:
        with open("/dev/tty", "rb") as terminal:  # noqa: PTH123
            return os.tcgetpgrp(terminal.fileno()) == os.getpgrp()
    except OSError:
        return False


def _records(path: Path) -> Iterator[dict[str, Any]]:
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    for line in text.splitlines():
        with contextlib.suppress(ValueError):  # the last one, of a script that was killed
            yield json.loads(line)
