"""What integers promise: the mask, the pairs, and a repair that is better than rounding."""

from __future__ import annotations

import re

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from models import bare_net, build, copied, detector, norm_net, normal, run, stored, yolo
from networks import networks
from polygraphy.tools.sparse import SparsityPruner

from asr_onnx import (
    AsrError,
    ModelError,
    RepairOptions,
    UsageError,
    as_batches,
    load,
    prune,
    quantize,
    repair,
    save,
)
from asr_onnx.execution.session import Device, Runner
from asr_onnx.graph.fold_norms import fold_norms
from asr_onnx.graph.inputs import model_inputs
from asr_onnx.graph.qdq import stored_integers
from asr_onnx.maths.clipping import Grid
from asr_onnx.quantizing.targets import TARGETS, Target

ENGINES = pytest.mark.parametrize("engine", TARGETS)


def int8(**more):
    return RepairOptions(precision="int8", **more)


def error(model, other, x):
    wanted, found = (Runner(m, Device()).run({"x": x})["y"] for m in (model, other))
    return float(np.linalg.norm(found - wanted) / np.linalg.norm(wanted - wanted.mean(0)))


def integers(model):
    """By the tensor that is made of them."""
    values = stored(model)
    return {t: values[place.integers] for t, place in stored_integers(model).items()}


@ENGINES
@pytest.mark.parametrize("net", [bare_net, norm_net])
def test_the_model_does_almost_what_it_did_in_a_third_of_the_bytes(rng, net, engine):
    model, x = net(rng), normal(rng, 200, 3, 8, 8)
    found = repair(model, x, int8(sparsity=0.0, engine=engine))
    onnx.checker.check_model(found.model, full_check=True)
    assert error(model, found.model, x) < 0.08  # pooled features hardly vary around their means
    assert {v.dtype.name for v in integers(found.model).values()} == {"int8"}
    limit = max(int(abs(v.astype(int)).max()) for v in integers(found.model).values())
    assert limit == TARGETS[engine].limit
    assert found.integers.products == found.integers.repaired == 3
    assert found.integers.fused.keys() == {"y"}


@ENGINES
@pytest.mark.parametrize("recipe", ["asr", "refit", "best"])
def test_masks_and_patterns_stay(rng, recipe, engine):
    model, x = norm_net(rng), normal(rng, 100, 3, 8, 8)
    found = repair(model, x, int8(pattern="2:4", recipe=recipe, engine=engine))
    (weight,) = (s for s in found.sites if s.name == "w2")
    assert weight.zeros >= weight.weights / 2
    assert found.rounded_to_zero == sum(
        s.zeros - s.weights // 2 for s in found.sites if s.pruned and s.name == "w2"
    ) + sum(s.zeros for s in found.sites if s.name != "w2")
    groups = np.moveaxis(integers(found.model)["w2_DequantizeLinear_Output"], 1, -1).reshape(-1, 4)
    assert ((groups != 0).sum(axis=1) <= 2).all()


@pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning:polygraphy")
def test_polygraphy_finds_the_pattern_in_the_weights_that_integers_stand_for(rng):
    found = repair(norm_net(rng), normal(rng, 60, 3, 8, 8), int8(pattern="2:4", recipe="asr")).model
    made = {t: f"{t}_DequantizeLinear_Output" for t in ("w1", "w2")}
    values = run(tapped(found, *made.values()), x=normal(rng, 1, 3, 8, 8))
    alone = copied(norm_net(rng), **{t: values[name] for t, name in made.items()})
    checker = SparsityPruner(alone)
    checker.check()
    assert checker.sparse_tensors == {"w2"}  # w1 has three input channels


def tapped(model, *tensors):
    result = copied(model)
    result.graph.output.extend(onnx.ValueInfoProto(name=t) for t in tensors)
    return result


@ENGINES
def test_a_model_that_is_pruned_keeps_its_zeros(rng, engine):
    model, x = bare_net(rng), normal(rng, 100, 3, 8, 8)
    sparse = prune(model, RepairOptions(recipe="asr", sparsity=0.7))
    found = repair(sparse, x, int8(engine=engine), dense=model)
    for name in ("w1", "w2"):
        before, after = (
            stored(sparse)[name],
            integers(found.model)[f"{name}_DequantizeLinear_Output"],
        )
        assert not after[before == 0].any()
    assert error(model, found.model, x) < error(model, sparse, x)


