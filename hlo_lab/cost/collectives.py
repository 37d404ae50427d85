"""Bytes that a collective sends over the interconnect, and how long that takes.

Alpha-beta model of ring algorithms (Thakur, Rabenseifner, Gropp: Optimization of
Collective Communication Operations in MPICH, 2005): seconds = steps x latency +
bytes sent per device / bandwidth.
"""

from __future__ import annotations

import math
import re

from hlo_lab.cost.machines import Machine
from hlo_lab.cost.tables import attributes_at, words
from hlo_lab.ir.module import Module

COLLECTIVES = words("""
    all-reduce all-gather reduce-scatter all-to-all ragged-all-to-all collective-permute
    collective-broadcast
""")
_IOTA = re.compile(r"\[([\d,]+)\]<=\[")
_MESH = re.compile(r"mesh\[([^\]]*)\].*?\{([^}]*)\}")
_AXIS = re.compile(r"'([^']*)'(?:=(\d+)|:\(\d+\)(\d+))?")


def is_collective(opcode: str) -> bool:
    """Whether an opcode is a collective or the start half of one."""
    return opcode.removesuffix("-start") in COLLECTIVES


def fused_chain(module: Module, computation: int) -> tuple[str, str] | None:
    """(channel, part) of an asynchronous collective that XLA:TPU put into a fusion's body.

    It repeats the collective in every fusion that carries it on: in the one whose root is a
    custom call AsyncCollectiveStart (part ``start``), in those that compute meanwhile
    (``step``), and in the one that ends it (``done``). None for any other computation.
    """
    found, part = None, "step"
    for at in range(*module.computation_start[computation : computation + 2].tolist()):
        opcode = module.opcodes[module.opcode[at]]
        if opcode == "custom-call":
            name = attributes_at(module, int(module.attribute[at])).get("custom_call_target", "")
            part = {'"AsyncCollectiveStart"': "start", '"AsyncCollectiveDone"': "done"}.get(
                name, part
            )
        elif is_collective(opcode):
            attributes = attributes_at(module, int(module.attribute[at]))
            if "async_collective_fusion_config" in attributes.get("backend_config", ""):
                found = attributes.get("channel_id", "")
    return None if found is None else (found, part)


def group_size(module: Module, attributes: dict[str, str]) -> int:
    """Devices that take part in one instance of a collective."""
    groups = attributes.get("replica_groups", "")
    iota = _IOTA.match(groups)
    if iota:  # [groups, size]<=[devices]
        return max(int(iota.group(1).split(",")[-1]), 1)
    # a mesh in another order of devices is printed with a comma: ", device_ids=(..) {'y'}"
    mesh = _MESH.match(f"{groups} {attributes.get('device_ids', '')}")
    if mesh:  # mesh['x'=2,'y'=4] {'y'}, or {'y':(1)2} for a part of an axis
        sizes = {name: int(size) for name, size, _ in _AXIS.findall(mesh.group(1)) if size}
        used = _AXIS.findall(mesh.group(2))
        return math.prod(int(part) if part else sizes.get(name, 1) for name, _, part in used)
    first = groups.strip("{}").split("}")[0]
    members = [part for part in first.strip("{ ").split(",") if part.strip()]
    if members:
        return len(members)
    if "source_target_pairs" in attributes:
        return 2
    return max(_count(module, "replica_count") * _count(module, "num_partitions"), 1)


def _count(module: Module, name: str) -> int:
    text = module.header.get(name, "1")
    return int(text) if text.isdecimal() else 1


def sent(opcode: str, operand_bytes: float, devices: int) -> tuple[float, int]:
    """(bytes that each device sends, steps) of one collective over ``devices`` in a ring.

    ``operand_bytes`` is what each device puts in.
    """
    others = devices - 1
    kind = opcode.removesuffix("-start")
    if others <= 0:
        return 0.0, 0
    if kind == "all-reduce":
        return 2.0 * operand_bytes * others / devices, 2 * others
    if kind == "all-gather":
        return operand_bytes * others, others
    if kind in ("reduce-scatter", "all-to-all", "ragged-all-to-all"):
        return operand_bytes * others / devices, others
    return operand_bytes, 1


def seconds(machine: Machine, sent_bytes: float, steps: int) -> float:
    """Alpha-beta time in seconds."""
    return steps * machine.interconnect_latency + sent_bytes / machine.interconnect_bandwidth
