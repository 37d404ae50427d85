from __future__ import annotations

import json
import re
import textwrap
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import jsonschema
import numpy as np
import pytest

from hlo_lab import api
from hlo_lab.api.analyze_ops import group_ops
from hlo_lab.api.source import Loaded, OutOfMemory, last_module
from hlo_lab.cost.machines import load
from hlo_lab.cost.model import cost
from hlo_lab.errors import UseError
from hlo_lab.ir.text import read_text
from hlo_lab.measure.record import write
from hlo_lab.report import json_, markdown, text
from tests.unit.measure.measurements import LOOP, measurement

ROOT = Path(__file__).resolve().parents[3]
HLO = """\
HloModule step, is_scheduled=true

ENTRY main {
  x = f32[1024,1024]{1,0} parameter(0), metadata={op_name="params['w']"}
  product = f32[1024,1024]{1,0} dot(x, x), lhs_contracting_dims={1}, rhs_contracting_dims={0}, META
  bent = f32[1024,1024]{1,0} tanh(product), metadata={op_name="jit(step)/tanh" SOURCE}
  ROOT out = f32[1024,1024]{1,0} add(bent, product), metadata={op_name="jit(step)/add" SOURCE}
}
""".replace("META", 'metadata={op_name="jit(step)/dot_general" SOURCE}').replace(
    "SOURCE", 'source_file="/w/model.py" source_line=12'
)
PASS = '''\
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from hlo_lab.ir.module import Module
from hlo_lab.passkit.base import AnalysisPass
from hlo_lab.passkit.context import Context
from hlo_lab.passkit.finding import Finding, Severity


@dataclass(frozen=True)
class Tanh(AnalysisPass):
    """Finds tanh.

    What it finds
        tanh.

    Why it matters
        It does not.

    Example
        ``tanh(x)``

    What to do
        Nothing.

    How it is verified
        It is not.
    """

    code: ClassVar[str] = "TAN900"
    name: ClassVar[str] = "tanh"
    examples: ClassVar[tuple] = ()

    def run(self, module: Module, context: Context) -> Iterator[Finding]:
        for instruction in module.with_opcode("tanh"):
            yield self.finding(instruction, "a tanh", seconds=1e-6, context=context)
            BODY
'''


def module() -> Any:
    return read_text(HLO.splitlines(keepends=True))


@pytest.fixture
def passes_dir(tmp_path: Path) -> Path:
    (tmp_path / "tanh.py").write_text(PASS.replace("BODY", "pass"))
    return tmp_path


