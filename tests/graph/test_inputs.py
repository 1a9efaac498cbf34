"""Laws of a model's inputs: which are to be fed, and which cannot be."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from asr_onnx.errors import ModelError
from asr_onnx.graph.inputs import ModelInput, model_inputs


def graph(*inputs: onnx.ValueInfoProto, initializers: tuple[onnx.TensorProto, ...] = ()):
    return helper.make_model(helper.make_graph([], "g", list(inputs), [], list(initializers)))


def test_model_inputs_leave_out_initializers_and_free_dimensions():
    weight = onnx.numpy_helper.from_array(np.zeros(3, np.float32), "w")
    proto = graph(
        helper.make_tensor_value_info("x", TensorProto.FLOAT16, ["batch", 1, None, 0]),
        helper.make_tensor_value_info("w", TensorProto.FLOAT, [3]),
        helper.make_tensor_value_info("n", TensorProto.INT64, [2]),
        initializers=(weight,),
    )
    assert model_inputs(proto) == (
        ModelInput("x", np.dtype("float16"), (None, 1, None, None)),
        ModelInput("n", np.dtype("int64"), (2,), batch_axis=None),
    )


@pytest.mark.parametrize(
    "first, other, axis",
    [
        (["N", 3], ["N", 5], 0),
        (["N", 3], [2, "N", 5], 1),
        (["N", 3], [2, None, 5], 1),
        (["N", 3], ["layers", "N", 5], 1),
        (["N", 3], [2, 1, 5], 1),
        (["N", 3], [1, 5], 0),
        ([4, 3], [4, 5], 0),
        ([4, 3], [2, 4, 5], 1),
        ([4, 3], [2, 5], None),
        (["N", 3], [7, 5], None),
        (["N", 3], [], None),
        ([None, 3], [None, 5], 0),
    ],
)
def test_each_input_has_its_batch_where_the_first_ones_is_or_none(first, other, axis):
    kind = TensorProto.FLOAT
    shapes = {"x": first, "s": other}
    found = model_inputs(
        graph(*(helper.make_tensor_value_info(n, kind, s) for n, s in shapes.items()))
    )
    assert [i.batch_axis for i in found] == [0, axis]
    assert len(found[1].sample_shape) == len(other) - (axis is not None)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (
            helper.make_tensor_sequence_value_info("s", TensorProto.FLOAT, [1]),
            "'s' is not a tensor",
        ),
        (helper.make_tensor_value_info("u", TensorProto.UNDEFINED, [1]), "'u' is not a tensor"),
        (helper.make_tensor_value_info("t", TensorProto.FLOAT, None), "'t' has no known rank"),
        (
            helper.make_tensor_value_info("c", TensorProto.FLOAT, []),
            "no input of the model has a batch axis",
        ),
        (helper.make_tensor_value_info("b", TensorProto.BFLOAT16, [1]), "'b' is BFLOAT16"),
        (helper.make_tensor_value_info("z", TensorProto.STRING, [1]), "'z' is STRING"),
        (helper.make_tensor_value_info("k", 99, [1]), "'k' is of type 99, which the onnx"),
        (helper.make_tensor_value_info("m", -1, [1]), "'m' is of type -1, which the onnx"),
    ],
)
def test_inputs_that_cannot_be_fed(value, message):
    with pytest.raises(ModelError, match=message):
        model_inputs(graph(value))


def test_model_without_inputs():
    with pytest.raises(ModelError, match="no inputs"):
        model_inputs(graph())
