"""Re-fitting inside the walk: better than scaling on images never solved on, or not done."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise

import numpy as np
import onnx
import pytest
from models import EVALUATION, ROOT, build, copied, norm_weights, normal, run, stored

from asr_onnx import (
    CalibrationError,
    Execution,
    PruneOptions,
    RepairOptions,
    load,
    parallel,
    prune,
    recipe,
    repair,
)
from asr_onnx.data.batches import as_batches
from asr_onnx.data.openers import open_samples
from asr_onnx.data.preprocess import Preprocess
from asr_onnx.execution import stream
from asr_onnx.graph.inputs import model_inputs
from asr_onnx.maths import least_squares
from asr_onnx.maths.second_moments import GramSums
from asr_onnx.maths.targets import Frame, rectified
from asr_onnx.solvers import refit

CONVS = ("w1", "w2", "w3", "w4")


def residual_net(rng, channels=8):
    """A stem, two residual convolutions, a strided one, with BatchNormalization; and a head."""
    sizes = {n: (channels, 3 if n == "w1" else channels, 3, 3) for n in CONVS}
    weights = {n: normal(rng, *s) / np.sqrt(np.prod(s[1:])) for n, s in sizes.items()}
    for i in "1234":
        weights |= norm_weights(rng, channels, i)
    return build(
        """net (float[N,3,10,10] x) => (float[N,6] y) {
            c1 = Conv <pads = [1, 1, 1, 1]> (x, w1)
            n1 = BatchNormalization (c1, s1, b1, m1, v1)
            r1 = Relu (n1)
            c2 = Conv <pads = [1, 1, 1, 1]> (r1, w2)
            n2 = BatchNormalization (c2, s2, b2, m2, v2)
            r2 = Relu (n2)
            c3 = Conv <pads = [1, 1, 1, 1]> (r2, w3)
            n3 = BatchNormalization (c3, s3, b3, m3, v3)
            a3 = Add (n3, r1)
            r3 = Relu (a3)
            c4 = Conv <strides = [2, 2]> (r3, w4)
            n4 = BatchNormalization (c4, s4, b4, m4, v4)
            r4 = Relu (n4)
            p = GlobalAveragePool (r4)
            f = Flatten (p)
            y = Gemm <transB = 1> (f, fw, fb)
        }""",
        {n: np.asarray(w, np.float32) for n, w in weights.items()}
        | {"fw": normal(rng, 6, channels), "fb": normal(rng, 6)},
    )


def folded(model):
    """The same network with each BatchNormalization multiplied into its convolution."""
    result, values = copied(model), {n: v.astype(np.float64) for n, v in stored(model).items()}
    nodes, new, behind = [], {}, {}
    for node in model.graph.node:
        if node.op_type == "BatchNormalization":
            scale, bias, mean, var = (values[n] for n in node.input[1:])
            (conv,) = (n for n in nodes if n.output[0] == node.input[0])
            gain = scale / np.sqrt(var + 1e-5)
            new[conv.input[1]] = values[conv.input[1]] * gain[:, None, None, None]
            new[f"{conv.input[1]}_bias"] = bias - gain * mean
            conv.input.append(f"{conv.input[1]}_bias")
            conv.output[0] = node.output[0]
            behind |= dict.fromkeys(node.input[1:])
        else:
            nodes.append(onnx.NodeProto())
            nodes[-1].CopyFrom(node)
    del result.graph.node[:]
    result.graph.node.extend(nodes)
    kept = {n: v for n, v in values.items() if n not in behind} | new
    del result.graph.initializer[:]
    for name, value in kept.items():
        result.graph.initializer.append(
            onnx.numpy_helper.from_array(value.astype(np.float32), name)
        )
    return result


def images(rng, count):
    """Smooth random images: neighbours are alike, as in photographs."""
    coarse = normal(rng, count, 3, 4, 4).repeat(3, axis=2).repeat(3, axis=3)[..., 1:-1, 1:-1]
    return coarse + 0.3 * normal(rng, count, 3, 10, 10)


def options(sparsity=0.7, **more):
    return RepairOptions(**{"sparsity": sparsity} | more)


def output_error(model, other, x):
    wanted, found = run(model, x=x)["y"], run(other, x=x)["y"]
    return float(np.linalg.norm(found - wanted) / np.linalg.norm(wanted))


@pytest.mark.parametrize("export", [residual_net, lambda rng: folded(residual_net(rng))])
@pytest.mark.parametrize("criterion, pattern", [("magnitude", None), ("obs", None), ("obs", "2:4")])
def test_refitting_beats_scaling_on_other_images(rng, export, criterion, pattern):
    model, x, other = export(rng), images(rng, 160), images(rng, 100)
    how = options(None if pattern else 0.7, criterion=criterion, pattern=pattern)
    scaled, fitted = (
        output_error(model, repair(model, x, replace(how, reconstruct=r)).model, other)
        for r in (False, True)
    )
    assert fitted < 0.85 * scaled


def test_what_a_relu_cuts_off_need_not_be_fitted(rng, monkeypatch):
    """Aiming behind the rectifier, not in front of it, fits what gets through better."""
    model = build(
        "g (float[N,20,5,5] x) => (float[N,8,5,5] y) { c = Conv (x, w, b) y = Relu (c) }",
        {"w": normal(rng, 8, 20, 1, 1), "b": normal(rng, 8) - 3},
    )
    mix = normal(rng, 20, 20)
    x, other = (np.maximum(np.einsum("nchw,cd->ndhw", normal(rng, n, 20, 5, 5), mix), 0)
                for n in (200, 100))  # fmt: skip
    errors = []
    for turns in (0, refit.TURNS):
        monkeypatch.setattr(refit, "TURNS", turns)
        repaired = repair(model, x, options(0.6, reconstruct=True)).model
        errors.append(output_error(model, repaired, other))
    assert errors[1] < 0.998 * errors[0]


def test_every_turn_lowers_the_error_a_relu_lets_through(rng):
    x = np.maximum(normal(rng, 3000, 20) @ normal(rng, 20, 20), 0)
    old = rng.normal(size=(1, 6, 20))
    dense = (x @ old[0].T - 3).astype(np.float32)
    mask, target, errors = rng.random(old.shape) < 0.4, dense, []
    for _ in range(5):
        sums = GramSums()
        sums.update(x[None], target)
        rows = least_squares.refit(sums.result(), old, mask, 1e-6)
        fitted = x @ rows[0].T + least_squares.bias(sums.result(), rows)
        wrong = np.where(dense > 0, dense - fitted, np.maximum(fitted, 0))
        errors.append(np.square(wrong).mean())
        target = rectified(dense, fitted.astype(np.float32))
    assert all(after < before for before, after in pairwise(errors))
    assert errors[-1] < 0.9 * errors[0]


def test_rectified_targets_leave_negatives_where_they_are():
    dense, fitted = np.float32([[2, 2, -1, -1]]), np.float32([[3, -3, -5, 4]])
    np.testing.assert_array_equal(rectified(dense, fitted), [[2, 2, -5, 0]])


@pytest.mark.parametrize("shortcut", [False, True])
def test_targets_are_what_gives_the_dense_sum(rng, shortcut):
    gain = np.float32([2, -0.5, 0, 1e-5])
    one, other = (normal(rng, 7 if shortcut else 1, 4) for _ in range(2))
    frame = Frame(gain, one, other if shortcut else one)
    y = normal(rng, 7, 4)
    goal = frame.output_for(frame.dense_sum(y), y)
    np.testing.assert_allclose(
        frame.repaired_sum(goal)[:, :2], frame.dense_sum(y)[:, :2], atol=1e-5
    )
    np.testing.assert_array_equal(goal[:, 2:], y[:, 2:])  # switched off: as it was


def test_a_mask_selected_for_the_output_beats_magnitudes(rng):
    model, x, other = residual_net(rng), images(rng, 160), images(rng, 100)
    plain, chosen = (
        output_error(
            model, repair(model, x, options(0.8, criterion=c, reconstruct=True)).model, other
        )
        for c in ("magnitude", "obs")
    )
    assert chosen < plain


def twins(seed, **how):
    """A network's repair, the difference of its folded twin's from it, and its own error."""
    rng = np.random.default_rng(seed)
    model, x = residual_net(rng), images(rng, 120)
    twin = folded(model)
    np.testing.assert_allclose(run(twin, x=x)["y"], run(model, x=x)["y"], atol=1e-4)
    how = options(0.5, reconstruct=True, **how)
    repaired, other = (repair(m, x, how).model for m in (model, twin))
    return output_error(repaired, other, x), output_error(model, repaired, x)


def test_a_folded_export_of_the_network_gives_the_same_outputs():
    """Whether BatchNormalization was multiplied into the weights is the exporter's business."""
    difference, error = twins(0, row_scale="normalize")  # the very same weights are dropped
    assert difference < min(2e-3, 0.3 * error)


