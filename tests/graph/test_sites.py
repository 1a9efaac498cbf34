"""Sites: every convolution is either one, or listed with the reason why not."""

from __future__ import annotations

import numpy as np
import pytest
from models import bare_net, build, copied, norm_net, norm_weights, normal, site, stored

from asr_onnx.errors import ModelError
from asr_onnx.graph.sites import find_norms, find_sites

GOOD = "good = Conv (x, w0)"  # the one site beside which others are left alone


def skipped(rng, nodes, weights, rest="", inputs=""):
    """The reasons, by name, of a model with one good site and further nodes."""
    model = build(
        f"net (float[N,4,8,8] x{inputs}) => (float[N,4,8,8] good) {{ {GOOD} {nodes} }}",
        {"w0": normal(rng, 4, 4, 1, 1)} | weights,
        rest=rest,
    )
    survey = find_sites(model)
    assert "w0" in [s.name for s in survey.sites]
    return {s.name: s.reason for s in survey.skipped}


def kernel(rng, *shape):
    return normal(rng, *(shape or (4, 4, 1, 1)))


@pytest.mark.parametrize(
    "shape, attributes, groups",
    [
        ((6, 4, 3), "dilations = [2]", 1),
        ((6, 4, 3, 3), "strides = [2, 2]", 1),
        ((6, 4, 1, 2, 3), "pads = [0, 0, 1, 0, 0, 1]", 1),
        ((6, 2, 3, 3), "group = 2", 2),
        ((4, 1, 3, 3), "group = 4", 4),
    ],
    ids=["1-D dilated", "2-D strided", "3-D padded", "grouped", "depthwise"],
)
def test_every_kind_of_convolution_is_a_site(rng, shape, attributes, groups):
    size, rank = ",".join(["9"] * (len(shape) - 2)), ",".join("?" * len(shape))
    model = build(
        f"net (float[N,4,{size}] x) => (float[{rank}] y) {{ y = Conv <{attributes}> (x, w) }}",
        {"w": normal(rng, *shape)},
    )
    found = site(model)
    assert (found.groups, found.channels, found.weight.value.shape) == (groups, shape[0], shape)
    assert (found.input, found.output, found.bias, found.norm) == ("x", "y", None, None)


def test_weight_bias_norm_and_shortcut_are_found(rng):
    first, second = find_sites(norm_net(rng)).sites
    assert (first.name, first.norm.output, first.shortcut) == ("w1", "n1", None)
    assert (second.name, second.norm.output, second.shortcut) == ("w2", "n2", "r1")
    assert second.norm.mean.storage.name == "m2"
    bare = find_sites(bare_net(rng)).sites
    assert [s.bias and s.bias.name for s in bare] == [None, "b2"]


def test_a_shared_weight_is_left_alone(rng):
    found = skipped(rng, "a = Conv (x, w) b = Conv (a, w)", {"w": kernel(rng)})
    assert "is also read by Conv 'b'" in found["a"]
    assert "is also read by Conv 'a'" in found["b"]


def test_a_weight_shared_through_identity_is_left_alone(rng):
    nodes = "v = Identity (w) a = Conv (x, w) b = Conv (a, v)"
    found = skipped(rng, nodes, {"w": kernel(rng)})
    assert found.keys() == {"a", "b"}


def test_a_weight_read_inside_a_body_is_left_alone(rng):
    nodes = """a = Conv (x, w)
        i = If (q) <then_branch = t () => (float[?] u) { u = Identity (w) },
                    else_branch = e () => (float[?] u) { u = Neg (w) }>"""
    assert "also read by If" in skipped(rng, nodes, {"w": kernel(rng), "q": np.True_})["a"]


def test_a_weight_that_is_an_output_is_left_alone(rng):
    model = build(
        f"""net (float[N,4,8,8] x) => (float[N,4,8,8] good, float[4,4,1,1] w) {{
            {GOOD} a = Conv (x, w)
        }}""",
        {"w0": kernel(rng), "w": kernel(rng)},
    )
    (found,) = find_sites(model).skipped
    assert "graph's output" in found.reason


