"""Shapes as ONNX tells them, and what products cost."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from asr_onnx.graph.shapes import Shapes, macs


def _model(nodes, shape, weights, outputs=("y",)):
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)]
    made = [helper.make_tensor_value_info(o, TensorProto.FLOAT, None) for o in outputs]
    stored = [numpy_helper.from_array(np.asarray(w), n) for n, w in weights.items()]
    graph = helper.make_graph(nodes, "g", inputs, made, stored)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def _ones(*shape):
    return np.ones(shape, np.float32)


@pytest.mark.parametrize(
    ("node", "shape", "weight", "wanted"),
    [
        (("Conv", {"pads": [1] * 4}), (None, 3, 8, 8), _ones(5, 3, 3, 3), 8 * 8 * 5 * 27),
        (("Conv", {"strides": [2, 2]}), (1, 3, 8, 8), _ones(5, 3, 2, 2), 4 * 4 * 5 * 12),
        (("Conv", {"group": 4}), (1, 4, 6, 6), _ones(4, 1, 3, 3), 4 * 4 * 4 * 9),
        (("ConvTranspose", {"strides": [2, 2]}), (1, 3, 4, 4), _ones(3, 5, 2, 2), 16 * 3 * 5 * 4),
        (("Gemm", {}), ("batch", 7), _ones(7, 5), 35),
        (("Gemm", {"transB": 1}), (2, 7), _ones(5, 7), 70),
        (("Gemm", {"transA": 1}), (7, 2), _ones(7, 5), 70),
        (("MatMul", {}), (1, 6, 7), _ones(7, 5), 6 * 35),
        (("Conv", {}), (1, 3, None, 8), _ones(5, 3, 3, 3), None),
    ],
)
def test_products_are_counted_for_one_sample(node, shape, weight, wanted):
    op, attributes = node
    model = _model([helper.make_node(op, ["x", "w"], ["y"], **attributes)], shape, {"w": weight})
    assert macs(model, Shapes.of(model)) == {"y": wanted}


def test_sizes_given_fill_what_is_open():
    node = helper.make_node("Conv", ["x", "w"], ["y"], pads=[1] * 4)
    model = _model([node], (None, 3, None, None), {"w": _ones(5, 3, 3, 3)})
    assert Shapes.of(model).shapes["y"] == (1, 5, None, None)
    shapes = Shapes.of(model, {"x": (2, 3, 10, 4)})
    assert shapes.shapes["y"] == (2, 5, 10, 4)
    assert shapes.size("y") == 400
    assert macs(model, shapes) == {"y": 400 * 27}


def test_shapes_that_are_computed_are_told_with_their_values():
    nodes = [
        helper.make_node("Shape", ["x"], ["s"]),
        helper.make_node("Gather", ["s", "zero"], ["n"]),
        helper.make_node("Concat", ["n", "rest"], ["to"], axis=0),
        helper.make_node("Reshape", ["x", "to"], ["y"]),
    ]
    constants = {"zero": np.array([0]), "rest": np.array([-1])}
    model = _model(nodes, ("n", 3, 4, 5), constants)
    shapes = Shapes.of(model)
    assert shapes.values["to"].tolist() == [1, -1]
    assert shapes.shapes["y"] == (1, 60)
