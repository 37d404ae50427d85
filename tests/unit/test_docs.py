"""The documents: their links lead somewhere, and their commands exist."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), ROOT / "fixtures" / "README.md"]
VERBS = "dump|analyze|measure|compare|diff|rewrite|run|graph|passes|doctor"
COMMAND = re.compile(rf"(?:^|^\$ |^ {{4}}|`)(hlo-lab (?:{VERBS})\b[^`\n]*)", re.M)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path: Path) -> None:
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", path.read_text())
    assert not [link for link in links if not (path.parent / link).exists()]


def options(command: list[str]) -> set[str]:
    """The options that a command knows, from its help."""
    done = subprocess.run(
        [sys.executable, "-m", "hlo_lab", *command, "--help"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return set(re.findall(r"(?<![\w-])(--?[a-z][\w-]*)", done.stdout))


def test_commands_in_the_documents_exist() -> None:
    known: dict[tuple[str, ...], set[str]] = {}
    checked = 0
    for path in DOCUMENTS:
        for line in COMMAND.findall(path.read_text()):
            words = shlex.split(line, comments=True)[1:]
            words = words[: words.index("--")] if "--" in words else words
            if words[0] == "run":  # from its name on, words are the script's
                names = [
                    at for at, word in enumerate(words) if word.endswith(".py") or word == "-m"
                ]
                words = words[: min(names, default=None)]
            verb = tuple(words[:2] if words[0] == "passes" else words[:1])
            if verb not in known:
                known[verb] = options(list(verb))
            used = {word for word in words if re.fullmatch(r"--?[a-z][\w-]*", word)}
            assert used <= known[verb], f"{path.name}: {line}"
            checked += 1
    assert checked > 20


def test_the_programs_that_the_documents_name_exist() -> None:
    program = re.compile(r"(fixtures/programs/\w+\.py):(\w+)")
    named = {found for path in DOCUMENTS for found in program.findall(path.read_text())}
    named = {(file, function) for file, function in named if not function.isdecimal()}
    assert len(named) >= 4
    for file, function in named:
        found = re.search(rf"^(?:def {function}\(|{function} = )", (ROOT / file).read_text(), re.M)
        assert found, f"{file}:{function}"
