"""An unmodified script with rewrite passes applied to what it compiles."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hlo_lab.errors import NotFoundError, PassError, UseError

if TYPE_CHECKING:
    from hlo_lab.report.document import Report

SCHEMA = "hlo-lab/run"
SCHEMA_VERSION = 1
WRONG = 1  # exit code: numbers differ
FAILED = 3  # exit code: a pass failed
_CHECK = "hlo_lab.measure.checking"
_SHOWN = 30  # functions in a report


@dataclass(frozen=True)
class Function:
    """What came of the functions of one name.

    Attributes:
        name: the module's, such as ``jit_step``.
        compilations: how often it was compiled, once per kind of arguments.
        changes: of each pass, in the order of ``ScriptRewrite.passes``, over all of them.
        seconds: what the passes took.
        failures: why it was compiled as it was, one line each.
        outputs: results of first calls compared, as ``measure.numbers.Agreement.to_dict``.
        checked: how many first calls were compared.
        unchecked: why others were not.
    """

    name: str
    compilations: int = 0
    changes: list[int] = field(default_factory=list)
    seconds: float = 0.0
    failures: list[str] = field(default_factory=list)
    outputs: list[dict[str, Any]] = field(default_factory=list)
    checked: int = 0
    unchecked: list[str] = field(default_factory=list)

    @property
    def agrees(self) -> bool | None:
        """Whether every result compared is the original's; None where none was compared."""
        return all(each["agrees"] for each in self.outputs) if self.checked else None


@dataclass(frozen=True)
class ScriptRewrite:
    """A script that ran with passes applied.

    Attributes:
        command: what followed ``python``.
        passes: code, name and options of each.
        functions: those that matched, by name in the order of their first compilation.
        status: the script's own exit status, 128 + N after signal N.
        notes: what the user should know.
    """

    command: Sequence[str]
    passes: Sequence[Mapping[str, Any]]
    only: str | None
    functions: Sequence[Function]
    status: int
    notes: Sequence[str]

    @property
    def changes(self) -> int:
        """How often the passes replaced something."""
        return sum(sum(each.changes) for each in self.functions)

    @property
    def exit_code(self) -> int:
        """The script's own, if it failed; else 1 for wrong numbers, 3 for a pass that failed."""
        if self.status:
            return self.status
        if any(each.agrees is False for each in self.functions):
            return WRONG
        return FAILED if any(each.failures for each in self.functions) else 0

    def to_dict(self) -> dict[str, Any]:
        """The document of ``--format json``; ``docs/json.md`` says what each field means."""
        names = [each["name"] for each in self.passes]
        return {
            "schema": SCHEMA,
            "schema_version": SCHEMA_VERSION,
            "command": list(self.command),
            "passes": [dict(each) for each in self.passes],
            "only": self.only,
            "functions": [
                {
                    "function": each.name,
                    "compilations": each.compilations,
                    "changes": [
                        {"pass": name, "changes": count}
                        for name, count in zip(names, each.changes, strict=True)
                    ],
                    "rewrite_s": round(each.seconds, 6),
                    "failures": each.failures,
                    "numbers": {
                        "agrees": each.agrees,
                        "calls": each.checked,
                        "outputs": each.outputs,
                        "not_compared": each.unchecked,
                    },
                }
                for each in self.functions
            ],
            "status": self.status,
            "exit_code": self.exit_code,
            "notes": list(self.notes),
        }

    def to_report(self) -> Report:
        """The document of ``--format text`` and ``md``."""
        from hlo_lab.passkit.wording import counted
        from hlo_lab.report.document import Column, Paragraph, Report, Section, Table

        shown = [each for each in self.functions if any(each.changes) or each.failures]
        checked = any(each.checked or each.unchecked for each in self.functions)
        columns = [Column("function", elide="middle"), Column("compiled", right=True)]
        columns += [Column(each["name"], right=True) for each in self.passes]
        columns += [Column("numbers")] * checked
        rows = []
        for each in shown[:_SHOWN]:
            row = [each.name.partition("_")[2] or each.name, str(each.compilations)]
            row += [str(count) for count in each.changes]
            rows.append((*row, *[_numbers(each)] * checked))
        rest = len(self.functions) - len(rows)
        blocks: list[Any] = []
        if rows:
            others = counted(rest, "other function")
            blocks.append(Table(columns, rows, note=f"{others} compiled." if rest else ""))
        blocks += [Paragraph(note, "warning") for note in self.notes]
        blocks += [
            Paragraph(f"{each.name}: {text}", "error")
            for each in shown
            for text in dict.fromkeys(each.failures)
        ]
        blocks += [
            Paragraph(f"{each.name}: numbers were not compared: {text}", "warning")
            for each in shown
            for text in dict.fromkeys(each.unchecked)
        ]
        provenance = [("changes", str(self.changes)), ("script ended with", str(self.status))]
        return Report(f"{' '.join(self.command)}, rewritten", provenance, [Section("", blocks)])


