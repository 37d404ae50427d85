"""A small repository with revisions of a JAX program, and a stand-in for lowering it."""

from __future__ import annotations

import subprocess
from pathlib import Path

PROGRAM = """\
import jax
import jax.numpy as jnp
from helper import act


def f(x):
    return act(x @ x).sum()


def example_args():
    return (jax.ShapeDtypeStruct((8, 8), jnp.float32),)
"""
TANH = "import jax.numpy as jnp\ndef act(x): return jnp.tanh( x )\n"
FORMATTED = "import jax.numpy as jnp\n\n\ndef act(x):\n    return jnp.tanh(x)\n"
RELU = "import jax\n\n\ndef act(x):\n    return jax.nn.relu(x)\n"


def run(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=A", "-c", "user.email=a@example.org"]
    return subprocess.run(
        ["git", *identity, *arguments], cwd=folder, check=True, capture_output=True, text=True
    ).stdout


def commit(folder: Path, message: str, **files: str) -> str:
    """Write files (``helper`` is helper.py) and commit them; the commit's hash."""
    for name, text in files.items():
        (folder / f"{name}.py").write_text(text)
    run(folder, "add", "-A")
    run(folder, "commit", "-q", "-m", message)
    return run(folder, "rev-parse", "HEAD").strip()


def repository(folder: Path) -> Path:
    """Revisions, oldest first: tagged ``tanh``, ``formatted`` and ``relu``."""
    folder.mkdir()
    run(folder, "init", "-q", "-b", "main")
    for tag, text in (("tanh", TANH), ("formatted", FORMATTED), ("relu", RELU)):
        commit(folder, tag, helper=text, **({"program": PROGRAM} if tag == "tanh" else {}))
        run(folder, "tag", tag)
    return folder


def worktrees(folder: Path) -> int:
    return len(run(folder, "worktree", "list").splitlines())
