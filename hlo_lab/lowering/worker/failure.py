"""Turning what the user's code raised into one line with the user's file and line."""

from __future__ import annotations

import sys
import sysconfig
from pathlib import Path
from types import TracebackType

_OWN = str(Path(__file__).parents[2])
_LIBRARY = tuple({sysconfig.get_path("stdlib"), str(Path(sysconfig.__file__).parent)})
_PACKAGES = ("site-packages", "dist-packages")
MAX_MESSAGE = 300


def explain(error: BaseException, doing: str) -> str:
    """One line: what was being done, the exception's type and message, and where."""
    if isinstance(error, SystemExit):
        what = f"called sys.exit({'' if error.code is None else repr(error.code)})"
    else:
        what = f"{type(error).__name__}: {first_line(str(error))}".rstrip(": ")
    where = user_line(error)
    return f"the program failed while {doing}: {what}" + (f" at {where}" if where else "")


def with_article(noun: str) -> str:
    """``an int``, ``a dict``."""
    return f"{'an' if noun[:1].lower() in 'aeiou' else 'a'} {noun}"


def first_line(message: str) -> str:
    """A message's first line with text, cut to a readable length."""
    line = next((line.strip() for line in message.splitlines() if line.strip()), "")
    return line if len(line) <= MAX_MESSAGE else line[: MAX_MESSAGE - 3] + "..."


def user_line(error: BaseException) -> str | None:
    """``file:line`` of the innermost frame in the user's own code, or None."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}"
    inner: BaseException = error
    own: str | None = None
    foreign: str | None = None
    trace: TracebackType | None = inner.__traceback__
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        here = f"{file}:{trace.tb_lineno}"
        if is_user_file(file):
            own = here
        elif not file.startswith(("<frozen", _OWN)):
            foreign = here
        trace = trace.tb_next
    return own or foreign


def is_user_file(file: str) -> bool:
    """Whether a code object's file is the user's: no library, nor hlo-lab itself."""
    if file.startswith(("<", _OWN, *_LIBRARY, sys.prefix)):
        return False
    return not any(part in _PACKAGES for part in Path(file).parts)
