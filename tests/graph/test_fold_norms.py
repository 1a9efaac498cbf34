"""BatchNormalization folded into the convolution in front of it."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from models import build, copied, norm_net, norm_weights, normal, run, stored

from asr_onnx.graph.fold_norms import fold_norms


def operators(model):
    return [n.op_type for n in model.graph.node]


def test_the_function_stays_and_the_normalisations_go(rng):
    model, x = norm_net(rng), normal(rng, 4, 3, 8, 8)
    found = fold_norms(model)
    onnx.checker.check_model(found, full_check=True)
    assert "BatchNormalization" in operators(model)  # it is a copy
    assert "BatchNormalization" not in operators(found)
    assert not {"s1", "m1", "v2"} & stored(found).keys()  # nothing is left over
    np.testing.assert_allclose(run(found, x=x)["y"], run(model, x=x)["y"], rtol=0, atol=1e-4)


def test_zeros_stay_zeros(rng):
    model = norm_net(rng)
    weight = stored(model)["w2"] * (rng.random((8, 8, 3, 3)) < 0.5)
    found = stored(fold_norms(copied(model, w2=weight)))["w2"]
    np.testing.assert_array_equal(found == 0, weight == 0)


@pytest.mark.parametrize(
    "node, shape",
    [
        ("Conv <group = 2> (x, w, cb)", (4, 2, 3, 3)),
        ("ConvTranspose <group = 2> (x, w, cb)", (4, 2, 3, 3)),
    ],
)
def test_channels_are_where_the_operator_has_them(rng, node, shape):
    model = build(
        f"""one (float[N,4,6,6] x) => (float[N,4,h,v] y) {{
            c = {node}
            y = BatchNormalization (c, s, b, m, v)
        }}""",
        {"w": normal(rng, *shape), "cb": normal(rng, 4), **norm_weights(rng, 4)},
    )
    found, x = fold_norms(model), normal(rng, 2, 4, 6, 6)
    assert len(found.graph.node) == 1
    np.testing.assert_allclose(run(found, x=x)["y"], run(model, x=x)["y"], rtol=0, atol=1e-4)


def test_a_normalisation_that_stands_alone_stays(rng):
    model = build(
        """first (float[N,3,6,6] x) => (float[N,3,6,6] y, float[N,3,6,6] c) {
            n = BatchNormalization (x, s, b, m, v)
            c = Conv <pads = [1, 1, 1, 1]> (n, w)
            y = BatchNormalization (c, s2, b2, m2, v2)
        }""",
        {"w": normal(rng, 3, 3, 3, 3), **norm_weights(rng, 3), **norm_weights(rng, 3, "2")},
    )
    assert operators(fold_norms(model)) == operators(model)  # c is told, too