def test_and_so_it_does_where_masks_are_searched_unless_rounding_leads_elsewhere():
    shares = [
        difference / error for difference, error in (twins(s, criterion="obs") for s in range(5))
    ]
    assert min(shares) < 1e-3 and max(shares) < 1


def test_no_weight_comes_back_and_only_known_places_change(rng):
    model, x = residual_net(rng), images(rng, 60)
    how = options(0.8)
    old, pruned = stored(model), stored(prune(model, how))
    new = stored(repair(model, x, replace(how, reconstruct=True)).model)
    changed = {n for n in old if (old[n] != new[n]).any()}
    assert changed == {*CONVS, "m1", "m2", "m3", "m4", "fw", "fb"}
    for name in CONVS:
        np.testing.assert_array_equal(new[name] == 0, pruned[name] == 0)


def test_the_mask_of_a_model_pruned_elsewhere_never_grows(rng):
    model, x = residual_net(rng), images(rng, 100)
    pruned = copied(
        model,
        **{n: v * (rng.random(v.shape) < 0.4) for n, v in stored(model).items() if n in CONVS},
    )
    result = repair(pruned, x, options(None, reconstruct=True), dense=model)
    found = stored(result.model)
    for name in CONVS:
        np.testing.assert_array_equal(found[name] == 0, stored(pruned)[name] == 0)
    other = images(rng, 50)
    assert output_error(model, result.model, other) < 0.6 * output_error(model, pruned, other)


