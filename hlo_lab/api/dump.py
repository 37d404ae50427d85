"""``dump``: compile a program or a script and keep each stage."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING

from hlo_lab.errors import UseError
from hlo_lab.report.document import Block, Column, KeyValues, Paragraph, Report, Section, Table
from hlo_lab.report.units import format_bytes

if TYPE_CHECKING:
    from hlo_lab.lowering import Bundle, ScriptRun

TIME_LIMIT = 600.0  # seconds
MAX_ROWS = 20  # programs of a script that are shown
_DOING = {
    "start": "starting Python",
    "import": "importing {}",
    "arguments": "making the arguments of {}",
    "trace": "tracing {}",
    "lower": "lowering {}",
    "read": "reading {}",
    "compile": "compiling {}",
    "script": "running {}",
    "inputs": "making inputs for {}",
    "warm up": "warming {} up",
    "run": "timing {}",
    "profile": "profiling {}",
    "write": "writing what {} compiled to",
    "done": "writing what {} compiled to",
}


def dump(
    program: str,
    out: str | Path,
    *,
    target: str = "cpu",
    args: str | None = None,
    mesh: str | None = None,
    xla_flags: Sequence[str] = (),
    passes: bool = False,
    time_limit: float = TIME_LIMIT,
    memory_limit: int | str | None = None,
    python: str | None = None,
    force: bool = False,
    progress: Callable[[str], None] = lambda text: None,
) -> Bundle:
    """Compile ``program`` in a process of its own and write its bundle to the folder ``out``.

    Args:
        program: ``file.py:name``, ``package.module:name`` or a StableHLO file (``.mlir``).
        target: ``cpu``, ``cpu:8``, ``tpu:v5e:2x2``, ``gpu:h100:8``; see ``api.targets``.
        args: shapes, ``f32[8,128], i32[8]``; by default the program's ``example_args``.
        mesh: axes that the target's devices form, ``data=4,model=2``.
        xla_flags: flags to compile with, ``KEY=VALUE`` each.
        passes: also keep the module after each pass that changed it.
        time_limit: seconds that it may take; 0 for no limit.
        memory_limit: of this machine, that it may take: bytes or ``8GiB``; None for no limit.
        python: the interpreter whose jax compiles; the one that runs by default.
        force: replace a folder that is not a bundle.
        progress: told what is going on.

    Raises:
        InputError, UseError: the program, its arguments or the folder is wrong.
        ExecutionError: the program or the compiler failed.
    """
    from hlo_lab import lowering

    return lowering.dump(
        program,
        out=out,
        target=target,
        args=args,
        mesh=mesh,
        xla_flags=xla_flags,
        passes=passes,
        time_limit=time_limit,
        memory_limit=limit_bytes(memory_limit),
        python=python or sys.executable,
        force=force,
        progress=lambda stage, _: progress(doing(stage, program)),
    )


def limit_bytes(text: int | str | None) -> int:
    """Bytes of a size such as ``8GiB``; 0 for None. Raises ``UseError``."""
    from hlo_lab.passkit.options import parse_value

    try:
        size = int(parse_value(str(text or 0), int))
    except ValueError as error:
        raise UseError(f"--memory-limit {error}") from None
    if size < 0:
        raise UseError("--memory-limit is a size such as 8GiB, 0 for none")
    return size


def doing(stage: str, program: str) -> str:
    """A worker's stage in words; after a colon stands the pass that the compiler is in."""
    name, _, detail = stage.partition(": ")
    text = _DOING.get(name, name).format(program)
    return f"{text}: {detail}" if detail else text


def dump_script(
    script: str,
    arguments: Sequence[str] = (),
    *,
    out: str | Path,
    name_filter: str | None = None,
    min_size: int = 0,
    stop_after: int | None = None,
    target: str = "cpu",
    time_limit: float = TIME_LIMIT,
    force: bool = False,
    progress: Callable[[str], None] = lambda text: None,
    echo: IO[str] | None = None,
) -> ScriptRun:
    """Run an unmodified script and write a bundle of each program that it compiles.

    Args:
        script: a Python file; it runs as ``python script.py ARGUMENTS`` would run it.
        out: the folder to write, with one bundle per program and an ``index.json``.
        name_filter: keep only modules whose name (``jit_step``) this regular expression
            finds something in.
        min_size: keep only modules of at least so many instructions after optimisation.
        stop_after: stop the script once so many programs are kept; None to let it end.
        echo: where to send what the script prints.

    The others and the errors are those of ``dump``; a script that fails, or that takes
    longer than the time limit when it has compiled something, is no error: its ``failure``
    says how. After Ctrl-C the folder is written before the exception goes on.
    """
    from hlo_lab import lowering

    return lowering.dump_script(
        script,
        arguments,
        out=out,
        name_filter=name_filter,
        min_size=min_size,
        stop_after=stop_after,
        target=target,
        time_limit=time_limit,
        force=force,
        progress=lambda stage, _: progress(_DOING.get(stage, stage).format(script)),
        echo=echo,
    )


