"""A quantized model that is not what was promised is refused."""

from __future__ import annotations

import numpy as np
import pytest
from models import copied, norm_net, normal, stored

from asr_onnx import ModelError, RepairOptions, as_batches
from asr_onnx.execution.session import Device
from asr_onnx.graph.inputs import model_inputs
from asr_onnx.quantizing.checks import check_pairs
from asr_onnx.repairing.preparing import in_integers


@pytest.fixture
def quantized(rng):
    model = norm_net(rng)
    batches = as_batches(normal(rng, 20, 3, 8, 8), model_inputs(model))
    return in_integers(model, model, batches, RepairOptions(precision="int8"), Device(), None)


def node(model, output):
    return next(n for n in model.graph.node if n.output[0] == output)


def test_what_the_quantizer_writes_is_sound(quantized):
    check_pairs(quantized.model, quantized)


def test_an_activation_beside_its_pair(quantized):
    model = copied(quantized.model)
    node(model, "n2").input[0] = "r1"
    with pytest.raises(ModelError, match="'r1' does not go through a pair"):
        check_pairs(model, quantized)


def test_a_weight_that_is_no_integers(quantized):
    model = copied(quantized.model)
    node(model, "n2").input[1] = "w2"
    with pytest.raises(ModelError, match="'w2', which makes 'n2', is not made of integers"):
        check_pairs(model, quantized)


def test_a_zero_point_that_is_not_zero(quantized):
    zero = stored(quantized.model)["r1_zero_point"]
    model = copied(quantized.model, r1_zero_point=np.ones_like(zero))
    with pytest.raises(ModelError, match="a zero point that is not zero"):
        check_pairs(model, quantized)


def test_integers_that_would_make_other_weights(quantized, rng):
    from asr_onnx.graph.sites import find_sites

    site = next(s for s in find_sites(quantized.walked).sites if s.name == "w2")
    scales = np.full((1, 8), 0.01)
    with pytest.raises(ModelError, match="are not its weights"):
        quantized.stored(site, rng.normal(size=(1, 8, 72)), scales)
