"""What a model costs before it runs, against counts by hand and by running it."""

from __future__ import annotations

import numpy as np
import pytest
from models import bare_net, build, copied, detector, norm_net, normal, run, stored, tap
from onnx import TensorProto, helper, numpy_helper

from asr_onnx.errors import ModelError
from asr_onnx.graph.cost import Cost, cost_of

# Of ``bare_net``: two convolutions and a linear head; most lives around the first Relu.
BARE = 8 * 64 * 27 + 6 * 16 * 72 + 5 * 6


def test_a_small_network_by_hand(rng):
    parameters = 8 * 27 + 6 * 72 + 6 + 5 * 6 + 5
    assert cost_of(bare_net(rng)) == Cost(parameters, BARE, BARE, 2 * 8 * 64 * 4)


def test_what_others_call_by_a_standard_name_is_no_product(rng):
    model = bare_net(rng)
    before = cost_of(model)
    (gemm,) = (n for n in model.graph.node if n.op_type == "Gemm")
    gemm.domain = "custom"
    del gemm.input[1:]
    model.opset_import.append(helper.make_opsetid("custom", 1))
    assert cost_of(model).macs == before.macs - 5 * 6


@pytest.mark.parametrize("dtype, size", [("float16", 2), ("float64", 8)])
def test_memory_is_that_of_the_element_type(rng, dtype, size):
    assert cost_of(bare_net(rng, dtype)).activation_bytes == 2 * 8 * 64 * size


@pytest.mark.parametrize("batch", ["N", "1", "4"])
def test_a_fixed_batch_costs_each_sample_the_same(rng, batch):
    assert cost_of(bare_net(rng, batch=batch)) == cost_of(bare_net(rng))


def test_sizes_given_count_and_their_batch_does_not(rng):
    net = bare_net(rng)
    small, large = (cost_of(net, {"x": (n, 3, 8, 8)}) for n in (1, 7))
    assert small == large == cost_of(net)


def test_zeros_cost_what_the_others_do_but_are_told_apart(rng):
    net = bare_net(rng)
    w1, fw = stored(net)["w1"].copy(), stored(net)["fw"].copy()
    w1[:2], fw[:, 0] = 0, 0
    found = cost_of(copied(net, w1=w1, fw=fw))
    assert found.effective_macs == BARE - 2 * 64 * 27 - 5
    assert (found.macs, found.parameters) == (BARE, cost_of(net).parameters)


def test_a_narrower_network_costs_less(rng):
    net = bare_net(rng)
    w = stored(net)
    found = cost_of(copied(net, w1=w["w1"][:4], w2=w["w2"][:, :4]))
    assert found.macs == 4 * 64 * 27 + 6 * 16 * 36 + 5 * 6
    assert found.parameters == cost_of(net).parameters - 4 * 27 - 6 * 36
    assert found.activation_bytes == 2 * 4 * 64 * 4


def test_a_shortcut_lives_until_it_is_added(rng):
    """In the residual block r1, c2 and its normalised form are there together."""
    assert cost_of(norm_net(rng)).activation_bytes == 3 * 8 * 64 * 4


def test_outputs_live_to_the_end(rng):
    assert cost_of(tap(bare_net(rng), "c1", "r1")).activation_bytes == 4 * (
        2 * 8 * 64 + 2 * 6 * 16  # c1 and r1 stay while r2 is made of c2
    )


def test_activations_are_no_fewer_than_onnx_runtime_has_at_any_node(rng):
    """What a node reads and makes is alive when it runs, whatever the order."""
    net = norm_net(rng)
    names = [o for n in net.graph.node for o in n.output]
    values = run(tap(net, *names), x=normal(rng, 1, 3, 8, 8))
    least = max(
        sum(values[t].nbytes for t in {*n.input, *n.output} if t in values) for n in net.graph.node
    )
    assert least <= cost_of(net).activation_bytes <= sum(v.nbytes for v in values.values())


def test_shapes_and_indices_are_no_parameters(rng):
    net = detector(rng)
    floats = sum(v.size for v in stored(net).values() if v.dtype.kind == "f")
    assert cost_of(net).parameters == floats


def test_sparse_and_quantised_weights_are_parameters(rng):
    net = bare_net(rng)
    values = helper.make_tensor("fw2", TensorProto.FLOAT, [2], [1.0, 2.0])
    at = helper.make_tensor("at", TensorProto.INT64, [2], [0, 7])
    before = cost_of(net).parameters
    net.graph.sparse_initializer.append(helper.make_sparse_tensor(values, at, [5, 6]))
    net.graph.initializer.append(numpy_helper.from_array(np.zeros((3, 4), np.int8), "q"))
    assert cost_of(net).parameters == before + 30 + 12


def test_what_is_not_known_before_it_runs_is_not_told(rng):
    found = cost_of(detector(rng))
    assert found.macs == 8 * 64 * 27 + 8 * 16 * 72 + 7 * 16 * 8
    assert found.activation_bytes is None  # as many as there are detections


def test_open_sizes_are_told_when_they_are_given(rng):
    net = build(
        """open (float[N,3,H,W] x) => (float[N,4,H,W] y) {
            y = Conv <pads = [1, 1, 1, 1]> (x, w)
        }""",
        {"w": normal(rng, 4, 3, 3, 3)},
    )
    assert cost_of(net) == Cost(108, None, None, None)
    assert cost_of(net, {"x": (2, 3, 6, 5)}) == Cost(108, 3240, 3240, 7 * 30 * 4)


def test_quantised_products_count_with_all_their_weights(rng):
    net = build(
        """q (uint8[N,3,8,8] x) => (uint8[N,4,6,6] y) {
            y = QLinearConv (x, s, z, w, s, z, s, z)
        }""",
        {
            "s": np.float32(0.1),
            "z": np.uint8(128),
            "w": np.zeros((4, 3, 3, 3), np.uint8),
        },
    )
    assert cost_of(net).macs == cost_of(net).effective_macs == 36 * 4 * 27


def test_old_unsqueeze_is_followed(rng):
    """As PaddlePaddle writes shapes: scalars that are unsqueezed, in opset 7."""
    net = build(
        """old (float[N,4,2,W] x) => (float[N,4,M] y) {
            s = Shape (x)
            n = Slice <axes = [0], starts = [0], ends = [1]> (s)
            one = Squeeze <axes = [0]> (n)
            first = Unsqueeze <axes = [0]> (one)
            to = Concat <axis = 0> (first, rest)
            y = Reshape (x, to)
        }""",
        {"rest": np.array([4, -1])},
        opset=7,
    )
    assert cost_of(net, {"x": (1, 4, 2, 5)}).activation_bytes == 2 * 40 * 4 + 24


def test_inputs_that_cannot_be_fed_are_refused(rng):
    net = bare_net(rng)
    net.graph.input[0].type.tensor_type.elem_type = TensorProto.STRING
    with pytest.raises(ModelError, match="input 'x'"):
        cost_of(net)
