"""``--input-shapes`` in the spellings of three tools."""

from __future__ import annotations

import numpy as np
import pytest

from asr_onnx.errors import UsageError
from asr_onnx.graph.input_shapes import parse_input_shapes, with_shapes
from asr_onnx.graph.inputs import ModelInput, fixed_batch

F32 = np.dtype("float32")
IMAGE, EXTRA = ModelInput("x", F32, (None, 3, None, None)), ModelInput("y:0", F32, (None, 7))


@pytest.mark.parametrize(
    "texts",
    [
        ["x:[1,3,224,224]"],
        ["x:[1, 3, 224, 224]"],
        ["x:1x3x224x224"],
        ["x:1,3,224,224"],
        ["'x':1x3x224x224"],
    ],
)
def test_three_spellings_mean_the_same(texts):
    assert parse_input_shapes(texts) == {"x": (1, 3, 224, 224)}


@pytest.mark.parametrize(
    "texts",
    [
        ["x:[2,3,8,8]", "y:0:[2,7]"],
        ["x:2x3x8x8,y:0:2x7"],
        ["x:2,3,8,8", "y:0:2,7"],
        ["x:2,3,8,8,y:0:2,7"],
        ["x:[2,3,8,8], y:0:[2,7]"],
    ],
)
def test_several_inputs_whose_names_may_hold_a_colon(texts):
    assert parse_input_shapes(texts) == {"x": (2, 3, 8, 8), "y:0": (2, 7)}


def test_names_that_are_numbers_are_not_dimensions():
    assert parse_input_shapes(["0:1,3,2:1,4"]) == {"0": (1, 3), "2": (1, 4)}
    assert parse_input_shapes(["1x3x8x8"]) == {"": (1, 3, 8, 8)}


@pytest.mark.parametrize(
    "text", ["", "x", "x:", "x:1x", "x:[1,3", "x:1x-1", "x:0x3", "x:1x3,x:1x3", "x:axb"]
)
def test_what_is_no_shape_is_refused(text):
    with pytest.raises(UsageError, match="input shape"):
        parse_input_shapes([text])


def test_open_dimensions_are_set_and_others_kept():
    found = with_shapes([IMAGE, EXTRA], {"x": (4, 3, 32, 48)})
    assert [i.shape for i in found] == [(4, 3, 32, 48), (None, 7)]
    assert fixed_batch(found) == 4
    assert with_shapes([IMAGE], {"": (2, 3, 9, 9)})[0].shape == (2, 3, 9, 9)
    assert with_shapes([IMAGE], {}) == (IMAGE,)


@pytest.mark.parametrize(
    ("shapes", "told"),
    [
        ({"x": (1, 4, 8, 8)}, "only dimensions shown as"),
        ({"x": (1, 3, 8)}, "only dimensions shown as"),
        ({"z": (1,)}, "'z', but the model's inputs are 'x', 'y:0'"),
        ({"": (1, 3, 8, 8)}, "have no name, but the model's inputs are"),
    ],
)
def test_shapes_that_do_not_go_with_the_model_are_refused(shapes, told):
    with pytest.raises(UsageError, match=told):
        with_shapes([IMAGE, EXTRA], shapes)


def test_one_input_is_not_given_twice():
    with pytest.raises(UsageError, match="twice"):
        with_shapes([IMAGE], {"": (1, 3, 8, 8), "x": (1, 3, 8, 8)})
