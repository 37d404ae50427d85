"""How the advice of each rule holds: `hlo-lab analyze --verify` over the fixture programs.

Per rule: findings, how many name a rewrite, what recompiling came to, the precision (confirmed
of confirmed and refuted) and the median of estimated over verified saving. Public HLO files
give findings alone: nothing compiles them again.

    python benchmarks/catalogue.py --keep results                  # resumes where it stopped
    python benchmarks/catalogue.py --target tpu:v5e fixtures/programs/rewrites.py:sample
    python benchmarks/catalogue.py --keep results --kept --corpus --out docs/catalogue-table.md
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import re
import statistics
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hlo_lab.cost.machines import for_target
from hlo_lab.errors import HloLabError
from hlo_lab.ir.files import read_module
from hlo_lab.ir.platform import platform_of
from hlo_lab.passkit.context import Context
from hlo_lab.passkit.discovery import BUNDLED, bundled_folder, discover, folder_passes
from hlo_lab.passkit.pipeline import run_passes
from hlo_lab.passkit.selection import select_passes

ROOT = Path(__file__).resolve().parents[1]
CORPUS = ROOT.parent / "shared" / "corpus"
MEASURED = "measured"  # the folder, in that of the documents, of analyses with --measure
TARGETS = ("cpu", "tpu:v5e", "gpu:h100")
NAMED = re.compile(r"^(\w+)\.example_args\b", re.M)  # else a file's train_step
STATUSES = ("confirmed", "refuted", "undecided", "failed", "not_tried")
LEFT_OUT = ("sharded.py", "train.py")  # for several devices; a script


@dataclass
class Rule:
    """What one rule's findings came to; ``ratios`` are estimated over verified savings.

    ``compared`` are the confirmed of which the numbers were compared, and agreed.
    """

    statuses: Counter[str] = field(default_factory=Counter)
    hits: int = 0
    with_remedy: int = 0
    corpus: int = 0
    compared: int = 0
    ratios: list[float] = field(default_factory=list)

    @property
    def precision(self) -> float | None:
        decided = self.statuses["confirmed"] + self.statuses["refuted"]
        return self.statuses["confirmed"] / decided if decided else None

    def judge(self, verification: dict[str, Any]) -> None:
        """Count a verdict, once for all findings that share it."""
        self.statuses[verification["status"]] += 1
        self.compared += verification["status"] == "confirmed" and verification["agrees"] is True
        if verification["status"] == "confirmed" and verification["ratio"]:
            self.ratios.append(verification["ratio"])


def analyzed(words: list[str], kept: Path) -> dict[str, Any] | None:
    """The document of an analysis, from ``kept`` where it is there; None where it failed."""
    if not kept.exists():
        command = [sys.executable, "-m", "hlo_lab", "-q", "analyze", *words, "-f", "json"]
        done = subprocess.run([*command, "-o", str(kept)], cwd=ROOT, capture_output=True, text=True)
        if not kept.exists():
            print(f"{' '.join(words)}: {done.stderr.strip()}", file=sys.stderr)
            return None
    document: dict[str, Any] = json.loads(kept.read_text())
    return document


def references(given: list[str]) -> list[str]:
    """The programs that were named, or those of the fixtures, the small files first."""
    found = []
    for path in sorted(
        (ROOT / "fixtures" / "programs").glob("*.py"), key=lambda path: path.stat().st_size
    ):
        if path.name not in LEFT_OUT:
            names = NAMED.findall(path.read_text()) or ["train_step"]
            found += [f"{path.relative_to(ROOT)}:{name}" for name in dict.fromkeys(names)]
    return given or found


def corpus_hits() -> Counter[str]:
    """Findings on public HLO files by rule, each for the machine that it was compiled for."""
    hits: Counter[str] = Counter()
    passes = select_passes([], discover())
    for path in sorted(CORPUS.glob("*/*.gz")):
        try:
            module = read_module(path)
        except HloLabError as error:  # a file of several modules
            print(f"{path.name}: {error}", file=sys.stderr)
            continue
        machine = for_target({"gpu": "gpu:h100", "tpu": "tpu:v5e"}.get(platform_of(module), "cpu"))
        found = run_passes(passes, module, Context(module, machine)).findings
        hits.update(finding.code for finding in found)
    return hits


def line_of(finding: dict[str, Any]) -> str:
    """What became of a finding that was tried."""
    found, estimate = finding["verification"], finding["estimate"]
    text = f"{finding['code']} {found['status']}"
    for name, scale, unit in (("seconds", 1e6, "us"), ("peak_bytes", 1e-6, "MB")):
        if found[name] is not None:
            both = (found[name][side] * scale for side in ("before", "after"))
            text += f", {' -> '.join(f'{one:.5g}' for one in both)} {unit}"
    if found["basis"]:
        text += f" ({found['basis']})"
    saved = [f"{estimate['seconds'] * 1e6:.4g} us"] if estimate["seconds"] else []
    saved += [f"{estimate['bytes'] / 1e6:.4g} MB"] if estimate["bytes"] else []
    text += f", estimated {' and '.join(saved)}" if saved else ", nothing promised"
    reason = re.sub(r"\S*/fixtures/programs/", "", found["reason"])  # the place of a checkout
    return f"{text}: {reason}" if reason else text


@dataclass
class Tried:
    """What was analysed, and what is to be said of it beside the figures."""

    done: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    doubtful: list[str] = field(default_factory=list)
    measured: list[str] = field(default_factory=list)

    def add(self, reference: str, target: str, document: dict[str, Any] | None) -> None:
        name = f"{reference.removeprefix('fixtures/programs/')} {target}"
        (self.missing if document is None else self.done).append(name)
        for finding in document["findings"] if document is not None else ():
            if not finding["remedy"]:
                continue
            line = f"{name} {line_of(finding)}"
            print(line, flush=True)
            if finding["verification"]["status"] != "confirmed":
                self.doubtful.append(line)
            if finding["verification"]["basis"] == "measured":
                self.measured.append(line)


def count(rules: dict[str, Rule], findings: Sequence[dict[str, Any]]) -> None:
    """Add the findings of a program on a target to their rules."""
    judged: dict[tuple[str, ...], dict[str, Any]] = {}
    for finding in findings:
        rule, remedy = rules[finding["code"]], finding["remedy"]
        rule.hits += 1
        rule.with_remedy += bool(remedy)
        if remedy:
            found = finding["verification"]
            place = found["place"] or json.dumps(finding["where"], sort_keys=True)
            judged[finding["code"], *remedy, place] = found
    for (code, *_), found in judged.items():
        rules[code].judge(found)


def whole(rules: dict[str, Rule]) -> Rule:
    """All rules as one."""
    found = Rule()
    for rule in rules.values():
        found.statuses += rule.statuses
        found.hits += rule.hits
        found.corpus += rule.corpus
        found.with_remedy += rule.with_remedy
        found.ratios += rule.ratios
        found.compared += rule.compared
    return found


HEADS = ("rule", "hits", "corpus", "verifiable", *STATUSES, "precision", "ratio")


def rows(rules: dict[str, Rule]) -> Iterator[list[str]]:
    """One row per rule, and one of all."""
    for name, rule in [*sorted(rules.items()), ("all", whole(rules))]:
        counts = [rule.hits, rule.corpus, rule.with_remedy]
        counts += [rule.statuses[status] for status in STATUSES]
        precision = "" if rule.precision is None else f"{rule.precision:.2f}"
        ratio = f"{statistics.median(rule.ratios):.2f}" if rule.ratios else ""
        yield [name, *map(str, counts), precision, ratio]


def page(rules: dict[str, Rule], tried: Tried) -> Iterator[str]:
    """The lines of docs/catalogue-table.md."""
    every = whole(rules)
    decided = every.statuses["confirmed"] + every.statuses["refuted"]
    ratios = sorted(every.ratios)
    versions = ", ".join(
        f"{name} {importlib.metadata.version(name)}" for name in ("jax", "jaxlib", "libtpu")
    )
    yield "# How the catalogue's advice holds"
    yield ""
    yield (
        f"Written by `benchmarks/catalogue.py` with {versions}: `analyze --verify` on "
        f"{len(tried.done)} pairs of a fixture program and a target ({', '.join(TARGETS)}). "
        "Nothing ran on a TPU or GPU: there a verdict rests on the compiler's cycles and the "
        "model, on cpu on the model, and the numbers of the changed program were compared on this "
        "machine's CPU."
    )
    yield ""
    yield (
        f"**{every.statuses['confirmed']} of {decided} decided are confirmed, precision "
        f"{every.precision or 0:.2f}; estimated over verified saving is "
        f"{statistics.median(ratios or [0]):.2f} in the median** ({ratios[0]:.2f} to "
        f"{ratios[-1]:.2f} over {len(ratios)}, {sum(0.5 <= one <= 2 for one in ratios)} of them "
        f"within a factor of two). The numbers of {every.compared} were compared and agree."
    )
    yield ""
    yield (
        "Hits are findings on fixture programs, corpus those on public HLO files, which are not "
        "compiled again; verifiable are hits that name a rewrite. From confirmed on, "
        "verdicts are counted: findings of one program at one place, or of a rewrite that "
        "changes the whole program, share one. Programs were made for many of the rules, and "
        "rules were corrected by what was refuted on these programs, so this says that advice "
        "holds where it was meant to be given, and less of programs at large. A row without "
        "hits is a rule that needs what is not here: several devices (SHD001, SHD002) or a "
        "captured script (CMP002)."
    )
    yield ""
    yield f"| {' | '.join(HEADS)} |"
    yield "|---" * len(HEADS) + "|"
    for row in rows(rules):
        yield f"| {' | '.join(row)} |"
    yield ""
    yield from _remarks("Not confirmed", tried.doubtful)
    yield from _remarks(
        "Judged by measuring on this machine, where the model alone sees no saving", tried.measured
    )
    yield from _remarks("Left out, for the time that compiling takes", _by_program(tried.missing))


def _by_program(names: Sequence[str]) -> list[str]:
    """``program: target, target`` of each program."""
    found: dict[str, list[str]] = {}
    for name in names:
        program, _, target = name.partition(" ")
        found.setdefault(program, []).append(target)
    return [f"{program}: {', '.join(targets)}" for program, targets in found.items()]


def _remarks(title: str, lines: Sequence[str]) -> Iterator[str]:
    if lines:
        yield f"{title}:"
        yield ""
        yield from (f"- {line}" for line in lines)
        yield ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("programs", nargs="*", help="those of the fixtures by default")
    parser.add_argument("--target", action="append", help="cpu, tpu:v5e and gpu:h100 by default")
    parser.add_argument("--keep", type=Path, help="folder of the documents, to go on from")
    parser.add_argument("--budget", type=float, default=180.0, help="seconds of one program")
    parser.add_argument("--kept", action="store_true", help="only what is in --keep")
    parser.add_argument("--out", type=Path, help="write the page there")
    parser.add_argument("--note", default="", help="what else the page is to say of this run")
    parser.add_argument("--corpus", action="store_true", help="public HLO files too")
    given = parser.parse_args()
    rules = {
        info.code: Rule()
        for info in folder_passes(bundled_folder(), BUNDLED)
        if info.kind == "analysis"
    }
    tried = Tried()
    with tempfile.TemporaryDirectory() as scratch:
        keep = given.keep or Path(scratch)
        keep.mkdir(parents=True, exist_ok=True)
        for reference in references(given.programs):
            for target in given.target or TARGETS:
                document = document_of(reference, target, keep, given)
                tried.add(reference, target, document)
                if document is not None:
                    count(rules, document["findings"])
        for code, hits in corpus_hits().items() if given.corpus else ():
            rules[code].corpus += hits
    for row in [[*HEADS], *rows(rules)]:
        print("".join(f"{cell:>11}" for cell in row))
    if given.out is not None:
        given.out.write_text("\n".join([*page(rules, tried), given.note]).rstrip() + "\n")


def document_of(
    reference: str, target: str, keep: Path, given: argparse.Namespace
) -> dict[str, Any] | None:
    """An analysis that is kept, else one that is made now; what was measured stands first."""
    name = f"{reference}-{target}".replace("/", "_").replace(":", "_") + ".json"
    if given.kept and not (keep / name).exists():
        return None
    words = [reference, "--target", target, "--verify", "--budget", str(given.budget)]
    document = analyzed(words, keep / name)
    measured = keep / MEASURED / name
    if document is None or not measured.exists():
        return document
    by_time = {_identity(one): one for one in json.loads(measured.read_text())["findings"]}
    findings = [_measured(one, by_time.get(_identity(one))) for one in document["findings"]]
    return {**document, "findings": findings}


def _identity(finding: dict[str, Any]) -> tuple[str, ...]:
    return (finding["code"], *finding["remedy"])


def _measured(finding: dict[str, Any], by_time: dict[str, Any] | None) -> dict[str, Any]:
    if by_time is None or by_time["verification"]["basis"] != "measured":
        return finding
    return {**finding, "verification": by_time["verification"]}


if __name__ == "__main__":
    main()
