"""The wiring of a graph: who reads what, bodies included, and what hangs on constants alone."""

from __future__ import annotations

import numpy as np
from models import build

from asr_onnx.graph.wiring import Topology


def topology(graph, weights=None, **more):
    return Topology(build(graph, weights or {}, **more).graph)


def test_producers_consumers_inputs_and_outputs():
    top = topology(
        "net (float[N] x, float[1] k) => (float[N] z) { y = Add (x, k) z = Mul (y, y) }",
        {"k": np.float32([1])},
    )
    assert (top.inputs, top.outputs) == (["x"], ["z"])
    assert top.producer == {"y": 0, "z": 1}
    assert top.consumers == {"x": [0], "k": [0], "y": [1]}


BODY = """net (float[N] x, float[N] z, bool q) => (float[N] y) {{
    a = Neg (x)
    y = If (q) <
        then_branch = t () => (float[N] u) {{ {then} }},
        else_branch = e () => (float[N] v) {{ v = Neg (z) }}>
}}"""


def captured(then):
    top = topology(BODY.format(then=then))
    return set(top.reads(1)) - {"q", "z"}


def test_a_body_captures_what_it_does_not_make():
    assert captured("u = Add (a, x)") == {"a", "x"}
    assert captured("b = Neg (a) u = Add (b, b)") == {"a"}


def test_bodies_in_bodies_capture_too():
    inner = """u = If (q) <
        then_branch = s () => (float[N] c) { c = Add (a, w) },
        else_branch = r () => (float[N] d) { d = Neg (w) }>"""
    assert captured(f"w = Neg (x) {inner}") == {"a", "x"}


def test_a_body_that_only_passes_a_tensor_on_captures_it():
    model = build(BODY.format(then="u = Neg (x)"), {})
    body = next(a.g for a in model.graph.node[1].attribute if a.name == "then_branch")
    del body.node[:]
    body.output[0].name = "a"
    assert "a" in Topology(model.graph).reads(1)


def test_names_of_a_loops_own_inputs_are_not_captured():
    top = topology(
        """net (float[N] s, int64 n, bool c) => (float[N] y) {
            o = Neg (s)
            y = Loop (n, c, s) <body = b (int64 i, bool c, float[N] s) => (bool k, float[N] t) {
                k = Identity (c)
                t = Add (s, o)
            }>
        }"""
    )
    assert set(top.reads(1)) == {"n", "c", "s", "o"}


def test_constants_are_what_hangs_on_initializers_alone():
    top = topology(
        """net (float[N] x) => (float[N] y) {
            a = Neg (k)
            b = Constant <value = float[1] {1.0}> ()
            c = Add (a, b)
            r = RandomNormal <shape = [1]> ()
            d = Add (c, r)
            s = Shape (x)
            y = Add (x, d)
        }""",
        {"k": np.float32([1])},
    )
    names = ("k", "a", "b", "c", "r", "d", "s", "y")
    assert {t for t in names if top.is_constant(t)} == {"k", "a", "b", "c"}


def test_ancestors_stop_at_what_is_done_and_come_in_order():
    top = topology(
        """net (float[N] x) => (float[N] y) {
            a = Neg (x) b = Abs (a) c = Neg (k) d = Mul (b, c) e = Abs (x) y = Add (d, a)
        }""",
        {"k": np.float32([1])},
    )
    assert top.ancestors(["y"], {"x"}) == [0, 1, 2, 3, 5]
    assert top.ancestors(["y"], {"x", "b", "a"}) == [2, 3, 5]
    assert top.ancestors(["y"], {"x", "y"}) == []


def test_nodes_in_a_circle_stay_as_they_are():
    model = build("net (float[N] x) => (float[N] z) { y = Add (x, w) w = Neg (z) z = Neg (y) }", {})
    assert Topology(model.graph).nodes == list(model.graph.node)
