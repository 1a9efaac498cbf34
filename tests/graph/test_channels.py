"""Channels that stand or fall together, for each way a network may join them."""

from __future__ import annotations

import numpy as np
import pytest
from models import build

from asr_onnx.graph.channels import find_channels
from asr_onnx.graph.shapes import Shapes

IMAGE = "float[N,3,8,8] x"


def found(nodes, weights, outputs="float[N,K,H,W] y", opset=17, image=IMAGE):
    ones = {name: np.ones(shape, np.float32) for name, shape in weights.items()}
    model = build(f"g ({image}) => ({outputs}) {{ {nodes} }}", ones, opset=opset)
    return find_channels(model, Shapes.of(model))


def free(channels):
    """Number of atoms and producers of the groups that can be removed."""
    return [(len(g.atoms), *g.producers) for g in channels.groups if not g.reason]


def why(channels, producer):
    """The reasons for which channels of a product stay whole."""
    atoms = np.unique(channels.outputs[producer]).tolist()
    return {channels.reasons.get(a, "") for a in atoms}


STEM = "a = Conv <pads = [1, 1, 1, 1]> (x, w)"
HEAD = "y = Conv (h, v)"
W = {"w": (8, 3, 3, 3), "v": (2, 8, 1, 1)}


@pytest.mark.parametrize(
    "between",
    [
        "h = Relu (a)",
        "h = BatchNormalization (a, s, s, s, s)",
        "h = PRelu (a, c)",
        "k = Mul (a, c) h = Add (k, one)",
        "h = MaxPool <kernel_shape = [2, 2]> (a)",
        "p = GlobalAveragePool (a) h = Mul (a, p)",
        "h = Resize (a, , sizes)",
        "h = Pad (a, pads)",
        "t = Transpose <perm = [0, 2, 3, 1]> (a) r = Relu (t) "
        "h = Transpose <perm = [0, 3, 1, 2]> (r)",
        "h = DepthToSpace <blocksize = 1> (a)",
        "l, r = Split <axis = 1> (a) h = Concat <axis = 1> (r, l)",
        "h = Gather <axis = 1> (a, back)",
        "n = Shape (a) h = Reshape (a, n)",
        "h = Conv <group = 8> (a, d)",
    ],
)
def test_a_channel_goes_through_what_keeps_it_apart(between):
    ints = {
        "pads": [0, 0, 1, 1, 0, 0, 1, 1],
        "back": list(range(8))[::-1],
    }
    weights = {**W, "s": (8,), "c": (8, 1, 1), "one": (), "d": (8, 1, 1, 1)}
    ones = {name: np.ones(shape, np.float32) for name, shape in weights.items()}
    ones |= {n: np.array(v, np.int64) for n, v in ints.items()}
    ones["sizes"] = np.float32([1, 1, 2, 2])
    model = build(f"g ({IMAGE}) => (float[N,K,H,W] y) {{ {STEM} {between} {HEAD} }}", ones)
    assert free(find_channels(model, Shapes.of(model))) == [(8, "a")]


def test_shortcuts_tie_all_that_is_added_up():
    nodes = f"""{STEM} b = Conv (a, i1) r = Relu (b) c = Conv (r, i2) h = Add (c, a) {HEAD}"""
    channels = found(nodes, {**W, "i1": (5, 8, 1, 1), "i2": (8, 5, 1, 1)})
    assert free(channels) == [(8, "a", "c"), (5, "b")]
    assert why(channels, "y") == {"they are an output of the model"}
    (group, *_) = (g for g in channels.groups if not g.reason)
    assert group.consumers == ("b", "y")


def test_a_group_of_shortcuts_and_zeros_is_as_wide_as_what_is_added():
    """As the first CIFAR ResNets have it: channels are padded where the network gets wider."""
    nodes = f"""{STEM} p = Pad (a, pads) b = Conv (a, i1) h = Add (p, b) {HEAD}"""
    weights = {"w": (8, 3, 3, 3), "v": (2, 12, 1, 1), "i1": (12, 8, 1, 1)}
    ones = {name: np.ones(shape, np.float32) for name, shape in weights.items()}
    ones["pads"] = np.array([0, 2, 0, 0, 0, 2, 0, 0])
    model = build(f"g ({IMAGE}) => (float[N,K,H,W] y) {{ {nodes} }}", ones)
    channels = find_channels(model, Shapes.of(model))
    assert free(channels) == [(8, "a", "b"), (4, "b")]
    assert channels.outputs["b"].tolist()[2:10] == channels.outputs["a"].tolist()


def test_the_groups_of_a_convolution_stay_equally_wide():
    channels = found(f"{STEM} h = Conv <group = 2> (a, g) {HEAD}", {**W, "g": (8, 4, 1, 1)})
    assert free(channels) == [(4, "a"), (4, "h")]
    assert np.array_equal(*np.split(channels.inputs["h"], 2))
    assert np.array_equal(*np.split(channels.outputs["h"], 2))


