"""A module from whatever the user named: an HLO file, a bundle or a program."""

from __future__ import annotations

import shutil
import sys
import tempfile
import warnings
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hlo_lab.errors import HloLabWarning, InputError, NotFoundError
from hlo_lab.ir.module import Module

if TYPE_CHECKING:
    from hlo_lab.lowering.bundle import Bundle

TIME_LIMIT = 600.0  # seconds for a program to be imported and compiled
DEFAULT_TARGET = "cpu"
AFTER = "hlo-after"
BEFORE = "hlo-before"
ACCEPTED = (
    "give an HLO file (text or proto, also .gz, or -), a bundle that `hlo-lab dump` wrote, "
    "or a program as path/file.py:NAME or package.module:NAME"
)


@dataclass(frozen=True)
class OutOfMemory:
    """A program that the compiler refused because it does not fit the device's memory.

    ``message`` is the compiler's own line; the bytes are None where it does not say.
    ``after_pass`` names the last pass that it finished: the module is as that left it.
    """

    needed_bytes: int | None
    available_bytes: int | None
    message: str
    after_pass: str = ""

    @property
    def missing_bytes(self) -> int | None:
        """By how much it does not fit."""
        if self.needed_bytes is None or self.available_bytes is None:
            return None
        return self.needed_bytes - self.available_bytes

    @classmethod
    def of(cls, manifest: Mapping[str, Any]) -> OutOfMemory | None:
        """What a bundle's manifest says of it; None for a program that compiled."""
        found = manifest.get("out_of_memory")
        if not isinstance(found, dict):
            return None
        sizes = (found.get("needed_bytes"), found.get("available_bytes"))
        needed, available = (size if isinstance(size, int) else None for size in sizes)
        message = str(found.get("message", "out of memory"))
        return cls(needed, available, message, str(found.get("after_pass") or ""))


@dataclass(eq=False)
class Loaded:
    """A module and where it comes from.

    Attributes:
        module: the module after optimisation, or whatever one HLO file holds; of a program
            that does not fit the device's memory, the last stage that is there.
        label: what the user named.
        kind: ``file``, ``bundle`` or ``program``.
        target: what it was compiled for, as ``--target`` takes it.
        bundle: all stages, for bundles and programs. A program's bundle lives in a
            temporary folder that goes when this object does.
        stage: which stage of the bundle ``module`` is.
    """

    module: Module
    label: str
    kind: str
    target: str
    bundle: Bundle | None = None
    _folder: Path | None = field(default=None, repr=False)
    stage: str = AFTER

    def __post_init__(self) -> None:
        if self._folder is not None:
            weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)

    @property
    def out_of_memory(self) -> OutOfMemory | None:
        """By how much the program misses the device's memory; None when it compiled."""
        return None if self.bundle is None else OutOfMemory.of(self.bundle.manifest)


def load(
    source: str | Path | Module,
    *,
    target: str | None = None,
    args: str | None = None,
    mesh: str | None = None,
    xla_flags: Sequence[str] = (),
    python: str | None = None,
    time_limit: float = TIME_LIMIT,
    progress: Callable[[str], None] = lambda text: None,
) -> Loaded:
    """Load ``source``; a program is compiled for ``target`` first, in a process of its own.

    Args:
        target: ``cpu`` by default. For a file it names the machine of the estimates, of the
            platform that an optimised one was compiled for; a bundle has its own.
        args: shapes of a program's arguments, ``f32[8,128], i32[8]``.
        mesh: axes that the target's devices form, ``data=4,model=2``.
        xla_flags: flags to compile with, ``KEY=VALUE`` each.
        python: the interpreter whose jax compiles; the one that runs by default.
        time_limit: seconds that a program may take to be imported and compiled.
        progress: told what is going on.

    Raises:
        InputError: ``source`` is none of these, or a bundle that is not whole, or was
            compiled for another platform than ``target``.
        ExecutionError: the program or the compiler failed.

    Warns:
        HloLabWarning: an HLO file looks compiled for another platform than is estimated.
    """
    if isinstance(source, Module):
        return Loaded(source, source.name, "file", target or DEFAULT_TARGET)
    text = str(source)
    path = Path(text)
    from hlo_lab.lowering.reference import ProgramReference

    code = ProgramReference.is_program_file(text)
    if text != "-" and path.is_dir() and not code:
        return _bundle(path, target)
    if ProgramReference.is_program(text) and (code or not path.is_file()):
        options = Options(target or DEFAULT_TARGET, args, mesh, tuple(xla_flags), python)
        return _program(text, options, time_limit, progress)
    progress(f"reading {text}")
    return _file(text, target)


