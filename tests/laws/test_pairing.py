"""Models pruned elsewhere: repaired after the dense model they came from, whatever its names."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from models import bare_net, build, copied, norm_net, normal, run, stored

from asr_onnx import ModelError, PruneOptions, RepairOptions, UsageError, prune, recipe, repair
from asr_onnx.graph.pairing import rename_like

OPTIONS = RepairOptions(0.6, method="asr")
GIVEN = RepairOptions(method="asr")


def renamed(model, prefix="dense/"):
    """A copy in which every tensor has another name and nodes have none."""
    result = copied(model)
    graph = result.graph
    for node in graph.node:
        node.name = ""
        for field in (node.input, node.output):
            field[:] = [t and prefix + t for t in field]
    for item in [*graph.input, *graph.output, *graph.initializer]:
        item.name = prefix + item.name
    return result


def with_name(items, name):
    return next(i for i in items if i.name == name)


@pytest.mark.parametrize("net", [bare_net, norm_net])
def test_pruned_elsewhere_is_pruned_here(rng, net):
    model, x = net(rng), normal(rng, 40, 3, 8, 8)
    here = repair(model, x, OPTIONS)
    elsewhere = repair(prune(model, PruneOptions(0.6)), x, GIVEN, dense=model)
    assert elsewhere.model.SerializeToString() == here.model.SerializeToString()
    assert elsewhere.sparsity == here.sparsity
    assert elsewhere.repaired_outputs == here.repaired_outputs


@pytest.mark.parametrize("net", [bare_net, norm_net])
def test_names_in_the_dense_model_do_not_matter(rng, net):
    model, x = net(rng), normal(rng, 40, 3, 8, 8)
    pruned = prune(model, PruneOptions(0.6))
    wanted = repair(pruned, x, GIVEN, dense=model)
    found = repair(pruned, x, GIVEN, dense=renamed(model))
    assert found.model.SerializeToString() == wanted.model.SerializeToString()


def test_renaming_gives_the_same_function_under_the_other_names(rng):
    model, x = norm_net(rng), normal(rng, 4, 3, 8, 8)
    back = rename_like(renamed(model), model)
    assert stored(back).keys() == stored(model).keys()
    np.testing.assert_array_equal(run(back, x=x)["y"], run(model, x=x)["y"])
    assert rename_like(model, model).SerializeToString() == model.SerializeToString()


def test_the_report_tells_of_a_given_mask(rng):
    model, x = norm_net(rng), normal(rng, 16, 3, 8, 8)
    pruned = prune(model, PruneOptions(0.3))
    result = repair(pruned, x, recipe("best"), dense=model)
    assert result.sparsity == pytest.approx(0.3, abs=1e-3)
    told = result.options.to_dict()
    assert (told["criterion"], told["sparsity"], told["pattern"]) == ("given", None, None)
    assert (told["recipe"], told["reconstruct"]) == ("best", True)


@pytest.mark.parametrize(
    "chosen",
    [
        {"sparsity": 0.6}, {"sparsity": 0.9}, {"pattern": "2:4"}, {"include": "w1"},
        {"exclude": "w1"}, {"criterion": "obs"}, {"allocation": "uniform"},
        {"row_scale": "normalize"},
    ],
)  # fmt: skip
def test_what_chooses_a_mask_does_not_go_with_a_given_one(rng, chosen):
    model, x = norm_net(rng), normal(rng, 16, 3, 8, 8)
    pruned = prune(model, PruneOptions(0.3))
    (name,) = chosen
    with pytest.raises(UsageError, match=f"leave out {name.replace('_', '-')}$"):
        repair(pruned, x, RepairOptions(**chosen), dense=model)


def test_a_mask_that_is_given_in_words_is_chosen_by_nothing_else(rng):
    model, x = norm_net(rng), normal(rng, 16, 3, 8, 8)
    pruned = prune(model, PruneOptions(0.3))
    options = RepairOptions(criterion="given", pattern="2:4", include="w1")
    with pytest.raises(UsageError, match=r"leave out pattern, include$"):
        repair(pruned, x, options, dense=model)
    alone = repair(pruned, x, RepairOptions(criterion="given"), dense=model)
    assert alone.options.amount == "as given"


def test_models_the_wrong_way_round_are_refused(rng):
    model, x = norm_net(rng), normal(rng, 16, 3, 8, 8)
    with pytest.raises(ModelError, match="the wrong way round"):
        repair(model, x, GIVEN, dense=prune(model, PruneOptions(0.3)))


def test_a_given_mask_needs_the_dense_model(rng):
    with pytest.raises(UsageError, match="give dense, too"):
        repair(norm_net(rng), normal(rng, 16, 3, 8, 8), RepairOptions(criterion="given"))


def folded(model, dense):
    """``norm_net`` as exporters fold it, by hand; scales and shifts are the dense model's."""
    values, made = stored(model), stored(dense)
    weights = {"fw": values["fw"], "fb": values["fb"]}
    for n in "12":
        gain = made[f"s{n}"] / np.sqrt(made[f"v{n}"] + np.float32(1e-5))
        weights[f"w{n}"] = values[f"w{n}"] * gain.reshape(-1, 1, 1, 1)
        weights[f"k{n}"] = made[f"b{n}"] - gain * made[f"m{n}"]
    return build(
        """net (float[N,3,8,8] x) => (float[N,5] y) {
            c1 = Conv <pads = [1, 1, 1, 1]> (x, w1, k1)
            r1 = Relu (c1)
            c2 = Conv <pads = [1, 1, 1, 1]> (r1, w2, k2)
            a = Add (c2, r1)
            r2 = Relu (a)
            p = GlobalAveragePool (r2)
            f = Flatten (p)
            y = Gemm <transB = 1> (f, fw, fb)
        }""",
        weights,
    )


