"""Scaling a layer by statistics of its output: what comes back, and what stays as it was."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from layers import array_layer

from asr_onnx import CalibrationError, RepairOptions
from asr_onnx.solvers import scale


def random_mask(rng, layer, density=0.5):
    return rng.random(layer.rows.shape) < density


def repaired(layer, correction):
    return layer.output(correction.rows, layer.bias + correction.bias_change)


def test_each_channel_gets_its_mean_back(rng):
    layer = array_layer(rng, noise=0.3)
    found = repaired(layer, scale.solve(layer, random_mask(rng, layer), RepairOptions()))
    np.testing.assert_allclose(found[::2].mean(0), layer.dense[::2].mean(0), atol=1e-5)


def test_raw_gains_give_each_channel_its_variance_back(rng):
    layer = array_layer(rng, noise=0.3)
    options = RepairOptions(method="channelwise")
    found = repaired(layer, scale.solve(layer, random_mask(rng, layer), options))
    np.testing.assert_allclose(found[::2].var(0), layer.dense[::2].var(0), rtol=1e-4)


@pytest.mark.parametrize("method", ["asr", "layerwise", "channelwise", "none"])
def test_the_fold_is_the_affine_map_of_the_output(rng, method):
    """``x W' + b'`` equals ``gamma y + shift`` of the pruned output ``y``."""
    layer, mask = array_layer(rng), None
    mask = random_mask(rng, layer)
    found = scale.solve(layer, mask, RepairOptions(method=method))
    pruned = layer.output(np.where(mask, layer.rows, 0.0), layer.bias)
    wanted = found.gamma * pruned + found.shift
    np.testing.assert_allclose(repaired(layer, found), wanted, atol=1e-9)
    assert not found.rows[~mask].any()


def test_nothing_pruned_nothing_changed(rng):
    layer = array_layer(rng)
    found = scale.solve(layer, np.ones(layer.rows.shape, bool), RepairOptions())
    np.testing.assert_allclose(found.rows, layer.rows, rtol=1e-5)
    np.testing.assert_allclose(found.bias_change, 0.0, atol=1e-4)


def test_without_a_method_the_layer_is_merely_pruned(rng):
    layer = array_layer(rng)
    mask = random_mask(rng, layer)
    found = scale.solve(layer, mask, RepairOptions(method="none"))
    np.testing.assert_array_equal(found.rows, np.where(mask, layer.rows, 0.0))
    assert not found.bias_change.any()


def test_infinite_outputs_are_told_of(rng):
    layer = array_layer(rng)
    layer.dense[4, 0] = np.inf
    with pytest.raises(CalibrationError, match="the output of 'layer' is not finite"):
        scale.solve(layer, random_mask(rng, layer), RepairOptions())


def test_solvers_need_no_runtime():
    modules = ("onnxruntime", "onnx_graphsurgeon", "asr_onnx.execution")
    code = (
        "import asr_onnx.solvers.refit, asr_onnx.solvers.scale, sys; "
        f"print([m for m in {modules} if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "[]\n"
