"""Machine files of the user: where they are, how they are written, and read without trust."""

from __future__ import annotations

import json
import math
import re
import tempfile
import tomllib
from dataclasses import MISSING, asdict, fields
from pathlib import Path
from typing import Any

from hlo_lab.cost.kernels_cpu_units import UNITS
from hlo_lab.cost.machines import Machine, Topology, from_mapping
from hlo_lab.errors import InputError, ReadError

MAX_BYTES = 1 << 20
_NAME = re.compile(r"[a-z0-9][a-z0-9.-]{0,63}")
_TEXTS = ("name", "title", "kind")
_NUMBERS = (
    "memory_bytes", "launch_overhead", "interconnect_bandwidth", "interconnect_latency",
)  # fmt: skip
_TABLES = ("units", "matrix_flops", "vector_flops", "rates", "errors", "probe")
_SCRATCHPAD = ("bytes", "bandwidth")
_KEYS = {
    *_TEXTS, *_NUMBERS, *_TABLES, "device", "clock", "aliases", "bandwidth", "scratchpad",
    "topology", "sources", "references",
}  # fmt: skip


def folder() -> Path:
    """Where ``hlo-lab calibrate`` writes machines: of the user, on each system where it belongs."""
    import platformdirs

    return Path(platformdirs.user_data_path("hlo-lab", appauthor=False)) / "machines"


def path_of(name: str) -> Path:
    """The file of that machine. Raises ``InputError`` on a name that is no file's name."""
    if not _NAME.fullmatch(name):
        raise InputError(
            f"{name[:40]!r} is no name for a machine: lower-case letters, digits, dots and dashes"
        )
    return folder() / f"{name}.toml"


def names() -> list[str]:
    """The user's machines."""
    try:
        return sorted(path.stem for path in folder().glob("*.toml") if _NAME.fullmatch(path.stem))
    except OSError:
        return []


def read(path: Path) -> Machine | None:
    """The machine of a file; None where there is none.

    Raises:
        ReadError: it is no machine file; the message says what is wrong.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ReadError(f"cannot be read: {error.strerror}", path) from None
    if len(data) > MAX_BYTES:
        raise ReadError("is too large for a machine file", path)
    try:
        decoded = tomllib.loads(data.decode())
    except (ValueError, RecursionError) as error:
        raise ReadError(f"is no TOML: {str(error)[:80]}", path) from None
    wrong = _wrong(decoded)
    if wrong:
        raise ReadError(f"is no machine file: {wrong}; write it again: hlo-lab calibrate", path)
    return from_mapping(decoded)


def _wrong(data: dict[str, Any]) -> str:
    """What keeps a mapping from being a machine; empty when nothing does."""
    for key in _TEXTS:
        if not isinstance(data.get(key), str):
            return f"{key} is no text"
    if data["kind"] not in ("cpu", "gpu", "tpu"):
        return f"kind is {data['kind'][:20]!r}, not cpu, gpu or tpu"
    for key in _NUMBERS:
        if not _is_positive(data.get(key)):
            return f"{key} is no positive number"
    for key in _TABLES:
        table = data.get(key, {})
        if not isinstance(table, dict) or not all(map(_is_positive, table.values())):
            return f"[{key}] is no table of positive numbers"
    if data["kind"] == "cpu" and data.get("rates") and data["rates"].keys() != set(UNITS):
        return "[rates] is that of another version of hlo-lab"
    if "f32" not in data.get("vector_flops", {}):
        return "[vector_flops] has no f32"
    if "matrix_flops" not in data:
        return "there is no [matrix_flops]"
    levels = data.get("bandwidth")
    if not isinstance(levels, list) or not levels or not all(map(_is_level, levels)):
        return "bandwidth is no list of [bytes that fit, bytes/s]"
    limits = [level[0] for level in levels]
    if limits != sorted(limits) or not math.isinf(limits[-1]):
        return "bandwidth does not rise to inf"
    if not isinstance(data.get("device", ""), str):
        return "device is no text"
    if not all(isinstance(value, int) for value in data.get("units", {}).values()):
        return "[units] is no table of whole numbers"
    if not _is_rate(data.get("clock", 0.0)):
        return "clock is no number of hertz"
    return _wrong_parts(data) or _wrong_texts(data)


def _wrong_parts(data: dict[str, Any]) -> str:
    """The same of what only accelerators have, and of keys that nothing reads."""
    scratchpad = data.get("scratchpad", dict.fromkeys(_SCRATCHPAD, 1))
    if not isinstance(scratchpad, dict) or set(scratchpad) != set(_SCRATCHPAD):
        return f"[scratchpad] has other keys than {' and '.join(_SCRATCHPAD)}"
    if not all(map(_is_positive, scratchpad.values())):
        return "[scratchpad] is no table of positive numbers"
    if unknown := data.keys() - _KEYS:
        return f"{min(unknown)[:40]!r} is no key of one"
    if "topology" not in data:
        return ""
    topology = data["topology"]
    known = {field.name: field for field in fields(Topology)}
    if not isinstance(topology, dict):
        return "[topology] is no table"
    if unknown := topology.keys() - known:
        return f"[topology] has {min(unknown)[:40]!r}, which is no key of it"
    needed = {name for name, field in known.items() if field.default is MISSING}
    if missing := needed - topology.keys():
        return f"[topology] has no {min(missing)}"
    if topology["shape"] not in ("torus", "switch", "bus"):
        return "[topology] has a shape that is not torus, switch or bus"
    for key, value in topology.items():
        kind = known[key].type
        if kind == "bool" and not isinstance(value, bool):
            return f"[topology] {key} is not true or false"
        whole = kind != "int" or isinstance(value, int)
        if kind in ("int", "float") and not (whole and _is_rate(value)):
            return f"[topology] {key} is no {'whole ' if kind == 'int' else ''}number from 0"
    return ""


def _wrong_texts(data: dict[str, Any]) -> str:
    """The same of sources and aliases; sources are lines, or a table of them by figure."""
    aliases, sources = data.get("aliases", []), data.get("sources", [])
    if not _are_texts(aliases):
        return "aliases is no list of texts"
    if isinstance(sources, list):
        return "" if _are_texts(sources) else "sources is no list of texts"
    if not isinstance(sources, dict) or not _are_texts(
        [
            text
            for source in sources.values()
            for text in (source.values() if isinstance(source, dict) else [source])
        ]
    ):
        return "[sources] is no table of texts"
    references = data.get("references", {})
    if not isinstance(references, dict) or not _are_texts([*references.values()]):
        return "[references] is no table of texts"
    return ""


def _are_texts(values: Any) -> bool:
    return isinstance(values, list) and all(isinstance(value, str) for value in values)


def _is_rate(value: Any) -> bool:
    return _is_positive(value) or (value == 0 and not isinstance(value, bool))


def _is_positive(value: Any) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and 0 < value < 1e30


def _is_level(level: Any) -> bool:
    return (
        isinstance(level, list)
        and len(level) == 2
        and (level[0] == math.inf or _is_positive(level[0]))
        and _is_positive(level[1])
    )


def write(machine: Machine, path: Path) -> None:
    """Under a temporary name, then renamed: a file is whole or not there.

    Raises:
        InputError: the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(
            "w", dir=path.parent, suffix=".tmp", delete=False, encoding="utf-8"
        ) as file:
            try:
                file.write(to_toml(machine))
                file.close()
                Path(file.name).chmod(0o644)
                Path(file.name).replace(path)
            except BaseException:
                Path(file.name).unlink(missing_ok=True)
                raise
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}") from None


