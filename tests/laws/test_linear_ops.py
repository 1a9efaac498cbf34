"""Transposed convolutions and linear layers: pruned when asked for, re-fitted when it helps."""

from __future__ import annotations

import numpy as np
import pytest
from models import build, norm_net, normal, run, stored, tap

import asr_onnx
from asr_onnx import RepairOptions, as_batches, inspect, prune, repair
from asr_onnx.graph.inputs import model_inputs
from asr_onnx.graph.sites import find_sites
from asr_onnx.options import OPS

WEIGHTS = {OPS: ("w1", "w2", "w3", "w4"), OPS[2:]: ("w3", "w4"), ("Conv", "Gemm"): ("w1", "w3")}


def net(rng, bias_shape=(6,)):
    """One site of every operator, the last one a MatMul with an Add."""
    return build(
        """net (float[N,3,8,8] x) => (float[N,6] y) {
            c1 = Conv <strides = [2, 2], pads = [1, 1, 1, 1]> (x, w1)
            r1 = Relu (c1)
            c2 = ConvTranspose <strides = [2, 2], group = 2, output_padding = [1, 1]> (r1, w2)
            r2 = Relu (c2)
            p = GlobalAveragePool (r2)
            f = Flatten (p)
            g = Gemm (f, w3, b3)
            r3 = Relu (g)
            m = MatMul (r3, w4)
            y = Add (m, b4)
        }""",
        {
            "w1": normal(rng, 8, 3, 3, 3),
            "w2": normal(rng, 8, 6, 3, 3),
            "w3": normal(rng, 12, 10),
            "b3": normal(rng, 10),
            "w4": normal(rng, 10, 6),
            "b4": normal(rng, *bias_shape),
        },
    )


def options(sparsity=0.5, **more):
    return RepairOptions(**{"sparsity": sparsity, "ops": OPS, "recipe": "asr"} | more)


HOWS = [
    {},
    {"criterion": "obs"},
    {"reconstruct": True},
    {"criterion": "obs", "reconstruct": True},
]


@pytest.mark.parametrize("ops", WEIGHTS)
@pytest.mark.parametrize("how", HOWS, ids=str)
def test_zeros_are_exact_and_stay(rng, ops, how):
    model, x = net(rng), normal(rng, 60, 3, 8, 8)
    result = repair(model, x, options(0.6, ops=ops, **how))
    found, names = stored(result.model), WEIGHTS[ops]
    total = sum(found[n].size for n in names)
    zeros = sum(int((found[n] == 0).sum()) for n in names)
    assert zeros == round(0.6 * total)
    assert result.sparsity == zeros / total
    assert {s.name for s in result.sites if s.pruned} == set(names)
    assert all(found[n].all() for n in {"w1", "w2", "w3", "w4"} - set(names))
    if "criterion" not in how:
        pruned = stored(prune(model, options(0.6, ops=ops)))
        for name in names:
            np.testing.assert_array_equal(found[name] == 0, pruned[name] == 0)


@pytest.mark.parametrize("how", HOWS, ids=str)
def test_the_output_is_closer_than_pruning_by_magnitude_leaves_it(rng, how):
    model, x = net(rng), normal(rng, 300, 3, 8, 8) + 0.5
    pruned = repair(model, x, options(0.5)).pruned_outputs["y"]
    repaired = repair(model, x, options(0.5, **how)).repaired_outputs["y"]
    assert repaired.relative_error < 0.6 * pruned.relative_error


@pytest.mark.parametrize("how", HOWS, ids=str)
def test_every_sites_mean_is_the_dense_one_on_the_images_solved_on(rng, how):
    """Targets behind a Relu excepted: there the mean that counts is another."""
    model, x = net(rng), normal(rng, 64, 3, 8, 8)
    data = as_batches(x, model_inputs(model), holdout=0.0)
    result = repair(model, data, options(0.5, **how))
    names = ["y"] if how.get("reconstruct") else ["c1", "c2", "g", "y"]
    dense, found = (run(tap(m, *names), x=x) for m in (model, result.model))
    for name in names:
        axes = tuple(i for i in range(dense[name].ndim) if i != 1)
        np.testing.assert_allclose(
            found[name].mean(axes), dense[name].mean(axes), atol=1e-4 * abs(dense[name]).max()
        )


@pytest.mark.parametrize("shape", [(6,), (1, 6)])
@pytest.mark.parametrize("how", HOWS, ids=str)
def test_a_matmuls_bias_is_the_add_behind_it(rng, shape, how):
    model, x = net(rng, shape), normal(rng, 60, 3, 8, 8)
    result = repair(model, x, options(0.5, ops=("MatMul",), **how))
    old, new = stored(model), stored(result.model)
    assert new["b4"].shape == shape
    assert (new["b4"] != old["b4"]).all()
    assert [n.op_type for n in result.model.graph.node] == [n.op_type for n in model.graph.node]
    assert new.keys() == old.keys()
    untouched = {"w1", "w2"} | (set() if "reconstruct" in how else {"w3", "b3"})
    for name in untouched:
        np.testing.assert_array_equal(new[name], old[name])


def test_a_transposed_convolution_without_bias_is_given_one(rng):
    result = repair(net(rng), normal(rng, 40, 3, 8, 8), options(ops=("ConvTranspose",)))
    assert list(result.model.graph.node[2].input) == ["r1", "w2", "c2_bias"]
    assert stored(result.model)["c2_bias"].shape == (12,)


