"""Compact models do what they did, with what contributes nothing gone."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from models import norm_net, normal, run
from moving_networks import moving_networks

import asr_onnx
from asr_onnx.errors import CalibrationError, ModelError, UsageError
from asr_onnx.graph.model_file import apply
from asr_onnx.graph.records import Patch
from asr_onnx.graph.rows import from_rows, to_rows
from asr_onnx.graph.sites import find_sites
from asr_onnx.options import OPS
from asr_onnx.repairing import compacting

SLACK = {"float32": 1e-4, "float16": 3e-2}


def net(text, **stored):
    """A model from its text, with initializers of its own."""
    model = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": 17]> {text}')
    model.graph.initializer.extend(
        onnx.numpy_helper.from_array(np.asarray(v, np.float32), n) for n, v in stored.items()
    )
    return model


def weights(model):
    return {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}


def without(model, lost):
    """The model with zeros for what ``lost(site, rows)`` of each site's rows is true."""
    values = {}
    for site in find_sites(model, OPS).sites:
        rows = np.array(to_rows(site, site.weight.value))
        rows[lost(site, rows)] = 0
        storage = site.weight.storage
        values[storage.name] = storage.pack(from_rows(site, rows))
    return apply(model, Patch(values))


@pytest.mark.slow
@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
@given(moving_networks(), st.integers(0, 2**32 - 1))
def test_a_compact_model_does_the_same(network, seed):
    random = np.random.default_rng(seed)

    def lost(site, rows):
        found = np.zeros(rows.shape, bool)
        found[random.random(rows.shape[:2]) < 0.4] = True  # nothing makes it
        inputs = rows.shape[2] // int(np.prod(site.weight.value.shape[2:]))
        found.reshape(*rows.shape[:2], -1, inputs)[..., random.random(inputs) < 0.3] = True
        return found

    try:
        model = without(network.model, lost)
    except ModelError:  # nothing that can be pruned
        return
    x = network.x[:4]
    before = run(model, x=x)
    if not all(np.isfinite(v).all() for v in before.values()):
        return
    found = asr_onnx.compact(model, x)
    after = run(found.model, x=x)
    for name, value in before.items():
        largest = np.abs(value, dtype=np.float64).max(initial=1e-3)
        slack = SLACK[str(x.dtype)] * largest
        np.testing.assert_allclose(after[name], value, rtol=0, atol=slack)
    other = np.flip(x, axis=-1) * 2  # constants do not depend on the data they were told by
    for name, value in run(model, x=other).items():
        largest = np.abs(value, dtype=np.float64).max(initial=1e-3)
        if np.isfinite(largest):
            slack = SLACK[str(x.dtype)] * largest
            np.testing.assert_allclose(run(found.model, x=other)[name], value, rtol=0, atol=slack)
    assert not asr_onnx.compact(found.model, x).widths
    assert bool(found.widths) == (found.model is not model)


CHAIN = """g (float[N, 3, 6, 6] x) => (float[N, 2, 6, 6] y) {{
    a = Conv(x, w1, b1)
    r = {act}(a)
    y = Conv<pads = [{pad}, {pad}, {pad}, {pad}]>(r, w2)
}}"""


def chain(rng, act="Sigmoid", pad=0, kernel=1, bias=2.0):
    w1 = normal(rng, 4, 3, 1, 1)
    w1[1] = 0
    size = kernel, kernel
    text = CHAIN.format(act=act, pad=pad)
    text = text if kernel == 1 or pad else text.replace("2, 6, 6] y", "2, 4, 4] y")
    return net(text, w1=w1, b1=[0.5, bias, 0.1, -0.2], w2=normal(rng, 2, 4, *size))


def test_the_constant_of_a_channel_that_no_weight_makes_goes_into_the_bias(rng):
    model = chain(rng)
    found = asr_onnx.compact(model)
    stored = weights(found.model)
    assert stored["w1"].shape == (3, 3, 1, 1) and stored["w2"].shape == (2, 3, 1, 1)
    (bias,) = (v for n, v in stored.items() if n not in weights(model))
    dense = weights(model)["w2"][:, 1, 0, 0]
    np.testing.assert_allclose(bias, dense / (1 + np.exp(-2.0)), rtol=1e-5)
    assert [(w.producers, w.before, w.after) for w in found.widths] == [(("w1",), 4, 3)]
    assert found.cost.macs < found.cost_before.macs


@pytest.mark.parametrize(
    ("settings", "removed", "held"),
    [
        ({"pad": 1, "kernel": 3}, 0, 1),  # its edges see zeros
        ({"pad": 1, "kernel": 3, "act": "Relu"}, 0, 1),
        ({"pad": 1, "kernel": 3, "act": "Relu", "bias": -1.0}, 1, 0),  # zero within as without
        ({"pad": 0, "kernel": 3}, 1, 0),
    ],
)
def test_padding_keeps_a_constant_that_is_not_zero(rng, settings, removed, held):
    model = chain(rng, **settings)
    found = asr_onnx.compact(model)
    assert (found.removed, found.held) == (removed, held)
    x = normal(rng, 4, 3, 6, 6)
    np.testing.assert_allclose(run(found.model, x=x)["y"], run(model, x=x)["y"], atol=1e-5)


