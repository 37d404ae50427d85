from __future__ import annotations

import subprocess
import sys

import pydot
import pytest
from graph_modules import LOOP, layered, parse

from hlo_lab.cost.machines import load
from hlo_lab.cost.model import cost
from hlo_lab.errors import NotFoundError, UseError
from hlo_lab.ir.module import Module
from hlo_lab.report.graph import Drawing, draw
from hlo_lab.report.graph_dot import to_dot
from hlo_lab.report.graph_fold import scope_tokens
from hlo_lab.report.graph_kinds import FILL, heat


def names(drawing: Drawing) -> list[str]:
    return [node.lines[0] for node in drawing.nodes]


def edges(drawing: Drawing) -> set[tuple[str, str]]:
    name = names(drawing)
    return {(name[a], name[b]) for a, b in drawing.edges}


def test_a_small_module_is_drawn_whole() -> None:
    drawing = draw(layered(2))
    assert len(drawing.nodes) == 2 * 7 + 2
    assert drawing.notes == []
    assert ("dot.0", "bias.0") in edges(drawing)
    assert not drawing.loops


def test_a_loop_is_a_cluster_that_feeds_itself() -> None:
    drawing = draw(parse(LOOP))
    shown = names(drawing)
    assert "less" not in shown  # the condition is no work
    assert "state" not in shown  # the loop stands for its body's parameter
    inside = {node.lines[0] for node in drawing.nodes if node.cluster == ("%body",)}
    assert inside == {"loop", "counter", "one", "next", "value", "twice", "out"}
    assert drawing.titles[("%body",)] == "while %loop, 5 times"
    assert {("init", "loop"), ("loop", "value"), ("out", "loop"), ("loop", "result")} <= edges(
        drawing
    )
    assert drawing.loops == {(shown.index("out"), shown.index("loop"))}


def test_plumbing_goes_first() -> None:
    drawing = draw(parse(LOOP), max_nodes=6)
    assert sorted(names(drawing)) == ["loop", "next", "start", "twice", "y"]
    assert {("start", "loop"), ("loop", "twice"), ("loop", "y")} <= edges(drawing)
    start = drawing.nodes[names(drawing).index("start")]
    assert "reads x" in start.lines
    assert "left out" in " ".join(drawing.notes)
    assert [node.lines[0] for node in drawing.nodes if node.output] == ["y"]


def test_repeated_layers_are_drawn_once() -> None:
    drawing = draw(layered(12), max_nodes=12)
    assert len(drawing.nodes) <= 12
    assert any("×12" in line for node in drawing.nodes for line in node.lines)
    assert any("layer_* stands for 12 layers" in note for note in drawing.notes)
    assert any("folded into" in note for note in drawing.notes)
    assert any("layer_*" in title and "×12" in title for title in drawing.titles.values())
    # from the end of one layer to the beginning of the next
    assert drawing.loops


@pytest.mark.parametrize("with_names", [True, False])
@pytest.mark.parametrize("most", [1, 2, 5, 20])
def test_there_are_never_more_nodes_than_asked_for(with_names: bool, most: int) -> None:
    module = layered(30, names=with_names)
    drawing = draw(module, max_nodes=most)
    assert 1 <= len(drawing.nodes) <= most


def test_without_op_names_equal_structure_is_folded() -> None:
    drawing = draw(layered(40, names=False), max_nodes=10)
    heads = [node.lines[0] for node in drawing.nodes]
    assert {"add  ×39", "tanh  ×39", "dot  ×38"} <= set(heads)
    assert {"dot.0", "dot.1"} <= set(heads)  # what they read was made in another way


def test_by_default_what_is_too_large_becomes_an_overview() -> None:
    assert len(draw(layered(25)).nodes) == 25 * 7 + 2
    assert len(draw(layered(60, names=False)).nodes) <= 60
    # as many as asked for, once the plumbing is out: value.0 is read twice, so it stays
    assert len(draw(layered(60), max_nodes=300).nodes) == 60 * 4 + 2


def test_focus_draws_a_neighbourhood() -> None:
    module = layered(6)
    drawing = draw(module, focus="%bias.3", hops=1)
    assert sorted(names(drawing)) == ["bias.3", "dot.3", "scale.3", "spread.3"]
    assert [node.lines[0] for node in drawing.nodes if node.centre] == ["bias.3"]
    assert len(draw(module, focus="bias.3", hops=0).nodes) == 1


def test_a_neighbourhood_ends_where_nothing_is_left() -> None:
    module = layered(4)
    name = module.instruction_names[5]
    every = draw(module, focus=name, hops=10**9)
    assert names(every) == names(draw(module, focus=name, hops=1000))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"focus": "exq"}, "no instruction 'exq' in module m; did you mean ex?"),
        ({"focus": "copy"}, "did you mean copy.7?"),
        ({"computation": "main"}, "no computation 'main' in module m; did you mean main.45?"),
        ({"focus": "nothing_like_it"}, "no instruction 'nothing_like_it' in module m"),
    ],
)
def test_unknown_names_get_a_suggestion(wrong: dict[str, str], said: str) -> None:
    module = parse(
        "HloModule m\n\nENTRY main.45 {\n  ex = f32[8] parameter(0)\n"
        "  ROOT copy.7 = f32[8] copy(ex)\n}\n"
    )
    with pytest.raises(NotFoundError) as error:
        draw(module, **wrong)
    assert str(error.value).endswith(said)


