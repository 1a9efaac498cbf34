"""Constants: however an exporter writes a weight, its value is found and can be rewritten."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from models import build, copied, norm_weights, normal, run, site, stored

from asr_onnx import recipe, repair
from asr_onnx.graph.constants import Constants
from asr_onnx.graph.model_file import apply
from asr_onnx.graph.records import Patch
from asr_onnx.graph.sites import find_sites
from asr_onnx.graph.wiring import Topology

SHAPE = (4, 3, 2, 2)
HEAD = "net (float[N,3,8,8] x) => (float[N,4,7,7] y)"

# How W, (4, 3, 2, 2), is written: stored arrays made from it, nodes, name of the stored tensor.
WRITTEN = {
    "initializer": (lambda w: {"w": w}, "", "w"),
    "identities": (lambda w: {"r": w}, "i = Identity (r) w = Identity (i)", "r"),
    "reshape": (lambda w: {"r": w.ravel(), "k": np.array(SHAPE)}, "w = Reshape (r, k)", "r"),
    "reshape of a column": (
        lambda w: {"r": w.reshape(-1, 1), "k": np.array([4, -1, 2, 2])},
        "w = Reshape (r, k)",
        "r",
    ),
    "transpose": (
        lambda w: {"r": np.ascontiguousarray(w.transpose(2, 3, 1, 0))},
        "w = Transpose <perm = [3, 2, 0, 1]> (r)",
        "r",
    ),
    "transposes and a reshape": (
        lambda w: {"r": np.ascontiguousarray(w.transpose(2, 3, 1, 0)), "k": np.array(SHAPE)},
        "t = Transpose <perm = [3, 2, 0, 1]> (r) u = Flatten (t) w = Reshape (u, k)",
        "r",
    ),
    "unsqueeze": (
        lambda w: {"r": w.reshape(4, 12), "k": np.array(SHAPE), "a": np.array([0])},
        "u = Unsqueeze (r, a) w = Reshape (u, k)",
        "r",
    ),
    "cast from double": (lambda w: {"r": w.astype(np.float64)}, "w = Cast <to = 1> (r)", "r"),
    "cast like the input": (lambda w: {"r": w}, "w = CastLike (r, x)", "r"),
    "expand to its own shape": (
        lambda w: {"r": w},
        "k = Shape (r) c = CastLike (r, x) w = Expand (c, k)",
        "r",
    ),
    "a bystander reads its shape": (
        lambda w: {"w": w, "zero": np.float32([0])},
        "k = Shape (w) f = CastLike (k, x) z = ReduceSum <keepdims = 0> (f) n = Mul (z, zero)",
        "w",
    ),
}


def written(how, values, extra=""):
    make, nodes, name = WRITTEN[how]
    return build(f"{HEAD} {{ {nodes} y = Conv (x, w) {extra} }}", make(values)), name


@pytest.mark.parametrize("how", WRITTEN)
def test_the_value_is_found_and_rewriting_it_is_rewriting_the_weight(rng, how):
    old, new, x = normal(rng, *SHAPE), normal(rng, *SHAPE), normal(rng, 2, 3, 8, 8)
    model, holder = written(how, old)
    found = site(model)
    np.testing.assert_array_equal(found.weight.value, old)
    storage = found.weight.storage
    assert storage.name == holder
    changed = apply(model, Patch({holder: storage.pack(new)}))
    np.testing.assert_array_equal(site(changed).weight.value, new)
    plain = written("initializer", new)[0]
    np.testing.assert_allclose(run(changed, x=x)["y"], run(plain, x=x)["y"], rtol=0, atol=1e-5)
    unpatched = {t.name: t.SerializeToString() for t in model.graph.initializer if t.name != holder}
    for tensor in changed.graph.initializer:
        assert unpatched.get(tensor.name, tensor.SerializeToString()) == tensor.SerializeToString()


def test_a_constant_node_is_rewritten_in_place(rng):
    old, new = normal(rng, *SHAPE), normal(rng, *SHAPE)
    model = build(f"{HEAD} {{ y = Conv (x, w) }}", {})
    model.graph.node.insert(
        0, onnx.helper.make_node("Constant", [], ["w"], value=onnx.numpy_helper.from_array(old))
    )
    found = site(model)
    np.testing.assert_array_equal(found.weight.value, old)
    changed = apply(model, Patch({"w": found.weight.storage.pack(new)}))
    np.testing.assert_array_equal(site(changed).weight.value, new)
    assert [n.op_type for n in changed.graph.node] == ["Constant", "Conv"]


@given(st.permutations(range(4)), st.integers(0, 2**32 - 1))
def test_packing_is_the_inverse_of_reading_under_any_permutation(order, seed):
    rng = np.random.default_rng(seed)
    back = np.argsort(order).tolist()
    kept = normal(rng, *SHAPE)
    model = build(
        f"{HEAD} {{ w = Transpose <perm = {back}> (r) y = Conv (x, w) }}",
        {"r": np.ascontiguousarray(kept.transpose(order))},
    )
    storage = site(model).weight.storage
    np.testing.assert_array_equal(storage.pack(kept), stored(model)["r"])
    assert (storage.order is None) == np.array_equal(kept.ravel(), kept.transpose(order).ravel())


def test_a_four_element_weight_is_not_mistaken_for_its_shape(rng):
    model = build(
        "net (float[N,1,8,8] x) => (float[N,1,7,7] y) { w = Reshape (r, k) y = Conv (x, w) }",
        {"r": normal(rng, 4), "k": np.array([1, 1, 2, 2])},
    )
    assert site(model).weight.storage.name == "r"


def test_batch_normalisation_as_the_dynamo_exporter_writes_it(rng):
    weights = norm_weights(rng, 4)
    chain = "\n".join(
        f"k{p} = Shape (r{p}) c{p} = CastLike (r{p}, x) {p} = Expand (c{p}, k{p})" for p in "sbmv"
    )
    chained = build(
        f"{HEAD} {{ {chain} c = Conv (x, w) y = BatchNormalization (c, s, b, m, v) }}",
        {"w": normal(rng, *SHAPE)} | {f"r{n}": value for n, value in weights.items()},
    )
    norm = site(chained).norm
    np.testing.assert_array_equal(norm.mean.value, weights["m"])
    np.testing.assert_array_equal(norm.scale.value, weights["s"])
    assert (norm.mean.storage.name, norm.var.storage.name) == ("rm", "rv")


def test_a_zero_bias_made_at_run_time_types_is_a_constant(rng):
    model = build(
        f"""{HEAD} {{
            zero = Constant <value = float {{0.0}}> ()
            typed = CastLike (zero, x)
            k = Shape <start = 0, end = 1> (w)
            bias = Expand (typed, k)
            y = Conv (x, w, bias)
        }}""",
        {"w": normal(rng, *SHAPE)},
    )
    found = site(model)
    np.testing.assert_array_equal(found.bias.value, np.zeros(4, np.float32))
    assert found.bias.storage is None


def reason(nodes, weights):
    """Why the Conv that reads w is left alone; another Conv is not one of the nodes' business."""
    weights = weights | {"other": np.ones(SHAPE, np.float32)}
    model = build(f"{HEAD} {{ {nodes} y = Conv (x, w) z = Conv (x, other) }}", weights)
    return next(s.reason for s in find_sites(model).skipped if s.name == "y")


