"""Comparing models: laws of the numbers, models of many kinds, and the command line."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import onnx
import pytest
from models import balanced, bare_net, build, copied, external_copy, norm_net, normal, run, stored
from rich.console import Console

import asr_onnx
from asr_onnx import (
    AsrError,
    CalibrationError,
    CompareOptions,
    Figures,
    Gates,
    ModelError,
    PruneOptions,
    UsageError,
)
from asr_onnx.evaluation.latency import Latency, measure
from asr_onnx.evaluation.match import compare_output
from asr_onnx.execution.session import Device, Runner
from asr_onnx.reports.comparison_tables import cost_table, to_dict, zero_table


def compare(*args, figures=None, **settings):
    options = CompareOptions(**{"latency": False} | settings)
    return asr_onnx.compare(*args, options=options, figures=figures)


@pytest.fixture
def x(rng):
    return normal(rng, 43, 3, 8, 8)


@pytest.fixture
def net(rng, x):
    """A model whose answers on ``x`` differ."""
    return balanced(norm_net(rng), x=x)


@pytest.fixture
def pruned(net):
    return asr_onnx.prune(net, PruneOptions(0.5))


def with_batch(model, size):
    """The model with another batch axis: a number or a name."""
    result = copied(model)
    dim = result.graph.input[0].type.tensor_type.shape.dim[0]
    dim.Clear()
    dim.dim_value = size
    del result.graph.output[0].type.tensor_type.shape.dim[0]
    result.graph.output[0].type.tensor_type.ClearField("shape")
    return result


def test_a_model_agrees_with_itself(net, x, rng):
    found = compare(net, [net, net], x, rng.integers(0, 5, 43))
    for m in found.models:
        assert (m.agreement, m.against_dense.p_value) == (1, 1)
        assert m.top1 == found.dense.top1
        assert m.outputs["y"].relative_error == 0
        assert "not distinguishable on 43 images" in str(m.against_dense)
    assert found.models[0].against_previous is None
    assert found.models[1].against_previous.p_value == 1


def test_accuracies_are_counts_over_all_samples(net, pruned, x, rng):
    labels = rng.integers(0, 5, 43)
    found = compare(net, {"half": pruned}, x, labels, topk=3)
    assert (found.samples, found.k, found.class_output) == (43, 3, "y")
    assert [found.dense.name, found.models[0].name] == ["dense", "half"]
    hits = []
    for model, report in ((net, found.dense), (pruned, found.models[0])):
        scores = run(model, x=x)["y"]
        hits.append(scores.argmax(1) == labels)
        top3 = (np.argsort(-scores, 1, "stable")[:, :3] == labels[:, None]).any(1)
        assert (report.top1.correct, report.topk.correct) == (hits[-1].sum(), top3.sum())
        assert report.top1.total == 43
    test = found.models[0].against_dense
    assert test.first_only == (hits[0] & ~hits[1]).sum()
    assert test.second_only == (hits[1] & ~hits[0]).sum()


def test_consecutive_models_are_tested_too(net, pruned, x):
    found = compare(net, [net, pruned, pruned], x, run(net, x=x)["y"].argmax(1))
    assert found.models[1].against_previous == found.models[1].against_dense
    assert found.models[2].against_dense.first_only > 0
    assert found.models[2].against_previous.first_only == 0


def test_agreement_is_accuracy_when_the_dense_answers_are_the_labels(net, pruned, x):
    found = compare(net, [pruned], x, run(net, x=x)["y"].argmax(1))
    assert found.dense.top1.share == 1
    assert found.models[0].top1.share == found.models[0].agreement < 1


@pytest.mark.parametrize("batch_size", [1, 10, 64])
def test_batches_do_not_matter(net, pruned, x, batch_size):
    found = compare(net, [pruned], x, batch_size=batch_size).models[0].outputs["y"]
    wanted = compare_output(run(net, x=x)["y"], run(pruned, x=x)["y"])
    assert (found.samples, found.agreement) == (43, wanted.agreement)
    assert found.cosine == pytest.approx(wanted.cosine, rel=1e-5)
    assert found.relative_error == pytest.approx(wanted.relative_error, rel=1e-5)


@pytest.mark.parametrize("fixed", ["dense", "other"])
def test_a_fixed_batch_loses_no_sample(net, pruned, x, rng, fixed):
    labels = rng.integers(0, 5, 43)
    wanted = compare(net, [pruned], x, labels)
    models = (with_batch(net, 8), pruned) if fixed == "dense" else (net, with_batch(pruned, 8))
    found = compare(models[0], [models[1]], x, labels)
    assert found.samples == 43
    assert found.models[0].top1 == wanted.models[0].top1
    assert found.models[0].agreement == wanted.models[0].agreement
    assert compare(models[0], [models[1]], x[:3], labels[:3]).samples == 3


def test_samples_are_drawn_by_the_seed(net, pruned, x, rng):
    labels = rng.integers(0, 5, 43)
    found = [compare(net, [pruned], x, labels, num_samples=9, seed=s) for s in (0, 0, 1)]
    assert found[0] == found[1] != found[2]
    assert found[0].samples == found[0].dense.top1.total == 9


def test_a_detector_has_all_its_outputs_compared(rng):
    weights = {"w": normal(rng, 6, 3, 3, 3), "s": np.array([0, 4, -1], np.int64)}
    model = build(
        """detector (float[N,3,8,8] x) => (float[N,6,6,6] maps, float[N,4,M] boxes, float total,
                                           int64[4,K] hits) {
            maps = Conv (x, w)
            r = Relu (maps)
            flat = Reshape (r, zero)
            boxes = Slice (flat, from, to, axis)
            total = ReduceSum <keepdims = 0> (maps)
            hits = NonZero (r)
        }""",
        {
            "w": weights["w"],
            "zero": np.array([0, 6, -1], np.int64),
            "from": np.array([0], np.int64),
            "to": np.array([4], np.int64),
            "axis": np.array([1], np.int64),
        },
    )
    other = copied(model, w=weights["w"] * (rng.random((6, 3, 3, 3)) < 0.7).astype(np.float32))
    x = normal(rng, 20, 3, 8, 8)
    found = compare(model, [other], x, batch_size=20)
    assert (found.class_output, found.labels) == (None, None)
    (report,) = found.models
    assert report.agreement is None
    figures = Figures(class_axis=("maps:1", "boxes:1"))
    (report,) = compare(model, [other], x, batch_size=20, figures=figures).models
    dense, changed = run(model, x=x), run(other, x=x)
    order = np.random.default_rng(0).permutation(20)
    assert report.outputs.keys() == dense.keys()
    for name in ("maps", "boxes"):
        wanted = compare_output(dense[name][order], changed[name][order], 1)
        assert report.outputs[name].relative_error == pytest.approx(wanted.relative_error, rel=1e-5)
        assert report.outputs[name].agreement == pytest.approx(wanted.agreement)
        assert 0.1 < wanted.agreement < 1
    assert report.outputs["total"].agreement is None
    assert math.isnan(report.outputs["hits"].cosine)
    assert report.agreement == min(report.outputs[n].agreement for n in ("maps", "boxes"))
    with pytest.raises(ModelError, match=r"no output of the dense model is \[samples, classes\]"):
        compare(model, [other], x, np.zeros(20, int))


def test_two_inputs_from_a_file(rng, tmp_path):
    def model(factor):
        return build(
            """two (float[N,3,8,8] x, float[N,4] z) => (float[N,4] y) {
                c = Conv (x, w)
                p = GlobalAveragePool (c)
                f = Flatten (p)
                y = Add (f, z)
            }""",
            {"w": w * np.float32(factor)},
        )

    w = normal(rng, 4, 3, 3, 3)
    arrays = {"x": normal(rng, 10, 3, 8, 8), "z": normal(rng, 10, 4)}
    np.savez(tmp_path / "data.npz", **arrays)
    found = compare(model(1), [model(1), model(-9)], tmp_path / "data.npz")
    assert [m.agreement == 1 for m in found.models] == [True, False]
    wanted = compare_output(run(model(1), **arrays)["y"], run(model(-9), **arrays)["y"])
    assert found.models[1].agreement == wanted.agreement


def test_the_footprint_counts_bytes_zeros_and_dead_channels(net, x, tmp_path):
    w1 = stored(net)["w1"].copy()
    w1[[1, 5]] = 0
    onnx.save(net, tmp_path / "m.onnx")
    path = external_copy(copied(net, w1=w1), tmp_path / "e")
    found = compare(tmp_path / "m.onnx", [path], x)
    dense, other = found.dense.footprint, found.models[0].footprint
    assert dense.size == (tmp_path / "m.onnx").stat().st_size
    assert other.size == path.stat().st_size + (tmp_path / "e" / "weights.bin").stat().st_size
    assert (other.weights, other.zeros, other.dead, other.channels) == (792, 54, 2, 16)
    assert (dense.zeros, dense.dead) == (0, 0)
    assert other.compressed < dense.compressed < dense.size


@pytest.fixture
def pair(rng, x):
    """A network, and one of fewer channels with the same names, inputs and outputs."""
    net = balanced(bare_net(rng), x=x)
    w = stored(net)
    cut = {"w1": w["w1"][:5], "w2": w["w2"][:4, :5], "b2": w["b2"][:4], "fw": w["fw"][:, :4]}
    return net, copied(net, **cut)


def test_a_narrower_model_is_compared_like_any_other(pair, x):
    net, narrow = pair
    labels = run(net, x=x)["y"].argmax(1)
    found = compare(net, {"narrow": narrow}, x, labels, latency=True)
    dense, (other,) = found.dense, found.models
    assert dense.cost.macs == 8 * 64 * 27 + 6 * 16 * 72 + 5 * 6
    assert other.cost.macs == 5 * 64 * 27 + 4 * 16 * 45 + 5 * 4
    assert other.cost.parameters == 5 * 27 + 4 * 45 + 4 + 5 * 4 + 5
    assert other.cost.activation_bytes == dense.cost.activation_bytes * 5 / 8
    wanted = compare_output(run(net, x=x)["y"], run(narrow, x=x)["y"])
    assert other.agreement == other.top1.share == wanted.agreement < dense.top1.share == 1
    assert other.latency.median > 0
    assert [f.gate for f in found.failures(Gates(max_drop=0.0, min_agreement=1.0))] == [
        "--min-agreement",
        "--max-drop",
    ]
    assert found.failures(Gates(max_drop=1.0, min_accuracy=0.0)) == []
    content = to_dict(found, Gates())
    ratios = content["models"][0]["ratios"]
    assert ratios["macs"] == other.cost.macs / dense.cost.macs
    assert ratios["size"] == other.footprint.size / dense.footprint.size < 1
    assert set(content["dense"]["ratios"].values()) == {1.0}


def test_costs_are_for_the_size_of_the_samples(rng):
    net = build(
        "open (float[N,3,H,W] x) => (float[N,4,H,W] y) { y = Conv <pads = [1,1,1,1]> (x, w) }",
        {"w": normal(rng, 4, 3, 3, 3)},
    )
    found = compare(net, {"same": net}, normal(rng, 4, 3, 6, 5))
    assert found.dense.cost.macs == found.models[0].cost.macs == 30 * 108


def test_tables_tell_each_figure_and_what_it_is_to_the_dense_models(pair, x):
    net, narrow = pair
    found = compare(net, {"narrow": narrow}, x, latency=True)
    console = Console(width=80)
    with console.capture() as text:
        console.print(cost_table(found))
        console.print(zero_table(found))
    (dense, other, ratios), zeros = (
        [[cell.strip() for cell in line.split("│")[1:-1]] for line in lines]
        for lines in np.split(
            np.array([t for t in text.get().splitlines() if t.startswith("│")], object), [3]
        )
    )
    assert dense[:4] == ["dense", "20.8 k", "689", "4.0 KiB"]
    assert other[:4] == ["narrow", "11.5 k", "344", "2.5 KiB"]
    assert ratios[:4] == ["× dense", "0.56", "0.50", "0.62"]
    assert other[5] == f"{found.models[0].latency.median * 1e3:.2f} ms"
    assert zeros[1][4:] == ["11.5 k", "0.56"]


def chain(rng, length):
    """``length`` convolutions of the same size, one after the other."""
    nodes = [f"t{i + 1} = Conv <pads = [1, 1, 1, 1]> (t{i}, w)" for i in range(length)]
    text = "\n".join(nodes)
    ends = f"(float[N,16,16,16] t0) => (float[N,16,16,16] t{length})"
    return build(f"chain {ends} {{ {text} }}", {"w": 0.1 * normal(rng, 16, 16, 3, 3)})


def test_a_latency_whose_rounds_differ_too_much_is_marked(rng):
    quiet = Latency(1, 100, 0.95e-3, 1e-3, 1.1e-3, 1.0)
    busy = Latency(1, 100, 0.8e-3, 1e-3, 1.1e-3, 0.7)
    assert quiet.reliable and not busy.reliable
    model = chain(rng, 1)
    found = compare(model, {"a": model}, normal(rng, 4, 16, 16, 16))

    def shown(first, second):
        one, other = replace(found.dense, latency=first), replace(found.models[0], latency=second)
        console = Console(width=120)
        with console.capture() as text:
            console.print(cost_table(replace(found, dense=one, models=(other,))))
        return text.get()

    assert "reliable" not in shown(quiet, quiet)
    assert "0.70 ?" in shown(quiet, busy) and "not reliable" in shown(quiet, busy)


def test_latency_is_measured_side_by_side(rng):
    feeds = {"t0": normal(rng, 8, 16, 16, 16)}
    runners = [Runner(chain(rng, n), Device()) for n in (1, 24)]
    first, second = measure(runners, feeds, 8, rounds=30)
    assert (first.batch, first.rounds, first.ratio) == (8, 30, 1)
    assert second.ratio == pytest.approx(second.median / first.median)
    assert second.ratio > 3
    for found in (first, second):
        assert 0 < found.low <= found.median <= found.high
    with pytest.raises(UsageError, match="rounds 0"):
        measure(runners, feeds, 8, rounds=0)


def test_other_names_types_and_shapes_are_refused(net, x, rng):
    named = copied(net)
    named.graph.output[0].name = named.graph.node[-1].output[0] = "z"
    with pytest.raises(ModelError, match="'odd' has outputs 'z', but the dense model has 'y'"):
        compare(net, {"odd": named}, x)
    fed = copied(net)
    fed.graph.input[0].name = fed.graph.node[0].input[0] = "image"
    with pytest.raises(ModelError, match="'odd' has inputs 'image', but the dense model has 'x'"):
        compare(net, {"odd": fed}, x)
    with pytest.raises(ModelError, match="'odd' takes input 'x' \\(float64"):
        compare(net, {"odd": norm_net(rng, "float64")}, x)
    with pytest.raises(ModelError, match="'odd' takes input 'x' \\(float32 \\[8,"):
        compare(with_batch(net, 4), {"odd": with_batch(net, 8)}, x)
    wide = copied(net, fw=normal(rng, 7, 8), fb=normal(rng, 7))
    wide.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 7
    with pytest.raises(ModelError, match="output 'y' of 'odd' has shape \\[32, 7\\]"):
        compare(net, {"odd": wide}, x)
    broken = copied(net, fw=normal(rng, 5, 9))
    with pytest.raises(ModelError, match=r"'odd': ONNX Runtime (refuses|cannot run) the"):
        compare(net, {"odd": broken}, x)
    with pytest.raises(UsageError, match="no model to compare"):
        compare(net, [], x)
    with pytest.raises(CalibrationError, match=r"label 5 .* not one of the 5 classes"):
        compare(net, [net], x, np.full(43, 5))


def test_gates_apply_to_every_model_but_the_dense_one(net, pruned, x):
    labels = (run(net, x=x)["y"].argmax(1) + 1) % 5  # the dense model is always wrong
    found = compare(net, {"same": net, "half": pruned}, x, labels)
    (failure,) = found.failures(Gates(min_agreement=1.0, max_drop=0.0))
    assert str(failure).startswith("half: agreement") and failure.gate == "--min-agreement"
    failures = found.failures(Gates(min_accuracy=1.0))
    assert [f.model for f in failures] == ["same", "half"]


def test_an_error_is_one_of_this_tools(net, x):
    with pytest.raises(AsrError, match="top-0"):
        compare(net, [net], x, topk=0)
