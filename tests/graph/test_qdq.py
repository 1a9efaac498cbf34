"""Pairs of Q and DQ: seen through, taken off weights, left undone."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from models import build, copied, normal, run, stored

from asr_onnx.graph.qdq import behind_pair, in_float, left_undone, stored_integers
from asr_onnx.graph.sites import find_sites
from asr_onnx.graph.wiring import Topology

NET = """net (float[N,3,6,6] x) => (float[N,4,6,6] y) {
    xq = QuantizeLinear (x, sx, zx)
    xd = DequantizeLinear (xq, sx, zx)
    wd = DequantizeLinear <axis = 0> (wq, sw, zw)
    c = Conv <pads = [1, 1, 1, 1]> (xd, wd, b)
    cq = QuantizeLinear (c, sx, zx)
    cd = DequantizeLinear (cq, sx, zx)
    k = Conv (xd, wk)
    a = Add (k, cd)
    y = Relu (a)
}"""


@pytest.fixture
def net(rng):
    return build(
        NET,
        {
            "sx": np.float32(0.05),
            "zx": np.int8(0),
            "wq": rng.integers(-127, 128, (4, 3, 3, 3), np.int8),
            "sw": rng.uniform(0.0005, 0.001, 4).astype(np.float32),
            "zw": np.zeros(4, np.int8),
            "b": normal(rng, 4),
            "wk": normal(rng, 4, 3, 1, 1),
        },
    )


def weight(net):
    values = stored(net)
    made = values["wq"].astype(np.float32) * values["sw"].reshape(-1, 1, 1, 1)
    return onnx.numpy_helper.from_array(made, "w")


def test_weights_that_integers_make_are_found(net):
    ((name, place),) = stored_integers(net).items()
    assert (name, place.integers, place.scale, place.axis) == ("wd", "wq", "sw", 0)


def test_weights_in_float_do_the_same(net, rng):
    found, x = in_float(net, {"wd": weight(net)}), normal(rng, 2, 3, 6, 6)
    onnx.checker.check_model(found, full_check=True)
    assert not {"wq", "sw", "zw"} & stored(found).keys()
    np.testing.assert_allclose(run(found, x=x)["y"], run(net, x=x)["y"], atol=1e-4)
    assert {s.name for s in find_sites(found).sites} == {"w", "wk"}


def test_pairs_that_are_left_undone_round_nothing_and_nodes_stay(net, rng):
    found, x = left_undone(net, {"wd": weight(net)}), normal(rng, 2, 3, 6, 6)
    onnx.checker.check_model(found, full_check=True)
    assert [n.output for n in found.graph.node] == [n.output for n in net.graph.node]
    y = run(found, x=x)["y"]
    assert 1e-3 < abs(y - run(net, x=x)["y"]).max() < 0.5


def test_a_shortcut_is_seen_through_its_pair(net):
    sites = {s.name: s for s in find_sites(in_float(net, {"wd": weight(net)})).sites}
    assert (sites["w"].shortcut, sites["wk"].shortcut) == ("k", "cd")
    assert sites["w"].activation.output == "y"


def test_a_pair_that_others_read_beside_is_none(net):
    topology = Topology(net.graph)
    assert behind_pair(topology, "c") == "cd"
    assert behind_pair(topology, "k") == "k"
    both = copied(net)
    both.graph.output.append(onnx.helper.make_tensor_value_info("c", 1, ["N", 4, 6, 6]))
    assert behind_pair(Topology(both.graph), "c") == "c"