def test_a_matmul_without_an_add_is_skipped_with_the_reason(rng):
    model = build(
        """g (float[N,8] x) => (float[N,4] y) {
            a = Gemm (x, w1, b1)
            r = Relu (a)
            y = MatMul (r, w2)
        }""",
        {"w1": normal(rng, 8, 10), "b1": normal(rng, 10), "w2": normal(rng, 10, 4)},
    )
    result = repair(model, normal(rng, 80, 8), options(ops=("Gemm", "MatMul"), reconstruct=True))
    (skipped,) = result.skipped
    assert (skipped.op, skipped.name) == ("MatMul", "y")
    assert skipped.reason == (
        "no Add of a constant follows that could take up the change of the mean"
    )
    old, new = stored(model), stored(result.model)
    np.testing.assert_array_equal(new["w2"], old["w2"])
    assert [s.name for s in result.sites] == ["w1"]


@pytest.mark.parametrize(
    "body, reason",
    [
        ("y = Gemm <alpha = 0.5> (k, w)", "alpha and beta are not 1"),
        ("y = Gemm <beta = 2.0> (k, w, b)", "alpha and beta are not 1"),
        ("t = Transpose (k) y = Gemm <transA = 1> (t, w)", "its input is transposed"),
        ("p = MatMul (k, w) y = Add (p, s)", "no Add of a constant follows"),
        ("p = MatMul (k, w) q = Relu (p) y = Add (p, q)", "no Add of a constant follows"),
    ],
)
def test_linear_layers_of_another_kind_are_skipped(rng, body, reason):
    model = build(
        f"g (float[N,4] x) => (float[N,4] y) {{ k = Gemm (x, u) {body} }}",
        {"w": normal(rng, 4, 4), "u": normal(rng, 4, 4), "b": normal(rng, 4), "s": np.float32(1)},
    )
    (skipped,) = find_sites(model, OPS).skipped
    assert reason in skipped.reason
    result = repair(model, normal(rng, 20, 4), options(reconstruct=True))
    assert [s.name for s in result.sites] == ["u"]
    np.testing.assert_array_equal(stored(result.model)["w"], stored(model)["w"])


def test_heads_are_refitted_when_weights_are_and_only_then(rng):
    model, x = norm_net(rng), normal(rng, 100, 3, 8, 8)
    old = stored(model)
    for how, changed in (({}, False), ({"criterion": "obs"}, False), ({"reconstruct": True}, True)):
        result = repair(model, x, options(0.6, ops=("Conv",), **how))
        new = stored(result.model)
        assert ((new["fw"] != old["fw"]).any(), (new["fb"] != old["fb"]).any()) == (changed,) * 2
        assert new["fw"].all()
        sites = {s.name: s.pruned for s in result.sites}
        assert sites == {"w1": True, "w2": True} | ({"fw": False} if changed else {})
        assert result.sparsity == pytest.approx(0.6, abs=1e-3)


def test_a_matmul_over_a_sequence(rng):
    """Activations (N, T, C), as transformers have them; the second MatMul goes into a Relu."""
    model = build(
        """g (float[N,5,8] x) => (float[N,5,6] y) {
            m1 = MatMul (x, w1)
            a1 = Add (b1, m1)
            r1 = Relu (a1)
            m2 = MatMul (r1, w2)
            y = Add (m2, b2)
        }""",
        {"w1": normal(rng, 8, 12), "b1": normal(rng, 12)}
        | {"w2": normal(rng, 12, 6), "b2": normal(rng, 6)},
    )
    result = repair(model, normal(rng, 200, 5, 8), options(0.4, ops=("MatMul",), reconstruct=True))
    assert result.sparsity == pytest.approx(0.4, abs=0.005)
    pruned, repaired = result.pruned_outputs["y"], result.repaired_outputs["y"]
    assert repaired.relative_error < 0.75 * pruned.relative_error


@pytest.mark.parametrize("how", [{"reconstruct": True}, {"criterion": "obs", "reconstruct": True}])
def test_a_matmul_with_an_add_is_what_a_gemm_is(rng, how):
    """Two ways to write one network, a Relu behind it: the same weights come out."""
    weights = {"w1": normal(rng, 8, 12), "b1": 3 * normal(rng, 12)}
    weights |= {"w2": normal(rng, 12, 6), "b2": normal(rng, 6)}
    first = {"MatMul": "m = MatMul (x, w1) a = Add (m, b1)", "Gemm": "a = Gemm (x, w1, b1)"}
    x = normal(rng, 200, 8) @ normal(rng, 8, 8)
    found = []
    for body in first.values():
        model = build(
            f"g (float[N,8] x) => (float[N,6] y) {{ {body} r = Relu (a) y = Gemm (r, w2, b2) }}",
            weights,
        )
        found.append(stored(repair(model, x, options(0.5, **how)).model))
    for name, value in found[0].items():
        np.testing.assert_allclose(found[1][name], value, rtol=1e-3, atol=1e-4, err_msg=name)


def test_inspect_and_recipes_know_the_operators(rng):
    assert {s.op for s in find_sites(net(rng), OPS).sites} == set(OPS)
    assert next(s.op for s in inspect(net(rng)).sites) == "Conv"
    assert asr_onnx.recipe("best", ops=OPS).ops == OPS
