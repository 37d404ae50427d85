"""HLO text of a module, which the text reader (and XLA's own parser) reads back."""

from __future__ import annotations

from collections.abc import Iterator

from hlo_lab.ir.attributes import print_attributes
from hlo_lab.ir.module import ROLES, Module
from hlo_lab.ir.source import Metadata, quoted

# a role that text writes in braces, with any number of computations
_LISTS = ("branch_computations", "called_computations")


def print_module(module: Module) -> str:
    """The module as XLA prints it with ``%`` names and metadata, constants in full."""
    return "".join(_pieces(module))


def _pieces(module: Module) -> Iterator[str]:
    if module.name or module.header:  # a bare computation has neither
        header = [f"HloModule {module.name}"]
        header += [f"{key}={value}" for key, value in module.header.items()]
        yield ", ".join(header) + "\n"
    yield from _frames(module)
    shapes = [str(shape) for shape in module.shapes]
    attributes = [print_attributes(value) for value in module.attributes]
    metadatas = [_metadata(value) for value in module.metadatas]
    tails = {"attributes": attributes, "metadatas": metadatas}
    for number, name in enumerate(module.computation_names):
        yield "\n" + ("ENTRY " if number == module.entry else "") + f"%{name} "
        yield _signature(module, number, shapes) + " {\n"
        yield from _instructions(module, number, shapes, tails)
        thread = module.execution_threads.get(number)
        yield f'}}, execution_thread="{thread}"\n' if thread else "}\n"


def _signature(module: Module, number: int, shapes: list[str]) -> str:
    computation = module.computation(number)
    parameters = ", ".join(
        f"{parameter.name}: {shapes[module.shape[parameter.index]]}"
        for parameter in computation.parameters
    )
    return f"({parameters}) -> {shapes[module.shape[computation.root.index]]}"


def _instructions(
    module: Module, number: int, shapes: list[str], tails: dict[str, list[str]]
) -> Iterator[str]:
    names = module.instruction_names
    first, last = (int(n) for n in module.computation_start[number : number + 2])
    start = module.operand_start[first : last + 1].tolist()
    operand = module.operand[start[0] : start[-1]].tolist()
    root = int(module.computation_root[number])
    literals = module.literals
    for at in range(first, last):
        opcode = module.opcodes[module.opcode[at]]
        if opcode == "parameter":
            arguments = str(module.parameter_number[at])
        elif opcode == "constant":
            arguments = literals.get(at, "{...}")
        else:
            low, high = (start[at - first + i] - start[0] for i in (0, 1))
            arguments = ", ".join(["%" + names[i] for i in operand[low:high]])
        line = "  ROOT %" if at == root else "  %"
        line += f"{names[at]} = {shapes[module.shape[at]]} {opcode}({arguments})"
        for part in (
            tails["attributes"][module.attribute[at]],
            _callees(module, at),
            _controls(module, at),
            tails["metadatas"][module.metadata[at]],
        ):
            if part:
                line += ", " + part
        yield line + "\n"


def _callees(module: Module, at: int) -> str:
    rows = range(module.callee_start[at], module.callee_start[at + 1])
    by_role: dict[str, list[str]] = {}
    for row in rows:
        name = "%" + module.computation_names[module.callee[row]]
        by_role.setdefault(ROLES[module.callee_role[row]], []).append(name)
    parts = []
    for role, names in by_role.items():
        if role == "branch_computations" and len(names) == 2 and _on_flag(module, at):
            parts.append(f"true_computation={names[0]}, false_computation={names[1]}")
        elif role in _LISTS or len(names) > 1:
            parts.append(f"{role}={{{', '.join(names)}}}")
        else:
            parts.append(f"{role}={names[0]}")
    return ", ".join(parts)


def _on_flag(module: Module, at: int) -> bool:
    """Whether a conditional chooses by a pred, whose branches XLA's parser wants by name."""
    operand = module.operand[module.operand_start[at]]
    return bool(module.shapes[module.shape[operand]].dtype == "pred")


def _controls(module: Module, at: int) -> str:
    rows = module.control[module.control_start[at] : module.control_start[at + 1]]
    if not len(rows):
        return ""
    names = ", ".join("%" + module.instruction_names[i] for i in rows)
    return f"control-predecessors={{{names}}}"


def _metadata(value: Metadata) -> str:
    parts = [
        f"{key}={quoted(text)}"
        for key, text in (("op_type", value.op_type), ("op_name", value.op_name))
        if text
    ]
    if value.source_file:
        parts.append(f"source_file={quoted(value.source_file)}")
    if value.source_line:
        parts.append(f"source_line={value.source_line}")
    parts += [f"{key}={text}" for key, text in value.extra]
    if value.stack_frame_id:
        parts.append(f"stack_frame_id={value.stack_frame_id}")
    return f"metadata={{{' '.join(parts)}}}" if parts else ""


def _frames(module: Module) -> Iterator[str]:
    frames = module.frames
    if not (frames.files or frames.functions or frames.locations or frames.frames):
        return
    for title, names in (("FileNames", frames.files), ("FunctionNames", frames.functions)):
        yield f"\n{title}\n"
        yield from (f"{number} {quoted(name)}\n" for number, name in enumerate(names, 1))
    yield "\nFileLocations\n"
    for number, (file, function, line, end, column, end_column) in enumerate(frames.locations, 1):
        yield (
            f"{number} {{file_name_id={file} function_name_id={function} line={line} "
            f"end_line={end} column={column} end_column={end_column}}}\n"
        )
    yield "\nStackFrames\n"
    for number, (location, parent) in enumerate(frames.frames, 1):
        # text prints the parent plus one, so that 1 is the root
        yield f"{number} {{file_location_id={location} parent_frame_id={parent + 1}}}\n"
    yield "\n"