def test_a_fine_grid_gives_the_repair_that_knows_no_integers(rng, monkeypatch):
    monkeypatch.setitem(TARGETS, "tensorrt", Target(Grid(-32767, 32767, symmetric=True), 32767))
    model, x = bare_net(rng), normal(rng, 100, 3, 8, 8)
    model.opset_import[0].version, model.ir_version = 21, 10  # the first with 16 bits
    how = {"sparsity": 0.5, "recipe": "refit"}
    plain = repair(fold_norms(model), x, RepairOptions(**how, ops=("Conv",))).model
    fine = repair(model, x, int8(**how, ranges="min-max")).model
    assert error(plain, fine, x) < 1e-3


@pytest.mark.parametrize("how", [{"sparsity": 0.0}, {"sparsity": 0.5, "recipe": "best"}])
def test_a_layer_is_repaired_better_than_each_weight_to_the_nearest(rng, how):
    found = repair(norm_net(rng), normal(rng, 400, 3, 8, 8), int8(**how))
    for output, match in found.repaired_outputs.items():
        assert match.relative_error <= found.pruned_outputs[output].relative_error


def test_whether_norms_were_folded_makes_no_difference(rng):
    model, x = norm_net(rng), normal(rng, 200, 3, 8, 8)
    twins = (model, fold_norms(model))
    off = [error(model, repair(m, x, int8(sparsity=0.4, recipe="refit")).model, x) for m in twins]
    assert off[0] == pytest.approx(off[1], rel=0.05)


@pytest.mark.parametrize("net", [detector, yolo])
def test_networks_that_are_no_classifiers(rng, net):
    model = net(rng)
    x = {i.name: normal(rng, 40, *i.shape[1:]) for i in model_inputs(model)}
    found = repair(model, x, int8(sparsity=0.3, recipe="refit"))
    onnx.checker.check_model(found.model, full_check=True)
    assert [o.name for o in found.model.graph.output] == [o.name for o in model.graph.output]
    assert found.integers.products > 2


def test_what_is_left_out_stays_as_it_is(rng):
    model, x = bare_net(rng), normal(rng, 60, 3, 8, 8)
    found = repair(model, x, int8(sparsity=0.5, exclude="w2"))
    np.testing.assert_array_equal(stored(found.model)["w2"], stored(model)["w2"])
    assert found.integers.products == 2


def test_old_opsets_are_raised(rng):
    model, x = bare_net(rng), normal(rng, 60, 3, 8, 8)
    old = copied(model)
    old.opset_import[0].version, old.ir_version = 11, 6
    found = repair(old, x, int8(sparsity=0.0, recipe="asr")).model
    assert found.opset_import[0].version == 13
    onnx.checker.check_model(found, full_check=True)


def test_weights_in_data_files_become_integers_in_one(rng, tmp_path):
    model, x = bare_net(rng), normal(rng, 60, 3, 8, 8)
    path = tmp_path / "model.onnx"
    onnx.save(
        copied(model), path, save_as_external_data=True, size_threshold=0, location="model.data"
    )
    loaded = load(path, in_place=True)
    found = repair(loaded.proto, x, int8(sparsity=0.0, recipe="asr")).model
    save(found, tmp_path / "int8.onnx", loaded.external)
    assert error(model, load(tmp_path / "int8.onnx").proto, x) < 0.08


@pytest.mark.parametrize(
    "more, told",
    [
        ({"pattern": "channel"}, "one after the other"),
        ({"one_shot": True}, "leave out one-shot"),
        ({"bn_stats": "ema"}, "leave out one-shot"),
        ({"engine": "openvino"}, "not one of tensorrt, onnxruntime"),
        ({"ranges": "widest"}, "not one of min-max, percentile, mse"),
    ],
)
def test_options_that_do_not_go_together_are_refused(more, told):
    with pytest.raises(UsageError, match=told):
        int8(**more)


def test_half_precision_is_refused_in_one_line(rng):
    with pytest.raises(ModelError, match="no product of float32"):
        repair(bare_net(rng, "float16"), normal(rng, 60, 3, 8, 8, dtype="float16"), int8())


def quantized(model, x, **more):
    found = quantize(model, x, RepairOptions(recipe="refit", **more))
    onnx.checker.check_model(found.model, full_check=True)
    return found


