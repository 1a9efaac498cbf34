"""A mask that was written holds; one weight more where none may be breaks it, in any storage."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from models import bare_net, build, copied, external_copy, norm_net, normal, stored

from asr_onnx import ModelError, PruneOptions, RepairOptions, UsageError, check, load, prune, repair
from asr_onnx.graph.float_weights import with_float_weights
from asr_onnx.graph.qdq import stored_integers
from asr_onnx.pruning.eligibility import OnlyEligible
from asr_onnx.pruning.patterns import NM

OPS = ("Conv", "ConvTranspose", "Gemm", "MatMul")


def linear(rng):
    """Every operator whose weight can be pruned, and a blur that is left alone."""
    return build(
        """all (float[N,4,8,8] x) => (float[N,8] y) {
            b = Conv <group = 4, pads = [1, 1, 1, 1]> (x, blur)
            c = Conv <pads = [1, 1, 1, 1]> (b, w1)
            r = Relu (c)
            t = ConvTranspose (r, w2)
            s = Relu (t)
            p = GlobalAveragePool (s)
            f = Flatten (p)
            m = MatMul (f, w3)
            a = Add (m, b3)
            g = Relu (a)
            y = Gemm <transB = 1> (g, w4, b4)
        }""",
        {
            "blur": np.full((4, 1, 3, 3), 1 / 9, np.float32),
            "w1": normal(rng, 8, 4, 3, 3),
            "w2": normal(rng, 8, 4, 2, 2),
            "w3": normal(rng, 4, 8),
            "b3": normal(rng, 8),
            "w4": normal(rng, 8, 8),
            "b4": normal(rng, 8),
        },
    )


@given(st.integers(0, 99))
def test_what_prune_zeroes_is_exactly_enough(percent):
    """The count is that of ``prune``, at whatever share, and one zero less is not."""
    model = bare_net(np.random.default_rng(percent))
    pruned = prune(model, PruneOptions(sparsity=percent / 100))
    found = check(pruned, sparsity=percent / 100)
    assert found.passed and found.zeros == found.wanted
    if found.zeros:
        name = "w2" if (stored(pruned)["w2"] == 0).any() else "w1"
        weight = stored(pruned)[name].copy()
        weight.flat[np.flatnonzero(weight == 0)[0]] = 1
        assert not check(copied(pruned, **{name: weight}), sparsity=percent / 100).passed


@pytest.mark.parametrize("pattern", ["2:4", "1:4", "4:8", "1:2"])
def test_one_weight_too_many_in_a_group_is_found_and_named(rng, pattern):
    pruned = prune(linear(rng), PruneOptions(pattern=pattern, ops=OPS))
    found = check(pruned, pattern=pattern, ops=OPS)
    assert found.passed and found.crowded == ()
    for site in found.sites:
        name = next(n for n, v in stored(pruned).items() if v.size == site.weights)
        weight = stored(pruned)[name].copy()
        weight.flat[np.flatnonzero(weight == 0)[0]] = 1e-30
        (broken,) = check(copied(pruned, **{name: weight}), pattern=pattern, ops=OPS).crowded
        assert (broken.name, broken.crowded) == (site.name, 1)


def test_fewer_weights_than_may_stay_are_no_fault(rng):
    pruned = prune(linear(rng), PruneOptions(pattern="1:4", ops=OPS))
    assert check(pruned, pattern="2:4", ops=OPS).passed
    assert not check(pruned, pattern="1:8", ops=OPS).passed


def test_what_pruning_leaves_alone_is_not_asked_for(rng):
    """Fixed filters, layers that are too narrow for the pattern, what is excluded."""
    pruned = prune(linear(rng), PruneOptions(pattern="2:4"))
    found = check(pruned, pattern="2:4")
    assert found.passed and [s.op for s in found.sites] == ["Conv"]
    (blur,) = found.left
    assert "the same kernel" in blur.reason
    dense = prune(norm_net(rng), PruneOptions(pattern="2:4"))  # its first layer reads 3 channels
    found = check(dense, pattern="2:4")
    assert found.passed and len(found.sites) == 1 and "no multiple of 4" in found.left[0].reason
    half = prune(bare_net(rng), PruneOptions(sparsity=0.5, exclude="w1"))
    assert check(half, sparsity=0.5, exclude="w1").passed
    assert not check(half, sparsity=0.5).passed
    assert check(half, sparsity=0.5, include="w2").passed


def test_only_eligible_layers_are_asked_for(rng, monkeypatch):
    monkeypatch.setattr("asr_onnx.pruning.eligibility.WIDE", 40)
    wide = build(
        """wide (float[N,8,8,8] x) => (float[N,40,4,4] y) {
            a = Conv (x, w1)
            y = Conv (a, w2)
        }""",
        {"w1": normal(rng, 8, 8, 3, 3), "w2": normal(rng, 40, 8, 3, 3)},
    )
    pruned = prune(wide, PruneOptions(pattern="2:4", only_eligible=True))
    assert not check(pruned, pattern="2:4").passed
    found = check(pruned, pattern="2:4", only_eligible=True)
    assert found.passed and len(found.sites) == 1
    assert check(pruned, pattern=OnlyEligible(NM(2, 4))) == found


@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_of_any_float(rng, dtype):
    model = prune(bare_net(rng, dtype), PruneOptions(pattern="2:4"))
    assert check(model, pattern="2:4").passed
    weight = stored(model)["w2"].copy()
    weight[0, :4, 0, 0] = 1
    assert not check(copied(model, w2=weight), pattern="2:4").passed


@pytest.mark.parametrize("how", [{"pattern": "2:4"}, {"sparsity": 0.5}])
@pytest.mark.parametrize("precision", ["float32", "float16", "int8"])
def test_what_repair_writes_passes(rng, how, precision):
    """Every operator, whatever its weights are stored as."""
    model, x = linear(rng), normal(rng, 40, 4, 8, 8)
    options = RepairOptions(recipe="refit", precision=precision, ops=OPS, **how)
    found = check(repair(model, x, options).model, ops=OPS, **how)
    assert found.passed and {s.op for s in found.sites} == set(OPS)
    assert not check(model, ops=OPS, **how).passed


def test_integers_are_looked_at_under_the_names_that_weights_had(rng):
    """And an integer that is not its zero point is a weight, however small."""
    model, x = norm_net(rng), normal(rng, 40, 3, 8, 8)
    found = repair(model, x, RepairOptions(recipe="refit", precision="int8", pattern="2:4")).model
    named = {t.name for t in with_float_weights(found).graph.initializer}
    assert {"w1", "w2"} <= named
    assert check(found, pattern="2:4", include="^w2$").passed
    place = stored_integers(found)["w2_DequantizeLinear_Output"]
    integers = stored(found)[place.integers].copy()
    integers[0, :4, 0, 0] = 1
    broken = check(copied(found, **{place.integers: integers}), pattern="2:4")
    assert [s.crowded for s in broken.crowded] == [1]


def test_a_zero_point_that_is_not_zero_is_what_counts_as_zero(rng):
    made = build(
        """q (float[N,4,8,8] x) => (float[N,4,8,8] y) {
            w = DequantizeLinear (w_quantized, scale, point)
            y = Conv (x, w)
        }""",
        {
            "w_quantized": np.full((4, 4, 1, 1), 7, np.uint8),
            "scale": np.float32(0.1),
            "point": np.uint8(7),
        },
    )
    values = stored(made)["w_quantized"].copy()
    values[:, :2] = 3
    values[0, 0] = 250
    assert check(copied(made, w_quantized=values), pattern="2:4").zeros == 8
    values[:, 2] = 0
    assert len(check(copied(made, w_quantized=values), pattern="2:4").crowded) == 1


def test_external_data_is_read_where_it_lies(rng, tmp_path):
    pruned = prune(bare_net(rng), PruneOptions(pattern="2:4"))
    path = external_copy(pruned, tmp_path)
    assert check(load(path, in_place=True).proto, pattern="2:4").passed


def test_a_model_of_which_channels_are_gone_has_no_mask(rng):
    narrow = prune(norm_net(rng), PruneOptions(pattern="channel", sparsity=0.3, channel_multiple=1))
    found = check(narrow, sparsity=0.3)
    assert not found.passed and found.zeros == 0


@pytest.mark.parametrize(
    "how, error, message",
    [
        ({}, UsageError, "nothing to check: give a pattern N:M"),
        ({"pattern": "unstructured"}, UsageError, "nothing to check: give a pattern N:M"),
        ({"pattern": "channel"}, UsageError, "whole channels that are gone leave no mask"),
        ({"pattern": "2:4", "sparsity": 1.0}, UsageError, "outside [0, 1)"),
        ({"pattern": "4:2"}, UsageError, "is not N:M"),
        ({"sparsity": 1.0}, UsageError, "outside [0, 1)"),
        ({"pattern": "2:64"}, UsageError, "no site can hold the pattern 2:64"),
        ({"sparsity": 0.5, "include": "none"}, UsageError, "leave nothing to prune"),
        ({"sparsity": 0.5, "ops": ("MatMul",)}, ModelError, "no MatMul that can be pruned"),
    ],
)
def test_what_cannot_be_checked_is_one_line(rng, how, error, message):
    with pytest.raises(error) as caught:
        check(bare_net(rng), **how)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_nan_is_refused(rng):
    with pytest.raises(ModelError, match="NaN"):
        check(copied(bare_net(rng), w1=np.full((8, 3, 3, 3), np.nan, np.float32)), sparsity=0.5)


def test_the_model_stays_as_it_is(rng):
    model = repair(
        norm_net(rng), normal(rng, 40, 3, 8, 8), RepairOptions(recipe="refit", precision="int8")
    ).model
    before = model.SerializeToString()
    check(model, sparsity=0.5)
    assert model.SerializeToString() == before
    assert isinstance(model, onnx.ModelProto)