def one_conv(rng):
    """A convolution with many inputs and few positions."""
    return build(
        "g (float[N,16,4,4] x) => (float[N,8,2,2] y) { y = Conv (x, w, b) }",
        {"w": normal(rng, 8, 16, 3, 3), "b": normal(rng, 8)},
    )


def factors(model, repaired):
    """Per output channel, what the surviving weights were multiplied by."""
    old, new = stored(model)["w"].reshape(8, -1), stored(repaired)["w"].reshape(8, -1)
    return [(n / o)[n != 0] for o, n in zip(old, new, strict=True)]


@pytest.mark.parametrize("images, fits", [(6, False), (1500, True)])
def test_where_refitting_does_worse_on_held_out_images_the_site_is_scaled(
    rng, monkeypatch, images, fits
):
    monkeypatch.setattr(refit, "STRONGER", ())
    model = one_conv(rng)
    x = normal(rng, images, 16, 4, 4)
    if fits:  # something to learn: inputs that go together
        x = np.einsum("nchw,cd->ndhw", x, normal(rng, 16, 16))
    data = as_batches(x, model_inputs(model), num_samples=images, holdout=0.5)
    how = options(0.15, row_scale="keep")
    scaled = repair(model, data, how)
    result = repair(model, data, replace(how, reconstruct=True))
    spread = [np.ptp(f) / abs(f).mean() for f in factors(model, result.model)]
    if fits:
        assert min(spread) > 0.01
        assert result.sites[0].error_repaired < 0.9 * scaled.sites[0].error_repaired
    else:
        assert max(spread) < 1e-4, "one factor per channel"
        one, other = stored(scaled.model), stored(result.model)
        for name in ("w", "b"):
            np.testing.assert_allclose(other[name], one[name], rtol=1e-3, atol=1e-4)


def test_with_few_images_a_stronger_ridge_does_better(rng, monkeypatch):
    """On images that neither the fit nor its ridge has seen."""
    model, mixing = one_conv(rng), normal(rng, 16, 16)
    x, new = (np.einsum("nchw,cd->ndhw", normal(rng, n, 16, 4, 4), mixing) for n in (40, 400))
    how = options(0.3, row_scale="keep", reconstruct=True)
    chosen = output_error(model, repair(model, x, how).model, new)
    monkeypatch.setattr(refit, "STRONGER", ())
    assert chosen < 0.95 * output_error(model, repair(model, x, how).model, new)


@pytest.mark.parametrize("criterion", ["magnitude", "obs"])
def test_with_very_few_images_refitting_does_no_harm(rng, criterion):
    model, x, other = residual_net(rng), images(rng, 5), images(rng, 100)
    how = options(0.5, criterion=criterion)
    fitted = repair(model, x, replace(how, reconstruct=True)).model
    assert output_error(model, fitted, other) < output_error(
        model, prune(model, PruneOptions(how.sparsity)), other
    )


