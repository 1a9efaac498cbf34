"""Models that are damaged, unsound or bombs are refused by name; odd ones that run are not."""

from __future__ import annotations

import os
from itertools import pairwise

import numpy as np
import onnx
import pytest
from models import build, external_copy, norm_net, normal
from onnx import TensorProto, helper, numpy_helper

import asr_onnx
from asr_onnx.errors import ModelError
from asr_onnx.graph.constants import Constants
from asr_onnx.graph.wiring import Topology


def refusal(model, folder):
    """The one line with which a model is refused."""
    path = folder / "m.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ModelError) as error:
        asr_onnx.load(path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)
    return str(error.value)


def conv(attributes="", weight=(8, 4, 3, 3)):
    return build(
        f"net (float[N,4,9,9] x) => (float[?,?,?,?] y) {{ y = Conv {attributes} (x, w) }}",
        {"w": np.ones(weight, np.float32)},
    )


@pytest.mark.parametrize(
    "attributes, told",
    [
        ("<group = 0>", "group 0"),
        ("<group = 3>", "group 3"),
        ("<group = 2>", "takes 8 channels, but its input has 4"),
        ("<strides = [0, 1]>", "positive"),
        ("<strides = [1]>", "strides [1]"),
        ("<dilations = [1, -1]>", "positive"),
        ("<kernel_shape = [5, 5]>", "kernel_shape [5, 5]"),
        ("<pads = [1, 1]>", "pads [1, 1]"),
        ("<pads = [-1, -1, -1, -1]>", "negative pads"),
        ("<strides = 1>", "attribute type"),
        ('<group = "a">', "attribute type"),
        ("<girth = 1>", "girth"),
    ],
)
def test_impossible_attributes_are_refused(tmp_path, attributes, told):
    assert told in refusal(conv(attributes), tmp_path)


@pytest.mark.parametrize("shape", [(8, 4), (8,), (8, 4, 0, 3), (4, 8, 3, 3)])
def test_weights_that_no_convolution_has_are_refused(tmp_path, shape):
    assert "Conv 'y'" in refusal(conv(weight=shape), tmp_path)


@pytest.mark.parametrize(
    "change, told",
    [
        (lambda t: t.dims.append(2), "takes 2304"),
        (lambda t: t.dims.__setitem__(slice(0, 2), [-8, -4]), "negative"),
        (lambda t: t.dims.__setitem__(0, 2**62), "GiB"),
        (lambda t: setattr(t, "data_type", 0), "data type 0"),
        (lambda t: setattr(t, "data_type", 99), "data type 99"),
        (lambda t: setattr(t, "raw_data", t.raw_data[:-1]), "1151 bytes"),
        (lambda t: t.ClearField("raw_data"), "0 values"),
    ],
)
def test_tensors_that_are_not_whole_are_refused_by_name(tmp_path, change, told):
    model = conv()
    change(model.graph.initializer[0])
    assert "tensor 'w'" in (line := refusal(model, tmp_path)) and told in line


@pytest.mark.parametrize("name", ["thename", "anothername", "thirdname"])
def test_names_that_are_no_text_are_refused(tmp_path, name):
    model = conv()
    model.graph.node[0].name = "thename"
    model.graph.initializer[0].name = model.graph.node[0].input[1] = "anothername"
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "thirdname"
    path = tmp_path / "m.onnx"
    data = model.SerializeToString().replace(name.encode(), b"\xff" * len(name))
    path.write_bytes(data)
    with pytest.raises(ModelError, match="a name in it is no text"):
        asr_onnx.load(path)


@pytest.mark.parametrize("location, told", [("a\0b", "zero byte"), ("pipe", "a pipe")])
def test_external_data_that_are_no_file_are_refused(tmp_path, location, told):
    os.mkfifo(tmp_path / "pipe")
    model = conv()
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    assert told in refusal(model, tmp_path)


def test_a_pipe_is_no_model(tmp_path):
    os.mkfifo(tmp_path / "m.onnx")
    with pytest.raises(ModelError, match=r"m\.onnx' cannot be read: it is a pipe"):
        asr_onnx.load(tmp_path / "m.onnx")


@pytest.mark.parametrize(
    "nodes",
    [
        "y = Conv ()",
        "y = Conv (x)",
        "a = Add (x, b) b = Relu (a) y = Conv (b, w)",
        "a = Relu (x) a = Relu (x) y = Conv (a, w)",
        "y = Conv (nowhere, w)",
        "z = Conv (x, w)",
        "y = Unheard (x)",
    ],
)
def test_graphs_that_are_no_graphs_are_refused(tmp_path, nodes):
    model = build(
        f"net (float[N,4,9,9] x) => (float[?,?,?,?] y) {{ {nodes} }}", {"w": np.ones((8, 4, 3, 3))}
    )
    refusal(model, tmp_path)