def test_a_shared_constant_does_not_make_neighbours() -> None:
    module = parse(
        "HloModule m\n\nENTRY e {\n"
        "  c = f32[] constant(0)\n"
        "  a = f32[] negate(c)\n"
        "  b = f32[] exponential(c)\n"
        "  ROOT t = (f32[], f32[]) tuple(a, b)\n}\n"
    )
    assert sorted(names(draw(module, focus="a", hops=2))) == ["a", "b", "c", "t"]
    assert sorted(names(draw(module, focus="a", hops=1))) == ["a", "c", "t"]
    beyond = layered(3)
    shown = names(draw(beyond, focus="spread.0", hops=2))
    assert "half.0" in shown and "spread.1" not in shown


def test_a_computation_by_name() -> None:
    drawing = draw(parse(LOOP), computation="condition")
    assert sorted(names(drawing)) == ["counter.1", "less", "limit", "state.1"]
    with pytest.raises(NotFoundError, match="no computation 'nope'"):
        draw(parse(LOOP), computation="nope")
    with pytest.raises(NotFoundError, match="no instruction 'nope'"):
        draw(parse(LOOP), focus="nope")
    with pytest.raises(UseError, match="is not in computation main"):
        draw(parse(LOOP), computation="main", focus="less")


@pytest.mark.parametrize(
    "wrong", [{"max_nodes": 0}, {"hops": -1}, {"colour": "mauve"}], ids=lambda wrong: str(wrong)
)
def test_options_that_make_no_sense(wrong: dict[str, object]) -> None:
    with pytest.raises(UseError):
        draw(parse(LOOP), **wrong)  # type: ignore[arg-type]


def test_colours() -> None:
    module = layered(2)
    by_kind = draw(module)
    fills = {node.lines[0]: node.fill for node in by_kind.nodes}
    assert fills["dot.0"] == FILL["matmul, convolution"]
    assert fills["bias.0"] == FILL["elementwise"]
    costs = cost(module, load("h100"))
    by_cost = draw(module, colour="cost", cost=costs)
    fills = {node.lines[0]: node.fill for node in by_cost.nodes}
    assert fills["w.0"] == heat(0) == "#ffffff"
    assert fills["dot.0"] != "#ffffff"
    assert any("%" in node.lines[-1] for node in by_cost.nodes)


def test_a_fusion_is_coloured_by_its_body() -> None:
    module = parse(
        "HloModule m\n\nfused {\n  p = f32[8,8] parameter(0)\n"
        "  ROOT d = f32[8,8] dot(p, p), lhs_contracting_dims={1}, rhs_contracting_dims={0}\n}\n\n"
        "ENTRY e {\n  x = f32[8,8] parameter(0)\n"
        "  ROOT f = f32[8,8] fusion(x), kind=kLoop, calls=fused\n}\n"
    )
    fusion = next(node for node in draw(module).nodes if node.lines[0] == "f")
    assert fusion.fill == FILL["matmul, convolution"]
    assert "fusion of dot" in fusion.lines


STYLES = {"node", "edge", "graph"}  # what pydot calls default attributes
HOSTILE = 'x"];evil[label=y \\N <b>&amp;\\n'


def hostile() -> Module:
    escaped = HOSTILE.replace("\\", "\\\\").replace('"', '\\"')
    return parse(
        "HloModule m\n\nENTRY e {\n  a = f32[] parameter(0)\n"
        f'  ROOT b = f32[] negate(a), metadata={{op_name="{escaped}" source_file="<{escaped}>" '
        "source_line=3}\n}\n"
    )


def test_names_cannot_add_anything() -> None:
    source = to_dot(draw(hostile()))
    graph = pydot.graph_from_dot_data(source)[0]
    assert {node.get_name() for node in graph.get_nodes()} - STYLES == {"n0", "n1"}
    done = subprocess.run(["dot", "-Tsvg"], input=source.encode(), capture_output=True, check=True)
    assert done.stderr == b""
    svg = done.stdout.decode()
    assert "&lt;b&gt;" in svg and "<b>" not in svg


@pytest.mark.parametrize("most", [200, 8])
def test_pydot_reads_our_dot_back(most: int) -> None:
    drawing = draw(layered(10), max_nodes=most)
    graph = pydot.graph_from_dot_data(to_dot(drawing))[0]

    def count(part: pydot.Graph) -> int:
        own = [
            node for node in part.get_nodes() if node.get_name() not in ("node", "edge", "graph")
        ]
        return len(own) + sum(count(inner) for inner in part.get_subgraphs())

    assert count(graph) == len(drawing.nodes)
    both_ways = {tuple(sorted(pair)) for pair in drawing.edges}
    assert len(graph.get_edges()) == len(both_ways)


def test_the_same_drawing_in_every_process() -> None:
    code = (
        f"import sys; sys.path.insert(0, {str(__file__.rpartition('/')[0])!r})\n"
        "from graph_modules import layered\n"
        "from hlo_lab.report.graph import draw\n"
        "from hlo_lab.report.graph_dot import to_dot\n"
        "print(to_dot(draw(layered(20, names=False), max_nodes=9)))"
    )
    runs = {
        subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONHASHSEED": seed}, capture_output=True
        ).stdout
        for seed in ("1", "2")
    }
    assert len(runs) == 1 and b"digraph" in runs.pop()


def test_scopes() -> None:
    assert scope_tokens("jit(f)/jvp(GPT)/layer_0/mul") == ("jit(f)", "jvp(GPT)", "layer_0", "mul")
    assert scope_tokens("jit(a/b)/c") == ("jit(a/b)", "c")
    assert scope_tokens("state['params']['layer_3']['w']") == ("state", "params", "layer_3", "w")
    assert scope_tokens("") == ()