def test_values_that_cannot_be_rewritten_say_why(rng):
    w = normal(rng, *SHAPE)
    assert "also read by Identity 'v'" in reason("v = Identity (w)", {"w": w})
    assert "also read by Conv 'v'" in reason("v = Conv (x, w)", {"w": w})
    halves = {"a": w[:2], "b": w[2:]}
    assert "other constants" in reason("w = Concat <axis = 0> (a, b)", halves)
    assert "other constants" in reason("w = Mul (r, two)", {"r": w, "two": np.float32([2])})
    for op in ("Abs", "Relu", "Sqrt", "Ceil"):  # these leave 0, 1, 2, ... as they are, or nearly
        assert "other constants" in reason(f"w = {op} (r)", {"r": np.ones(SHAPE, np.float32)})
    assert "run time" in reason("m = ReduceMean <keepdims = 0> (x) w = Mul (r, m)", {"r": w})
    quantised = {"q": (w * 9).astype(np.int8), "f": np.float32(0.1), "p": np.int8(0)}
    assert "quantisation" in reason("w = DequantizeLinear (q, f, p)", quantised)


def test_an_element_used_twice_cannot_be_rewritten(rng):
    weights = {"r": normal(rng, 4, 3, 1, 2), "k": np.array(SHAPE)}
    assert "other constants" in reason("w = Expand (r, k)", weights)
    weights = {"r": normal(rng, *SHAPE), "k": np.array([0, 0, 2, 3])}
    assert "other constants" in reason("w = Gather (r, k)", weights)