def test_what_joins_a_channel_to_the_data_keeps_it(rng):
    """A gate over all channels is no constant, though the channel it scales is."""
    w1 = normal(rng, 4, 3, 1, 1)
    w1[1] = 0
    model = net(
        """g (float[N, 3, 6, 6] x) => (float[N, 2, 6, 6] y) {
            a = Conv(x, w1, b1)
            gate = ReduceMean<axes = [1], keepdims = 1>(x)
            r = Mul(a, gate)
            y = Conv(r, w2)
        }""",
        w1=w1, b1=normal(rng, 4), w2=normal(rng, 2, 4, 1, 1),
    )  # fmt: skip
    zeros = np.zeros((2, 3, 6, 6), np.float32)  # for which it looks like one
    assert asr_onnx.compact(model, zeros).removed == 0


def test_removal_goes_on_until_nothing_is_idle(rng):
    w2 = normal(rng, 5, 4, 1, 1)
    w2[:2], w2[:, 3] = 0, 0
    w3 = normal(rng, 2, 5, 1, 1)
    w3[:, 2:4] = 0
    w1 = normal(rng, 4, 3, 1, 1)
    w2[4, 2], w2[4, 0] = 0, 0  # all that is left of the second layer reads channel 1 alone
    model = net(
        """g (float[N, 3, 6, 6] x) => (float[N, 2, 6, 6] y) {
            a = Conv(x, w1, b1)
            b = Conv(a, w2, b2)
            y = Conv(b, w3)
        }""",
        w1=w1, b1=normal(rng, 4), w2=w2, b2=normal(rng, 5), w3=w3,
    )  # fmt: skip
    found = asr_onnx.compact(model)
    assert [w.after for w in found.widths] == [1, 1]
    x = normal(rng, 4, 3, 6, 6)
    np.testing.assert_allclose(run(found.model, x=x)["y"], run(model, x=x)["y"], atol=1e-5)


def test_a_network_without_idle_channels_is_as_it_was(rng):
    model = norm_net(rng)
    before = model.SerializeToString()
    found = asr_onnx.compact(model)
    assert found.model.SerializeToString() == before
    assert found.removed == 0 and not found.widths


def test_open_sizes_need_shapes_or_data(rng):
    model = net(
        "g (float[N, 3, H, W] x) => (float[N, 4, H, W] y) { y = Conv(x, w1) }",
        w1=normal(rng, 4, 3, 1, 1),
    )
    with pytest.raises(UsageError, match="input-shapes"):
        asr_onnx.compact(model)
    assert asr_onnx.compact(model, input_shapes={"x": (1, 3, 4, 4)}).removed == 0
    assert asr_onnx.compact(model, normal(rng, 2, 3, 5, 5)).removed == 0


def test_a_model_that_does_not_do_the_same_is_not_returned(rng, monkeypatch):
    model = chain(rng)
    wrong = compacting.bias_change
    monkeypatch.setattr(compacting, "bias_change", lambda *a: 1.1 * wrong(*a))
    with pytest.raises(ModelError, match="output 'y' of the model is off by"):
        asr_onnx.compact(model)


def test_weights_in_a_file_may_become_small(rng, tmp_path):
    w1, w2 = normal(rng, 64, 3, 3, 3), normal(rng, 64, 64, 3, 3)  # 144 KiB
    w2[:, 16:] = 0
    model = net(
        """g (float[N, 3, 8, 8] x) => (float[N, 64, 4, 4] y) {
            a = Conv(x, w1)
            y = Conv(a, w2)
        }""",
        w1=w1, w2=w2,
    )  # fmt: skip
    x = normal(rng, 2, 3, 8, 8)
    wanted = run(model, x=x)["y"]  # before saving, which takes the weights out of the model
    onnx.save(model, tmp_path / "m.onnx", save_as_external_data=True, size_threshold=0)
    loaded = asr_onnx.load(tmp_path / "m.onnx", in_place=True)
    found = asr_onnx.compact(loaded.proto)
    asr_onnx.save(found.model, tmp_path / "c.onnx", loaded.external)
    narrower = asr_onnx.load(tmp_path / "c.onnx").proto
    assert [w.after for w in found.widths] == [16]
    np.testing.assert_allclose(run(narrower, x=x)["y"], wanted, atol=1e-4)


