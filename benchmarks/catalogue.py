"""How the advice of each rule holds: `hlo-lab analyze --verify` over the fixture programs.

Per rule: findings, how many name a rewrite, what recompiling came to, the precision (confirmed
of confirmed and refuted) and the median of estimated over verified saving. Public HLO files
give findings alone: nothing compiles them again.

    python benchmarks/catalogue.py --keep results                  # resumes where it stopped
    python benchmarks/catalogue.py --target tpu:v5e fixtures/programs/rewrites.py:sample
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hlo_lab.cost.machines import for_target
from hlo_lab.errors import HloLabError
from hlo_lab.ir.files import read_module
from hlo_lab.ir.platform import platform_of
from hlo_lab.passkit.context import Context
from hlo_lab.passkit.discovery import discover
from hlo_lab.passkit.pipeline import run_passes
from hlo_lab.passkit.selection import select_passes

ROOT = Path(__file__).resolve().parents[1]
CORPUS = ROOT.parent / "shared" / "corpus"
TARGETS = ("cpu", "tpu:v5e", "gpu:h100")
NAMED = re.compile(r"^(\w+)\.example_args\b", re.M)  # else a file's train_step
LEFT_OUT = ("sharded.py", "train.py")  # for several devices; a script


@dataclass
class Rule:
    """What one rule's findings came to; ``ratios`` are estimated over verified savings."""

    statuses: Counter[str] = field(default_factory=Counter)
    hits: int = 0
    with_remedy: int = 0
    corpus: int = 0
    ratios: list[float] = field(default_factory=list)

    @property
    def precision(self) -> float | None:
        decided = self.statuses["confirmed"] + self.statuses["refuted"]
        return self.statuses["confirmed"] / decided if decided else None

    def add(self, finding: dict[str, Any]) -> None:
        self.hits += 1
        if not finding["remedy"]:
            return
        self.with_remedy += 1
        verification = finding["verification"]
        self.statuses[verification["status"]] += 1
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


def tell(reference: str, target: str, document: dict[str, Any]) -> None:
    """A line for each finding that was tried."""
    for finding in document["findings"]:
        found = finding["verification"]
        if not finding["remedy"]:
            continue
        text = f"{reference} {target} {finding['code']} {found['status']}"
        for name, scale, unit in (("seconds", 1e6, "us"), ("peak_bytes", 1e-6, "MB")):
            if found[name] is not None:
                both = (found[name][side] * scale for side in ("before", "after"))
                text += f", {' -> '.join(f'{one:.5g}' for one in both)} {unit}"
        estimate = finding["estimate"]
        text += f" (estimated {(estimate['seconds'] or 0) * 1e6:.4g} us, {estimate['bytes']} B"
        ratio = found["ratio"]
        text += f"; ratio {ratio:.3g})" if ratio else ")"
        print(f"{text} {found['basis']} {found['reason']}".rstrip(), flush=True)


def table(rules: dict[str, Rule]) -> None:
    """One row per rule, and one of all."""
    row = "{:<8}{:>6}{:>8}{:>10}{:>9}{:>10}{:>8}{:>7}{:>10}{:>8}"
    heads = "rule hits corpus verifiable confirmed refuted undecided failed precision ratio"
    print(row.format(*(head[:9] for head in heads.split())))
    whole = Rule()
    for code, rule in sorted(rules.items()):
        print(_row(row, code, rule))
        whole.statuses += rule.statuses
        whole.hits += rule.hits
        whole.corpus += rule.corpus
        whole.with_remedy += rule.with_remedy
        whole.ratios += rule.ratios
    print(_row(row, "all", whole))


def _row(row: str, name: str, rule: Rule) -> str:
    counts = rule.statuses
    decided = ["" if rule.precision is None else f"{rule.precision:.2f}"]
    ratio = f"{statistics.median(rule.ratios):.2f}" if rule.ratios else ""
    tried = [counts[status] for status in ("confirmed", "refuted", "undecided", "failed")]
    return row.format(name, rule.hits, rule.corpus, rule.with_remedy, *tried, *decided, ratio)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("programs", nargs="*", help="those of the fixtures by default")
    parser.add_argument("--target", action="append", help="cpu, tpu:v5e and gpu:h100 by default")
    parser.add_argument("--keep", type=Path, help="folder of the documents, to go on from")
    parser.add_argument("--budget", type=float, default=180.0, help="seconds of one program")
    parser.add_argument("--corpus", action="store_true", help="public HLO files too")
    given = parser.parse_args()
    rules: dict[str, Rule] = defaultdict(Rule)
    with tempfile.TemporaryDirectory() as scratch:
        keep = given.keep or Path(scratch)
        keep.mkdir(parents=True, exist_ok=True)
        for reference in references(given.programs):
            for target in given.target or TARGETS:
                name = f"{reference}-{target}".replace("/", "_").replace(":", "_")
                words = [reference, "--target", target, "--verify", "--budget", str(given.budget)]
                document = analyzed(words, keep / f"{name}.json")
                if document is not None:
                    tell(reference, target, document)
                    for finding in document["findings"]:
                        rules[finding["code"]].add(finding)
        for code, count in corpus_hits().items() if given.corpus else ():
            rules[code].corpus += count
    table(rules)


if __name__ == "__main__":
    main()
