"""Shardings, meshes and device groups as XLA prints them.

Sources: xla/hlo/ir/{hlo_sharding,named_sharding,mesh_and_axis,replica_group,tile_assignment}.cc.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from hlo_lab.ir.source import quoted

_PLACE = ("op_type", "op_name", "source_file", "source_line", "stack_frame_id")
_REDUCTION = {1: "max", 2: "min"}  # of unreduced axes; a sum goes without saying
_SUBGROUP = {0: "replicated", 1: "maximul", 4: "manual", 6: "unreduced"}
_MAX_DEPTH = 64


def braces(parts: Iterable[object], separator: str = ",") -> str:
    return "{" + separator.join(map(str, parts)) + "}"


def sharding_text(proto: Any, depth: int = 0) -> str:
    """An OpSharding.

    Raises:
        ValueError: nested too deep.
    """
    if depth > _MAX_DEPTH:
        raise ValueError("a sharding nested too deep")
    if proto.HasField("named_sharding"):
        return _named(proto.named_sharding)
    kind = proto.Type.Name(proto.type) if proto.type in proto.Type.values() else "OTHER"
    if kind == "TUPLE":
        return braces((sharding_text(part, depth + 1) for part in proto.tuple_shardings), ", ")
    group = ""
    if proto.is_shard_group:
        word = "shard_like" if proto.shard_group_type == 1 else "shard_as"
        group = f" {word} {proto.shard_group_id}"
    # each once: XLA's parser adds the reduction of unreduced values to one that is there
    places = list(dict.fromkeys(_place(one) for one in proto.metadata))
    if places:
        group += f" metadata={places[0] if len(places) == 1 else braces(places, ', ')}"
    if kind in ("REPLICATED", "MANUAL", "UNKNOWN", "UNREDUCED"):
        return f"{{{kind.lower()}{group}}}"
    if kind == "MAXIMAL":
        device = proto.tile_assignment_devices[0] if proto.tile_assignment_devices else 0
        return f"{{maximal device={device}{group}}}"
    dims = ",".join(map(str, proto.tile_assignment_dimensions))
    text = f"devices=[{dims}]{_tiles(proto)}"
    if proto.replicate_on_last_tile_dim:
        text += " last_tile_dim_replicate"
    if proto.last_tile_dims:
        words = ", ".join(_SUBGROUP.get(part, "error_type.") for part in proto.last_tile_dims)
        text += f" last_tile_dims={{{words}}}"
    return f"{{{text}{group}}}"


def _place(metadata: Any) -> str:
    """Where a sharding comes from; since 2026 also how its unreduced values are to be reduced."""
    fields = [(name, getattr(metadata, name)) for name in _PLACE]
    parts = (
        f"{name}={quoted(value) if isinstance(value, str) else value}"
        for name, value in fields
        if value
    )
    return braces(parts, " ")


def _tiles(proto: Any) -> str:
    if proto.iota_reshape_dims:
        return iota_text(proto.iota_reshape_dims, proto.iota_transpose_perm)
    return ",".join(map(str, proto.tile_assignment_devices))


def iota_text(reshape: Iterable[int], permutation: Iterable[int]) -> str:
    reshape, permutation = list(reshape), list(permutation)
    text = f"<=[{','.join(map(str, reshape))}]"
    if len(reshape) > 1:
        text += f"T({','.join(map(str, permutation))})"
    return text


def _named(proto: Any) -> str:
    mesh = proto.mesh
    text = mesh_text(mesh)
    places = [_place(one) for one in proto.metadata]
    end = f", metadata={braces(places, ', ')}}}" if places else "}"
    dims = [_dimension(part, mesh) for part in proto.dim_shardings]
    axes = {
        word: ", ".join(axis_text(axis, mesh) for axis in getattr(proto, f"{word}_axes"))
        for word in ("replicated", "unreduced", "manual")
    }
    reduction = {"unreduced": _REDUCTION.get(proto.reduction_op, "")}
    if not mesh.axes and mesh.device_ids:
        return f"{{{text}{end}"
    if not proto.dim_shardings and not any(axes.values()):
        return f"{{{text}, replicated{end}"
    every = ", ".join(f"'{axis.name}'" for axis in mesh.axes)
    for word in ("unreduced", "manual"):
        others = [value for key, value in axes.items() if key != word]
        if not proto.dim_shardings and axes[word] == every and not any(others):
            shown = "=".join(filter(None, (word, reduction.get(word))))
            return f"{{{text}, {shown}{end}"
    text += f", [{', '.join(dims)}]"
    for word, value in axes.items():
        if value:
            text += f", {word}={reduction.get(word, '')}{{{value}}}"
    return f"{{{text}{end}"


def _dimension(proto: Any, mesh: Any) -> str:
    parts = [axis_text(axis, mesh) for axis in proto.axes]
    if not proto.is_closed:
        parts.append("?")
    return braces(parts, ", ")


def axis_text(axis: Any, mesh: Any) -> str:
    number = axis.mesh_axis_index
    name = mesh.axes[number].name if 0 <= number < len(mesh.axes) else str(number)
    text = f"'{name}'"
    if axis.HasField("sub_axis_info"):
        text += f":({axis.sub_axis_info.pre_size}){axis.sub_axis_info.size}"
    return text


def mesh_text(mesh: Any) -> str:
    if not mesh.axes and mesh.device_ids:
        return f"maximal_mesh[device_id={mesh.device_ids[0]}]"
    axes = ",".join(f"'{axis.name}'={axis.size}" for axis in mesh.axes)
    text = f"mesh[{axes}]"
    if mesh.HasField("iota_transform"):
        transform = mesh.iota_transform
        iota = iota_text(transform.reshape_dims, transform.transpose_perm)
        text += f", device_ids=({iota.removeprefix('<=')})"
    elif mesh.device_ids:
        text += f", device_ids=({','.join(map(str, mesh.device_ids))})"
    return text


def replica_groups_text(message: Any) -> str:
    """The ``replica_groups`` of a collective in whichever of the three forms it has."""
    if message.HasField("iota_collective_device_list"):
        iota = message.iota_collective_device_list
        shape = f"[{iota.num_replica_groups},{iota.num_devices_per_group}]"
        return shape + iota_text(iota.iota_reshape_dims, iota.iota_transpose_perm)
    if message.HasField("mesh_axes_replica_group_list"):
        groups = message.mesh_axes_replica_group_list
        axes = ",".join(axis_text(axis, groups.mesh) for axis in groups.axes)
        return f"{mesh_text(groups.mesh)} {{{axes}}}"
    lists = message.collective_device_list.replica_groups or message.replica_groups
    return braces(braces(group.replica_ids) for group in lists)
