"""Making a drawing small enough to read: repeated structure drawn once, scopes as one box.

Instructions are put into a tree by the scope of their op_name (``GPT / layer_* / mlp /
dot_general``), with the numbers of repeated layers replaced by a star; without op_names by
what they are and what they read. The tree is opened from its root, the branch with most
instructions first, until the drawing has as many nodes as it may.
"""

from __future__ import annotations

import hashlib
import heapq
import itertools
import re
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Any

from hlo_lab.ir.module import Module
from hlo_lab.report.graph_plain import Plain, opcodes

Path = tuple[str, ...]

_NUMBERED = re.compile(r"(.*?)(\d+)(\D*)")
_TOKEN = re.compile(r"\['?([^'\]]*)'?\]|\.")
_FEWEST_LAYERS = 3
_DEEPEST = 40  # parts of an op_name that are looked at
_REFINEMENTS = 3  # rounds of looking at operands where there are no op_names


@dataclass
class Tree:
    """Where each instruction hangs.

    ``names`` is the end of each op_name, layers starred; ``scopes`` are the branches that
    op_names make, which may be drawn as clusters; ``layers`` says how many layers a starred
    part stands for.
    """

    paths: dict[int, Path]
    names: dict[int, str] = field(default_factory=dict)
    scopes: set[Path] = field(default_factory=set)
    layers: dict[str, int] = field(default_factory=dict)


def tree(module: Module, plain: Plain, root: dict[int, str]) -> Tree:
    """Hang every instruction; ``root`` names the computation in which each is drawn."""
    tokens = _scopes(module, plain)
    loops = module.opcode_mask("while")
    if 2 * sum(1 for scope in tokens.values() if len(scope) > 1) < len(plain.rows):
        return Tree(_by_structure(module, plain, root))
    layers = _layers(tokens)
    out = Tree({}, layers={_star(key): len(numbers) for key, numbers in layers.items()})
    common = _common(root, tokens)
    for row in plain.rows:
        scope = tuple(_starred(token, layers) for token in tokens[row][common[root[row]] :])
        opcode = module.opcodes[module.opcode[row]]
        out.names[row] = "/".join(_starred(token, layers) for token in tokens[row][-2:])
        what = f"{opcode} {module.shapes[module.shape[row]].without_layout()}"
        if loops[row]:
            scope = ()  # a loop is the first node of its own cluster
        out.paths[row] = (root[row], *scope, what, _body_key(module, row))
        out.scopes.update((root[row], *scope[:depth]) for depth in range(1, len(scope)))
    return out


def _common(root: dict[int, str], tokens: dict[int, Path]) -> dict[str, int]:
    """How many parts all op_names of a computation begin with, which tell nothing apart."""
    first: dict[str, Path] = {}
    for row, name in root.items():
        scope = tokens[row][:-1]
        if tokens[row]:
            same = itertools.takewhile(
                lambda pair: pair[0] == pair[1], zip(first.get(name, scope), scope, strict=False)
            )
            first[name] = tuple(part for part, _ in same)
    return defaultdict(int, {name: len(scope) for name, scope in first.items()})


def alike(module: Module, computations: list[int]) -> dict[int, int]:
    """The first of the computations that has the same instructions, for each."""
    first: dict[tuple[bytes, ...], int] = {}
    out = {}
    for computation in computations:
        rows = module.computation(computation).rows
        key = (
            module.opcode[rows.start : rows.stop].tobytes(),
            module.shape[rows.start : rows.stop].tobytes(),
        )
        out[computation] = first.setdefault(key, computation)
    return out


def scope_tokens(op_name: str) -> Path:
    """``jit(f)/jvp(GPT)/layer_0/mul`` and ``p['layer_0']['w']`` as their parts."""
    parts, depth, start = [], 0, 0
    for at, char in enumerate(op_name):
        if char in "([{":
            depth += 1
        elif char in ")]}":
            depth -= 1
        elif char == "/" and depth <= 0:
            parts.append(op_name[start:at])
            start = at + 1
    parts.append(op_name[start:])
    if len(parts) == 1:
        parts = [part for part in _TOKEN.split(parts[0]) if part]
    parts = [part for part in parts if part]
    if len(parts) > _DEEPEST:
        parts = [*parts[: _DEEPEST - 1], parts[-1]]
    return tuple(parts)