@ENGINES
@pytest.mark.parametrize(
    "nodes, weights",
    [
        ("h = Gemm (f, w)\n r = Relu (h)\n y = Gemm <transB = 1> (r, w)", {"w": (3, 3)}),
        ("h = MatMul (f, w)\n r = Relu (h)\n y = Gemm (r, v)", {"w": (3, 8), "v": (8, 4)}),
    ],
)
def test_matrices_alone_and_matrices_shared_between_ways_of_reading_them(
    rng, nodes, weights, engine
):
    """One weight with a scale for each row here and each column there has to become two."""
    model = build(
        f"""net (float[N,3,1,1] x) => (float[N,k] y) {{
            f = Flatten (x)
            {nodes}
        }}""",
        {name: normal(rng, *shape) for name, shape in weights.items()},
    )
    x = normal(rng, 200, 3, 1, 1)
    found = quantized(model, x, engine=engine)
    assert found.integers.products == 2
    assert error(model, found.model, x) < 0.05
    if engine == "onnxruntime":
        assert found.integers.fused["y"].relative_error < 0.05


def test_a_weight_that_cannot_be_repaired_is_rounded_all_the_same(rng):
    model = build(
        """net (float[N,3,1,1] x) => (float[N,4] y) {
            f = Flatten (x)
            h = Gemm (f, w, b)
            r = Relu (h)
            y = MatMul (r, v)
        }""",
        {"w": normal(rng, 3, 8), "b": normal(rng, 8), "v": normal(rng, 8, 4)},
    )
    found = quantized(model, normal(rng, 100, 3, 1, 1))
    assert (found.integers.products, found.integers.repaired) == (2, 1)


def test_old_operators_that_are_converted_do_what_they_did(rng):
    """Opset 9 knew one kind of coordinates only, which is not what opset 13 takes for granted."""
    model = build(
        """net (float[N,3,6,6] x) => (float[N,4,n,m] y) {
            c = Conv <pads = [1, 1, 1, 1]> (x, w)
            y = Upsample <mode = "linear"> (c, s)
        }""",
        {"w": normal(rng, 4, 3, 3, 3), "s": np.float32([1, 1, 2, 2])},
    )
    model.opset_import[0].version, model.ir_version = 9, 4
    x = normal(rng, 60, 3, 6, 6)
    found = repair(model, x, int8(sparsity=0.0, recipe="refit"))
    assert error(model, found.model, x) < 0.05


def test_an_opset_whose_conversion_changes_the_model_is_refused(rng, monkeypatch):
    def wrong(model, version):
        w = stored(model)["w1"]
        result = copied(model, w1=2 * w)
        result.opset_import[0].version = version
        return result

    monkeypatch.setattr(onnx.version_converter, "convert_version", wrong)
    old = copied(bare_net(rng))
    old.opset_import[0].version, old.ir_version = 11, 6
    with pytest.raises(ModelError, match="does something else when onnx converts it"):
        repair(old, normal(rng, 60, 3, 8, 8), int8())


def test_what_is_quantised_already_is_refused(rng):
    x = normal(rng, 60, 3, 8, 8)
    for exclude in (None, "w2"):
        once = quantized(bare_net(rng), x, exclude=exclude).model
        with pytest.raises(ModelError, match="quantised already"):
            quantize(once, x)


@pytest.mark.parametrize("name", ["r1_scale", "w1_quantized", "x_QuantizeLinear_Output"])
def test_names_that_the_quantizer_gives_are_refused_where_they_are_taken(rng, name):
    model = copied(bare_net(rng))
    for node in model.graph.node:
        node.input[:] = [name if t == "c2" else t for t in node.input]
        node.output[:] = [name if t == "c2" else t for t in node.output]
    with pytest.raises(ModelError, match=f"'{name}'.*rename it"):
        quantize(model, normal(rng, 60, 3, 8, 8))


def test_initializers_that_old_models_list_as_inputs_are_none_any_more(rng):
    model = copied(bare_net(rng))
    model.ir_version = 3
    for tensor in model.graph.initializer:
        model.graph.input.append(
            onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        )
    found = quantized(model, normal(rng, 60, 3, 8, 8)).model
    assert [i.name for i in found.graph.input] == ["x"]


REFUSALS = r"can be pruned|fixed filters|is not finite|does not fit|in float32|no product"


@pytest.mark.slow
@settings(
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much], max_examples=25
)
@given(network=networks(), engine=st.sampled_from(sorted(TARGETS)))
def test_random_networks(network, engine):
    data = as_batches(network.x, model_inputs(network.model), holdout=0.0, batch_size=4)
    try:
        found = repair(network.model, data, int8(sparsity=0.3, recipe="refit", engine=engine))
    except AsrError as refused:
        assert re.search(REFUSALS, str(refused))
        assume(False)
    onnx.checker.check_model(found.model, full_check=True)
    assert found.integers.products
