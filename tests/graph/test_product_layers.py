"""Products as an engine meets them: their widths, zeros along input channels, and integers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from models import bare_net, build, copied, normal, stored
from networks import Network, networks

from asr_onnx import PruneOptions, prune
from asr_onnx.graph.product_layers import product_layers
from asr_onnx.graph.sites import survey_of
from asr_onnx.options import OPS
from asr_onnx.pruning.patterns import NM

SCALES = {"s": np.float32(0.1), "z": np.int8(0), "u": np.uint8(128), "t": np.uint8(0)}


def layers(nodes, weights, inputs="float[N,4,6,6] x", output="float[N,4,6,6] y", opset=17):
    graph = f"n ({inputs}) => ({output}) {{ {nodes} }}"
    return {p.node: p for p in product_layers(build(graph, weights, opset=opset))}


def integers(rng, *shape):
    return rng.integers(1, 100, shape).astype(np.int8)


def test_a_float_model_says_how_wide_and_how_dense(rng):
    first, second, head = product_layers(bare_net(rng))
    assert (first.inputs, first.positions, first.channels, first.groups) == (3, 9, 8, 1)
    assert (first.fours, first.crowded, first.holds) == (0, 0, False), "3 are no multiple of 4"
    assert (second.fours, second.crowded) == (6 * 9 * 2, 6 * 9 * 2)
    assert (head.op, head.inputs, head.positions, head.channels) == ("Gemm", 6, 1, 5)
    assert {p.stored for p in (first, second, head)} == {"float32"}
    assert not any(p.reads or p.makes or p.quantised for p in (first, second, head))


def test_crowded_groups_are_counted_along_the_input_channels(rng):
    model = prune(bare_net(rng), PruneOptions(pattern="2:4"))
    assert product_layers(model)[1].holds
    kernel = np.array(stored(model)["w2"])
    spot = np.argwhere(kernel[0, :4, 0, 0] == 0)[0, 0]
    kernel[0, spot, 0, 0] = 1
    found = product_layers(copied(model, w2=kernel))[1]
    assert (found.crowded, found.holds) == (1, False)
    assert found.zeros == kernel.size // 2 - 1


@pytest.mark.parametrize("op", ["Gemm", "MatMul"])
def test_matrices_have_their_input_channels_where_they_multiply(rng, op):
    weight = normal(rng, 8, 6)
    weight[2:4], weight[6:] = 0, 0
    graph = f"a = {op} (x, w)"
    found = layers(graph, {"w": weight}, "float[N,8] x", "float[N,6] a")["a"]
    assert (found.inputs, found.channels, found.fours, found.holds) == (8, 6, 12, True)
    if op == "Gemm":
        flipped = layers(
            "a = Gemm <transB = 1> (x, w)", {"w": weight.T.copy()}, "float[N,8] x", "float[N,6] a"
        )["a"]
        assert (flipped.inputs, flipped.channels, flipped.holds) == (8, 6, True)


def test_a_stack_of_matrices_is_one_layer(rng):
    found = layers("a = MatMul (x, w)", {"w": normal(rng, 3, 8, 6)},
                   "float[3,5,8] x", "float[3,5,6] a")["a"]  # fmt: skip
    assert (found.inputs, found.channels, found.fours) == (8, 6, 3 * 6 * 2)


def test_weights_behind_a_pair_are_integers_and_zeros_are_theirs(rng):
    weight = integers(rng, 4, 4, 1, 1)
    weight[:, ::2] = 0
    nodes = """v = DequantizeLinear (q, s, z) a = Conv (x, v) y = Relu (a)"""
    found = layers(nodes, {"q": weight, **SCALES})["a"]
    assert (found.weight, found.stored, found.quantised) == ("q", "int8", True)
    assert (found.zeros, found.holds, found.reads, found.makes) == (8, True, "", "")


def test_a_zero_point_is_the_zero_of_its_weights(rng):
    weight = np.full((4, 4, 1, 1), 128, np.uint8)
    weight[:, 0] = 3
    nodes = "v = DequantizeLinear (q, s, u) y = Conv (x, v)"
    found = layers(nodes, {"q": weight, **SCALES})["y"]
    assert (found.stored, found.zeros, found.holds) == ("uint8", 12, True)


def test_operators_on_integers_are_told_of(rng):
    weight = integers(rng, 4, 4, 1, 1)
    weight[0] = 0
    nodes = "k = QuantizeLinear (x, s, z) y = QLinearConv (k, s, z, q, s, z, s, z)"
    found = layers(nodes, {"q": weight, **SCALES}, output="int8[N,4,6,6] y")["y"]
    assert (found.op, found.quantised, found.zeros, found.channels) == ("QLinearConv", True, 4, 4)


IN = "k = QuantizeLinear (x, s, z) d = DequantizeLinear (k, s, z) "
PAIR = "o = QuantizeLinear ({0}, s, z) y = DequantizeLinear (o, s, z)"


@pytest.mark.parametrize(
    "behind, makes",
    [
        ("a = Conv (d, v) " + PAIR.format("a"), "int8"),
        ("a = Conv (d, v) r = Relu (a) " + PAIR.format("r"), "int8"),
        ("a = Conv (d, v) g = Sigmoid (a) r = Mul (a, g) " + PAIR.format("r"), "int8"),
        ("a = Conv (d, v) r = Add (a, s) " + PAIR.format("r"), "int8"),
        # a shortcut is added in the kernel where it is integers, and only there
        ("a = Conv (d, v) b = Add (a, d) r = Relu (b) " + PAIR.format("r"), "int8"),
        ("a = Conv (d, v) b = Add (a, x) r = Relu (b) " + PAIR.format("r"), ""),
        ("a = Conv (d, v) y = Relu (a)", ""),
        ("a = Conv (d, v) e = Exp (a) o = QuantizeLinear (a, s, z) f = DequantizeLinear (o, s, z) "
         "y = Add (e, f)", ""),
        ("a = Conv (d, v) o = QuantizeLinear (a, s, t) y = DequantizeLinear (o, s, t)", "uint8"),
        ("a = Conv (d, v) o = QuantizeLinear (a, s) y = DequantizeLinear (o, s)", "uint8"),
        ("a = Conv (d, v) o = QuantizeLinear (a, s, u) y = DequantizeLinear (o, s, u)",
         "uint8 zero point"),
    ],
)  # fmt: skip
def test_what_is_fused_behind_a_product_ends_in_integers_or_not(rng, behind, makes):
    weights = {"q": integers(rng, 4, 4, 1, 1), **SCALES}
    found = layers(IN + "v = DequantizeLinear (q, s, z) " + behind, weights)["a"]
    assert (found.reads, found.makes) == ("int8", makes)


def test_half_precision_is_told_as_such(rng):
    found = layers("y = Conv (x, w)", {"w": normal(rng, 4, 4, 1, 1, dtype="float16")},
                   "float16[N,4,6,6] x", "float16[N,4,6,6] y")["y"]  # fmt: skip
    assert (found.stored, found.quantised) == ("float16", False)


def test_products_without_a_constant_weight_are_none(rng):
    nodes = "t = Transpose <perm = [0, 1, 3, 2]> (x) y = MatMul (x, t)"
    assert not layers(nodes, {})
    assert not layers("a = Conv (k, w) y = Add (x, a)",
                      {"k": normal(rng, 1, 4, 6, 6), "w": normal(rng, 4, 4, 1, 1)})  # fmt: skip


@given(networks())
def test_all_sites_are_layers_however_their_weights_are_stored(network: Network):
    found = {p.output: p for p in product_layers(network.model)}
    for site in survey_of(network.model, OPS).sites:
        layer = found[site.output]
        assert (layer.op, layer.groups, layer.channels) == (site.op, site.groups, site.channels)
        assert (layer.size, layer.zeros) == (site.weight.value.size, site.zeros)
        assert bool(layer.fours) is (NM(2, 4).feasible(site) is None)
        assert not layer.quantised
