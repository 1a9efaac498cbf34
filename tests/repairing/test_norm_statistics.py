"""Re-estimated BatchNormalization statistics are those of PyTorch's training mode."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from models import bare_net, build, norm_net, norm_weights, normal, run, stored
from onnx import numpy_helper

from asr_onnx import ModelError, RepairOptions, as_batches, prune, repair
from asr_onnx.graph.inputs import model_inputs
from asr_onnx.graph.sites import find_norms
from asr_onnx.repairing.norm_statistics import with_batch_statistics

COUNT, SIZE = 26, 8  # three whole batches and a rest


def options(bn_stats, **more):
    given = {"sparsity": 0.5, "method": "asr", "bn_batch_size": SIZE}
    return RepairOptions(bn_stats=bn_stats, **given | more)


def conv(x, w):
    """Same-padded 3x3 convolution in float64."""
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))
    return np.einsum("nihwkl,oikl->nohw", windows, w)


def training_forward(values, x):
    """Mean and unbiased variance before each norm when ``norm_net`` runs in training mode."""
    seen, y = [], x.astype(np.float64)
    for number in "12":
        c = conv(y, values[f"w{number}"].astype(np.float64))
        mean, var = c.mean((0, 2, 3)), c.var((0, 2, 3))
        count = c.size // c.shape[1]
        seen.append((mean, var * count / (count - 1)))
        s, b = (values[p + number].astype(np.float64).reshape(-1, 1, 1) for p in "sb")
        normed = s * (c - mean.reshape(-1, 1, 1)) / np.sqrt(var.reshape(-1, 1, 1) + 1e-5) + b
        y = np.maximum(normed, 0)
    return seen


def chunks(x, count):
    """Batches of SIZE images, beginning anew when the images run out."""
    whole = len(x) // SIZE
    return [x[i % whole * SIZE :][:SIZE] for i in range(count)]


def solved_in_order(model, x):
    """The images in the order they are read, all of them solved on."""
    data = as_batches(x, model_inputs(model), holdout=0.0)
    return data, x[[i for b in data.batches for i in b.samples]]


def assert_statistics(found, running):
    for number, (mean, var) in zip("12", running, strict=True):
        np.testing.assert_allclose(found[f"m{number}"], mean, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(found[f"v{number}"], var, rtol=1e-4)


def test_cumulative_is_the_mean_over_whole_batches(rng):
    model = norm_net(rng)
    data, x = solved_in_order(model, normal(rng, COUNT, 3, 8, 8) + 0.5)
    found = stored(repair(model, data, options("cumulative")).model)
    seen = [training_forward(found, batch) for batch in chunks(x, COUNT // SIZE)]
    assert_statistics(found, np.mean(seen, axis=0))


@pytest.mark.parametrize("momentum, batches", [(0.1, 5), (0.3, 2), (1.0, 4)])
def test_ema_starts_at_mean_0_and_variance_1(rng, momentum, batches):
    model = norm_net(rng)
    data, x = solved_in_order(model, normal(rng, COUNT, 3, 8, 8) + 0.5)
    result = repair(model, data, options("ema", bn_momentum=momentum, bn_batches=batches))
    found = stored(result.model)
    running = np.stack([[np.zeros(8), np.ones(8)]] * 2)
    for batch in chunks(x, batches):
        running = (1 - momentum) * running + momentum * np.array(training_forward(found, batch))
    assert_statistics(found, running)


def test_a_full_re_estimation_cancels_the_scale_in_front_of_it(rng):
    """Trap A of the method: afterwards all methods give the same network."""
    model, x = norm_net(rng), normal(rng, 64, 3, 8, 8)
    outputs = []
    for method in ("none", "channelwise", "layerwise"):
        data, _ = solved_in_order(model, x)
        result = repair(model, data, options("cumulative", method=method))
        outputs.append(run(result.model, x=x)["y"])
    for other in outputs[1:]:
        np.testing.assert_allclose(other, outputs[0], atol=1e-3)


def test_only_weights_and_statistics_differ(rng):
    model = norm_net(rng)
    result = repair(model, normal(rng, 32, 3, 8, 8), options("cumulative"))
    old, new = stored(model), stored(result.model)
    changed = {n for n in old if old[n].tobytes() != new[n].tobytes()}
    assert changed == {"w1", "w2", "m1", "m2", "v1", "v2"}
    assert [n.SerializeToString() for n in result.model.graph.node] == [
        n.SerializeToString() for n in model.graph.node
    ]


def test_re_estimating_an_unpruned_network_with_method_none_keeps_the_weights(rng):
    model = norm_net(rng)
    result = repair(model, normal(rng, 32, 3, 8, 8), options("ema", method="none", sparsity=0.0))
    for name in ("w1", "w2"):
        np.testing.assert_array_equal(stored(result.model)[name], stored(model)[name])


def test_fewer_images_than_a_batch_are_one_batch(rng):
    model, x = norm_net(rng), normal(rng, 5, 3, 8, 8)
    data, ordered = solved_in_order(model, x)
    found = stored(repair(model, data, options("cumulative")).model)
    assert_statistics(found, training_forward(found, ordered))


def test_a_model_without_batch_normalisation_is_refused(rng):
    with pytest.raises(ModelError, match=r"needs BatchNormalization.*use --bn-stats dense"):
        repair(bare_net(rng), normal(rng, 8, 3, 8, 8), options("ema"))


@pytest.mark.parametrize("opset", [11, 17, 18, 20])
@pytest.mark.parametrize("shape", [(6, 8), (6, 8, 5), (6, 8, 3, 4), (6, 8, 2, 3, 4)])
def test_batch_statistics_of_any_rank_and_opset(rng, opset, shape):
    model = build(
        f"""net (float[{",".join(["N", *map(str, shape[1:])])}] x) =>
            (float[{",".join("?" * len(shape))}] y) {{ y = BatchNormalization (x, s, b, m, v) }}""",
        norm_weights(rng, 8),
        opset=opset,
    )
    (norm,) = find_norms(model)
    x = normal(rng, *shape) + 100
    found = run(with_batch_statistics(model, [norm.output]), x=x)
    axes = tuple(i for i in range(x.ndim) if i != 1)
    np.testing.assert_allclose(found["y//mean"], x.mean(axes, dtype=np.float64), rtol=1e-6)
    np.testing.assert_allclose(found["y//var"], x.var(axes, dtype=np.float64), rtol=1e-4)
    assert found["y//count"].prod() == x.size // 8
    normed = (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + 1e-5)
    s, b = (stored(model)[n].reshape(-1, *[1] * (x.ndim - 2)) for n in "sb")
    np.testing.assert_allclose(found["y"], s * normed + b, atol=2e-4)


def test_float16_parameters_in_constant_nodes(rng):
    model = build(
        """net (float16[N,8,5,5] x) => (float16[N,8,5,5] y) {
            y = BatchNormalization (x, v, v, v, v)
        }""",
        {},
    )
    ones = numpy_helper.from_array(np.ones(8, np.float16))
    model.graph.node.insert(0, onnx.helper.make_node("Constant", [], ["v"], value=ones))
    x = normal(rng, 6, 8, 5, 5, dtype="float16")
    found = run(with_batch_statistics(model, ["y"]), x=x)
    np.testing.assert_allclose(found["y//var"], x.astype("f4").var((0, 2, 3)), rtol=5e-3)


def test_the_pruned_network_is_what_re_estimation_sees(rng):
    model = norm_net(rng)
    result = repair(model, normal(rng, 16, 3, 8, 8), options("cumulative", method="none"))
    pruned = stored(prune(model, options("dense")))
    for name in ("w1", "w2"):
        np.testing.assert_array_equal(stored(result.model)[name], pruned[name])
