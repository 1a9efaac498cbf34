"""Folding a scale and a shift into the file: the graph then computes what was asked for."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from models import build, norm_weights, normal, run, site, stored

from asr_onnx.graph.fold import fold, norm_mean
from asr_onnx.graph.model_file import apply
from asr_onnx.graph.records import Patch


def conv_net(rng, bias=False, norm=False, groups=1, dims=2, kernel=3, stride=1, dilation=1):
    """One convolution of 4 to 6 channels (8 to 8 when grouped), maybe with BatchNormalization."""
    cin, cout = (8, 8) if groups > 1 else (4, 6)
    size = ",".join(["11"] * dims)
    attributes = f"group = {groups}, strides = {[stride] * dims}, dilations = {[dilation] * dims}"
    conv = f"c = Conv <{attributes}> (x, w{', k' if bias else ''})"
    last = "y = BatchNormalization (c, s, b, m, v)" if norm else "y = Identity (c)"
    weights = {"w": normal(rng, cout, cin // groups, *[kernel] * dims)}
    if bias:
        weights["k"] = normal(rng, cout)
    if norm:
        weights |= norm_weights(rng, cout)
    unknown = ",".join("?" * (dims + 2))
    return build(
        f"net (float[N,{cin},{size}] x) => (float[{unknown}] y) {{ {conv} {last} }}", weights
    )


def sample(rng, model):
    dims = model.graph.input[0].type.tensor_type.shape.dim
    return normal(rng, 2, *(d.dim_value for d in dims[1:]))


def affine(model, rng):
    """A scale and a shift, both (C,), and the patch that folds them into the model's site."""
    found = site(model)
    gamma, shift = rng.uniform(0.3, 3, found.channels), rng.normal(size=found.channels)
    rows = gamma.reshape(-1, *[1] * (found.weight.value.ndim - 1))
    old = 0 if found.bias is None else found.bias.value.astype(np.float64)
    change = (gamma - 1) * old + shift
    return gamma, shift, fold(found, found.weight.value * rows, change)


def wanted(model, x, gamma, shift):
    """What the model would give if its Conv gave ``gamma * c + shift``, computed by hand."""
    values, c = stored(model), run(build_conv(model), x=x)["c"].astype(np.float64)
    per_channel = (-1, *[1] * (c.ndim - 2))
    y = gamma.reshape(per_channel) * c + shift.reshape(per_channel)
    if "s" not in values:
        return y
    s, b, m, v = (values[n].astype(np.float64).reshape(per_channel) for n in "sbmv")
    return s * (y - m) / np.sqrt(v + 1e-5) + b


def build_conv(model):
    """The model up to its Conv."""
    result = type(model)()
    result.CopyFrom(model)
    del result.graph.node[1:]
    result.graph.output[0].name = "c"
    return result


def assert_close(found, wanted):
    np.testing.assert_allclose(found, wanted, rtol=0, atol=3e-6 * np.abs(wanted).max())


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("norm", [False, True])
@given(
    seed=st.integers(0, 2**32 - 1),
    groups=st.sampled_from([1, 2, 8]),
    dims=st.integers(1, 3),
    kernel=st.integers(1, 3),
    stride=st.integers(1, 2),
    dilation=st.integers(1, 2),
)
def test_the_folded_conv_is_the_scaled_conv(
    bias, norm, seed, groups, dims, kernel, stride, dilation
):
    rng = np.random.default_rng(seed)
    model = conv_net(rng, bias, norm, groups, dims, kernel, stride, dilation)
    gamma, shift, patch = affine(model, rng)
    x = sample(rng, model)
    assert_close(run(apply(model, patch), x=x)["y"], wanted(model, x, gamma, shift))


def test_batch_normalisation_takes_the_shift_and_leaves_the_bias(rng):
    model = conv_net(rng, bias=True, norm=True)
    _, _, patch = affine(model, rng)
    assert patch.values.keys() == {"w", "m"}
    assert not patch.biases


