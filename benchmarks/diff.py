"""What a comparison costs, and how often the match is right.

    python benchmarks/diff.py [--layers N] [--corpus FOLDER]

Three tables: CPU seconds for a 100k pair with one layer changed, as a ratio to reading
the two files in the same run; precision and recall of the match on known edits (a third
each deleted, changed and inserted, then shuffled), without op_names; pairs of public
modules where a corpus is at hand.
"""

from __future__ import annotations

import argparse
import heapq
import random
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from modules import LAYERS, modules

from hlo_lab.diff import diff_modules
from hlo_lab.diff.flatten import FlatGraph, flatten
from hlo_lab.diff.labels import label
from hlo_lab.diff.match import match
from hlo_lab.ir.files import read_module

CORPUS = Path(__file__).resolve().parents[2] / "shared" / "corpus"
PAIRS = (
    ("openxla/hlo_llama31_405b_bf16_16x8.hlo.gz", "openxla/hlo_llama31_405b_bf16_64x8.hlo.gz"),
    (
        "maxtext/llama3_8b.03.2026-05-08.6d26296ce.txt.gz",
        "maxtext/llama3_8b.04.2026-06-04.24289cb91.txt.gz",
    ),
    (
        "maxtext/llama3_8b.06.2026-06-10.009209e86.txt.gz",
        "maxtext/llama3_8b.08.2026-07-06.08b54e8de.txt.gz",
    ),
    ("versions/0.11.2_spmd_opt.hlo.gz", "versions/0.12.0.1_spmd_opt.hlo.gz"),
)


def compare(before: Path, after: Path, title: str) -> None:
    start = time.process_time()
    a, b = read_module(before), read_module(after)
    read = time.process_time() - start
    result = diff_modules(a, b)
    total = time.process_time() - start
    agreement = result.matching.agreement if result.matching else None
    print(
        f"{title}: {len(a)} and {len(b)} instructions, read {read:.2f} s, in all {total:.2f} s "
        f"of CPU ({total / read:.1f} times reading); {result.verdict}, {result.matched} matched, "
        f"{result.changed} changed, {result.added} added, {result.removed} removed, "
        f"{len(result.changes)} changes"
        + (f", op_names agree {100 * agreement:.2f} %" if agreement is not None else "")
    )


def edited(graph: FlatGraph, share: float, seed: int = 0) -> tuple[FlatGraph, np.ndarray]:
    """(edited and shuffled graph, int64[n]: the node that each one was, -1 for new ones)."""
    draw = random.Random(seed)
    start, operand, slot = graph.start.tolist(), graph.operand.tolist(), graph.slot.tolist()
    fate = [
        "delete" if x < share / 3 and start[node] < start[node + 1]
        else "change" if x < 2 * share / 3 else ""
        for node, x in enumerate(draw.random() for _ in range(len(graph)))
    ]  # fmt: skip
    became: list[int] = []
    origin: list[int] = []
    edges: list[list[tuple[int, int]]] = []
    for node in range(len(graph)):
        if fate[node] == "delete":
            became.append(became[operand[start[node]]])
            continue
        own = []
        for row in range(start[node], start[node + 1]):
            source = became[operand[row]]
            if draw.random() < share / 3 / 2:  # about two operands per node
                origin.append(-1)
                edges.append([(source, 0)])
                source = len(origin) - 1
            own.append((source, slot[row]))
        origin.append(node)
        edges.append(own)
        became.append(len(origin) - 1)

    order = _shuffled(edges, draw)
    position = np.empty(len(order), np.int64)
    position[order] = np.arange(len(order))
    truth = np.array(origin, np.int64)[order]
    sizes = np.array([len(edges[node]) for node in order], np.int64)
    altered = np.array([mark == "change" for mark in fate])
    fresh = (truth < 0) | altered[truth]
    random_labels = np.array([draw.getrandbits(63) for _ in order], np.uint64)

    def column(values: np.ndarray) -> np.ndarray:
        return np.where(fresh, random_labels, values[truth])

    out = replace(
        graph,
        instruction=np.where(truth < 0, 0, graph.instruction[truth]),
        count=np.ones(len(order), np.int64),
        exact=column(graph.exact),
        rank=column(graph.rank),
        kind=column(graph.kind),
        layout=column(graph.layout),
        start=np.concatenate(([0], np.cumsum(sizes))),
        operand=np.array([position[source] for node in order for source, _ in edges[node]]),
        slot=np.array([place for node in order for _, place in edges[node]], np.int64),
        constant=np.where(truth < 0, False, graph.constant[truth]),
    )
    return out, truth


def _shuffled(edges: list[list[tuple[int, int]]], draw: random.Random) -> list[int]:
    """A random topological order."""
    waiting = [len(own) for own in edges]
    users: list[list[int]] = [[] for _ in edges]
    for node, own in enumerate(edges):
        for source, _ in own:
            users[source].append(node)
    ready = [(draw.random(), node) for node, count in enumerate(waiting) if not count]
    heapq.heapify(ready)
    order = []
    while ready:
        _, node = heapq.heappop(ready)
        order.append(node)
        for user in users[node]:
            waiting[user] -= 1
            if not waiting[user]:
                heapq.heappush(ready, (draw.random(), user))
    return order


def known_edits(graph: FlatGraph) -> None:
    for share in (0.001, 0.01, 0.05):
        changed, truth = edited(graph, share)
        start = time.process_time()
        found = match(graph, changed)
        seconds = time.process_time() - start
        kept = truth >= 0
        right = int((found.to_a[kept] == truth[kept]).sum())
        pairs = int((found.to_b >= 0).sum())
        print(
            f"{100 * share:.1f} % edits of {len(graph)} operations: precision "
            f"{100 * right / pairs:.2f} %, recall {100 * right / int(kept.sum()):.2f} %, "
            f"{seconds:.2f} s of CPU"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--layers", type=int, default=LAYERS)
    parser.add_argument("--corpus", type=Path, default=CORPUS)
    arguments = parser.parse_args()
    paths = modules(arguments.layers)
    for kind in ("hlo", "pb"):
        compare(paths[f"train.{kind}"], paths[f"changed.{kind}"], f"one layer changed, {kind}")
    compare(paths["train.hlo"], paths["train.pb"], "text against proto")
    module = read_module(paths["train.hlo"])
    graph = flatten(module, label(module))
    # without op_names: the last, greedy step must not help
    known_edits(replace(graph, module=replace(module, metadata=np.zeros_like(module.metadata))))
    for before, after in PAIRS if arguments.corpus.is_dir() else ():
        title = f"{Path(before).name} against {Path(after).name}"
        compare(arguments.corpus / before, arguments.corpus / after, title)


if __name__ == "__main__":
    main()
