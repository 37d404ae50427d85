"""The proto reader gives what the text reader gives, and refuses what does not add up."""

from __future__ import annotations

import subprocess
import sys

import pytest

from hlo_lab.errors import ReadError
from hlo_lab.ir import print_module, read_proto, read_text, schema, verify
from hlo_lab.ir.proto_values import literal_text


def both(module):
    """jaxlib's module by text with all constants, and by proto."""
    hlo = pytest.importorskip("jaxlib._hlo")
    options = hlo.HloPrintOptions()
    options.print_large_constants = True
    return read_text(module.to_string(options)), read_proto(module.as_serialized_hlo_module_proto())


def test_every_attribute_equals_text(every_attribute):
    text, proto = both(every_attribute)
    assert text.difference(proto) is None
    for instruction in text.instructions:
        other = proto.instruction(instruction.name)
        assert instruction.attributes.keys() == other.attributes.keys(), instruction
    assert proto.header["buffer_donor"] == "{ (1, {}) }"
    assert text.header.keys() == proto.header.keys()


def test_jaxlib_accepts_what_is_printed(every_attribute):
    hlo = pytest.importorskip("jaxlib._hlo")
    _, proto = both(every_attribute)
    again = hlo.hlo_module_from_text(print_module(proto))
    assert read_proto(again.as_serialized_hlo_module_proto()).difference(proto) is None


def test_attributes_since_2026_equal_text(newest_attributes):
    text, proto = both(newest_attributes)
    assert text.difference(proto) is None
    for key in ("debug_attributes", "backend_config"):
        assert text.header[key].split() == proto.header[key].split()
    again = read_text(print_module(proto))
    assert again.difference(proto) is None and again.header == proto.header


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"opcode": "collective-broadcast", "has_dynamic_root": True},
         {"replica_groups": "{}", "has_dynamic_root": "true"}),
        ({"opcode": "collective-reduce"}, {"replica_groups": "{}"}),
        ({"opcode": "shuffle", "dimensions": [1], "shuffle_mode": {"rotate": {"shifts": [2]}}},
         {"dimensions": "{1}", "mode": "rotate", "shifts": "{2}"}),
        ({"opcode": "negate", "original_value": {
            "call_hierarchy": "a/b",
            "elements": [{"original_array": {"instruction_name": "x", "shape_index": [1]}}]}},
         {"origin": '{{"x" {1}},["a/b"]}'}),
        ({"opcode": "negate", "sharding": {"named_sharding": {
            "mesh": {"axes": [{"name": "a", "size": 2}]}, "reduction_op": 1,
            "unreduced_axes": [{"mesh_axis_index": 0}]}}},
         {"sharding": "{mesh['a'=2], unreduced=max}"}),
        ({"opcode": "dot",
          "sparsity_config": {"rhs": {"num_non_zero": 2, "block_size": 4, "dimension": 1}},
          "block_scaling_config": {
              "lhs": {"scale_idx": 2, "zero_idx": 0, "strides": [1, 2], "steps": [3, 4]}}},
         {"lhs_contracting_dims": "{}", "rhs_contracting_dims": "{}",
          "sparsity_config": "{rhs={sparsity=2x4 dimension=1 stride=0 idx=0}}",
          "block_scaling_config": "{lhs={scale_idx=2 zero_idx=0 strides=1x2 steps=3x4}}"}),
    ],
    ids=lambda value: value.get("opcode", "") if isinstance(value, dict) else "",
)  # fmt: skip
def test_fields_since_2026_are_printed_as_xla_does(fields, expected):
    module = read_proto(module_bytes([instruction(**fields)]))
    assert module.instruction("a").attributes == expected


@pytest.mark.parametrize(
    ("element_type", "order", "expected"),
    [
        (11, "PARTIAL", {}),  # f32
        (11, "TOTAL", {"order": "TOTAL"}),
        (16, "TOTAL", {"order": "TOTAL"}),  # bf16
        (15, "PARTIAL", {}),  # c64
        (4, "TOTAL", {}),  # s32
        (4, "PARTIAL", {"order": "PARTIAL"}),
        (1, "TOTAL", {}),  # pred
        (11, "", {}),
    ],
)
def test_the_order_of_a_comparison_is_printed_where_its_type_does_not_say_it(
    element_type, order, expected
):
    rows = [
        instruction(opcode="parameter", shape={"element_type": element_type}),
        instruction(
            name="b", id=2, opcode="compare", operand_ids=[1, 1], shape={"element_type": 1},
            comparison_direction="LT", comparison_order=order,
        ),
    ]  # fmt: skip
    module = read_proto(module_bytes(rows, root=2))
    assert module.instruction("b").attributes == {"direction": "LT", **expected}


