"""What JAX says of its tracing caches, read; its own words are tried in test_scripts."""

from __future__ import annotations

from typing import Any

import pytest

from hlo_lab.lowering.retraces import explained, key, recompiled

AGAIN = """TRACING CACHE MISS at /home/me/train.py:12:14 (<module>):
  for step defined at /home/me/train.py:7
  all previously seen cache keys differ. For the closest previous key:
  """
STATIC = "<class 'jax._src.tree_util.Static'> with pytree metadata Static(val=%s)"


@pytest.mark.parametrize(
    ("said", "cause", "argument", "before", "after"),
    [
        ("* at x, now f32[16,64] and before f32[8,64]", "shape", "x", "f32[8,64]", "f32[16,64]"),
        ("* at p['w'], now bf16[8] and before f32[8]", "dtype", "p['w']", "f32[8]", "bf16[8]"),
        (
            "* at s, now f32[]{weak_type=False} and before f32[]{weak_type=True}https://docs",
            "weak type",
            "s",
            "weak f32[]",
            "f32[]",
        ),
        (
            "* at x, now f32[8@a]({Explicit: ('a',)}) and before f32[8]({Explicit: ('a',)})",
            "sharding",
            "x",
            "f32[8]({Explicit: ('a',)})",
            "f32[8@a]({Explicit: ('a',)})",
        ),
        (
            f"* at input path [1]['k'], now {STATIC % 2} and before {STATIC % 1}, so the pytree "
            "node metadata does not match",
            "static value",
            "k",
            "1",
            "2",
        ),
        (
            "* at input path [0][0], now <class 'dict'> with 2 children and before <class 'dict'> "
            "with 1 child, so the numbers of children do not match",
            "structure",
            "argument 0",
            "",
            "",
        ),
        ("Tracing context doesn't match, e.g. due to config", "context", "", "", ""),
        ("cache miss explanation unavailable", "unexplained", "", "", ""),
    ],
)
def test_a_cause(said: str, cause: str, argument: str, before: str, after: str) -> None:
    found = explained(AGAIN + said)
    assert found is not None
    assert (found["function"], found["place"]) == ("step", "/home/me/train.py:7")
    expected = {"cause": cause, "argument": argument, "before": before, "after": after}
    assert found["changes"] == [expected]


def test_a_new_function_and_other_messages() -> None:
    found = explained(
        "TRACING CACHE MISS at /a.py:3 (<module>):\n  never seen function:\n"
        "    <lambda> id=14062 defined at /a.py:3"
    )
    assert found is not None
    assert (found["function"], found["changes"][0]["cause"]) == ("<lambda>", "function")
    assert explained("PERSISTENT COMPILATION CACHE MISS for 'jit_f'") is None
    assert key("jit__lambda_") == key("<lambda>")


def program(number: int, why: dict[str, Any] | None, module: str = "jit_f") -> dict[str, Any]:
    return {"name": f"{module}.{number}", "module": module, "seconds": 1.0, "retrace": why}


def test_functions_of_one_name_are_told_apart() -> None:
    first, second = ({"function": "f", "place": f"/a.py:{line}", "changes": []} for line in (1, 9))
    again = {**first, "changes": explained(AGAIN + "* at x, now f32[2] and before f32[1]")}
    again["changes"] = again["changes"]["changes"]
    programs = [program(1, first), program(2, second), program(3, again), program(4, again)]
    (group,) = recompiled(programs)
    assert group["programs"] == ["jit_f.1", "jit_f.3", "jit_f.4"]
    assert group["seconds"] == 2.0
    assert [change["times"] for change in group["changes"]] == [2]


def test_what_is_compiled_again_without_a_trace_has_another_sharding() -> None:
    why = {"function": "f", "place": "/a.py:1", "changes": []}
    (group,) = recompiled([program(1, why), program(2, None)])
    assert group["changes"][0]["cause"] == "sharding"
    (eager,) = recompiled([program(1, None), program(2, None)])
    assert (eager["place"], eager["changes"][0]["cause"]) == ("", "unknown")