@pytest.mark.parametrize("method", ["asr", "channelwise"])
def test_batch_normalisation_kept_or_folded_the_repair_is_the_same(rng, method):
    model, x = norm_net(rng), normal(rng, 40, 3, 8, 8)
    scale = stored(model)["s1"].copy()
    scale[2] *= -1  # a folded channel may change its sign
    model = copied(model, s1=scale)
    pruned = prune(model, PruneOptions(0.6))
    options = RepairOptions(method=method, prior="correlation")
    kept = repair(pruned, x, options, dense=model)
    bare = repair(folded(pruned, model), x, options, dense=folded(model, model))
    for one, other in zip(kept.sites, bare.sites, strict=True):
        np.testing.assert_array_equal(one.zeros, other.zeros)
        np.testing.assert_allclose(one.gamma, other.gamma, rtol=1e-4)
    np.testing.assert_allclose(run(kept.model, x=x)["y"], run(bare.model, x=x)["y"], atol=1e-4)


def another_node(model):
    model.graph.node.insert(3, onnx.helper.make_node("Identity", ["r1"], ["r1b"]))


def another_operator(model):
    model.graph.node[2].op_type = "Sigmoid"


def another_stride(model):
    model.graph.node[0].attribute.append(onnx.helper.make_attribute("strides", [1, 1]))


def another_wiring(model):
    model.graph.node[3].input[0] = "n1"


def another_shape(model):
    with_name(model.graph.initializer, "w2").CopyFrom(
        onnx.numpy_helper.from_array(np.ones((8, 8, 1, 1), np.float32), "w2")
    )


def another_type(model):
    with_name(model.graph.initializer, "m2").CopyFrom(
        onnx.numpy_helper.from_array(np.ones(8, np.float16), "m2")
    )


def another_output(model):
    model.graph.output.append(onnx.ValueInfoProto(name="r1"))


def a_shared_tensor(model):
    model.graph.node[4].input[3] = "m1"


@pytest.mark.parametrize(
    "change, message",
    [
        (another_node, "the dense model has 11 nodes, the pruned one 10"),
        (another_operator, "differ at Relu"),
        (another_stride, "differ at Conv"),
        (another_wiring, "wired differently at Conv"),
        (another_shape, r"tensor 'w2' is float\[8, 8, 1, 1\] in the dense .* float\[8, 8, 3, 3\]"),
        (another_type, r"tensor 'm2' is float16\[8\] in the dense .* float\[8\]"),
        (another_output, "different outputs"),
        (a_shared_tensor, "wired differently at BatchNormalization"),
    ],
)
def test_another_graph_is_refused_and_the_difference_named(rng, change, message):
    model, x = norm_net(rng), normal(rng, 8, 3, 8, 8)
    dense = copied(model)
    change(dense)
    with pytest.raises(ModelError, match=message):
        repair(prune(model, PruneOptions(0.6)), x, GIVEN, dense=dense)


def test_a_tensor_that_the_pruned_model_shares_is_refused(rng):
    """One initializer of the pruned model cannot stand for two of the dense one."""
    model = norm_net(rng)
    pruned = copied(model)
    a_shared_tensor(pruned)
    with pytest.raises(ModelError, match="wired differently"):
        rename_like(model, pruned)


def test_neither_model_is_changed(rng):
    model, x = norm_net(rng), normal(rng, 8, 3, 8, 8)
    pruned, dense = prune(model, PruneOptions(0.6)), renamed(model)
    before = pruned.SerializeToString(), dense.SerializeToString()
    repair(pruned, x, GIVEN, dense=dense)
    assert (pruned.SerializeToString(), dense.SerializeToString()) == before