def test_equal_comparisons_of_other_types_stand_apart():
    rows = [
        instruction(opcode="parameter"),
        instruction(name="b", id=2, opcode="parameter", shape={"element_type": 4}),
        *(
            instruction(
                name=name, id=number, opcode="compare", operand_ids=[of, of],
                shape={"element_type": 1}, comparison_direction="LT", comparison_order="TOTAL",
            )
            for name, number, of in (("c", 3, 1), ("d", 4, 2), ("e", 5, 1))
        ),
    ]  # fmt: skip
    module = read_proto(module_bytes(rows, root=5))
    orders = [module.instruction(name).attributes.get("order") for name in "cde"]
    assert orders == ["TOTAL", None, "TOTAL"]


@pytest.fixture(scope="module")
def compiled():
    jax = pytest.importorskip("jax")
    import jax.numpy as jnp

    def step(w, x):
        def body(carry, _):
            return jnp.tanh(carry @ w), carry.sum()

        last, sums = jax.lax.scan(body, x, None, length=3)
        return jnp.sort(last), sums, jax.lax.top_k(last, 2)

    lowered = jax.jit(step).lower(jnp.ones((8, 8)), jnp.ones((4, 8)))
    return lowered.compiler_ir("hlo").get_hlo_module(), (
        lowered.compile().runtime_executable().hlo_modules()[0]
    )


@pytest.mark.parametrize("which", [0, 1], ids=["before", "after"])
def test_a_real_program_equals_text_before_and_after_optimisation(compiled, which):
    text, proto = both(compiled[which])
    assert text.difference(proto) is None
    assert text.is_scheduled == proto.is_scheduled == (which == 1)
    for instruction in text.instructions:
        assert instruction.source == proto.instruction(instruction.name).source
    verify(proto)


def test_wrappers_are_opened(every_attribute):
    data = every_attribute.as_serialized_hlo_module_proto()
    plain = read_proto(data)
    wrapped = schema.full("HloProto")(hlo_module=schema.full("HloModuleProto").FromString(data))
    snapshot = schema.full("HloSnapshot")(hlo=wrapped)
    assert read_proto(wrapped.SerializeToString()).difference(plain) is None
    assert read_proto(snapshot.SerializeToString()).difference(plain) is None


def instruction(**fields):
    return schema.full("HloInstructionProto")(
        **{"name": "a", "opcode": "constant", "id": 1, "shape": {"element_type": 11}, **fields}
    )


def module_bytes(instructions, root=1, **fields):
    computation = schema.full("HloComputationProto")(
        name="main", id=7, root_id=root, instructions=instructions
    )
    message = schema.full("HloModuleProto")(
        name="m", entry_computation_name="main", entry_computation_id=7,
        computations=[computation.SerializeToString()], **fields,
    )  # fmt: skip
    return message.SerializeToString()