def test_a_bare_conv_takes_it_in_its_bias(rng):
    assert affine(conv_net(rng, bias=True), rng)[2].values.keys() == {"w", "k"}
    patch = affine(conv_net(rng), rng)[2]
    assert (patch.values.keys(), patch.biases.keys()) == ({"w"}, {"c"})


def test_a_mean_shared_by_two_batch_normalisations_stays(rng):
    model = build(
        """shared (float[N,3,8,8] x) => (float[N,3,6,6] y, float[N,3,8,8] z) {
            c = Conv (x, w)
            y = BatchNormalization (c, s, b, m, v)
            z = BatchNormalization (x, s, b, m, v)
        }""",
        {"w": normal(rng, 3, 3, 3, 3)} | norm_weights(rng, 3),
    )
    gamma, shift, patch = affine(model, rng)
    assert patch.values.keys() == {"w"}
    assert patch.biases.keys() == {"c"}
    x = sample(rng, model)
    before, after = run(model, x=x), run(apply(model, patch), x=x)
    np.testing.assert_array_equal(after["z"], before["z"])
    values = stored(model)
    s, b, v = (values[n].reshape(-1, 1, 1).astype(np.float64) for n in "sbv")
    m, gamma, shift = (a.reshape(-1, 1, 1) for a in (values["m"], gamma, shift))
    c = (before["y"] - b) * np.sqrt(v + 1e-5) / s + m
    assert_close(after["y"], s * (gamma * c + shift - m) / np.sqrt(v + 1e-5) + b)


def test_a_bias_shared_by_two_convs_stays(rng):
    model = build(
        """shared (float[N,3,8,8] x) => (float[N,3,6,6] y, float[N,3,6,6] z) {
            y = Conv (x, w, k)
            z = Conv (x, w2, k)
        }""",
        {"w": normal(rng, 3, 3, 3, 3), "w2": normal(rng, 3, 3, 3, 3), "k": normal(rng, 3)},
    )
    found = site(model, "w")
    change = rng.normal(size=3)
    after = run(apply(model, fold(found, found.weight.value, change)), x=(x := sample(rng, model)))
    before = run(model, x=x)
    np.testing.assert_array_equal(after["z"], before["z"])
    assert_close(after["y"], before["y"] + change.reshape(-1, 1, 1))


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("norm", [False, True])
def test_unit_scales_leave_every_byte_as_it_was(rng, bias, norm):
    model = conv_net(rng, bias, norm)
    found = site(model)
    patch = fold(found, found.weight.value, np.zeros(found.channels))
    assert apply(model, patch).SerializeToString() == model.SerializeToString()


def test_an_empty_patch_leaves_every_byte_as_it_was(rng):
    model = conv_net(rng, True, True)
    assert apply(model, Patch()).SerializeToString() == model.SerializeToString()


def test_zeros_stay_zeros(rng):
    model = conv_net(rng)
    model.graph.initializer[0].raw_data = (
        np.where(rng.random((6, 4, 3, 3)) < 0.8, 0, stored(model)["w"]).astype(np.float32).tobytes()
    )
    zero = stored(model)["w"] == 0
    _, _, patch = affine(model, rng)
    np.testing.assert_array_equal(stored(apply(model, patch))["w"] == 0, zero)


def test_a_new_bias_finds_a_name_that_is_free(rng):
    model = build(
        """net (float[N,3,8,8] x) => (float[N,4,8,8] y) {
            c = Conv (x, w)
            y = Mul (c, c_bias)
        }""",
        {"w": normal(rng, 4, 3, 1, 1), "c_bias": normal(rng, 4, 1, 1)},
    )
    found, x = site(model), normal(rng, 2, 3, 8, 8)
    after = apply(model, fold(found, found.weight.value, np.arange(1.0, 5)))
    change = np.arange(1.0, 5).reshape(-1, 1, 1) * stored(model)["c_bias"]
    assert_close(run(after, x=x)["y"], run(model, x=x)["y"] + change)


def test_the_mean_moves_against_the_bias():
    np.testing.assert_array_equal(norm_mean(np.array([1.0, 2]), np.array([0.5, -1])), [0.5, 3])