def _scopes(module: Module, plain: Plain) -> dict[int, Path]:
    """The op_name's parts; where there is none, those of a neighbour."""
    cache: dict[int, Path] = {}
    own: dict[int, Path] = {}
    for row in plain.rows:
        number = int(module.metadata[row])
        if number not in cache:
            cache[number] = scope_tokens(module.metadatas[number].op_name)
        own[row] = cache[number]
    for a, b in sorted(plain.edges, key=lambda edge: -edge[1]):
        own[a] = own[a] or own[b]
    for a, b in sorted(plain.edges, key=lambda edge: edge[0]):
        own[b] = own[b] or own[a]
    return own


def _layers(scopes: dict[int, Path]) -> dict[tuple[str, str], set[int]]:
    """Numbered scopes that repeat: (text before, text after) and the numbers."""
    numbers: dict[tuple[str, str], set[int]] = defaultdict(set)
    for scope in set(scopes.values()):
        for token in scope[:-1]:
            match = _NUMBERED.fullmatch(token)
            if match:
                numbers[match[1], match[3]].add(int(match[2]))
    return {key: found for key, found in numbers.items() if len(found) >= _FEWEST_LAYERS}


def _star(key: tuple[str, str]) -> str:
    return f"{key[0]}*{key[1]}"


def _starred(token: str, layers: dict[tuple[str, str], set[int]]) -> str:
    match = _NUMBERED.fullmatch(token)
    if match and (match[1], match[3]) in layers:
        return _star((match[1], match[3]))
    return token


def _body_key(module: Module, row: int) -> str:
    """Equal for instructions that call equal bodies. The same in every run, unlike ``hash``."""
    digest = hashlib.blake2b(digest_size=8)
    for body in module.callee[module.callee_start[row] : module.callee_start[row + 1]].tolist():
        first, last = module.computation_start[body], module.computation_start[body + 1]
        span = slice(module.operand_start[first], module.operand_start[last])
        digest.update(module.opcode[first:last].tobytes())
        digest.update(module.shape[first:last].tobytes())
        digest.update((module.operand[span] - first).tobytes())
    return digest.hexdigest()


def _by_structure(module: Module, plain: Plain, root: dict[int, str]) -> dict[int, Path]:
    """Refined round by round: opcode, shape, then the same of the operands."""
    inputs: dict[int, list[int]] = defaultdict(list)
    for a, b in plain.edges:
        inputs[b].append(a)
    names = opcodes(module, plain.rows)
    shape = {row: str(module.shapes[module.shape[row]].without_layout()) for row in plain.rows}
    label = {row: f"{names[row]} {shape[row]}" for row in plain.rows}
    out: dict[int, Path] = {row: (root[row], names[row], label[row]) for row in plain.rows}
    current = _numbered({row: (label[row], _body_key(module, row)) for row in plain.rows})
    for _ in range(_REFINEMENTS):
        current = _numbered(
            {row: (current[row], *(current[a] for a in inputs[row])) for row in plain.rows}
        )
        for row in plain.rows:
            out[row] = (*out[row], f"{current[row]:09}")
    return out


def _numbered(keys: dict[int, tuple[Any, ...]]) -> dict[int, int]:
    """Equal keys get equal numbers, in the order of their first appearance."""
    numbers: dict[tuple[Any, ...], int] = {}
    return {row: numbers.setdefault(key, len(numbers)) for row, key in keys.items()}


def fold(paths: dict[int, Path], weight: dict[int, float], most: int) -> dict[int, Path]:
    """The tree node that each instruction is drawn as; at most ``most`` of them where possible.

    Equal paths stay one node. The heaviest branch is opened first.
    """

    def entry(path: Path, rows: list[int]) -> tuple[float, Path]:
        return -sum(weight[row] for row in rows), path

    drawn = _split(paths, list(paths), 1)
    heap = [entry(path, rows) for path, rows in drawn.items()]
    heapq.heapify(heap)
    while heap:
        _, path = heapq.heappop(heap)
        children = _split(paths, drawn[path], len(path) + 1)
        if path in children or len(drawn) + len(children) - 1 > most:
            continue
        del drawn[path]
        drawn |= children
        for child, rows in children.items():
            heapq.heappush(heap, entry(child, rows))
    return {row: path for path, rows in drawn.items() for row in rows}


def _split(paths: dict[int, Path], rows: list[int], depth: int) -> dict[Path, list[int]]:
    children: dict[Path, list[int]] = defaultdict(list)
    for row in rows:
        children[paths[row][:depth]].append(row)
    return dict(children)


def commonest(module: Module, rows: list[int], most: int = 3) -> str:
    """``6 dot, 4 reduce``."""
    counts = Counter(module.opcodes[code] for code in module.opcode[rows].tolist())
    return ", ".join(f"{number} {opcode}" for opcode, number in counts.most_common(most))
