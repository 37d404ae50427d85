"""What ``make demo`` runs: the four verbs on a real training step, and a small git history.

Every command is printed as a user would type it. Stops with a message when one does not do
what it is expected to.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "out"
LINES = 60  # of each command's output
PROGRAM = "fixtures/programs/gpt.py:train_step"

# The second commit: label smoothing by a one-hot array as large as the logits.
LOSS = """\
        losses = optax.softmax_cross_entropy_with_integer_labels(
            logits.astype(jnp.float32), tokens[:, 1:]
        )
"""
SMOOTHED = """\
        labels = optax.smooth_labels(jax.nn.one_hot(tokens[:, 1:], config.vocabulary), 0.1)
        losses = optax.softmax_cross_entropy(logits.astype(jnp.float32), labels)
"""
# The third commit: other line breaks, another name, a comment; the program stays.
REFORMATTED = """\
        # Smoothing keeps the model from becoming too sure of itself.
        targets = optax.smooth_labels(
            jax.nn.one_hot(tokens[:, 1:], config.vocabulary),
            0.1,
        )
        losses = optax.softmax_cross_entropy(
            logits.astype(jnp.float32),
            targets,
        )
"""


class Unexpected(Exception):
    """A command did not do what the demo says it does."""


def show(
    command: str, *, expect: int = 0, contains: str = "", makes: str = "", cwd: Path = ROOT
) -> None:
    """Print and run a command, print how its output begins, check what came of it."""
    print(f"\n$ {command}", flush=True)
    done = subprocess.run(shlex.split(command), cwd=cwd, text=True, stdout=subprocess.PIPE)
    lines = done.stdout.splitlines()
    print(*lines[:LINES], sep="\n")
    if len(lines) > LINES:
        print(f"[{len(lines) - LINES} more lines]")
    sys.stdout.flush()
    if done.returncode != expect:
        raise Unexpected(f"exit code {done.returncode}, expected {expect}: {command}")
    if contains not in done.stdout:
        raise Unexpected(f"no {contains!r} in the output of: {command}")
    if makes and not (cwd / makes).exists():
        raise Unexpected(f"{makes} was not written by: {command}")


def heading(text: str) -> None:
    print(f"\n{'=' * 80}\n{text}\n{'=' * 80}", flush=True)


def training_step() -> None:
    heading("1. dump: keep every stage of a GPT train step (flax, optax AdamW), as XLA compiles it")
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir()
    show(f"hlo-lab dump {PROGRAM} -o out/gpt --passes", makes="out/gpt/manifest.json")

    heading("2. analyze: what costs time and memory, at which source line, and what to do")
    show("hlo-lab analyze out/gpt", contains="gpt.py:")
    show("hlo-lab analyze out/gpt --format json -o out/gpt.json", makes="out/gpt.json")

    heading("3. graph: draw it, repeated layers folded")
    suffix = "svg" if shutil.which("dot") else "dot"
    show(f"hlo-lab graph out/gpt -o out/gpt.{suffix}", makes=f"out/gpt.{suffix}")


def example_repository(folder: Path) -> None:
    """A git repository with three commits of the model."""

    def git(*words: str) -> None:
        identity = ["-c", "user.name=Demo", "-c", "user.email=demo@example.org"]
        subprocess.run(["git", *identity, *words], cwd=folder, check=True)

    source = (ROOT / PROGRAM.partition(":")[0]).read_text()
    steps = {
        "Train a small GPT": source,
        "Smooth the labels": source.replace(LOSS, SMOOTHED),
        "Reformat the loss": source.replace(LOSS, REFORMATTED),
    }
    if len(set(steps.values())) != len(steps):
        raise Unexpected(f"the loss of {PROGRAM} is not the text that the demo edits")
    git("init", "--quiet", "--initial-branch=main")
    for message, text in steps.items():
        (folder / "model.py").write_text(text)
        git("add", "model.py")
        git("commit", "--quiet", "-m", message)
    print("\n$ git log --oneline", flush=True)
    git("--no-pager", "log", "--oneline")


def history() -> None:
    heading("4. diff: what did each of these commits do to the compiled program?")
    with tempfile.TemporaryDirectory(prefix="hlo-lab-demo-") as name:
        folder = Path(name)
        example_repository(folder)
        gate = "--fail-on 'flops>1%,peak_bytes>1%'"
        print("\nLabel smoothing breaks the budget, so a CI job with this line fails (exit 1):")
        command = f"hlo-lab diff HEAD~2 HEAD~1 model.py:train_step {gate}"
        show(command, expect=1, contains="changed", cwd=folder)
        print("\nThe last commit only reformats the code:")
        show(
            f"hlo-lab diff HEAD~1 HEAD model.py:train_step {gate}", contains="identical", cwd=folder
        )


def main() -> int:
    # the environment's own programs first, and no settings of the user's git
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    os.environ.update(PATH=path, GIT_CONFIG_GLOBAL=os.devnull, GIT_CONFIG_SYSTEM=os.devnull)
    start = time.monotonic()
    try:
        training_step()
        history()
    except Unexpected as error:
        print(f"\nerror: {error}", file=sys.stderr)
        return 1
    files = ", ".join(sorted(f"out/{path.name}" for path in OUT.iterdir()))
    print(f"\nDone in {time.monotonic() - start:.0f} s. Written: {files}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
