"""Activations by table, and what to aim at in front of them."""

from __future__ import annotations

import numpy as np
import pytest

from asr_onnx.maths.activations import Clipped, Tabulated, recognised, relu
from asr_onnx.maths.targets import bounded, goal_of, rectified, towards


def silu(x):
    return x / (1 + np.exp(-x))


def leaky(x):
    return np.where(x > 0, x, 0.1 * x)


def per_channel(x):
    return np.where(x > 0, x, np.array([0.0, 0.5, 1.0], np.float32) * x)


def table(function):
    return Tabulated.of(function, -8.0, 8.0, 3)


@pytest.mark.parametrize("function, columns", [(silu, 1), (leaky, 1), (per_channel, 3)])
def test_a_table_is_its_function(rng, function, columns):
    x = rng.uniform(-8, 8, (500, 3)).astype(np.float32)
    found = table(function)
    assert found.values.shape[1] == columns
    values, slopes = found.at(x)
    np.testing.assert_allclose(values, function(x), atol=2e-3)
    rise = (function(x + 1e-3) - function(x - 1e-3)) / 2e-3
    smooth = np.abs(x) > 0.01  # not across a kink
    np.testing.assert_allclose(slopes[smooth], rise[smooth], atol=2e-2)


def test_beyond_its_ends_a_table_goes_on_straight():
    x = np.array([[-20.0, 0.0, 20.0]], np.float32)
    np.testing.assert_allclose(table(leaky)(x), [[-2.0, 0.0, 20.0]], atol=1e-3)


def test_the_rectifiers_target_is_that_of_its_table(rng):
    dense, fitted = rng.normal(size=(2, 400, 3)).astype(np.float32)
    dense[0] = 3.0  # so that each channel has its steepest slope
    found = towards(table(relu), dense, fitted)
    clear = (np.abs(dense) > 0.01) & (np.abs(fitted) > 0.01)
    np.testing.assert_allclose(found[clear], rectified(dense, fitted)[clear], atol=1e-2)
    assert goal_of(relu) is rectified


def test_a_function_with_two_ends_is_recognised_and_no_other():
    assert recognised(lambda x: np.clip(x, 0, 6), -8.0, 8.0, 3) == Clipped(0.0, 6.0)
    for function in (silu, leaky, per_channel, lambda x: np.clip(x + 3, 0, 6)):
        assert isinstance(recognised(function, -8.0, 8.0, 3), Tabulated)


def test_a_function_that_is_not_finite_everywhere_is_none():
    assert recognised(np.sqrt, -1.0, 8.0, 3) is None


def test_the_target_of_two_ends_is_that_of_their_table(rng):
    dense, fitted = 3 + 4 * rng.normal(size=(2, 400, 3)).astype(np.float32)
    dense[0] = 3.0  # so that each channel has its steepest slope
    found = bounded(Clipped(0.0, 6.0), dense, fitted)
    wanted = towards(Tabulated.of(lambda x: np.clip(x, 0, 6), -30.0, 30.0, 3), dense, fitted)
    away = (np.abs(np.stack([dense, dense - 6, fitted, fitted - 6])) > 0.05).all(axis=0)
    away &= (np.abs(dense - 3) < 3) | (np.abs(fitted - 3) < 3)  # else the table sees no slope
    assert away.mean() > 0.6
    np.testing.assert_allclose(found[away], wanted[away], atol=2e-2)


@pytest.mark.parametrize("function", [silu, leaky, per_channel])
def test_reaching_the_target_brings_the_activation_closer_everywhere(rng, function):
    dense, fitted = 3 * rng.normal(size=(2, 2000, 3)).astype(np.float32)
    found = towards(table(function), dense, fitted)
    assert (found >= np.minimum(dense, fitted)).all() and (found <= np.maximum(dense, fitted)).all()
    before, after = (np.square(function(s) - function(dense)).sum() for s in (fitted, found))
    assert after < 0.5 * before


def test_where_nothing_gets_through_nothing_has_to_move(rng):
    dense, fitted = -20 - np.abs(rng.normal(size=(2, 50, 3))).astype(np.float32)
    found = towards(Tabulated.of(silu, -30.0, 8.0, 3), np.vstack([dense, [[5, 5, 5]]]),
                    np.vstack([fitted, [[5, 5, 5]]]))  # fmt: skip
    np.testing.assert_allclose(found[:-1], fitted, atol=1e-3)
