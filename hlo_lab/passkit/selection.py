"""Choosing passes on the command line: ``fusion{min_bytes=1MiB,top=5}``."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hlo_lab.errors import UseError
from hlo_lab.ir.attributes import split_top_level
from hlo_lab.passkit.base import AnalysisPass, Pass, RewritingPass
from hlo_lab.passkit.loading import PassInfo
from hlo_lab.passkit.options import options_of, parse_value

_SELECTION = re.compile(r"\s*([A-Za-z][\w\-]*)\s*(?:\{(.*)\})?\s*", re.S)


def select_passes(
    selections: Sequence[str], catalogue: Mapping[str, PassInfo]
) -> list[AnalysisPass]:
    """The analysis passes that ``--pass`` names, with their options set; all for no selection.

    Each selection is a name or code with options in braces, or several with commas
    between them: ``fusion{top=5},REM001``.

    Raises:
        UseError: unknown pass or option, a value of the wrong type, a pass named twice, or
            one that rewrites.
    """
    if not selections:
        made = (info.pass_class() for info in catalogue.values() if info.kind == "analysis")
        return [one for one in made if isinstance(one, AnalysisPass)]
    chosen: dict[str, AnalysisPass] = {}
    for info, options in _named(selections, catalogue):
        if info.name in chosen:
            raise UseError(f"--pass names {info.name!r} twice; give its options in one place")
        one = configure(info, options)
        if not isinstance(one, AnalysisPass):
            raise UseError(
                f"pass {info.name!r} rewrites programs and finds nothing; use it with "
                f"`hlo-lab rewrite {info.name} PROGRAM`"
            )
        chosen[info.name] = one
    return list(chosen.values())


def select_rewrites(
    selections: Sequence[str], catalogue: Mapping[str, PassInfo]
) -> list[tuple[PassInfo, RewritingPass]]:
    """The rewrite passes that are named, in that order; one may come several times.

    Raises:
        UseError: unknown pass or option, a value of the wrong type, or one that rewrites nothing.
    """
    chosen: list[tuple[PassInfo, RewritingPass]] = []
    for info, options in _named(selections, catalogue):
        one = configure(info, options)
        if not isinstance(one, RewritingPass):
            known = [each.name for each in catalogue.values() if each.kind == "rewrite"]
            raise UseError(
                f"pass {info.name!r} analyses programs and rewrites nothing; those that do: "
                + ", ".join(known)
            )
        chosen.append((info, one))
    return chosen


def find_pass(name: str, catalogue: Mapping[str, PassInfo]) -> PassInfo:
    """The pass of that name or code, in any case. Raises ``UseError`` with near names."""
    wanted = name.strip().lower()
    for info in catalogue.values():
        if wanted in (info.name.lower(), info.code.lower()):
            return info
    names = [word for info in catalogue.values() for word in (info.name, info.code)]
    hint = _close(wanted, names) or "`hlo-lab passes list` shows those there are"
    raise UseError(f"no pass {name!r}; {hint}")


def configure(info: PassInfo, options: Mapping[str, str]) -> Pass:
    """A pass with its options read from text.

    Raises:
        UseError: unknown option, or a value that its type or the pass itself refuses.
    """
    known = {option.name: option for option in options_of(info.pass_class)}
    values: dict[str, Any] = {}
    for written, text in options.items():
        name = written.replace("-", "_")
        if name not in known:
            hint = _near(name, list(known)) if known else "it has no options"
            raise UseError(f"pass {info.name!r} has no option {written!r}; {hint}")
        if name in values:
            raise UseError(f"pass {info.name!r}: option {written!r} is given twice")
        try:
            values[name] = parse_value(text, known[name].type)
        except ValueError as error:
            raise UseError(f"pass {info.name!r}, option {written!r}: {error}") from None
    try:
        return info.pass_class(**values)
    except ValueError as error:
        raise UseError(f"pass {info.name!r}: {error}") from None


def _named(
    selections: Sequence[str], catalogue: Mapping[str, PassInfo]
) -> Iterator[tuple[PassInfo, dict[str, str]]]:
    for text in selections:
        for part in _split(text):
            yield _parse(part, catalogue)


def _split(text: str) -> list[str]:
    try:
        return [part for part in split_top_level(text) if part]
    except ValueError as error:
        raise UseError(f"--pass {text!r}: {error}; write it as 'NAME{{option=value}}'") from None


def _parse(text: str, catalogue: Mapping[str, PassInfo]) -> tuple[PassInfo, dict[str, str]]:
    match = _SELECTION.fullmatch(text)
    if match is None:
        raise UseError(f"--pass {text!r} is not of the form 'NAME{{option=value}}'")
    info = find_pass(match.group(1), catalogue)
    options: dict[str, str] = {}
    for part in _split(match.group(2) or ""):
        key, equals, value = part.partition("=")
        key = key.strip()
        if not equals:
            raise UseError(f"pass {info.name!r}: {part!r} has no value; write {key}=VALUE")
        if key in options:
            raise UseError(f"pass {info.name!r}: option {key!r} is given twice")
        options[key] = value
    return info, options


def _near(word: str, names: Sequence[str]) -> str:
    return _close(word, names) or "known: " + ", ".join(names)


def _close(word: str, names: Sequence[str]) -> str:
    lower = {name.lower(): name for name in names}
    close = difflib.get_close_matches(word.lower(), list(lower), n=2, cutoff=0.6)
    return "did you mean " + " or ".join(repr(lower[name]) for name in close) + "?" if close else ""
