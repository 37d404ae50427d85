"""Rewrite passes on HLO: on the way into XLA, and inside of it."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, TypeGuard, TypeVar

from hlo_lab.errors import HloLabError, PassError
from hlo_lab.ir.module import Module
from hlo_lab.ir.printer import print_module
from hlo_lab.ir.proto import read_proto
from hlo_lab.ir.source import Metadata, StackFrames
from hlo_lab.ir.table import LazyTable
from hlo_lab.ir.text import read_text
from hlo_lab.lowering import adapter
from hlo_lab.lowering.worker.compiling import is_out_of_memory
from hlo_lab.lowering.worker.failure import first_line
from hlo_lab.passkit.base import HloRewritePass, RewritingPass, Stage
from hlo_lab.passkit.mlir_module import unmark
from hlo_lab.passkit.place import Place
from hlo_lab.passkit.rewriting import Applied, apply_to_hlo, not_valid

T = TypeVar("T")


def to_hlo(raw: Any) -> Module:
    """What XLA makes of an MLIR module before it optimises."""
    with raw.context:
        copy = adapter.copy_module(raw)
        unmark(copy)
    text = adapter.hlo_text(adapter.hlo_of_stablehlo(copy), large_constants=True)
    return read_text(text.splitlines(keepends=True), "<before optimisation>")


def rewrite_hlo(one: HloRewritePass, raw: Any, place: Place | None) -> tuple[Any, Applied]:
    """An MLIR module whose HLO a pass rewrote; the same one where it changed nothing.

    Raises:
        PassError: the pass raised, or XLA does not take what it left.
    """
    changed, done = apply_to_hlo(one, to_hlo(raw), place)
    if not done.changes:
        return raw, done
    try:
        return from_hlo(changed, raw), done
    except Exception as error:  # XLA's and MLIR's own types
        raise not_valid(one, _said(error)) from error


def from_hlo(module: Module, like: Any) -> Any:
    """An MLIR module of HLO that was made of another one."""
    return adapter.stablehlo_like(print_module(module), like)


class InsideXla:
    """Passes that are applied while XLA compiles; there is one set of them in a process.

    Nothing is called unless ``compile`` is on its way.
    """

    def __init__(self, passes: Sequence[tuple[HloRewritePass, Place | None]]):
        self.passes = passes
        self.module: Module | None = None  # as the last pass left it
        self._applied: dict[int, Applied] = {}
        self._error: HloLabError | None = None
        self._seen: Counter[str] = Counter()
        self._donates = False
        self._name = ""
        self._lock = threading.Lock()
        for stage in dict.fromkeys(one.stage for one, _ in passes):
            adapter.transform_inside(stage, partial(self._transform, stage))

    def compile(self, name: str, compile: Callable[[], T], executable: Callable[[T], Any]) -> T:
        """What ``compile`` gives, with the passes applied to the module of that name.

        Args:
            executable: the ``LoadedExecutable`` in what ``compile`` gives.

        Raises:
            PassError: a pass failed, was never called, or could not be applied without harm.
        """
        with self._lock, adapter.without_cache():
            self._applied, self._error, self._donates = {}, None, False
            self._seen.clear()
            self._name = name
            try:
                made = compile()
            except Exception as error:
                raise self._error or self._refused(error) from error
            finally:
                self._name = ""
            if self._error is not None:
                raise self._error
            self._check(name, executable(made))
        return made

    def applied(self) -> list[Applied]:
        """What each pass did in the last compilation."""
        nothing = (Applied(one.code, one.name, 0) for one, _ in self.passes)
        return [self._applied.get(at, none) for at, none in enumerate(nothing)]

    def _transform(self, stage: str, data: bytes) -> bytes | None:
        """Called by XLA. Never raises into it."""
        if not self._name or self._error is not None:
            return None
        try:
            return self._rewritten(data, stage)
        except HloLabError as error:
            self._error = error
        except Exception as error:
            what = f"{type(error).__name__}: {first_line(str(error))}"
            self._error = PassError(f"the module inside XLA could not be rewritten: {what}")
        return None

    def _rewritten(self, data: bytes, stage: str) -> bytes | None:
        module = read_proto(data)
        if module.name != self._name:
            return None
        self._seen[stage] += 1
        self._donates |= "input_output_alias" in module.header
        before, last = module, None
        for at, (one, place) in enumerate(self.passes):
            if one.stage == stage:
                module, done = apply_to_hlo(one, module, place)
                total = done.changes + (self._applied[at].changes if at in self._applied else 0)
                self._applied[at] = replace(done, changes=total)
                last = one if done.changes else last
        self.module = module
        if module is before or last is None:
            return None
        try:
            return adapter.hlo_proto_of(print_module(_with_lines(module)))
        except Exception as error:  # XLA's own type
            raise not_valid(last, _said(error)) from error

    def _refused(self, error: Exception) -> Exception:
        names = [each.name for each in self._applied.values() if each.changes]
        if not names or is_out_of_memory(error):
            return error
        return PassError(
            f"XLA could not compile what {' and '.join(names)} made: {first_line(str(error))}"
        )

    def _check(self, name: str, executable: Any) -> None:
        idle = [one for one, _ in self.passes if not self._seen[one.stage]]
        if idle:
            raise PassError(
                f"pass {idle[0].name} ({idle[0].code}) was not applied: XLA asked for no pass "
                f"{idle[0].stage} while it compiled {name}; this compiler takes none"
            )
        changed = any(each.changes for each in self._applied.values())
        if changed and self._donates:
            made = adapter.hlo_text(adapter.optimised_module(executable), large_constants=False)
            if "input_output_alias=" not in made.partition("\n")[0]:
                raise PassError(
                    f"{name} donates arguments, and this JAX loses that when a pass changes a "
                    "module inside XLA: leave donate_argnums out, or use JAX 0.12"
                )


def _said(error: Exception) -> str:
    """What is wrong, out of several lines with the text around it."""
    lines = str(error).splitlines()
    return first_line(next((line for line in lines if "error:" in line), str(error)))


def _with_lines(module: Module) -> Module:
    """With source lines in place of stacks, which XLA mixes up when it takes a module back."""
    made = {}
    for at in set(module.metadata.tolist()):
        old: Metadata = module.metadatas[at]
        stack = module.frames.stack(old.stack_frame_id)
        new = replace(old, stack_frame_id=0)
        if stack:
            new = replace(new, source_file=stack[0].file, source_line=stack[0].line)
        made[at] = new
    metadatas = [made.get(at, Metadata()) for at in range(len(module.metadatas))]
    return replace(module, metadatas=LazyTable.of(metadatas), frames=StackFrames())


def is_inside(one: RewritingPass) -> TypeGuard[HloRewritePass]:
    """Whether a pass is applied while XLA compiles."""
    return Stage(one.stage).is_inside


def opcodes(module: Module) -> dict[str, int]:
    """How many instructions of each opcode there are."""
    return dict(Counter(each.opcode for each in module.instructions))
