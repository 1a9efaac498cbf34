"""Where pairs of Q and DQ go."""

from __future__ import annotations

import pytest
from models import bare_net, build, detector, norm_net, normal

from asr_onnx.graph.fold_norms import fold_norms
from asr_onnx.quantizing.placement import place


def found(model, **more):
    return place(model, **more).tensors


def weights(model, **more):
    return [p.weight for p in place(model, **more).products]


def test_inputs_of_products_and_outputs_behind_their_activations(rng):
    assert found(bare_net(rng)) == ("x", "r1", "r2", "f")
    assert weights(bare_net(rng)) == ["w1", "w2", "fw"]


def test_both_branches_of_a_sum(rng):
    assert found(fold_norms(norm_net(rng))) == ("x", "r1", "n2", "r2", "f")


def test_what_the_network_tells_stays_in_float32(rng):
    model = detector(rng)
    told = {o.name for o in model.graph.output}
    assert not told & set(found(model))


def test_what_is_left_out_is_computed_in_float32(rng):
    assert weights(bare_net(rng), exclude="w2") == ["w1", "fw"]
    assert found(bare_net(rng), exclude="w[12]") == ("f",)


@pytest.mark.parametrize(
    "behind, expected",
    [
        ("m = MaxPool <kernel_shape = [2, 2]> (r)", ("x", "r", "m")),  # hands integers on
        ("m = Softmax <axis = 1> (r)", ("x", "m")),  # wants all digits
        ("s = Sigmoid (r)\n m = Mul (r, s)", ("x", "m")),  # SiLU: the activation's end
    ],
)
def test_integers_go_on_to_what_can_take_them(rng, behind, expected):
    model = build(
        f"""net (float[N,3,6,6] x) => (float[N,3,h,v] y) {{
            r = Conv (x, w1)
            {behind}
            c = Conv (m, w2)
            y = Exp (c)
        }}""",
        {"w1": normal(rng, 4, 3, 3, 3), "w2": normal(rng, 3, 4, 1, 1)},
    )
    assert found(model) == expected


def test_products_of_activations_and_of_other_types_stay(rng):
    model = build(
        """net (float[2,4,4] x) => (float[2,4,4] y) {
            a = MatMul (x, w)
            y = MatMul (a, x)
        }""",
        {"w": normal(rng, 4, 4)},
    )
    assert weights(model) == ["w"]
    assert weights(bare_net(rng, "float16")) == []