def test_a_conv_inside_a_body_is_listed(rng):
    nodes = """i = If (q) <then_branch = t () => (float[?] u) { u = Conv (x, w) },
                           else_branch = e () => (float[?] u) { u = Identity (x) }>"""
    found = skipped(rng, nodes, {"w": kernel(rng), "q": np.True_})
    assert "inside a body of If" in found["u"]


def test_a_conv_in_a_local_function_is_listed(rng):
    rest = """<domain: "local", opset_import: ["" : 17]>
        f (a, k) => (b) { b = Conv (a, k) }"""
    found = skipped(rng, "c = local.f (x, w)", {"w": kernel(rng)}, rest)
    assert "local function 'f': inline" in found["b"]


def test_a_weight_computed_at_run_time_is_left_alone(rng):
    nodes = "m = ReduceMean <keepdims = 0> (x) v = Mul (w, m) a = Conv (x, v)"
    assert "run time" in skipped(rng, nodes, {"w": kernel(rng)})["a"]


def test_a_weight_that_is_an_input_is_left_alone(rng):
    found = skipped(rng, "a = Conv (x, k)", {}, inputs=", float[4,4,1,1] k")
    assert "weight 'k' is computed at run time" in found["a"]


def test_a_bias_computed_at_run_time_is_left_alone(rng):
    nodes = "b = ReduceMean <axes = [0, 2, 3], keepdims = 0> (x) a = Conv (x, w, b)"
    assert "bias 'b' is computed at run time" in skipped(rng, nodes, {"w": kernel(rng)})["a"]


def test_quantised_weights_are_left_alone(rng):
    eight = {"q": rng.integers(-9, 9, (4, 4, 1, 1), np.int8), "f": np.float32(0.1), "z": np.int8(0)}
    found = skipped(rng, "v = DequantizeLinear (q, f, z) a = Conv (x, v)", eight)
    assert "int8: prune and repair before quantisation" in found["a"]
    nodes = "u = QuantizeLinear (x, f, z) a = QLinearConv (u, f, z, q, f, z, f, z)"
    assert "before quantisation" in skipped(rng, nodes, eight)["a"]


def test_a_conv_of_constants_is_left_alone(rng):
    nodes = "a = Conv (k, w)"
    found = skipped(rng, nodes, {"w": kernel(rng), "k": kernel(rng, 1, 4, 8, 8)})
    assert "input is a constant" in found["a"]


def test_blank_and_repeated_node_names_do_not_confuse(rng):
    model = norm_net(rng)
    for node in model.graph.node:
        node.name = ""
    assert [s.label for s in find_sites(model).sites] == ["w1", "w2"]
    for node in model.graph.node:
        node.name = "same"
    assert [s.name for s in find_sites(model).sites] == ["w1", "w2"]


def test_a_model_without_sites_is_refused(rng):
    model = build("net (float[N,4] x) => (float[N,4] y) { y = Relu (x) }", {})
    with pytest.raises(ModelError, match="no convolution that can be pruned"):
        find_sites(model)


def test_a_model_with_reasons_only_is_refused_with_the_first(rng):
    model = build(
        "net (float[N,4,8,8] x) => (float[N,4,8,8] b) { a = Conv (x, w) b = Conv (a, w) }",
        {"w": kernel(rng)},
    )
    with pytest.raises(ModelError, match="Conv 'a': weight 'w' is also read by Conv 'b'"):
        find_sites(model)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_weight_that_is_not_finite_is_refused_by_name(rng, value):
    weight = kernel(rng)
    weight[1, 2] = value
    model = build("net (float[N,4,8,8] x) => (float[N,4,8,8] y) { y = Conv (x, w) }", {"w": weight})
    with pytest.raises(ModelError, match="weight 'w' holds NaN or infinity"):
        find_sites(model)