@pytest.mark.parametrize(
    "between",
    [
        "d = Conv <group = 4, pads = [1, 1, 1, 1]> (a, dw) r = GlobalAveragePool (d)",
        "d = AveragePool <kernel_shape = [3, 3], pads = [1, 1, 1, 1], count_include_pad = 1> (a) "
        "r = GlobalAveragePool (d)",
        "d = Pad (a, pads) r = GlobalAveragePool (d)",
        "r = ReduceSum <keepdims = 1> (a, axes)",
    ],
)
@pytest.mark.parametrize("side", [1, 6])
def test_what_depends_on_the_size_is_no_constant(rng, between, side):
    w1 = normal(rng, 4, 3, 1, 1)
    w1[1] = 0
    model = net(
        f"""g (float[N, 3, H, W] x) => (float[N, 2, K, L] y) {{
            a = Conv(x, w1, b1) {between} y = Conv(r, w2)
        }}""",
        w1=w1, b1=[0.5, 2.0, 0.1, -0.2], w2=normal(rng, 2, 4, 1, 1), dw=normal(rng, 4, 1, 3, 3),
    )  # fmt: skip
    for name, value in (("pads", [0, 0, 1, 1, 0, 0, 1, 1]), ("axes", [2, 3])):
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.array(value), name))
    found = asr_onnx.compact(model, input_shapes={"x": (2, 3, side, side)})
    x = normal(rng, 2, 3, 9, 5)
    np.testing.assert_allclose(run(found.model, x=x)["y"], run(model, x=x)["y"], rtol=1e-4)


def test_a_bias_that_is_computed_keeps_its_channels(rng):
    w1 = normal(rng, 3, 4)
    w1[:, 1] = 0
    model = net(
        """g (float[N, 3] x) => (float[N, 2] y) {
            shift = Gemm(x, w3)
            a = Gemm(x, w1, shift)
            y = Gemm(a, w2)
        }""",
        w1=w1, w2=normal(rng, 4, 2), w3=normal(rng, 3, 4),
    )  # fmt: skip
    assert not asr_onnx.compact(model).widths


def test_a_scale_that_is_computed_keeps_its_channels(rng):
    """One channel alone would be broadcast, and go unnoticed."""
    model = net(
        """g (float[N, 4] x) => (float[N, 4] y) {
            all = Gemm(x, w)
            scale = ReduceMean<axes = [0], keepdims = 0>(all)
            y = LayerNormalization<axis = -1>(x, scale)
        }""",
        w=normal(rng, 4, 4),
    )
    assert not asr_onnx.compact(model).widths


def test_what_a_reader_has_no_weight_for_may_be_anything(rng):
    """Channel 1 is 2 to the reader ``y``; channel 2 varies by place, and only ``z`` reads it."""
    w1 = normal(rng, 4, 3, 1, 1)
    w1[1:3] = 0
    w2, place = normal(rng, 2, 4, 1, 1), np.zeros((1, 4, 5, 5), np.float32)
    w2[:, 2], place[:, 2] = 0, normal(rng, 5, 5)
    model = net(
        """g (float[N, 3, 5, 5] x) => (float[N, 2, 5, 5] y) {
            a = Conv(x, w1, b1)
            b = Add(a, place)
            y = Conv(b, w2)
        }""",
        w1=w1, b1=[0.5, 2.0, 0.1, -0.2], w2=w2, place=place,
    )  # fmt: skip
    found = asr_onnx.compact(model)
    x = normal(rng, 2, 3, 5, 5)
    assert found.removed == 2
    np.testing.assert_allclose(run(found.model, x=x)["y"], run(model, x=x)["y"], atol=1e-5)


def test_classes_have_to_agree_as_well(rng, monkeypatch):
    model = chain(rng)
    (y,) = model.graph.output
    model.graph.node.append(onnx.helper.make_node("ArgMax", ["y"], ["c"], axis=1))
    y.CopyFrom(onnx.helper.make_tensor_value_info("c", onnx.TensorProto.INT64, ["N", 1, 6, 6]))
    assert asr_onnx.compact(model).removed == 1
    other = 99 - 198 * np.round(run(model, x=normal(rng, 9, 3, 6, 6))["c"].mean())  # class
    wrong = compacting.bias_change
    monkeypatch.setattr(compacting, "bias_change", lambda *a: np.add(wrong(*a), [-other, other]))
    with pytest.raises(ModelError, match="'c' of the model is not that of the model given"):
        asr_onnx.compact(model)


def test_a_new_bias_takes_no_name_that_is_there(rng):
    model = chain(rng)
    unread = onnx.helper.make_tensor_value_info("y_bias", onnx.TensorProto.FLOAT, [2])
    model.graph.input.append(unread)
    found = asr_onnx.compact(model)
    assert found.removed == 1
    assert found.model.graph.input[1] == unread
    assert "y_bias" not in weights(found.model)


def test_noise_that_a_model_makes_nothing_of_asks_for_data(rng):
    model = chain(rng)
    model.graph.node.append(onnx.helper.make_node("Log", ["x"], ["logs"]))
    model.graph.output.append(
        onnx.helper.make_tensor_value_info("logs", onnx.TensorProto.FLOAT, ["N", 3, 6, 6])
    )
    with pytest.raises(CalibrationError, match="'logs' of the model is NaN on noise: give --calib"):
        asr_onnx.compact(model)
    assert asr_onnx.compact(model, np.abs(normal(rng, 4, 3, 6, 6))).removed == 1