def test_a_channel_of_a_depthwise_convolution_may_become_several():
    weights = {"w": (4, 3, 3, 3), "d": (8, 1, 1, 1), "v": (2, 8, 1, 1)}
    channels = found(f"{STEM} h = Conv <group = 4> (a, d) {HEAD}", weights)
    assert free(channels) == [(4, "a")]
    assert channels.depthwise["h"].tolist() == np.repeat(channels.outputs["a"], 2).tolist()
    assert next(g for g in channels.groups if not g.reason).depthwise == ("h",)


def test_a_channel_that_is_flattened_is_a_block():
    weights = {"w": (4, 3, 3, 3), "m": (256, 5)}
    channels = found(f"{STEM} f = Flatten (a) y = Gemm (f, m)", weights, "float[N,5] y")
    assert channels.inputs["y"].tolist() == np.repeat(channels.outputs["a"], 64).tolist()


def test_shuffled_channels_keep_their_partners():
    nodes = f"""{STEM} five = Constant <value_ints = [0, 2, 4, 8, 8]> ()
        four = Constant <value_ints = [0, 8, 8, 8]> ()
        s = Reshape (a, five) t = Transpose <perm = [0, 2, 1, 3, 4]> (s) h = Reshape (t, four)
        {HEAD}"""
    channels = found(nodes, W)
    assert free(channels) == [(4, "a")]
    assert channels.inputs["y"].tolist() == np.repeat(channels.outputs["a"][:4], 2).tolist()


def test_a_bias_for_all_channels_is_not_cut():
    weights = {"w": (4, 3, 3, 3), "m": (4, 5), "c": (), "n": (5, 2)}
    nodes = f"{STEM} p = GlobalAveragePool (a) f = Flatten (p) q = Gemm (f, m, c) y = Gemm (q, n)"
    assert free(found(nodes, weights, "float[N,2] y")) == [(4, "a"), (5, "q")]


def test_channels_that_only_become_positions_stay():
    weights = {"w": (4, 3, 3, 3), "v": (2, 1, 1, 1)}
    channels = found(f"{STEM} h = DepthToSpace <blocksize = 2> (a) {HEAD}", weights)
    assert why(channels, "a") == {"DepthToSpace 'h' makes positions of them"}


def test_a_branch_that_weighs_channels_goes_with_them():
    nodes = f"""{STEM} p = GlobalAveragePool (a) q = Conv (p, down) r = Relu (q)
        u = Conv (r, up) g = HardSigmoid (u) h = Mul (a, g) {HEAD}"""
    channels = found(nodes, {**W, "down": (3, 8, 1, 1), "up": (8, 3, 1, 1)})
    assert free(channels) == [(8, "a", "u"), (3, "q")]


@pytest.mark.parametrize(
    ("between", "reason"),
    [
        ("h = Softmax <axis = 1> (a)", "Softmax 'h' works across them"),
        ("m = ReduceMean <axes = [1]> (a) h = Mul (a, m)", "ReduceMean 'm' works across them"),
        ("t = Transpose (a) q = MatMul (a, t) h = Add (a, a)", "multiplies two activations"),
        ("k, i = TopK <axis = 1> (a, two) h = Relu (a)", "not known to keep channels apart"),
        ("n = Size (a) f = Cast <to = 1> (n) h = Div (a, f)", "Div 'h' reads their number"),
        ("h = Add (a, x1)", "'x1' is an input of the model"),
        ("h = local.twice (a)", "is not known to keep channels apart"),
    ],
)
def test_what_works_across_channels_keeps_them_all(between, reason):
    ones = {name: np.ones(shape, np.float32) for name, shape in W.items()} | {"two": np.array([2])}
    function = '<domain: "local", opset_import: ["": 17]> twice (i) => (o) { o = Add (i, i) }'
    inputs = IMAGE + ", float[N,8,8,8] x1" * ("x1" in between)
    graph = f"g ({inputs}) => (float[N,K,H,W] y) {{ {STEM} {between} {HEAD} }}"
    model = build(graph, ones, rest=function)
    channels = find_channels(model, Shapes.of(model))
    assert not free(channels)
    assert all(reason in r for r in why(channels, "a"))


def test_a_shared_weight_keeps_its_channels():
    nodes = f"""{STEM} b = Conv (a, s) c = Conv (b, s) h = Relu (c) {HEAD}"""
    channels = found(nodes, {**W, "s": (8, 8, 1, 1)})
    assert not free(channels)
    assert {r.split(":")[0] for r in why(channels, "b")} <= {
        "weight 's' is also read by Conv 'c'",
        "weight 's' is also read by Conv 'b'",
    }


def test_open_sizes_are_no_hindrance():
    nodes = f"{STEM} l, r = Split <axis = 1> (a) h = Concat <axis = 1> (r, l) {HEAD}"
    channels = found(nodes, W, image="float[N,3,H,W] x")
    assert free(channels) == [(8, "a")]


def test_nodes_of_old_opsets_are_followed_by_what_they_are_then():
    nodes = f"""{STEM} s = Slice <axes = [1], starts = [2], ends = [8]> (a)
        p = Pad <pads = [0, 2, 0, 0, 0, 0, 0, 0]> (s) h = Unsqueeze <axes = [0]> (p)
        z = Squeeze <axes = [0]> (h) y = Conv (z, v)"""
    channels = found(nodes, W, opset=9)
    assert channels.inputs["y"].tolist()[2:] == channels.outputs["a"].tolist()[2:]
