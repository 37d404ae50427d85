"""Every error that hlo-lab raises on purpose.

    HloLabError                 exit code 2
    ├── InputError              a file, argument or name that the user gave is wrong
    │   ├── ReadError           a file that cannot be read as what it claims to be
    │   └── NotFoundError       a name, revision or file that does not exist
    ├── UseError                the command line or an option is wrong
    ├── MissingDependencyError  an optional package or program is not installed
    └── ExecutionError          exit code 3: somebody's code failed while we ran it
        ├── ProgramError        the user's program raised, exited or never returned
        ├── CompilerError       the compiler refused the program or crashed
        └── PassError           a pass raised

Each message is one line: what went wrong, where, what to do next. The CLI prints
``error: <message>`` and exits with ``exit_code``; a library user catches
:class:`HloLabError`.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar


class HloLabError(Exception):
    """Base of all: ``exit_code`` is what the CLI returns when it meets one."""

    exit_code: ClassVar[int] = 2


class HloLabWarning(UserWarning):
    """Something that was understood in another way than it may have been meant."""


class InputError(HloLabError):
    """A file, argument or name that the user gave is wrong."""


class ReadError(InputError):
    """A file that cannot be read as what it claims to be.

    ``path`` and ``line`` (1-based, text only) say where, and stand in the message.
    """

    def __init__(self, message: str, path: str | Path | None = None, line: int | None = None):
        self.path = path
        self.line = line
        where = "" if path is None else f"{path}:{line}: " if line else f"{path}: "
        super().__init__(where + message)


class NotFoundError(InputError):
    """A name, revision or file that does not exist."""


class UseError(HloLabError):
    """The command line or an option is wrong."""


class MissingDependencyError(HloLabError):
    """An optional package or program is not installed; the message says how to get it."""


class ExecutionError(HloLabError):
    """Somebody else's code failed while hlo-lab ran it.

    ``log`` is the file that holds its full output, where there is one; the message
    ends with it.
    """

    exit_code: ClassVar[int] = 3

    def __init__(self, message: str, log: str | Path | None = None):
        self.log = log
        super().__init__(message if log is None else f"{message} (log: {log})")


class ProgramError(ExecutionError):
    """The user's program raised, exited or never returned."""


class CompilerError(ExecutionError):
    """The compiler refused the program or crashed."""


class PassError(ExecutionError):
    """A pass raised; the message names the pass, the file and the line."""