BOMBS = [
    "z = ConstantOfShape (wide)",
    "z = Expand (one, wide)",
    "a = Tile (one, wide) z = Tile (a, wide)",
    "z = Range (zero, many, step)",
    "z = Pad (one, pads)",
    "z = Resize (one, , scales)",
    "z = RandomNormal <shape = [30000, 30000]> ()",
    "a = RandomNormal <shape = [1, 1]> () z = Tile (a, wide)",
    "f = Cast <to = 1> (wide) g = Ceil (f) h = Cast <to = 7> (g) z = Tile (one, h)",
    "t = Transpose (long) z = Add (long, t)",
    " ".join(f"a{i + 1} = Concat <axis = 0> (a{i}, a{i})" for i in range(40)).replace("a0", "one"),
]


@pytest.mark.parametrize("nodes", BOMBS)
def test_constants_of_gigabytes_are_refused_before_they_are_computed(tmp_path, nodes):
    weights = {
        "w": np.ones((8, 4, 3, 3), np.float32),
        "wide": np.array([30000, 30000]),
        "one": np.ones((1, 1), np.float32),
        "long": np.ones((50000, 1), np.float32),
        "scales": np.full(2, 30000, np.float32),
        "pads": np.full(4, 30000),
        "zero": np.array(0),
        "many": np.array(10**10),
        "step": np.array(1),
    }
    model = build(
        f"net (float[N,4,9,9] x) => (float[?,?,?,?] y) {{ {nodes} y = Conv (x, w) }}", weights
    )
    assert "GiB" in refusal(model, tmp_path)


def test_a_weight_of_gigabytes_is_not_computed_either():
    model = build(
        "net (float[N,4,9,9] x) => (float[?,?,?,?] y) { w = Expand (one, wide) y = Conv (x, w) }",
        {"one": np.float32(1), "wide": np.array([30000, 4, 300, 300])},
    )
    with pytest.raises(ModelError, match="Expand 'w' makes a constant of"):
        Constants(model, Topology(model.graph)).value("w")


@pytest.mark.parametrize("last", ["b = Relu (a)", "b = local.f40 (a)"])
def test_functions_that_grow_without_bound_are_refused(tmp_path, last):
    head = '<domain: "local", opset_import: ["": 17, "local": 1]>'
    functions = f"{head} f0 (a) => (b) {{ {last} }}" + "".join(
        f"{head} f{i} (a) => (b) {{ c = local.f{i - 1} (a) b = local.f{i - 1} (c) }}"
        for i in range(1, 41)
    )
    model = build(
        "net (float[N,4,9,9] x) => (float[?,?,?,?] y) { a = Conv (x, w) y = local.f40 (a) }",
        {"w": np.ones((8, 4, 3, 3), np.float32)},
        rest=functions,
    )
    assert "functions" in refusal(model, tmp_path)


@pytest.mark.parametrize("source", ["x", "w1"])
def test_thousands_of_nodes_in_a_row_take_no_time_to_speak_of(rng, tmp_path, source):
    model = norm_net(rng)
    nodes = [n for n in model.graph.node if n.output[0] == "c1"]
    names = [source, *(f"i{i}" for i in range(3000))]
    chain = [helper.make_node("Identity", [a], [b]) for a, b in pairwise(names)]
    nodes[0].input[nodes[0].input[:].index(source)] = names[-1]
    rest = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend([*chain, *rest])
    onnx.save(model, tmp_path / "m.onnx")
    loaded = asr_onnx.load(tmp_path / "m.onnx").proto
    assert [s.op for s in asr_onnx.inspect(loaded).sites] == ["Conv", "Conv"]


def test_models_that_run_although_the_specification_frowns_are_read(rng, tmp_path):
    model = norm_net(rng)
    model.graph.ClearField("name")
    model.graph.output[0].ClearField("type")
    model.graph.node.append(helper.make_node("Gelu", ["y"], ["g"], domain="com.microsoft"))
    model.graph.node.append(helper.make_node("Own", ["y"], ["h"], domain="mine", of="any kind"))
    model.graph.node[0].domain = "ai.onnx"
    onnx.save(model, tmp_path / "m.onnx")
    assert asr_onnx.load(tmp_path / "m.onnx").proto == model


def test_large_tensors_are_not_copied_to_be_checked(rng, tmp_path, monkeypatch):
    shown = []
    monkeypatch.setattr(onnx.checker, "check_model", lambda m: shown.append(m.ByteSize()))
    model = build(
        """net (float[N,512,9,9] x) => (float[?,?,?,?] y) { k = Constant <value = float[1] {1.0}> ()
            y = Conv (x, w) }""",
        {"w": normal(rng, 64, 512, 3, 3)},
    )
    big = numpy_helper.from_array(normal(rng, 10000))
    model.graph.node[0].attribute[0].t.CopyFrom(big)
    onnx.save(model, tmp_path / "m.onnx")
    asr_onnx.load(tmp_path / "m.onnx")
    asr_onnx.load(external_copy(model, tmp_path / "external"))
    assert max(shown) < 5000
