"""Re-fitting a layer by second moments: what it finds, what it asks for, when it gives way."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from layers import ArrayLayer, array_layer

from asr_onnx import CalibrationError, RepairOptions
from asr_onnx.maths.activations import relu
from asr_onnx.maths.least_squares import RIDGE, Refit, bias
from asr_onnx.maths.mask_search import select
from asr_onnx.maths.masks import largest_mask
from asr_onnx.maths.targets import rectified
from asr_onnx.solvers import refit, scale

FIT = RepairOptions(reconstruct=True)


def error(layer, correction):
    return layer.error(correction.rows, layer.bias + correction.bias_change)


def random_mask(rng, layer, density=0.5):
    return rng.random(layer.rows.shape) < density


def test_an_unpruned_layer_on_the_dense_inputs_stays_what_it_is(rng):
    layer = array_layer(rng)
    found = refit.solve(layer, np.ones(layer.rows.shape, bool), FIT)
    np.testing.assert_allclose(found.rows, layer.rows, atol=1e-3)
    np.testing.assert_allclose(found.bias_change, 0.0, atol=1e-2)


@pytest.mark.parametrize("noise", [0.0, 0.5])
def test_re_fitting_never_does_worse_than_scaling_on_other_data(rng, noise):
    layer = array_layer(rng, noise=noise)
    mask = random_mask(rng, layer, 0.4)
    fitted, scaled = refit.solve(layer, mask, FIT), scale.solve(layer, mask, RepairOptions())
    assert error(layer, fitted) < 0.8 * error(layer, scaled)
    assert not fitted.rows[~mask].any()
    assert fitted.shift is None, "a re-fitted layer has to run anew"


def test_where_re_fitting_does_worse_the_layer_is_scaled(rng, monkeypatch):
    layer = array_layer(rng)
    mask = random_mask(rng, layer)
    wanted = refit.solve(layer, mask, RepairOptions())
    monkeypatch.setattr(
        type(layer), "error", lambda self, rows, bias: float(not np.array_equal(rows, wanted.rows))
    )
    found = refit.solve(layer, mask, FIT)
    np.testing.assert_array_equal(found.rows, wanted.rows)
    np.testing.assert_array_equal(found.bias_change, wanted.bias_change)


def test_scaling_by_second_moments_is_scaling_by_those_of_the_output(rng):
    layer = array_layer(rng, noise=0.3)
    mask = random_mask(rng, layer)
    one, other = (
        refit.solve(layer, mask, RepairOptions()),
        scale.solve(layer, mask, RepairOptions()),
    )
    np.testing.assert_allclose(one.rows, other.rows, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(one.bias_change, other.bias_change, rtol=1e-3, atol=1e-4)


def test_what_a_mask_may_be_is_chosen_here(rng):
    layer = array_layer(rng)
    found = refit.solve(layer, partial(select, project=partial(largest_mask, count=20)), FIT)
    assert np.count_nonzero(found.mask) == np.count_nonzero(found.rows) == 20
    by_size = refit.solve(layer, largest_mask(abs(layer.rows), 20), FIT)
    assert error(layer, found) < error(layer, by_size)


def test_a_rectifier_is_aimed_behind(rng):
    plain = array_layer(np.random.default_rng(3))
    behind = array_layer(np.random.default_rng(3), activation=relu)
    mask = random_mask(rng, plain, 0.3)
    one, other = refit.solve(plain, mask, FIT), refit.solve(behind, mask, FIT)
    assert plain.goals == [None]
    assert behind.goals == [None] + [rectified] * refit.TURNS
    assert error(behind, other) < error(behind, one)


@pytest.mark.parametrize("last, least", [(True, RIDGE), (False, refit.LINEAR_RIDGE)])
@pytest.mark.parametrize("positions", [100, 1800])
def test_a_heads_ridge_is_the_best_on_what_is_held_out(positions, last, least):
    """Inputs come with noise, so that other rows are better: few positions hardly tell which."""
    rng = np.random.default_rng(5)
    clean = array_layer(rng, groups=1, rows=6, k=24, positions=positions)
    noisy = clean.x + rng.normal(size=clean.x.shape)
    layer = ArrayLayer(noisy, clean.rows, clean.bias, dense_x=clean.x, linear=True, last=last)
    found = refit.solve(layer, np.ones(layer.rows.shape, bool), FIT)
    gram = layer.gram()
    fits = {f: Refit(gram, layer.rows, found.mask, f * least)(gram.cross) for f in (1, 10, 100)}
    errors = {f: layer.error(rows, bias(gram, rows)) for f, rows in fits.items()}
    best = min(errors, key=errors.get)
    assert not last or (best > 1) == (positions < 1000)
    np.testing.assert_allclose(found.rows, fits[best], rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("where", ["input", "output"])
def test_what_is_not_finite_is_told_of(rng, where):
    layer = array_layer(rng)
    if where == "input":
        layer.x[:, 4] = np.inf
    layer.dense[4] = np.inf
    with pytest.raises(CalibrationError, match="of 'layer' is not finite"):
        refit.solve(layer, random_mask(rng, layer), FIT)
