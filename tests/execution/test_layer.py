"""The layer of a real network, against the same layer made of arrays by hand."""

from __future__ import annotations

from contextlib import contextmanager

import numpy as np
import pytest
from layers import ArrayLayer
from models import build, norm_weights, normal, run, tap

from asr_onnx.data.batches import as_batches
from asr_onnx.execution.lockstep import Lockstep, _ends
from asr_onnx.execution.plan import plan
from asr_onnx.execution.session import Device
from asr_onnx.execution.tensor_store import TensorStore
from asr_onnx.graph.inputs import model_inputs
from asr_onnx.graph.sites import find_sites, with_heads
from asr_onnx.graph.wiring import Topology
from asr_onnx.maths.activations import relu
from asr_onnx.maths.targets import rectified

GRAPH = """g (float[N,4,5,5] x) => (float[N,6,5,5] y) {
    s = Conv (x, ws)
    c1 = Conv (x, w1)
    r1 = Relu (c1)
    c2 = Conv (r1, w2, b2)
    n2 = BatchNormalization (c2, s, b, m, v)
    a = Add (n2, s0)
    y = Relu (a)
}""".replace("s = Conv (x, ws)", "s0 = Conv (x, ws)")


@pytest.fixture
def model(rng):
    weights = {
        "ws": normal(rng, 6, 4, 1, 1),
        "w1": normal(rng, 5, 4, 1, 1),
        "w2": normal(rng, 6, 5, 1, 1),
        "b2": normal(rng, 6),
    }
    return build(GRAPH, weights | norm_weights(rng, 6))


def rows_of(y):
    """Positions as rows (P, C)."""
    return np.moveaxis(y, 1, -1).reshape(-1, y.shape[1]).astype(np.float64)


@contextmanager
def walk(model, batches):
    """The layers of a network in turn, each behind those that were repaired before it."""
    sites = find_sites(model).sites
    same = {s.output: s for s in sites}
    with TensorStore(1 << 30) as store:
        lockstep = Lockstep(model, model, sites, same, batches, Device(), store)

        def layers():
            for stage in lockstep.stages:
                lockstep.run(stage)
                yield from (lockstep.lanes[0].layer(step) for step in stage.steps)

        yield layers()


@pytest.fixture
def reached(model, rng):
    """``w2``'s layer after the layers before it were halved, and all tensors of both networks."""
    x = normal(rng, 24, 4, 5, 5) + 1
    batches = as_batches(x, model_inputs(model), batch_size=6, holdout=0.25)
    names = ("s0", "r1", "c2", "a")
    with walk(model, batches) as layers:
        for layer in layers:
            if layer.label == "w2":
                order = [i for b in batches.batches for i in b.samples]
                held = sum(len(b.samples) for b in batches.batches if b.held_out)
                dense = run(tap(model, *names), x=x[order])
                yield layer, dense, order, held, x
                return
            assert layer.last == (layer.label != "w1"), "w2 reads what w1 makes"
            layer.replace(0.5 * layer.rows, layer.bias)


@pytest.fixture
def by_hand(reached):
    """The layer, the repaired inputs (P, K), dense sums and the other shortcut, split in two."""
    layer, dense, _, held, _ = reached
    gain, offset = layer.site.behind
    short = rows_of(dense["s0"]), rows_of(0.5 * dense["s0"])
    inputs = rows_of(np.maximum(0.5 * dense["r1"], 0))
    solve = slice(0, len(inputs) - 25 * held), slice(len(inputs) - 25 * held, None)
    sums = rows_of(dense["c2"]) * gain + offset + short[0]
    return layer, inputs, sums, gain, offset + short[1], solve, rows_of(dense["c2"])