def to_toml(machine: Machine) -> str:
    """The machine as ``read`` takes it."""
    lines = [f"{key} = {_text(getattr(machine, key))}" for key in (*_TEXTS, "device")]
    lines += [f"{key} = {_number(getattr(machine, key))}" for key in _NUMBERS]
    lines.append(f"aliases = [{', '.join(map(_text, machine.aliases))}]")
    lines.append("# [bytes that fit, bytes/s]; the last level holds everything")
    levels = ", ".join(f"[{_number(fits)}, {_number(rate)}]" for fits, rate in machine.bandwidth)
    lines.append(f"bandwidth = [{levels}]")
    if machine.clock:
        lines.append(f"clock = {_number(machine.clock)}")
    lines += ["sources = [", *(f"  {_text(source)}," for source in machine.sources), "]"]
    tables: dict[str, dict[str, Any]] = {key: getattr(machine, key) for key in _TABLES}
    if any(machine.scratchpad):
        tables["scratchpad"] = dict(zip(_SCRATCHPAD, machine.scratchpad, strict=True))
    if machine.topology is not None:
        tables["topology"] = asdict(machine.topology)
    for key, comment in _COMMENTS.items():
        table = tables.get(key)
        if table:
            lines += ["", f"# {comment}", f"[{key}]"]
            lines += [f"{_key(name)} = {_value(value)}" for name, value in table.items()]
    return "\n".join(lines) + "\n"


_COMMENTS = {
    "scratchpad": "on the chip, and the compiler places values in it; bytes, bytes/s",
    "units": "what the peak rates come from",
    "topology": "what the links join; bytes/s per device and direction, seconds",
    "matrix_flops": "products, flop/s by operand type",
    "vector_flops": "other flop/s by type; transcendental calls per second",
    "rates": "seconds of one unit of each kind of work: hlo_lab/cost/kernels_cpu_units.py",
    "errors": "two of three estimates of kernels that a fit did not see are no further off",
    "probe": "what a quick measurement with numpy gives on the same machine, per second",
}


def _text(value: str) -> str:
    # a JSON string is a TOML one, but for DEL
    return json.dumps(value).replace("\x7f", "\\u007f")


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else _text(name)


def _value(value: float | str) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return _text(value) if isinstance(value, str) else _number(value)


def _number(value: float) -> str:
    # the shortest text that reads back as this number; TOML knows inf, and 1e-06 as Python does
    return "inf" if math.isinf(value) else repr(value)