@pytest.mark.parametrize(
    "name, change, message",
    [
        ("v2", lambda v: -v, "'v2' of BatchNormalization 'n2' holds a variance that is not pos"),
        ("s2", lambda v: v * np.nan, "'s2' of BatchNormalization 'n2' holds NaN or infinity"),
        ("m2", lambda v: v[:5], r"'m2' of BatchNormalization 'n2' has the shape \[5\], its scale"),
        (
            "s2 b2 m2 v2",
            lambda v: v[:5],
            "BatchNormalization 'n2' is of 5 channels, its input of 8",
        ),
    ],
)
def test_a_norm_that_cannot_be_computed_is_refused_by_name(rng, name, change, message):
    net = norm_net(rng)
    with pytest.raises(ModelError, match=message):
        find_sites(copied(net, **{n: change(stored(net)[n]) for n in name.split()}))


def test_rounding_below_zero_in_a_variance_that_epsilon_makes_good_is_no_damage(rng):
    net = norm_net(rng)
    find_sites(copied(net, v2=stored(net)["v2"] * 0 - np.float32(1e-9)))


@pytest.mark.parametrize(
    "nodes, outputs",
    [
        ("c = Conv (x, w) y = BatchNormalization (c, s, b, m, v) z = Relu (c)", "y"),
        ("c = Conv (x, w) y = BatchNormalization (c, s, b, m, v)", "c"),
        ("c = Conv (x, w) y = BatchNormalization (c, s, b, n, v)", "y"),
        ("c = Conv (x, w) r = Relu (c) y = BatchNormalization (r, s, b, m, v)", "y"),
    ],
    ids=["another reader", "output of the graph", "mean computed at run time", "Relu between"],
)
def test_what_is_no_norm_of_the_site(rng, nodes, outputs):
    model = build(
        f"""net (float[N,4,8,8] x) => (float[?,?,?,?] {outputs}) {{
            n = ReduceMean <axes = [0, 2, 3], keepdims = 0> (x) {nodes}
        }}""",
        {"w": kernel(rng)} | norm_weights(rng, 4),
    )
    assert site(model).norm is None


def test_a_norm_of_each_position_is_none_of_channels(rng):
    model = build(
        """net (float[N,4,8,8] x) => (float[N,4,8,8] y) {
            c = Conv (x, w)
            y = BatchNormalization <spatial = 0> (c, s, b, m, v)
        }""",
        {"w": kernel(rng)} | {k: np.ones((4, 8, 8), np.float32) for k in "sbmv"},
        opset=7,
    )
    assert site(model).norm is None


def test_a_mean_that_is_also_the_shift_cannot_be_rewritten(rng):
    model = build(
        """net (float[N,4,8,8] x) => (float[N,4,8,8] y) {
            c = Conv (x, w)
            y = BatchNormalization (c, s, m, m, v)
        }""",
        {"w": kernel(rng)} | norm_weights(rng, 4),
    )
    norm = site(model).norm
    assert norm.mean.storage is None
    assert norm.var.storage.name == "v"


@pytest.mark.parametrize(
    "opset, node",
    [
        (17, "n, o, p = BatchNormalization <training_mode = 1>"),
        (17, "n = BatchNormalization <training_mode = 1>"),
        (9, "n, o, p, q, r = BatchNormalization"),  # what said so before opset 14
    ],
)
def test_what_feeds_a_norm_in_training_mode_is_left_alone(rng, opset, node):
    model = build(
        f"""net (float[N,4,8,8] x) => (float[?,?,?,?] y) {{
            c = Conv (x, w)
            {node} (c, s, b, m, v)
            y = Conv (n, w2)
        }}""",
        {"w": kernel(rng), "w2": kernel(rng)} | norm_weights(rng, 4),
        opset=opset,
    )
    survey = find_sites(model)
    assert [s.name for s in survey.sites] == ["w2"]
    assert "training mode" in survey.skipped[0].reason
    assert find_norms(model) == []


def test_norms_to_re_estimate_need_not_follow_a_conv(rng):
    nodes = "n = BatchNormalization (x, s, b, m, v) y = Conv (n, w)"
    model = build(
        f"net (float[N,4,8,8] x) => (float[?,?,?,?] y) {{ {nodes} }}",
        {"w": kernel(rng)} | norm_weights(rng, 4),
    )
    assert [n.output for n in find_norms(model)] == ["n"]
