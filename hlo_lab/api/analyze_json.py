"""An analysis as JSON; ``docs/json.md`` and ``docs/json-schema/analyze.json`` describe it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from hlo_lab.api.measure_json import figures, order
from hlo_lab.report import json_

if TYPE_CHECKING:
    from hlo_lab.api.analyze import Analysis
    from hlo_lab.cost.compiler import CompilerCost
    from hlo_lab.cost.overlap import Traffic


def document(analysis: Analysis) -> dict[str, Any]:
    from hlo_lab.api.analyze import SCHEMA, SCHEMA_VERSION

    module, memory, measured = analysis.module, analysis.memory, analysis.measured
    ops = analysis.cost.top(analysis.top) if measured is None else order(measured)
    return {
        "schema": SCHEMA,
        "schema_version": SCHEMA_VERSION,
        "module": module.name,
        "source": {"name": analysis.loaded.label, "kind": analysis.loaded.kind},
        "target": analysis.loaded.target,
        "machine": analysis.machine.name,
        "stage": analysis.loaded.stage,
        "out_of_memory": _out_of_memory(analysis),
        "summary": analysis.summary(),
        "memory": {
            "scheduled": memory.scheduled,
            "argument_bytes": memory.argument_bytes,
            "output_bytes": memory.output_bytes,
            "alias_bytes": memory.alias_bytes,
            "temp_bytes": memory.temp_bytes,
            "constant_bytes": memory.constant_bytes,
            "compiler": analysis.compiler_memory,
            "assignment": _assignment(analysis),
        },
        "holders": [
            {
                "bytes": holder.bytes,
                "padding_bytes": holder.padding_bytes,
                "kind": holder.kind,
                "instruction": module.instruction_names[holder.instruction],
                "op_name": module.instruction(holder.instruction).op_name,
                "source": json_.frames(holder.source),
            }
            for holder in (analysis.assigned or memory).holders[: analysis.top]
        ],
        "measured": None if measured is None else figures(measured),
        "ops": [_op(analysis, index) for index in ops[: analysis.top]],
        "passes": analysis.passes,
        "verification": _verification(analysis),
        "findings": [json_.finding(finding) for finding in analysis.findings],
        "failures": [{"message": str(failure)} for failure in analysis.failures],
        "warnings": analysis.notes,
    }


def _verification(analysis: Analysis) -> dict[str, Any] | None:
    found = analysis.verified
    if found is None:
        return None
    return {
        "obstacle": found.obstacle,
        "spent_s": found.spent,
        "counts": {str(status): count for status, count in sorted(found.counts.items())},
        "together": None if found.together is None else json_.verification(found.together),
    }


def _out_of_memory(analysis: Analysis) -> dict[str, Any] | None:
    found = analysis.out_of_memory
    if found is None:
        return None
    return {
        "needed_bytes": found.needed_bytes,
        "available_bytes": found.available_bytes,
        "missing_bytes": found.missing_bytes,
        "message": found.message,
        "after_pass": found.after_pass,
    }


def _assignment(analysis: Analysis) -> dict[str, Any] | None:
    found = analysis.assigned
    if found is None:
        return None
    return {
        "allocated_bytes": found.allocated_bytes,
        "peak_bytes": found.peak_bytes,
        "padding_bytes": found.padding_bytes,
        "vmem_bytes": found.vector_bytes,
        "instruction": analysis.module.instruction_names[found.peak_instruction],
    }


def compiler(cost: CompilerCost) -> dict[str, Any] | None:
    """The compiler's own estimate; None where it gives no time for any kernel."""
    if not cost.has_seconds:
        return None
    return {
        "seconds": cost.total_seconds,
        "coverage": cost.coverage,
        "kernels": cost.costed,
        "of_kernels": cost.kernels,
        "without": dict(cost.without.most_common()),
    }


def traffic(found: Traffic) -> dict[str, Any]:
    return {
        "count": found.count,
        "async": found.asynchronous,
        "runs": found.runs,
        "bytes": found.bytes,
        "estimated_s": found.seconds,
        "hidden_s": found.hidden_seconds,
        "overlapped_kernels": found.overlapped_kernels,
    }


def _op(analysis: Analysis, index: int) -> dict[str, Any]:
    """Flops, bytes and seconds are for all executions in one call of the entry."""
    cost, instruction = analysis.cost, analysis.module.instruction(index)
    runs = float(cost.executions[index])
    record = analysis.compiler.of(index)
    expected = float(analysis.compiler.seconds[index])
    measured = analysis.measured
    own = float(cost.seconds[index]) * runs if measured is None else measured.estimated[index]
    return {
        "name": instruction.name,
        "opcode": instruction.opcode,
        "computation": instruction.computation.name,
        "op_name": instruction.op_name,
        "executions": runs,
        "flops": float(cost.flops[index]) * runs,
        "bytes": float(cost.bytes[index]) * runs,
        "estimated_s": own,
        "compiler_s": None if math.isnan(expected) else expected * runs,
        "measured_s": None if measured is None else measured.measured[index],
        "bound": cost.bound[index],
        "kernel": record.kernel,
        "tiles": list(record.tiles or record.window),
        "vmem_bytes": record.vector_bytes,
        "source": json_.frames(instruction.source),
    }