def test_unknown_opcodes_and_fields_are_kept():
    data = instruction(opcode="shiny-op").SerializeToString() + b"\xfa\x3f\x01x"  # field 1023
    module = read_proto(module_bytes([schema.full("HloInstructionProto").FromString(data)]))
    assert module.instruction("a").opcode == "shiny-op"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "not an HLO proto"),
        (b"\x0a\x05ab", "not an HLO proto"),
        (module_bytes([instruction(operand_ids=[99])]), "unknown operand .*99"),
        (module_bytes([instruction(operand_ids=[1])]), "does not come before"),
        (module_bytes([instruction(operand_ids=[2]), instruction(name="b", id=2)]), "before"),
        (module_bytes([instruction(), instruction(name="b")]), "same id"),
        (module_bytes([instruction(called_computation_ids=[7])]), "not before it"),
        (module_bytes([instruction(called_computation_ids=[8])]), "unknown computation"),
        (module_bytes([instruction(control_predecessor_ids=[-5])]), "unknown control"),
        (module_bytes([instruction()], root=3), "root of 'main' is not in it"),
        (module_bytes([]), "is empty"),
        (module_bytes([instruction(name="a b")]), "damaged instruction name"),
        (module_bytes([instruction(opcode="parameter", parameter_number=-2)]), "negative"),
        (module_bytes([instruction(shape={"element_type": 11, "dimensions": [1 << 62]})]), "2..56"),
        (module_bytes([instruction()], schedule={"sequences": {7: {"instruction_ids": [4]}}}),
         "schedule of 'main'"),
    ],
)  # fmt: skip
def test_refused_with_a_reason(data, reason):
    with pytest.raises(ReadError, match=reason) as caught:
        read_proto(data, "f.pb")
    assert str(caught.value).startswith("f.pb: ") and "\n" not in str(caught.value)


def test_the_schedule_gives_the_order():
    rows = [instruction(), instruction(name="b", id=2), instruction(name="c", id=3)]
    data = module_bytes(rows, schedule={"sequences": {7: {"instruction_ids": [3, 1, 2]}}})
    module = read_proto(data)
    assert module.instruction_names == ["c", "a", "b"] and module.is_scheduled
    assert module.entry_computation.root.name == "a"


def test_the_id_0_is_not_written():
    rows = [instruction(id=0), instruction(name="b", opcode="add", id=2, operand_ids=[0, 0])]
    module = read_proto(module_bytes(rows, root=2))
    assert [operand.name for operand in module.instruction("b").operands] == ["a", "a"]


def test_ids_may_stand_one_by_one():
    user = instruction(name="b", opcode="negate", id=2).SerializeToString() + b"\xa0\x02\x01"
    computation = schema.full("HloComputationProto")(name="main", id=7, root_id=2)
    computation.instructions.add().CopyFrom(instruction())
    data = computation.SerializeToString() + b"\x12" + bytes([len(user)]) + user
    module = schema.full("HloModuleProto")(
        name="m", entry_computation_name="main", entry_computation_id=7, computations=[data]
    )
    module = read_proto(module.SerializeToString())
    assert [operand.name for operand in module.instruction("b").operands] == ["a"]
    assert module.instruction("b").attributes == {}


@pytest.mark.parametrize("extra", [b"\x0a\x01z", b"\x98\x02\x05"])
def test_a_name_or_id_given_twice_is_refused(extra):
    row = instruction().SerializeToString() + extra
    computation = b"\x0a\x01c\x28\x07\x30\x01\x12" + bytes([len(row)]) + row
    module = schema.full("HloModuleProto")(
        name="m", entry_computation_name="c", entry_computation_id=7, computations=[computation]
    )
    with pytest.raises(ReadError):
        read_proto(module.SerializeToString())


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"shape": {"element_type": 11}, "f32s": [0.1]}, "0.1"),
        ({"shape": {"element_type": 11}, "f32s": [1 / 3]}, "0.333333343"),
        ({"shape": {"element_type": 1}, "preds": [True]}, "true"),
        ({"shape": {"element_type": 16, "dimensions": [1]}, "bf16s": b"\x00\xc0"}, "{-2}"),
        ({"shape": {"element_type": 21, "dimensions": [2]}, "s4s": b"\x08\x07"}, "{-8, 7}"),
        ({"shape": {"element_type": 20, "dimensions": [2]}, "f8e4m3fns": b"\x38\xfe"}, "{1, -448}"),
    ],
)  # fmt: skip
def test_literals(fields, expected):
    assert literal_text(schema.full("LiteralProto")(**fields)) == expected


def test_reading_imports_no_jaxlib():
    code = (
        "import sys, hlo_lab.ir.proto, hlo_lab.ir.files\n"
        f"hlo_lab.ir.proto.read_proto({module_bytes([instruction()])!r})\n"
        "assert not {'jax', 'jaxlib', 'networkx'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_slow_protobuf_is_told(monkeypatch):
    monkeypatch.setattr(schema.api_implementation, "Type", lambda: "python")
    module = read_proto(module_bytes([instruction()]))
    assert "100 times slower" in module.warnings[0]