def stage_text(
    program: str,
    stage: str,
    *,
    target: str = "cpu",
    args: str | None = None,
    mesh: str | None = None,
    xla_flags: Sequence[str] = (),
    time_limit: float = TIME_LIMIT,
    memory_limit: int | str | None = None,
    python: str | None = None,
    progress: Callable[[str], None] = lambda text: None,
) -> str:
    """One stage of a program, or of a bundle that is there already, as text.

    Raises:
        UseError: no stage is called so.
        NotFoundError: the bundle or this kind of program does not have it.
        HloLabError: as ``dump``.
    """
    from hlo_lab.lowering import Bundle

    check_stage(stage)
    if Path(program).is_dir():
        return Bundle.open(program).text(stage)
    with tempfile.TemporaryDirectory(prefix="hlo-lab-") as folder:
        bundle = dump(
            program,
            Path(folder, "bundle"),
            target=target,
            args=args,
            mesh=mesh,
            xla_flags=xla_flags,
            passes=stage == "passes",
            time_limit=time_limit,
            memory_limit=memory_limit,
            python=python,
            progress=progress,
        )
        return bundle.text(stage)


def check_stage(stage: str) -> None:
    """Raises ``UseError`` where no stage is called so."""
    from hlo_lab.lowering import STAGES

    if stage not in STAGES:
        raise UseError(f"unknown stage {stage!r}: use one of {', '.join(STAGES)}")


def describe_bundle(bundle: Bundle) -> Report:
    """What was written: files, sizes, and what to do next."""
    from hlo_lab.lowering import STAGES

    files = bundle.manifest["files"]
    rows = [
        (stage, STAGES[stage], format_bytes(files[STAGES[stage]]["bytes"]), _remark(bundle, stage))
        for stage in bundle.stages
    ]
    columns = [Column("stage"), Column("file"), Column("size", right=True), Column("")]
    place = str(bundle.path)
    return Report(
        f"{bundle.program} for {bundle.target}",
        [
            ("bundle", place),
            ("arguments", _shapes(bundle)),
            ("compiled in", f"{_seconds(bundle)} by XLA of {_compiler(bundle)}"),
            *_settings(bundle),
        ],
        [
            *_out_of_memory(bundle),
            Section("Stages", [Table(columns, rows)]),
            Section(
                "Next",
                [
                    KeyValues(
                        [
                            (f"hlo-lab analyze {place}", "what costs time and memory"),
                            (f"hlo-lab dump {place} --stage hlo-after", "print a stage"),
                        ]
                    )
                ],
            ),
        ],
    )


def _seconds(bundle: Bundle) -> str:
    return f"{bundle.manifest['seconds'].get('compile'):.2g} s"


def _settings(bundle: Bundle) -> list[tuple[str, str]]:
    """The mesh and the flags, where they were asked for."""
    mesh, flags = bundle.manifest.get("mesh"), bundle.manifest.get("xla_flags")
    rows = []
    if mesh:
        rows.append(("mesh", ", ".join(f"{name}={size}" for name, size in mesh.items())))
    if flags:
        rows.append(("flags", ", ".join(f"{name}={value}" for name, value in flags.items())))
    return rows


def _out_of_memory(bundle: Bundle) -> list[Section]:
    """By how much a program misses the target's memory; none where it compiled."""
    from hlo_lab.api.source import OutOfMemory

    found = OutOfMemory.of(bundle.manifest)
    if found is None:
        return []
    pairs = [
        (name, format_bytes(size))
        for name, size in (
            ("needed", found.needed_bytes),
            ("available", found.available_bytes),
            ("missing", found.missing_bytes),
        )
        if size is not None
    ]
    after = bundle.manifest["out_of_memory"].get("after_pass")
    kept = f" The optimised HLO is the module after {after}." if after else ""
    blocks: list[Block] = [KeyValues(pairs)] if pairs else []
    return [Section("It does not fit", [*blocks, Paragraph(found.message + kept, "error")])]


