"""An analysis as JSON; ``docs/json.md`` and ``docs/json-schema/analyze.json`` describe it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hlo_lab.report import json_

if TYPE_CHECKING:
    from hlo_lab.api.analyze import Analysis


def document(analysis: Analysis) -> dict[str, Any]:
    from hlo_lab.api.analyze import SCHEMA, SCHEMA_VERSION

    module, cost, memory = analysis.module, analysis.cost, analysis.memory
    return {
        "schema": SCHEMA,
        "schema_version": SCHEMA_VERSION,
        "module": module.name,
        "source": {"name": analysis.loaded.label, "kind": analysis.loaded.kind},
        "target": analysis.loaded.target,
        "machine": analysis.machine.name,
        "summary": analysis.summary(),
        "memory": {
            "scheduled": memory.scheduled,
            "argument_bytes": memory.argument_bytes,
            "output_bytes": memory.output_bytes,
            "alias_bytes": memory.alias_bytes,
            "temp_bytes": memory.temp_bytes,
            "constant_bytes": memory.constant_bytes,
            "compiler": analysis.compiler_memory,
        },
        "holders": [
            {
                "bytes": holder.bytes,
                "kind": holder.kind,
                "instruction": module.instruction_names[holder.instruction],
                "op_name": module.instruction(holder.instruction).op_name,
                "source": json_.frames(holder.source),
            }
            for holder in memory.holders[: analysis.top]
        ],
        "ops": [_op(analysis, index) for index in cost.top(analysis.top)],
        "passes": analysis.passes,
        "findings": [json_.finding(finding) for finding in analysis.findings],
        "failures": [{"message": str(failure)} for failure in analysis.failures],
        "warnings": [*module.warnings, *memory.notes, *cost.notes],
    }


def _op(analysis: Analysis, index: int) -> dict[str, Any]:
    """Flops, bytes and seconds are for all executions in one call of the entry."""
    cost, instruction = analysis.cost, analysis.module.instruction(index)
    runs = float(cost.executions[index])
    return {
        "name": instruction.name,
        "opcode": instruction.opcode,
        "computation": instruction.computation.name,
        "op_name": instruction.op_name,
        "executions": runs,
        "flops": float(cost.flops[index]) * runs,
        "bytes": float(cost.bytes[index]) * runs,
        "estimated_s": float(cost.seconds[index]) * runs,
        "bound": cost.bound[index],
        "source": json_.frames(instruction.source),
    }