def _numbers(function: Function) -> str:
    if function.agrees is None:
        return "not compared" if any(function.changes) else ""
    worst = max(each["max_rel"] for each in function.outputs)
    return f"{'ok' if function.agrees else 'WRONG'}, {worst:.1e}"


def run(
    passes: str | Sequence[str],
    command: Sequence[str],
    *,
    only: str | None = None,
    check: bool = False,
    python: str | None = None,
    passes_dirs: Sequence[str | Path] = (),
) -> ScriptRewrite:
    """Run a script as ``python COMMAND`` would, with passes applied to what JAX compiles in it.

    Its output goes where this process's goes. Where a pass fails, the function is compiled as
    it was, and ``Function.failures`` says so.

    Args:
        passes: ``NAME`` or ``NAME{option=value}``, one or several, applied in this order.
        command: ``script.py ARGS`` or ``-m MODULE ARGS``.
        only: a glob that the name of a function has to match: ``step``, ``train_*``.
        check: compare the results of each rewritten function's first call with those of the
            original, which is called too.
        python: the interpreter; this one by default.
        passes_dirs: folders of passes besides the bundled ones.

    Raises:
        UseError: no such pass or option, one that changes what callers count on, or no script.
        InputError: a broken pass file, no such script or interpreter.
        PassError: the interpreter took no notice of the passes.
    """
    from hlo_lab.lowering.live import run_live
    from hlo_lab.passkit.discovery import discover
    from hlo_lab.passkit.rewriting import PassSpec
    from hlo_lab.passkit.selection import select_rewrites

    selections = [passes] if isinstance(passes, str) else list(passes)
    chosen = select_rewrites(selections, discover(passes_dirs))
    if not chosen:
        raise UseError("name a pass: hlo-lab run --with-pass sort-to-top-k train.py")
    for info, one in chosen:
        if one.changes_call:
            raise UseError(
                f"{info.name} changes donation or layouts, which the script's own code counts on: "
                "leave it out, and try it with `hlo-lab rewrite`"
            )
    _check_command(command)
    specs = [PassSpec.of(info, one) for info, one in chosen]
    done = run_live(
        command,
        specs,
        only=only,
        check=_CHECK if check else None,
        python=python or sys.executable,
    )
    if not done.started:
        raise PassError(
            f"the passes were not applied: {python or sys.executable} does not import "
            "sitecustomize from PYTHONPATH as it starts; name another with --python"
        )
    functions = _functions(done.records, len(specs))
    described = [
        {"code": info.code, "name": info.name, "options": dict(spec.options)}
        for (info, _), spec in zip(chosen, specs, strict=True)
    ]
    notes = _notes(functions, described, only)
    return ScriptRewrite(list(command), described, only, functions, done.status, notes)


def _check_command(command: Sequence[str]) -> None:
    if not command:
        raise UseError("name a script: hlo-lab run --with-pass sort-to-top-k train.py")
    first = command[0]
    if first == "-m":
        if len(command) < 2:
            raise UseError("name a module: hlo-lab run --with-pass sort-to-top-k -m package.train")
    elif first.startswith("-"):
        raise UseError(f"no such option: {first}; those of Python itself are not taken")
    elif not Path(first).exists():
        raise NotFoundError(f"{first}: no such file")


def _functions(records: Sequence[Mapping[str, Any]], passes: int) -> list[Function]:
    found: dict[str, dict[str, Any]] = {}
    for record in records:
        name = record["function"]
        one = found.setdefault(
            name, {"compilations": 0, "changes": [0] * passes, "seconds": 0.0, "failures": []}
        )
        lists = {key: one.setdefault(key, []) for key in ("outputs", "unchecked")}
        if "changes" in record:
            one["compilations"] += 1
            one["seconds"] += record.get("seconds", 0.0)
            if record["failure"] is not None:
                one["failures"].append(record["failure"])
            elif record["changes"]:
                pairs = zip(one["changes"], record["changes"], strict=True)
                one["changes"] = [total + new for total, new in pairs]
        elif "outputs" in record:
            one["checked"] = one.get("checked", 0) + 1
            lists["outputs"] += record["outputs"]
        else:
            lists["unchecked"].append(record["unchecked"])
    return [Function(name, **one) for name, one in found.items()]


def _notes(
    functions: Sequence[Function], passes: Sequence[Mapping[str, Any]], only: str | None
) -> list[str]:
    if not functions:
        what = f"no function that {only!r} fits" if only is not None else "nothing with JAX"
        return [f"the script compiled {what}: no pass was applied"]
    idle = [
        each["name"]
        for at, each in enumerate(passes)
        if not any(function.changes[at] for function in functions)
    ]
    failed = any(each.failures for each in functions)
    return [f"nothing to rewrite for {', '.join(idle)}"] if idle and not failed else []