def _remark(bundle: Bundle, stage: str) -> str:
    from hlo_lab.lowering import STAGES

    if stage == "passes":
        return f"{len(bundle.passes)} passes changed the module"
    if stage in ("hlo-before", "hlo-after"):
        proto = STAGES[stage].replace(".txt", ".pb")
        return "also as .pb" if proto in bundle.manifest["files"] else ""
    if stage == "schedule":
        return f"{_instructions(bundle)} instructions"
    return ""


def _compiler(bundle: Bundle) -> str:
    """The package that XLA came in, and its version."""
    versions = bundle.manifest["versions"]
    names = ("libtpu", "jax-cuda12-pjrt", "jax-cuda13-pjrt", "jaxlib")
    name = next(name for name in names if name in versions)
    return f"{name} {versions[name]}"


def _shapes(bundle: Bundle, most: int = 4) -> str:
    """The first few argument shapes, and how many more there are."""
    arrays = bundle.manifest["arguments"]
    shown = [f"{each['dtype']}[{','.join(map(str, each['shape']))}]" for each in arrays[:most]]
    if len(arrays) > most:
        shown.append(f"and {len(arrays) - most} more")
    shown += [f"{each['name']}={each['value']}" for each in bundle.manifest["static"]]
    return ", ".join(shown) or "none"


def describe_script(run: ScriptRun) -> Report:
    """What a script compiled: one row per bundle, the largest first."""
    together = zip(run.bundles, run.programs, strict=True)
    ordered = sorted(together, key=lambda pair: pair[1]["instructions"], reverse=True)
    shown = ordered[:MAX_ROWS]
    rows = [
        (
            entry["name"],
            str(entry["instructions"]),
            _short(entry["arguments"]) or "none",
            _size(bundle),
        )
        for bundle, entry in shown
    ]
    columns = [
        Column("bundle", elide="middle"),
        Column("instructions", right=True),
        Column("arguments", elide="middle"),
        Column("size", right=True),
    ]
    blocks: list[Table | Paragraph] = []
    if rows:
        more = len(ordered) - len(rows)
        remark = f"And {more} smaller ones; {run.path}/index.json lists them all." if more else ""
        blocks.append(Table(columns, rows, remark))
    else:
        blocks.append(Paragraph("The script compiled no program that was to be kept."))
    if run.skipped:
        blocks.append(Paragraph(f"{run.skipped} more were left out by --filter or --min-size."))
    blocks += [Paragraph(f"One could not be captured: {why}", "warning") for why in run.lost]
    sections = [Section("Programs", blocks)]
    if run.recompiled:
        sections.append(Section("Compiled again", [_compiled_again(run)]))
    if run.bundles:
        largest = ordered[0][0].path
        sections.append(
            Section(
                "Next", [KeyValues([(f"hlo-lab analyze {largest}", "what costs time and memory")])]
            )
        )
    noun = "program" if len(run.bundles) == 1 else "programs"
    return Report(f"{len(run.bundles)} {noun} in {run.path}", (), sections)


def _short(shapes: Sequence[str], most: int = 3) -> str:
    """The first few of many, and how many more there are."""
    more = len(shapes) - most
    return ", ".join([*shapes[:most], *([f"and {more} more"] if more > 0 else [])])


def _compiled_again(run: ScriptRun) -> KeyValues:
    """The functions that were compiled several times, and why; those of the user's first."""
    from hlo_lab.passkit.recompiling import story

    own = sorted(run.recompiled, key=lambda one: not one["place"])
    places = [one["place"].rpartition("/")[2] for one in own]
    names = [
        f"{one['function']} at {place}" if place else one["function"]
        for one, place in zip(own, places, strict=True)
    ]
    more = [(f"and {len(own) - MAX_ROWS} more", "index.json lists them all")]
    rows = [(name, story(one)) for name, one in zip(names, own, strict=True)]
    return KeyValues(rows[:MAX_ROWS] + more * (len(own) > MAX_ROWS))


def _instructions(bundle: Bundle) -> int:
    return sum(map(len, bundle.schedule.values()))


def _size(bundle: Bundle) -> str:
    return format_bytes(sum(entry["bytes"] for entry in bundle.manifest["files"].values()))