def _file(text: str, target: str | None) -> Loaded:
    from hlo_lab.ir.files import read_module

    try:
        module = read_module(text)
    except NotFoundError:
        raise NotFoundError(f"{text}: no such file; {ACCEPTED}") from None
    _check_platform(text, module, target)
    return Loaded(module, text, "file", target or DEFAULT_TARGET)


_TITLES = {"cpu": "a CPU", "gpu": "a GPU", "tpu": "a TPU"}
_EXAMPLES = {"gpu": "gpu:h100", "tpu": "tpu:v5e"}


def _check_platform(text: str, module: Module, target: str | None) -> None:
    """Refuse, or warn of, estimates for another platform than an optimised file is for."""
    from hlo_lab.cost.machines import for_target
    from hlo_lab.ir.platform import platform_of

    if not module.is_scheduled:
        return
    made_for = platform_of(module)
    wanted = "cpu" if target is None or target.startswith("cpu") else for_target(target).kind
    if made_for == wanted:
        return
    if made_for and target is not None:
        raise InputError(
            f"{text}: was compiled for {_TITLES[made_for]}, not for {target}; compile the program, "
            f"or its module before optimisation, for {target}"
        )
    if made_for:
        note = (
            f"{text}: was compiled for {_TITLES[made_for]}, and its times are estimated for this "
            f"machine's CPU: name the device, such as --target {_EXAMPLES[made_for]}"
        )
        warnings.warn(note, HloLabWarning, stacklevel=2)
    elif wanted != "cpu":
        note = (
            f"{text}: is optimised, and bears no mark of a compiler for {_TITLES[wanted]}: if it "
            f"was compiled for a CPU, its estimates for {target} say little"
        )
        warnings.warn(note, HloLabWarning, stacklevel=2)


def open_bundle(path: Path, target: str | None) -> Bundle:
    """The bundle in a folder. Raises ``InputError``, also for one of another ``target``."""
    from hlo_lab.lowering.bundle import Bundle
    from hlo_lab.lowering.target import Target

    bundle = Bundle.open(path)
    # one chip is written tpu:v5e as well as tpu:v5e:1x1
    if target is not None and str(Target.parse(target)) != bundle.target:
        raise InputError(
            f"{path}: the bundle was compiled for {bundle.target}, not {target}; dump it again"
        )
    return bundle


def _bundle(path: Path, target: str | None) -> Loaded:
    bundle = open_bundle(path, target)
    module, stage = last_module(bundle)
    return Loaded(module, str(path), "bundle", bundle.target, bundle, stage=stage)


def last_module(bundle: Bundle) -> tuple[Module, str]:
    """The module after optimisation and that stage's name; before it where that is all there is."""
    stage = AFTER if AFTER in bundle.stages else BEFORE
    return bundle.module(stage), stage


@dataclass(frozen=True)
class Options:
    """What a program is compiled with; see ``load``."""

    target: str = DEFAULT_TARGET
    args: str | None = None
    mesh: str | None = None
    xla_flags: tuple[str, ...] = ()
    python: str | None = None


def compile_cached(
    text: str,
    options: Options,
    time_limit: float = TIME_LIMIT,
    progress: Callable[[str], None] = lambda text: None,
) -> Bundle:
    """The bundle of a program from the cache, compiled first where it is not there."""
    from hlo_lab.lowering import dump_cached

    progress(f"compiling {text} for {options.target}")
    return dump_cached(
        text,
        target=options.target,
        args=options.args,
        mesh=options.mesh,
        xla_flags=options.xla_flags,
        python=options.python or sys.executable,
        time_limit=time_limit,
        progress=lambda stage, _: progress(f"compiling {text} for {options.target}: {stage}"),
    )


def _program(
    text: str, options: Options, time_limit: float, progress: Callable[[str], None]
) -> Loaded:
    if options != Options(options.target, options.args) or not options.target.startswith("cpu"):
        bundle = compile_cached(text, options, time_limit, progress)
        module, stage = last_module(bundle)
        return Loaded(module, text, "program", bundle.target, bundle, stage=stage)
    from hlo_lab.lowering import dump

    folder = Path(tempfile.mkdtemp(prefix="hlo-lab-"))
    try:
        progress(f"compiling {text} for {options.target}")
        bundle = dump(
            text,
            out=folder / "bundle",
            target=options.target,
            args=options.args,
            time_limit=time_limit,
        )
        progress(f"reading what {text} compiled to")
        module = bundle.module(AFTER)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return Loaded(module, text, "program", options.target, bundle, folder)