def test_second_moments_aim_at_the_dense_sum_with_the_repaired_shortcut(by_hand):
    layer, inputs, sums, gain, behind, (solved, _), _ = by_hand
    wanted = ((sums - behind) / gain)[solved]
    found = layer.gram()
    x, y = inputs[solved] - inputs[solved].mean(0), wanted - wanted.mean(0)
    np.testing.assert_allclose(found.inputs[0], x.T @ x / len(x), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(found.cross[0], y.T @ x / len(x), rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(found.mean_y[0], wanted.mean(0), rtol=1e-3, atol=1e-3)
    assert found.count == len(x)


def test_a_goal_sees_the_dense_sum_and_the_one_that_is_fitted(by_hand):
    layer, inputs, sums, gain, behind, (solved, _), _ = by_hand
    layer.gram()
    fitted = (inputs @ layer.rows[0].T + layer.bias) * gain + behind
    wanted = ((rectified(sums, fitted) - behind) / gain)[solved]
    found = layer.gram(rectified, layer.rows, layer.bias)
    np.testing.assert_allclose(found.mean_y[0], wanted.mean(0), rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(found.var_y[0], wanted.var(0), rtol=1e-3, atol=1e-3)


def test_the_error_is_that_behind_the_rectifier_on_images_held_out(by_hand):
    layer, inputs, sums, gain, behind, (_, held), _ = by_hand
    rows = 0.7 * layer.rows
    mine = (inputs @ rows[0].T + layer.bias) * gain + behind
    wanted = np.square(np.maximum(sums, 0) - np.maximum(mine, 0))[held].sum()
    assert layer.error(rows, layer.bias) == pytest.approx(wanted, rel=1e-4)


def test_moments_are_of_images_solved_on_and_rescaled_ones_of_those_held_out(by_hand):
    layer, inputs, _, _, _, (solved, held), dense = by_hand
    rows = 0.7 * layer.rows
    mine = inputs @ rows[0].T + layer.bias
    found = layer.moments(rows)
    np.testing.assert_allclose(found.pruned.mean, mine[solved].mean(0), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(found.dense.var, dense[solved].var(0), rtol=1e-4)
    gamma, shift = np.linspace(0.5, 2, 6), np.linspace(-1, 1, 6)
    after = layer.rescale(gamma, shift)
    other = (gamma * mine + shift)[held]
    np.testing.assert_allclose(after.pruned.mean, other.mean(0), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(after.pruned.var, other.var(0), rtol=1e-4)


def test_a_layer_run_anew_tells_of_images_held_out(by_hand):
    layer, inputs, _, _, _, (_, held), dense = by_hand
    rows, bias = 0.3 * layer.rows, layer.bias + 1
    after = layer.replace(rows, bias)
    mine = inputs @ rows[0].T + bias
    np.testing.assert_allclose(after.pruned.mean, mine[held].mean(0), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(after.dense.mean, dense[held].mean(0), rtol=1e-4, atol=1e-4)


def test_a_layer_is_what_solvers_ask_for(reached):
    layer = reached[0]
    asked = {n for n in dir(ArrayLayer) if not n.startswith("_")} | {
        "rows",
        "bias",
        "gain",
        "label",
    }
    for name in asked - {"output", "dense_x", "goals"}:
        assert hasattr(layer, name), name
    assert layer.activation is relu and not layer.linear
    assert layer.last, "but for BatchNormalization, Add and Relu there is nothing behind it"


@pytest.mark.parametrize(
    "end, wanted",
    [
        ("y = Softmax (h)", {"h"}),
        ("y = Identity (h)", {"h"}),
        ("r = Relu (h)  y = Gemm (r, v)", {"y"}),
        ("y = Gemm (h, v)  z = Identity (h)", {"y"}),  # an output that another layer reads, too
        ("t = Transpose <perm = [1, 0]> (h)  y = MatMul (t, h)", set()),
    ],
)
def test_the_last_layers_are_those_nothing_with_weights_comes_behind(rng, end, wanted):
    outputs = "float[N,4] y, float[N,4] z" if "z =" in end else "float[P,Q] y"
    model = build(
        f"g (float[N,3,4,4] x) => ({outputs}) {{ c = Conv (x, k)  f = Flatten (c)"
        f"  h = Gemm (f, w)  {end} }}",
        {"k": normal(rng, 2, 3, 4, 4), "w": normal(rng, 2, 4), "v": normal(rng, 4, 4)},
    )
    sites = with_heads(model, find_sites(model).sites)
    topology = Topology(model.graph)
    assert _ends(topology, plan(topology, sites)) & {s.output for s in sites} == wanted


def test_without_data_held_out_no_layer_is_the_last(model, rng):
    batches = as_batches(normal(rng, 8, 4, 5, 5), model_inputs(model), holdout=0.0)
    with walk(model, batches) as layers:
        for layer in layers:
            assert not layer.last
            layer.replace(layer.rows, layer.bias)