def test_a_list_in_a_constant_node_can_be_read_but_not_written(rng):
    model = build(
        f"""{HEAD} {{
            m = Constant <value_floats = [0.5, 1.5, 2.5, 3.5]> ()
            c = Conv (x, w)
            y = BatchNormalization (c, s, b, m, v)
        }}""",
        {"w": normal(rng, *SHAPE)} | {k: v for k, v in norm_weights(rng, 4).items() if k != "m"},
    )
    mean = site(model).norm.mean
    np.testing.assert_array_equal(mean.value, np.float32([0.5, 1.5, 2.5, 3.5]))
    assert mean.storage is None


def test_random_numbers_and_custom_operators_are_no_constants():
    model = build(
        """net (float[N] x) => (float[2] y) {
            a = RandomNormal <shape = [2]> ()
            b = RandomUniformLike (k)
            c = Bernoulli (k)
            y = Add (a, b)
        }""",
        {"k": np.float32([0.5, 0.5])},
    )
    constants = Constants(model, Topology(model.graph))
    assert [constants.value(n) for n in ("a", "b", "c", "y")] == [None] * 4
    assert constants.value("k") is not None


def test_initializers_listed_as_inputs_as_before_ir_4(rng):
    model = build(
        "net (float[N,3,8,8] x, float[4,3,2,2] w) => (float[N,4,7,7] y) { y = Conv (x, w) }",
        {"w": normal(rng, *SHAPE)},
        ir=3,
        opset=11,
    )
    assert site(model).weight.storage.name == "w"
    patch = Patch({"w": np.zeros(SHAPE, np.float32)}, {"y": np.float32([1, 2, 3, 4])})
    changed = apply(model, patch)
    assert [i.name for i in changed.graph.input] == ["x", "w", "y_bias"]
    y = run(copied(changed), x=normal(rng, 1, 3, 8, 8), **stored(changed))["y"]
    np.testing.assert_array_equal(y[0, :, 0, 0], [1, 2, 3, 4])


@pytest.mark.slow
def test_long_chains_of_constants_and_of_activations_are_no_harm(rng):
    """Each longer than Python's stack."""
    relus = " ".join(f"r{i + 1} = Relu (r{i})" for i in range(1200))
    copies = " ".join(f"w{i + 1} = Identity (w{i})" for i in range(1200))
    model = build(
        f"""net (float[N,3,4,4] x) => (float[N,4,4,4] y) {{
            {copies} c = Conv <pads = [1, 1, 1, 1]> (x, w1200)
            r0 = Relu (c) {relus}
            t = Transpose <perm = [0, 1, 3, 2]> (r1200)
            y = MatMul (r1200, t)
        }}""",
        {"w0": normal(rng, 4, 3, 3, 3)},
    )
    assert site(model).weight.storage.name == "w0"
    options = recipe("best", sparsity=0.5)
    result = repair(model, normal(rng, 12, 3, 4, 4), options)
    assert np.count_nonzero(stored(result.model)["w0"] == 0) == 54


@pytest.mark.parametrize(
    "op", ["Bernoulli", "Multinomial", "RandomNormalLike", "RandomUniformLike"]
)
def test_what_is_drawn_anew_in_each_run_is_no_constant(rng, op):
    model = build(
        f"{HEAD} {{ w = {op} (r) y = Conv (x, w) }}", {"r": 0.5 * np.ones(SHAPE, np.float32)}
    )
    topology = Topology(model.graph)
    assert not topology.is_constant("w")
    assert Constants(model, topology).value("w") is None