def test_keep_first_leaves_the_first_layer_as_pruned(rng):
    model, x = residual_net(rng), images(rng, 60)
    how = options(0.6, reconstruct=True, keep_first=True)
    found, pruned = stored(repair(model, x, how).model), stored(prune(model, how))
    np.testing.assert_array_equal(found["w1"], pruned["w1"])
    np.testing.assert_array_equal(found["m1"], stored(model)["m1"])
    assert (found["w2"] != pruned["w2"]).any()


def test_the_same_data_gives_the_same_bytes_whatever_the_memory(rng):
    model, x = residual_net(rng), images(rng, 60)
    how = options(0.8, criterion="obs", reconstruct=True)
    whole = repair(model, x, how).model.SerializeToString()
    least = repair(model, x, how, execution=Execution(memory_limit=0)).model
    assert least.SerializeToString() == whole


def test_the_batch_size_does_not_matter_beyond_rounding(rng):
    model, x = residual_net(rng), images(rng, 60)
    other = images(rng, 20)
    small, large = (
        repair(
            model,
            as_batches(x, model_inputs(model), batch_size=n, holdout=0.2),
            options(0.6, reconstruct=True),
        ).model
        for n in (6, 60)
    )
    assert output_error(large, small, other) < 1e-3


@pytest.mark.slow
@pytest.mark.skipif(not EVALUATION.is_dir(), reason="evaluation cases are not here")
def test_a_trained_network_at_90_percent_classifies_again(tmp_path):
    """64 images, no training: ResNet-20 on CIFAR-10, which pruning alone takes down to chance."""
    source, images, target = (
        EVALUATION / "models" / "resnet20_bn.onnx",
        EVALUATION / "cifar10",
        tmp_path / "repaired.onnx",
    )
    words = ["--recipe", "best", "--sparsity", "0.9", "--num-samples", "64", "--providers", "cpu"]
    words += ["--calib", images / "train"]
    subprocess.run(  # a process of its own: BLAS threads do not help where cores are shared
        [sys.executable, "-m", "asr_onnx", "repair", source, *words, "-q", "-o", target],
        cwd=ROOT,
        env=os.environ | {"OPENBLAS_NUM_THREADS": "1"},
        check=True,
    )
    model = load(source).proto
    inputs = model_inputs(model)
    test = open_samples(images / "test", inputs, Preprocess())
    chosen = as_batches(test, inputs, num_samples=300, holdout=0.0, batch_size=300, seed=1)
    (batch,), (feeds,) = chosen.batches, list(chosen)
    labels = np.array([int(str(test.name(i)).split("/")[-2].split("_")[0]) for i in batch.samples])

    def accuracy(network):
        (output,) = run(network, **feeds).values()
        return (output.argmax(axis=1) == labels).mean()

    assert accuracy(model) > 0.85
    assert accuracy(prune(model, RepairOptions(0.9, recipe="asr"))) < 0.3
    assert accuracy(load(target).proto) > 0.7


@pytest.mark.parametrize(
    "how", [{}, {"reconstruct": True}, {"criterion": "obs"}, {"recipe": "best"}]
)
def test_infinite_activations_are_told_of_whatever_solves(rng, how):
    model = residual_net(rng)
    huge = {n: v * np.float32(1e30) for n, v in stored(model).items() if n in CONVS}
    model = copied(model, **huge)
    with pytest.raises(CalibrationError, match=r"(in|out)put of '.*' is not finite on the calib"):
        repair(model, images(rng, 40), options(**how))


@pytest.mark.parametrize("name", ["asr", "refit", "best"])
@pytest.mark.parametrize("activation", ["Relu", "HardSwish"])
def test_how_the_work_is_cut_up_changes_no_byte(rng, monkeypatch, name, activation):
    model, x = residual_net(rng), images(rng, 50)
    for node in model.graph.node:
        node.op_type = activation if node.op_type == "Relu" else node.op_type
    results = set()
    for batch_size, processors in ((8, 2), (13, 1), (50, 3)):
        monkeypatch.setattr(parallel, "processors", lambda n=processors: n)
        monkeypatch.setattr(stream, "processors", lambda n=processors: n)
        data = as_batches(x, model_inputs(model), batch_size=batch_size)
        repaired = repair(model, data, recipe(name, sparsity=0.7)).model
        results.add(repaired.SerializeToString(deterministic=True))
    assert len(results) == 1