def strict(schema: Any) -> Any:
    """The schema, with every field that it does not name forbidden."""
    if isinstance(schema, list):
        return [strict(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    out = {key: strict(value) for key, value in schema.items()}
    if out.get("type") == "object" and "properties" in out:
        out["additionalProperties"] = False
    return out


def check(document: dict[str, Any], name: str) -> None:
    schema = json.loads((ROOT / "docs" / "json-schema" / f"{name}.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(document, strict(schema))


def test_summary_and_tables(passes_dir: Path) -> None:
    analysis = api.analyze(module(), passes_dirs=[passes_dir], passes=["tanh"])
    size = 4 * 1024 * 1024
    summary = analysis.summary()
    assert summary["instructions"] == 4 and summary["computations"] == 1
    assert summary["flops"] == pytest.approx(2 * 1024**3, rel=0.01)
    assert summary["peak_bytes"] >= 3 * size
    document = json.loads(json_.dumps(analysis.to_dict()))
    check(document, "analyze")
    assert document["ops"][0]["name"] == "product"
    assert document["ops"][0]["source"] == [{"file": "/w/model.py", "line": 12, "function": ""}]
    assert {holder["kind"] for holder in document["holders"]} >= {"argument", "output"}
    [finding] = document["findings"]
    assert (finding["code"], finding["severity"]) == ("TAN900", "warning")
    assert finding["where"]["instruction"] == "bent"
    assert document["memory"]["compiler"] is None


def test_the_report_says_what_matters(passes_dir: Path) -> None:
    analysis = api.analyze(module(), passes_dirs=[passes_dir], passes=["tanh"], top=2)
    plain = text.to_string(analysis.to_report(), 100)
    for words in ("peak memory", "  model.py:12", "(arguments)", "product", "TAN900 tanh: a tanh"):
        assert words in plain
    assert "at /w/model.py:12" in plain
    assert analysis.machine.title in plain
    assert plain.count("jit(step)/tanh") == 1
    assert "| --- |" in markdown.render(analysis.to_report())


def layers(count: int) -> Any:
    """Products and sums of equal shapes, each layer's with a name of its own."""
    lines, before = [], "x"
    for number in range(count):
        for name, what in (("dot", "dot"), ("sum", "add")):
            at = f'op_name="jit(step)/layer_{number}/{what}" source_file="/w/model.py" '
            more = ", lhs_contracting_dims={1}, rhs_contracting_dims={0}" if what == "dot" else ""
            lines.append(
                f"  {name}.{number} = f32[512,512] {what}({before}, x){more}, "
                f"metadata={{{at}source_line={7 if what == 'dot' else 8}}}\n"
            )
            before = f"{name}.{number}"
    lines[-1] = lines[-1].replace("  sum", "  ROOT sum")
    head = "HloModule step, is_scheduled=true\n\nENTRY main {\n  x = f32[512,512] parameter(0)\n"
    return read_text((head + "".join(lines) + "}\n").splitlines(keepends=True))


def test_the_same_op_of_repeated_layers_is_one_row() -> None:
    analysis = api.analyze(layers(6), passes=["sharding"])
    dots, sums = group_ops(analysis.module, analysis.spent, analysis.cost.executions)
    assert (len(dots.instructions), dots.runs, dots.source) == (6, 6, "model.py:7")
    assert dots.seconds + sums.seconds == pytest.approx(analysis.cost.total_seconds)
    table = text.to_string(analysis.to_report()).partition("Most time")[2]
    assert "dot.0 x6" in table and "sum.0 x6" in table and "dot.1" not in table
    assert len(analysis.to_dict()["ops"]) == 10


def test_how_sure_an_estimate_is_where_that_is_known() -> None:
    analysis = api.analyze(layers(2), target="cpu-reference", passes=["sharding"])
    error = np.full(len(analysis.module), 0.25)
    error[analysis.module.instruction("sum.0").index] = np.nan
    analysis = replace(analysis, cost=replace(analysis.cost, error=error))
    table = text.to_string(analysis.to_report()).partition("Most time")[2]
    assert table.count("±25%") == 1


def test_fusions_without_metadata_have_each_their_own_source() -> None:
    """They share one metadata, the empty one."""
    parts = [
        f"""
f{line} {{
  p = f32[1024] parameter(0)
  a = f32[1024] sine(p), metadata={{source_file="/w/model.py" source_line={line}}}
  ROOT r = f32[1024] convert(a)
}}"""
        for line in (3, 4)
    ]
    entry = """
ENTRY e {
  x = f32[1024] parameter(0)
  y = f32[1024] fusion(x), kind=kLoop, calls=f3
  ROOT z = f32[1024] fusion(y), kind=kLoop, calls=f4
}
"""
    text = "HloModule m, is_scheduled=true\n" + "\n".join(parts) + entry
    found = api.analyze(read_text(text.splitlines(keepends=True)))
    groups = group_ops(found.module, found.spent, found.cost.executions)
    assert {group.source for group in groups} == {"model.py:3", "model.py:4"}


def summary_text(source: str) -> str:
    analysis = api.analyze(read_text(source.splitlines(keepends=True)))
    shown = text.to_string(analysis.to_report()).partition("Peak memory, by")[0]
    check(analysis.to_dict(), "analyze")
    return " ".join(shown.split())


def test_figures_of_several_devices_are_said_to_be_of_one() -> None:
    assert "per device" not in summary_text(HLO)
    head = "HloModule step, is_scheduled=true"
    shown = summary_text(HLO.replace(head, head + ", num_partitions=4, replica_count=2"))
    assert "devices 8" in shown
    assert shown.count("per device and call") == 2
    assert "MiB per device (arguments" in shown
    # before partitioning, shapes are those of all devices together
    assert "per device" not in summary_text(HLO.replace(head, "HloModule step, num_partitions=4"))


def test_totals_with_loops_of_unknown_trip_count_are_lower_bounds() -> None:
    assert "at least" not in summary_text(HLO)
    loop = """
more {
  q = f32[1024,1024] parameter(0)
  ROOT yes = pred[] constant(true)
}

turn {
  s = f32[1024,1024] parameter(0)
  ROOT w = f32[1024,1024] sine(s)
}
"""
    call = "ROOT out = f32[1024,1024]{1,0} while(bent), condition=more, body=turn, metadata="
    source = HLO.replace("\nENTRY", loop + "\nENTRY").replace(
        "ROOT out = f32[1024,1024]{1,0} add(bent, product), metadata=", call
    )
    shown = summary_text(source)
    assert shown.count("at least") == 3
    assert "a loop of unknown trip count (model.py:12) counts one iteration" in shown
    analysis = api.analyze(read_text(source.splitlines(keepends=True)))
    assert analysis.summary()["lower_bound"] is True


def test_findings_beyond_the_limit_are_counted(passes_dir: Path) -> None:
    many = PASS.replace("BODY", "yield from [self.finding(instruction, 'again')] * 11")
    (passes_dir / "tanh.py").write_text(many)
    analysis = api.analyze(module(), passes_dirs=[passes_dir], passes=["tanh"])
    plain = text.to_string(analysis.to_report())
    assert plain.count("tanh: again") == 9 and "2 more; --limit 12 shows all." in plain
    assert len(analysis.to_dict()["findings"]) == 12
    every = api.analyze(module(), passes_dirs=[passes_dir], passes=["tanh"], limit=12)
    assert "more;" not in text.to_string(every.to_report())
    none = api.analyze(module(), passes_dirs=[passes_dir], passes=["tanh"], limit=0)
    assert "12 more; --limit 12 shows all." in text.to_string(none.to_report())


def test_an_unscheduled_module_says_so() -> None:
    loose = read_text(HLO.replace(", is_scheduled=true", "").splitlines(keepends=True))
    analysis = api.analyze(loose, passes=["sharding"])
    assert analysis.to_dict()["memory"]["scheduled"] is False
    assert "not scheduled" in text.to_string(analysis.to_report())


def test_reader_warnings_are_shown() -> None:
    cut = module()
    cut.warnings.append("the file is cut after 12 lines")
    analysis = api.analyze(cut, passes=["sharding"])
    assert "the file is cut" in text.to_string(analysis.to_report())
    assert analysis.to_dict()["warnings"][0].startswith("the file is cut")


def test_a_pass_that_raises_does_not_stop_the_others(passes_dir: Path) -> None:
    broken = PASS.replace("BODY", "raise KeyError('boom')").replace("TAN900", "BRK900")
    (passes_dir / "broken.py").write_text(
        broken.replace('"tanh"', '"broken"', 1).replace("Tanh", "Broken")
    )
    analysis = api.analyze(module(), passes_dirs=[passes_dir], passes=["broken", "tanh"])
    [failure] = analysis.failures
    assert "broken" in str(failure) and "broken.py:" in str(failure) and "boom" in str(failure)
    assert failure.exit_code == 3
    assert {finding.code for finding in analysis.findings} == {"BRK900", "TAN900"}
    assert "Passes that failed" in text.to_string(analysis.to_report())
    check(json.loads(json_.dumps(analysis.to_dict())), "analyze")


@pytest.mark.parametrize(
    ("levels", "count"),
    [("note", 1), ("warning", 1), ("error", 0), ("tan900", 1), ("error,TAN900", 1), ("SHD001", 0)],
)
def test_fail_on(passes_dir: Path, levels: str, count: int) -> None:
    analysis = api.analyze(module(), passes_dirs=[passes_dir], passes=["tanh"], fail_on=levels)
    assert len(analysis.fails_on(levels)) == count


@pytest.mark.parametrize("levels", ["", "warn", "TAN901", "error,,nope", "TOP001"])
def test_a_fail_on_that_names_nothing(passes_dir: Path, levels: str) -> None:
    with pytest.raises(UseError, match="--fail-on"):
        api.analyze("never-read", passes_dirs=[passes_dir], fail_on=levels)


def test_the_compilers_own_memory_stands_beside(tmp_path: Path) -> None:
    program = tmp_path / "prog.py"
    program.write_text(
        textwrap.dedent(
            """
            import jax, jax.numpy as jnp
            def f(x):
                return jnp.sum(jnp.tanh(x @ x) @ x)
            def example_args():
                return jax.ShapeDtypeStruct((128, 128), jnp.float32)
            """
        )
    )
    analysis = api.analyze(f"{program}:f", passes=["fusion"])
    own = analysis.compiler_memory
    assert own is not None and own["argument_bytes"] == 128 * 128 * 4
    assert 0.5 < analysis.memory.peak_bytes / own["peak_bytes"] < 2
    assert "by compiler" in text.to_string(analysis.to_report())
    document = json.loads(json_.dumps(analysis.to_dict()))
    check(document, "analyze")
    assert document["memory"]["compiler"]["peak_bytes"] == own["peak_bytes"]


def test_constants_are_left_out_beside_the_compilers_figure() -> None:
    """It does not have them."""
    source = HLO.replace("add(bent, product)", "add(bent, big)").replace(
        "  bent =", "  big = f32[1024,1024]{1,0} constant({...})\n  bent ="
    )
    analysis = api.analyze(read_text(source.splitlines(keepends=True)))
    assert analysis.memory.constant_bytes == 1 << 22
    theirs = analysis.memory.peak_bytes - (1 << 22)
    vars(analysis)["compiler_memory"] = {"peak_bytes": theirs}
    shown = " ".join(text.to_string(analysis.to_report()).split())
    assert "(ours without constants is 1.00 times that)" in shown


def test_diff_keeps_to_its_schema() -> None:
    changed = read_text(HLO.replace("tanh(product)", "negate(product)").splitlines(keepends=True))
    comparison = api.diff(module(), changed, fail_on="flops>1%,peak_bytes>0")
    check(json.loads(json_.dumps(comparison.to_dict())), "diff")


def test_what_the_compilers_know() -> None:
    fixtures = ROOT / "fixtures" / "hlo"
    tpu = api.analyze(fixtures / "mlp_v5e.hlo", target="tpu:v5e:2x2", passes=["sharding"], top=40)
    document = json.loads(json_.dumps(tpu.to_dict()))
    check(document, "analyze")
    summary = document["summary"]
    assert summary["compiler"]["without"]["copy-start"] == 6
    assert 0 < summary["compiler"]["coverage"] < 1
    assert summary["async_copies"]["async"] == 10 and summary["collectives"]["async"] == 0
    assert summary["padding_bytes"] > 0 and summary["vmem"]["kernel_bytes"] > 0
    by_name = {op["name"]: op for op in document["ops"]}
    assert by_name["all-reduce.3"]["compiler_s"] is None
    assert by_name["fusion.63"]["compiler_s"] == pytest.approx(4288 / 1.5e9)
    shown = text.to_string(tpu.to_report(), 100)
    for words in ("by compiler", "padding", "in VMEM", "async copies", "12 of 25 kernels"):
        assert words in shown
    gpu = api.analyze(fixtures / "mlp_h100.hlo", target="gpu:h100:4", passes=["sharding"])
    check(json.loads(json_.dumps(gpu.to_dict())), "analyze")
    shown = text.to_string(gpu.to_report(), 200)
    assert "6 Triton" in shown and "Triton 1x16x8" in shown and "VMEM" not in shown


def test_a_program_that_does_not_fit() -> None:
    class Refused:
        manifest: ClassVar[dict[str, Any]] = {
            "out_of_memory": {
                "needed_bytes": 3 << 30,
                "available_bytes": 1 << 30,
                "message": "RESOURCE_EXHAUSTED: 3 GiB",
            }
        }
        stages: ClassVar[list[str]] = ["hlo-before"]
        analysis: ClassVar[dict[str, Any]] = {}

        def module(self, stage: str) -> Any:
            assert stage == "hlo-before"
            return module()

    bundle: Any = Refused()
    before, stage = last_module(bundle)
    loaded = Loaded(before, "big.py:f", "program", "tpu:v5e:2x2", bundle, stage=stage)
    analysis = api.analyze(loaded, passes=["sharding"])
    found = analysis.out_of_memory
    assert found is not None and found.missing_bytes == 2 << 30
    shown = text.to_string(analysis.to_report())
    assert shown.index("Does not fit on TPU v5e") < shown.index("Summary")
    for words in ("missing    2.0 GiB", "RESOURCE_EXHAUSTED", "this is hlo-before"):
        assert words in shown
    document = json.loads(json_.dumps(analysis.to_dict()))
    check(document, "analyze")
    assert document["out_of_memory"]["missing_bytes"] == 2 << 30


def test_half_a_word_on_memory() -> None:
    assert OutOfMemory.of({}) is None
    found = OutOfMemory.of({"out_of_memory": {"message": "no room"}})
    assert found is not None and found.missing_bytes is None and found.message == "no room"


def test_the_compilers_own_buffers(tmp_path: Path) -> None:
    size = 4 << 20
    report = tmp_path / "buffer_assignment.txt"
    report.write_text(f"""BufferAssignment:
allocation 0: size {size}, parameter 0, shape |f32[1024,1024]| at ShapeIndex {{}}:
 value: <0 x @0> (size={size},offset=0): f32[1024,1024]{{1,0}}
allocation 1: size {size}, maybe-live-out:
 value: <3 out @0> (size={size},offset=0): f32[1024,1024]{{1,0}}
allocation 2: size {4 * size}, preallocated-temp:
 value: <1 product @0> (size={size},offset=0): f32[1024,1024]{{1,0}}
 value: <2 bent @0> (size={size},offset={3 * size}): f32[1024,1024]{{1,0}}
""")

    class Compiled:
        manifest: ClassVar[dict[str, Any]] = {}
        stages: ClassVar[list[str]] = ["hlo-after", "buffers"]

        def path_of(self, stage: str) -> Path:
            assert stage == "buffers"
            return report

    bundle: Any = Compiled()
    loaded = Loaded(module(), "prog.py:f", "program", "tpu:v5e", bundle)
    analysis = api.analyze(loaded, passes=["sharding"])
    document = json.loads(json_.dumps(analysis.to_dict()))
    check(document, "analyze")
    assert document["memory"]["assignment"] == {
        "allocated_bytes": 6 * size, "peak_bytes": 4 * size, "padding_bytes": 0,
        "vmem_bytes": 0, "instruction": "bent",
    }  # fmt: skip
    assert [each["instruction"] for each in document["holders"]] == ["x", "out", "product", "bent"]
    shown = " ".join(text.to_string(analysis.to_report()).split())
    assert "its buffers 24.0 MiB, 16.0 MiB of it in use at the worst moment and 8.0 MiB" in shown
    assert "The compiler's own buffers, at the worst moment, when %bent runs" in shown

    report.write_text(report.read_text()[:-9])
    ours = api.analyze(loaded, passes=["sharding"])
    assert ours.assigned is None and ours.to_dict()["memory"]["assignment"] is None
    assert any("ends in the middle of line 8" in note for note in ours.to_dict()["warnings"])
    assert "The compiler's own buffers" not in text.to_string(ours.to_report())


# with measured times


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    """The loop's products took 40 times, its tanh about, what is estimated."""
    machine = load("cpu-reference")
    loop = read_text(LOOP)
    own = cost(loop, machine)
    bent, dot = (loop.instruction(name).index for name in ("bent", "dot"))
    ops = {
        "dot": (40 * own.seconds[dot] * 10, 10.0),
        "bent": (1.2 * own.seconds[bent] * 10, 10.0),
        "loop": 1e-6,
    }
    write(measurement(machine="cpu-reference", **ops), LOOP, tmp_path / "kept")
    return tmp_path / "kept"


def test_measured_times_in_the_table_and_the_summary(recorded: Path) -> None:
    analysis = api.analyze(recorded, measure=True, passes=["sharding"])
    assert analysis.machine.name == "cpu-reference"
    document = json.loads(json_.dumps(analysis.to_dict()))
    check(document, "analyze")
    assert [op["name"] for op in document["ops"][:2]] == ["dot", "bent"]
    dot = document["ops"][0]
    assert dot["measured_s"] == pytest.approx(40 * dot["estimated_s"])
    assert document["measured"]["wall"]["runs"] == 20
    assert document["measured"]["summary"]["weighted_error"] > 0.9
    plain = " ".join(text.to_string(analysis.to_report()).split())
    assert "Most time, measured" in plain and "estimated measured ratio" in plain
    assert "coverage 90.0%, estimates 0.0" in plain
    json_.dumps(api.analyze(module(), passes=["sharding"]).to_dict())


def test_findings_say_where_measurement_disagrees(recorded: Path, passes_dir: Path) -> None:
    options: dict[str, Any] = {"passes": ["tanh"], "passes_dirs": [passes_dir], "measure": True}
    [finding] = api.analyze(recorded, **options).findings
    assert finding.message == "a tanh"  # measured at 1.2 times its estimate
    path = recorded / "measurement.json"
    content = json.loads(path.read_text())
    [bent] = [op for op in content["ops"] if op["name"] == "bent"]
    bent["seconds"] *= 10
    path.write_text(json.dumps(content))
    [finding] = api.analyze(recorded, **options).findings
    assert finding.message.startswith("a tanh; measured, %bent takes ")
    assert finding.estimate.seconds == 1e-6  # as the pass has it
    path.write_text(json.dumps({**content, "noisy": True}))
    [finding] = api.analyze(recorded, **options).findings
    assert finding.message == "a tanh"


def test_what_cannot_be_measured(recorded: Path) -> None:
    with pytest.raises(UseError, match="needs a program"):
        api.analyze(module(), measure=True)
    with pytest.raises(UseError, match="leave out --target"):
        api.analyze(recorded, measure=True, target="gpu:h100")
    path = recorded / "measurement.json"
    path.write_text(path.read_text().replace('"cpu-reference"', "null"))
    with pytest.raises(UseError, match="no machine describes a device"):
        api.analyze(recorded, measure=True)


def test_what_needs_more_memory_than_there_is() -> None:
    large = HLO.replace("1024,1024", "131072,65536").replace("dot(x, x)", "negate(x)")
    module = read_text(re.sub(r"(negate\(x\)), lhs.*dims={0}", r"\1", large))
    for target, fits in (("gpu:h100", False), ("cpu", True)):
        loaded = Loaded(module, "m", "file", target)
        found = api.analyze(loaded, passes=["fusion"])
        missing = found.memory.peak_bytes - found.machine.memory_bytes
        assert found.missing_bytes == max(missing, 0) and missing > 0
        assert found.does_not_fit is not fits
        assert any(note.startswith("does not fit: the peak is") for note in found.notes)
    small = api.analyze(Loaded(read_text(HLO), "m", "file", "gpu:h100"), passes=["fusion"])
    assert not small.does_not_fit and not small.missing_bytes and not small.notes
