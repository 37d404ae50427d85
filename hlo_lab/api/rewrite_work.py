"""Compiling a program that rewrite passes changed, and running it beside the original."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hlo_lab.api.source import Options
from hlo_lab.errors import ExecutionError, ProgramError

if TYPE_CHECKING:
    from hlo_lab.lowering.bundle import Bundle
    from hlo_lab.lowering.target import Target
    from hlo_lab.passkit.rewriting import PassSpec

_NO_KERNEL = "UNIMPLEMENTED"  # XLA's word
_NOT_RUN = "the program does not fit: it was not run"
Progress = Callable[[str], None]


@dataclass(frozen=True)
class Work:
    """Rewrite passes on their way through one program."""

    program: str
    options: Options
    specs: Sequence[PassSpec]
    inputs: str | Path | None
    time_limit: float
    progress: Progress
    must_change: bool = False

    def apply(
        self, target: Target, folder: Path, seconds: float, cores: int
    ) -> tuple[Bundle, dict[str, Any] | None, list[str]]:
        """The rewritten program's bundle, what running gave, and notes."""
        if not target.is_ahead_of_time:
            try:
                bundle, run = self.compile(str(target), folder / "run", seconds, cores)
            except ProgramError as error:
                # compiled, but XLA has no kernel for some types on this device
                if _NO_KERNEL not in str(error):
                    raise
                bundle, _ = self.compile(str(target), folder / "target")
                return bundle, None, [f"the numbers were not compared: on {target}, {error}"]
            is_idle = run is None and not _changes(bundle)
            return bundle, run, [] if run or is_idle else [_NOT_RUN]
        bundle, _ = self.compile(str(target), folder / "target")
        if not _changes(bundle):
            return bundle, None, []
        count = target.devices or 1
        there = f"cpu:{count}" if count > 1 else "cpu"
        note = f"numbers are from {there}: no {target} is here"
        try:
            _, run = self.compile(there, folder / "cpu", 0.0, 0)
        except ExecutionError as error:
            return bundle, None, [f"the numbers were not compared: on {there}, {error}"]
        return bundle, run, [note]

    def compile(
        self, target: str, folder: Path, seconds: float = 0.0, cores: int | None = None
    ) -> tuple[Bundle, dict[str, Any] | None]:
        """Compile the rewritten program; run it beside the original unless ``cores`` is None."""
        from hlo_lab.lowering.dumping import dump
        from hlo_lab.measure.rewriting import RESULT
        from hlo_lab.measure.rewriting import Options as Running

        folder.mkdir(exist_ok=True)
        running = None
        if cores is not None:
            inputs = None if self.inputs is None else str(Path(self.inputs).resolve())
            running = Running(str(folder), inputs, seconds, cores if seconds else 0)
        self.progress(f"rewriting {self.program} for {target}")
        bundle = dump(
            self.program,
            out=folder / "bundle",
            target=target,
            args=self.options.args,
            mesh=self.options.mesh,
            xla_flags=self.options.xla_flags,
            python=self.options.python or sys.executable,
            time_limit=self.time_limit,
            progress=lambda stage, _: self.progress(
                f"rewriting {self.program} for {target}: {stage}"
            ),
            continuation=None if running is None else running.request(),
            rewrite=self.specs,
            must_change=self.must_change,
        )
        result = folder / RESULT
        if not result.exists():
            return bundle, None
        return bundle, {**json.loads(result.read_text()), "target": target}


def _changes(bundle: Bundle) -> int:
    """How often the passes replaced something; nothing is run where they did not."""
    return sum(each["changes"] for each in bundle.manifest["rewritten"]["passes"])
