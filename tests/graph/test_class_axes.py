"""Where the classes of an output lie, as its last nodes say."""

from __future__ import annotations

import numpy as np
import pytest
from models import build, copied

from asr_onnx.graph.class_axes import class_axes, output_ranks


def net(nodes, output="float[N,T,C] y", opset=17):
    weights = {"w": np.ones((3, 4), np.float32), "b": np.ones(4, np.float32)}
    return build(f"g (float[N,T,3] x) => ({output}) {{ {nodes} }}", weights, opset=opset)


@pytest.mark.parametrize(
    "nodes, wanted",
    [
        ("y = Softmax <axis = 2> (x)", 2),
        ("y = Softmax (x)", -1),
        ("y = LogSoftmax <axis = 1> (x)", 1),
        ("s = Softmax <axis = -2> (x) y = Identity (s)", -2),
        ("s = Softmax <axis = 2> (x) y = Cast <to = 1> (s)", 2),
        ("y = MatMul (x, w)", -1),
        ("m = MatMul (x, w) y = Add (m, b)", -1),
        ("m = MatMul (x, w) y = Add (b, m)", -1),
        ("y = Softmax <axis = 0> (x)", None),  # over the batch
        ("y = Relu (x)", None),
        ("m = MatMul (x, w) y = Relu (m)", None),
        ("m = MatMul (x, w) n = MatMul (x, w) y = Add (m, n)", None),  # a sum of two
        ("y = Identity (x)", None),
    ],
)
def test_the_last_node_names_the_axis(nodes, wanted):
    assert class_axes(net(nodes)) == ({} if wanted is None else {"y": wanted})


@pytest.mark.parametrize(
    "nodes, output, wanted",
    [
        ("y = Softmax <axis = 2> (x)", "float[N,T,C] y", 2),
        ("y = Softmax <axis = -1> (x)", "float[N,T,C] y", -1),
        ("y = Softmax (x)", "float[N,T,C] y", None),  # over T and C together
        ("y = Softmax <axis = 1> (x)", "float[N,C] y", 1),
    ],
)
def test_an_old_softmax_is_over_its_axis_and_all_behind_it(nodes, output, wanted):
    found = class_axes(net(nodes, output, opset=11))
    assert found == ({} if wanted is None else {"y": wanted})


def test_each_output_has_its_own():
    model = net("y = Softmax <axis = 2> (x) m = MatMul (x, w) r = Relu (x)",
                "float[N,T,C] y, float[N,T,D] m, float[N,T,C] r")  # fmt: skip
    assert class_axes(model) == {"y": 2, "m": -1}


def test_the_number_of_axes_is_known_where_the_model_says_so():
    model = net("y = Relu (x) z = Relu (x)", "float[N,T,C] y, float z")
    assert output_ranks(model) == {"y": 3, "z": 0}
    untold = copied(model)
    untold.graph.output[0].type.tensor_type.ClearField("shape")
    assert output_ranks(untold) == {"y": None, "z": 0}
