"""Segments: every node runs once, live tensors suffice, and all segments together are the whole."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from models import build, normal, run, tap

from asr_onnx.execution.plan import plan, stages
from asr_onnx.execution.session import Device, Runner
from asr_onnx.graph.cut import Network
from asr_onnx.graph.sites import find_sites

IMAGE = "float[N,4,6,6]"

# Name: (inputs, outputs, nodes); w0, w1, ... are 1x1 convolutions of 4 channels, k is (4, 1, 1).
GRAPHS = {
    "chain": ("x", "y", "a = Conv (x, w0) b = Relu (a) y = Conv (b, w1)"),
    "residual": ("x", "y", "a = Conv (x, w0) b = Conv (a, w1) c = Add (b, x) y = Relu (c)"),
    "residual with a projection": (
        "x",
        "y",
        "a = Relu (x) b = Conv (a, w0) c = Conv (b, w1) d = Conv (a, w2) y = Add (c, d)",
    ),
    "projection first": (
        "x",
        "y",
        "a = Relu (x) d = Conv (a, w2) b = Conv (a, w0) c = Conv (b, w1) y = Add (c, d)",
    ),
    "a shortcut that is ready and not yet run": (
        "x",
        "y",
        "a = Conv (x, w0) b = Conv (a, w1) s = Sigmoid (x) y = Add (b, s)",
    ),
    "branches and a concat": (
        "x",
        "y",
        "a = Conv (x, w0) b = Conv (x, w1) c = Concat <axis = 1> (a, x, b) "
        "d, e, f = Split <axis = 1> (c, sizes) g = Conv (e, w2) y = Mul (g, f)",
    ),
    "two inputs": ("x,z", "y", "a = Conv (x, w0) b = Conv (z, w1) y = Add (a, b)"),
    "two outputs": ("x", "b,y", "a = Conv (x, w0) b = Relu (a) c = Conv (b, w1) y = Neg (c)"),
    "the output of a site is an output": ("x", "a,y", "a = Conv (x, w0) y = Conv (a, w1)"),
    "an input is an output": ("x", "x,y", "a = Conv (x, w0) y = Relu (a)"),
    "an initializer is an output": ("x", "k,y", "a = Conv (x, w0) y = Relu (a)"),
    "a constant is an output": ("x", "c,y", "c = Neg (k) a = Conv (x, w0) y = Mul (a, c)"),
    "an unused site": ("x", "y", "a = Conv (x, w0) b = Conv (x, w1) y = Relu (a)"),
    "an unused input": ("x,z", "y", "y = Conv (x, w0)"),
    "constants used by many": (
        "x",
        "y",
        "c = Neg (k) a = Mul (x, c) b = Conv (a, w0) d = Mul (b, c) e = Conv (d, w1) "
        "y = Mul (e, c)",
    ),
    "an early shape used at the end": (
        "x",
        "y",
        "a = Conv (x, w0) r = Relu (a) b = Conv (r, w1) s = Shape (a) c = Flatten (b) "
        "y = Reshape (c, s)",
    ),
    "the shape of a weight": (
        "x",
        "y",
        "s = Shape (w0) f = CastLike (s, x) m = ReduceSum <keepdims = 0> (f) a = Add (x, m) "
        "b = Conv (a, w0) y = Conv (b, w1)",
    ),
    "the shape of a renamed weight": (
        "x",
        "y",
        "w = Identity (w0) s = Shape (w) f = CastLike (s, x) m = ReduceSum <keepdims = 0> (f) "
        "a = Add (x, m) b = Conv (a, w) y = Conv (b, w1)",
    ),
    "a body that captures": (
        "x",
        "y",
        "a = Conv (x, w0) m = ReduceMean <keepdims = 0> (x) q = Less (m, zero) b = Conv (a, w1) "
        "i = If (q) <then_branch = t () => (float[?,?,?,?] u) { u = Add (a, k) }, "
        "else_branch = e () => (float[?,?,?,?] u) { v = Conv (x, w2) u = Neg (v) }> "
        "c = Conv (i, w3) y = Add (b, c)",
    ),
    "a tensor called weight": ("weight", "bias", "a = Conv (weight, w0) bias = Relu (a)"),
}  # fmt: skip


def model_of(inputs, outputs, nodes, rng, opset=18):
    listed = ", ".join(f"{IMAGE} {n}" for n in inputs.split(","))
    made = ", ".join(f"{'float[4,1,1]' if n in 'kc' else IMAGE} {n}" for n in outputs.split(","))
    weights = {f"w{i}": normal(rng, 4, 4, 1, 1) for i in range(10) if f"w{i}" in nodes}
    weights["k"], weights["zero"] = normal(rng, 4, 1, 1), np.float32(0)
    weights["sizes"] = np.array([4, 4, 4])
    return build(f"net ({listed}) => ({made}) {{ {nodes} }}", weights, opset=opset)


def planned(model):
    network = Network.of(model)
    return network, plan(network.topology, find_sites(model).sites)


def ran_on(segment, feeds):
    return Runner(segment.model, Device(), weights=segment.weights).run(feeds)


def walk(network, steps, feeds):
    """All segments in sequence on one batch; the outputs, and how often each node ran."""
    live, ran, outputs = dict(feeds), Counter(), {}
    for step in steps:
        ran.update(step.nodes)
        fed = {t: live[t] for t in step.feeds}
        weights = None
        if step.site:
            ran[step.site.index] += 1
            weights = {step.site.weight.name: step.site.weight.value}
        nodes, wanted = {*step.nodes}, [*step.keeps]
        if step.site:
            nodes.add(step.site.index)
            wanted += [step.site.output, step.site.input]
        else:
            wanted += network.topology.outputs
        segment = network.segment(nodes, wanted, fed, weights)
        results = ran_on(segment, fed) if segment else {}
        live |= {t: results[t] for t in step.keeps}
        if step.site:
            live[step.site.output] = results[step.site.output]
        else:
            outputs = {t: results.get(t, live.get(t)) for t in network.topology.outputs}
        for tensor in step.drops:
            live.pop(tensor, None)
    return outputs, ran, live


def assert_laws(model, feeds):
    network, steps = planned(model)
    top = network.topology
    outputs, ran, live = walk(network, steps, feeds)
    needed = top.ancestors(top.outputs, set())
    assert all(ran[i] == 1 for i in needed if i not in top.constant_nodes)
    assert all(n <= 1 for i, n in ran.items() if i not in top.constant_nodes)
    assert set(live) <= {*top.outputs}
    for number, step in enumerate(steps):
        later = {t for s in steps[number + 1 :] for t in s.feeds} | set(top.outputs)
        assert set(step.keeps) <= later, "kept for nobody"
        assert not set(step.drops) & later, "dropped too early"
    whole = run(model, **feeds)
    for name in top.outputs:
        np.testing.assert_allclose(outputs[name], whole[name], rtol=1e-5, atol=1e-4, err_msg=name)


def feeds_of(model, rng):
    return {n: normal(rng, 2, 4, 6, 6) for n in Network.of(model).topology.inputs}


@pytest.mark.parametrize("name", GRAPHS)
def test_the_laws_hold(rng, name):
    model = model_of(*GRAPHS[name], rng)
    assert_laws(model, feeds_of(model, rng))


@st.composite
def random_graphs(draw):
    """Nodes of four-channel images wired at random, any tensors as outputs."""
    tensors, nodes, convs = ["x", "z"], [], 0
    for number in range(draw(st.integers(1, 12))):
        a, b = (draw(st.sampled_from(tensors)) for _ in "ab")
        op = draw(st.sampled_from(["Conv", "Conv", "Tanh", "Add", "Mul", "Size", "Constant"]))
        name = f"t{number}"
        if op == "Conv":
            nodes.append(f"{name} = Conv ({a}, w{convs})")
            convs += 1
        elif op == "Tanh":
            nodes.append(f"{name} = Tanh ({a})")
        elif op == "Size":
            nodes.append(f"s{name} = Size ({a}) c{name} = CastLike (s{name}, {b})")
            nodes.append(f"{name} = Div ({b}, c{name})")
        elif op == "Constant":
            nodes.append(f"c{name} = Neg (k) {name} = Mul ({a}, c{name})")
        else:
            nodes.append(f"{name} = {op} ({a}, {b})")
        tensors.append(name)
        if convs == 10:
            break
    outputs = draw(st.lists(st.sampled_from(tensors), min_size=1, max_size=3, unique=True))
    nodes.append(f"last = Conv (x, w{convs})" if convs < 10 else "last = Relu (x)")
    return "x,z", ",".join([*outputs, "last"]), " ".join(nodes)


@settings(max_examples=100)
@given(random_graphs(), st.integers(0, 2**32 - 1))
def test_the_laws_hold_on_random_graphs(graph, seed):
    rng = np.random.default_rng(seed)
    model = model_of(*graph, rng)
    assert_laws(model, feeds_of(model, rng))


def test_an_early_shape_keeps_no_activation_alive(rng):
    _, steps = planned(model_of(*GRAPHS["an early shape used at the end"], rng))
    assert "a" in steps[1].drops
    assert "s" in steps[1].keeps


def test_a_shortcut_that_is_ready_is_at_hand_at_its_site(rng):
    name = "a shortcut that is ready and not yet run"
    network, steps = planned(model_of(*GRAPHS[name], rng))
    assert steps[1].site.shortcut == "s"
    assert any("s" in network.topology.nodes[i].output for i in (*steps[0].nodes, *steps[1].nodes))


def test_without_residuals_one_activation_lives_at_a_time(rng):
    nodes = " ".join(f"c{i} = Conv (r{i}, w{i}) r{i + 1} = Relu (c{i})" for i in range(5))
    network, steps = planned(model_of("r0", "r5", nodes, rng))
    live = set(network.topology.inputs)
    for step in steps[:-1]:
        live = (live | set(step.keeps) | {step.site.output}) - set(step.drops)
        assert live == {step.site.output}


def test_a_segment_keeps_the_models_header(rng):
    model = model_of(*GRAPHS["chain"], rng)
    network = Network.of(model)
    feeds = feeds_of(model, rng)
    segment = network.segment([0], ["a"], feeds, {"w0": normal(rng, 4, 4, 1, 1)})
    assert segment.model.ir_version == model.ir_version
    assert segment.model.opset_import == model.opset_import


def test_the_site_alone_runs_under_another_weight_and_bias(rng):
    model = model_of(*GRAPHS["a tensor called weight"], rng)
    (found,) = find_sites(model).sites
    x, weight, bias = normal(rng, 2, 4, 6, 6), normal(rng, 4, 4, 1, 1), rng.normal(size=4)
    alone = Network.of(model).site(found, x, weight, bias)
    y = ran_on(alone, {"weight": x})[found.output]
    wanted = np.einsum("oi,nihw->nohw", weight[:, :, 0, 0], x) + bias.reshape(-1, 1, 1)
    np.testing.assert_allclose(y, wanted, rtol=1e-5, atol=1e-5)


def staged(steps, size, limit, streams=1):
    sizes = dict.fromkeys([t for s in steps for t in (*s.keeps, s.site and s.site.output)], size)
    return [len(s.steps) for s in stages(steps, sizes, limit, streams)]


def test_a_stage_is_as_long_as_memory_allows(rng):
    nodes = " ".join(f"c{i} = Conv (r{i}, w{i}) r{i + 1} = Relu (c{i})" for i in range(5))
    _, steps = planned(model_of("r0", "r5", nodes, rng))
    weight = 4 * steps[0].site.weight.value.nbytes  # as much as a stage counts for it
    assert staged(steps, weight, 0) == [1] * 5
    assert staged(steps, weight, 6 * weight) == [2, 2, 1]  # two outputs and weights, two streams
    assert staged(steps, weight, 6 * weight, streams=2) == [1] * 5
    assert staged(steps, weight, 1 << 40) == [5]
    assert [len(s.steps) for s in stages(steps, {}, 1 << 40)] == [1] * 5, "sizes are not known"


@pytest.mark.parametrize("name", GRAPHS)
@pytest.mark.parametrize("limit", [0, 3000, 1 << 40])
def test_stages_do_what_their_steps_do(rng, name, limit):
    model = model_of(*GRAPHS[name], rng)
    network, steps = planned(model)
    live = feeds_of(model, rng)
    whole = run(tap(model, *(s.site.output for s in steps if s.site)), **live)
    sizes = dict.fromkeys([t for n in network.topology.nodes for t in n.output], 1152)
    parts = stages(steps, sizes, limit)
    assert [s for part in parts for s in part.steps] == [s for s in steps if s.site]
    for part in parts:
        fed = {t: live[t] for t in part.feeds}
        weights = {s.weight.name: s.weight.value for s in part.sites}
        nodes = {*part.nodes, *(s.index for s in part.sites)}
        outputs = [s.output for s in part.sites]
        results = ran_on(network.segment(nodes, [*part.keeps, *outputs], fed, weights), fed)
        for tensor in outputs:
            np.testing.assert_allclose(results[tensor], whole[tensor], rtol=1e-5, atol=1e-4)
        live |= {t: results[t] for t in part.keeps}
        live = {t: a for t, a in live.items() if t not in part.drops}
