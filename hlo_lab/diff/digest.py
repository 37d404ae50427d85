"""A digest of a module that does not depend on names, order or metadata.

Each instruction is hashed from its operands up (``up``) and from its users down
(``down``, which holds ``up``); a computation is the multiset of its ``down`` hashes, so
that sharing, duplicates and dead code count, and the order of instructions does not.
Two modules with one digest run the same thing, with the same fusions and layouts.
"""

from __future__ import annotations

import re
from hashlib import blake2b

from hlo_lab.diff.labels import Labels
from hlo_lab.diff.order import callees_first
from hlo_lab.ir.module import Module

HEADER = (
    "entry_computation_layout", "input_output_alias", "buffer_donor", "num_partitions",
    "replica_count",
)  # fmt: skip
_DEFAULTS = {"num_partitions": "1", "replica_count": "1"}
_BLANKS = re.compile(r"/\*.*?\*/|\s+")


def semantic_header(module: Module) -> dict[str, str]:
    """The header attributes that say what runs, without blanks, comments and defaults."""
    values = ((key, _BLANKS.sub("", module.header.get(key, ""))) for key in HEADER)
    return {key: value for key, value in values if value and value != _DEFAULTS.get(key)}


def computation_digests(module: Module, labels: Labels) -> list[bytes]:
    """One digest per computation, callees folded in."""
    exact, layout = labels.exact.tobytes(), labels.layout.tobytes()
    own = [exact[i : i + 8] + layout[i : i + 8] for i in range(0, len(exact), 8)]
    start, operand = module.operand_start.tolist(), module.operand.tolist()
    user_start, user = (array.tolist() for array in module.users_csr)
    callee_start, callee = module.callee_start.tolist(), module.callee.tolist()
    roles = [bytes([role]) for role in module.callee_role.tolist()]
    comp_start, roots = module.computation_start.tolist(), module.computation_root.tolist()

    digests = [b""] * len(module.computation_names)
    up = [b""] * len(module)
    down = [b""] * len(module)
    for comp in callees_first(module):
        first, last = comp_start[comp], comp_start[comp + 1]
        for i in range(first, last):
            parts = [own[i]]
            parts += [up[o] for o in operand[start[i] : start[i + 1]]]
            if callee_start[i] != callee_start[i + 1]:
                rows = range(callee_start[i], callee_start[i + 1])
                # branches keep their order; roles are sorted since printers differ
                parts += sorted(
                    (roles[row] + digests[callee[row]] for row in rows), key=lambda p: p[0]
                )
            up[i] = blake2b(b"".join(parts), digest_size=16).digest()
        for i in range(last - 1, first - 1, -1):
            users = user[user_start[i] : user_start[i + 1]]
            if len(users) == 1:
                down[i] = blake2b(up[i] + down[users[0]], digest_size=16).digest()
            else:
                below = sorted(down[u] for u in users)
                down[i] = blake2b(up[i] + b"".join(below), digest_size=16).digest()
        whole = blake2b(up[roots[comp]], digest_size=16)
        for part in sorted(down[first:last]):
            whole.update(part)
        digests[comp] = whole.digest()
    return digests
