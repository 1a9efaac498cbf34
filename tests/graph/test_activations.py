"""The activation behind a tensor: found whatever nodes it is made of, or not at all."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from asr_onnx.graph.activations import activation_behind
from asr_onnx.graph.constants import Constants
from asr_onnx.graph.wiring import Topology

# What stands behind x, and the output and operators of the activation; None: there is none.
FOUND = {
    "y = Relu(x)": ("y", ["Relu"]),
    "y = LeakyRelu(x)": ("y", ["LeakyRelu"]),
    "y = PRelu(x, slope)": ("y", ["PRelu"]),
    "y = Clip(x, one, six)": ("y", ["Clip"]),
    "s = Sigmoid(x) y = Mul(x, s)": ("y", ["Sigmoid", "Mul"]),
    "a = Add(x, three) c = Clip(a, zero, six) m = Mul(x, c) y = Div(m, six)": (
        "y", ["Add", "Clip", "Mul", "Div"],
    ),
    "a = Mul(x, per_channel) h = HardSigmoid(a) y = Mul(a, h)": (
        "y", ["Mul", "HardSigmoid", "Mul"],
    ),
    "r = Relu(x) a = Mul(r, six) b = Abs(r) y = Add(a, b)": ("y", ["Relu", "Mul", "Abs", "Add"]),
    "r = Relu(x) a = MaxPool<kernel_shape=[1,1]>(r) y = Add(a, r)": ("r", ["Relu"]),
    "g = Sigmoid(x) y = Mul(g, other)": ("g", ["Sigmoid"]),
    "y = Add(x, other)": None,
    "y = Mul(x, six)": None,
    "r = Relu(x) y = Add(r, x) z = Softmax(x)": None,
    "y = Mul(x, per_place)": None,
    "y = PRelu(x, per_place)": None,
}  # fmt: skip


def network(nodes):
    text = (
        f'<ir_version: 8, opset_import: ["": 17]> n (float[1,2,3,3] x, float[1,2,3,3] other) '
        f"=> (float[1,2,3,3] y) {{ {nodes} }}"
    )
    model = onnx.parser.parse_model(text)
    values = {"zero": 0.0, "one": 1.0, "three": 3.0, "six": 6.0}
    arrays = {n: np.array(v, np.float32) for n, v in values.items()}
    arrays |= {"slope": np.ones((2, 1, 1), np.float32)}
    arrays |= {"per_channel": np.ones((1, 2, 1, 1), np.float32)}
    arrays |= {"per_place": np.ones((1, 1, 3, 3), np.float32)}
    model.graph.initializer.extend(onnx.numpy_helper.from_array(a, n) for n, a in arrays.items())
    return model


@pytest.mark.parametrize("nodes", FOUND)
def test_it_is_found_whatever_it_is_made_of(nodes):
    model = network(nodes)
    topology = Topology(model.graph)
    found = activation_behind(topology, "x", 2, Constants(model, topology).value)
    if FOUND[nodes] is None:
        assert found is None
        return
    output, operators = FOUND[nodes]
    assert (found.input, found.output) == ("x", output)
    assert [model.graph.node[i].op_type for i in found.nodes] == operators
    assert found.relu == (operators == ["Relu"])


def test_what_is_an_output_of_the_network_goes_through_nothing():
    model = network("y = Relu(x)")
    model.graph.output[0].name = "x"
    topology = Topology(model.graph)
    assert activation_behind(topology, "x", 2, Constants(model, topology).value) is None
