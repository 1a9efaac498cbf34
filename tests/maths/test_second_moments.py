"""Second moments: the numbers float64 gives in two passes, however the data is cut."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from models import normal

from asr_onnx.maths import second_moments
from asr_onnx.maths.second_moments import Gram, GramSums

FIELDS = ("inputs", "cross", "mean_x", "mean_y", "var_y")


def data(rng, groups=2, positions=400, k=5, rows=3, mean=300.0):
    """Patches (G, P, K) and targets (P, G * R), correlated, with large means."""
    x = normal(rng, groups, positions, k) @ normal(rng, groups, k, k) + np.float32(mean)
    y = np.moveaxis(x @ normal(rng, groups, k, rows), 0, 1).reshape(positions, -1)
    return x, y + normal(rng, *y.shape) - np.float32(mean)


def two_pass(x, y) -> Gram:
    x = x.astype(np.float64)
    y = np.moveaxis(y.reshape(len(y), len(x), -1), 1, 0).astype(np.float64)
    n, mean_x, mean_y = x.shape[1], x.mean(1), y.mean(1)
    x, y = x - mean_x[:, None], y - mean_y[:, None]
    turned = y.transpose(0, 2, 1)
    var = np.square(y).mean(1)
    return Gram(n, x.transpose(0, 2, 1) @ x / n, turned @ x / n, mean_x, mean_y, var)


def summed(x, y, cuts=()) -> Gram:
    sums = GramSums()
    for a, b in zip([0, *cuts], [*cuts, len(y)], strict=True):
        sums.update(x[:, a:b], y[a:b])
    return sums.result()


def assert_same(found: Gram, wanted: Gram, rtol=2e-6):
    assert found.count == wanted.count
    for name in FIELDS:
        a, b = getattr(found, name), getattr(wanted, name)
        assert a.dtype == np.float64
        np.testing.assert_allclose(a, b, atol=rtol * abs(b).max(), err_msg=name)


@given(
    seed=st.integers(0, 2**32 - 1),
    groups=st.integers(1, 3),
    cuts=st.sets(st.integers(1, 399), max_size=4),
)
def test_means_of_300_lose_no_digits(seed, groups, cuts):
    x, y = data(np.random.default_rng(seed), groups)
    assert_same(summed(x, y, sorted(cuts)), two_pass(x, y))


@pytest.mark.parametrize("cuts", [(), (1,), (7, 30, 399)])
def test_the_order_of_the_data_does_not_matter_beyond_rounding(rng, cuts):
    x, y = data(rng)
    order = rng.permutation(len(y))
    assert_same(summed(x[:, order], y[order], cuts), summed(x, y))


def test_targets_that_change_take_the_patches_moments_as_they_are(rng):
    x, y = data(rng)
    _, other = data(rng)
    sums = GramSums(summed(x, y).inputs)
    for a, b in ((0, 150), (150, 400)):
        sums.update(x[:, a:b], other[a:b])
    assert_same(sums.result(), two_pass(x, other))


def test_many_positions_are_summed_in_slices(rng, monkeypatch):
    x, y = data(rng, positions=3000)
    whole = summed(x, y)
    monkeypatch.setattr(second_moments, "_SLICE", 64)
    assert_same(summed(x, y), whole)


def test_error_and_variance_are_those_of_the_fit(rng):
    x, y = data(rng, mean=3.0)
    gram, rows = summed(x, y), rng.normal(size=(2, 3, 5))
    output = x.astype(np.float64) @ rows.transpose(0, 2, 1)
    target = np.moveaxis(y.reshape(len(y), 2, 3), 1, 0)
    np.testing.assert_allclose(gram.output_variance(rows), output.var(axis=1), rtol=1e-5)
    np.testing.assert_allclose(gram.error(rows), (target - output).var(axis=1), rtol=1e-5)


@pytest.mark.parametrize("inputs", [None, np.eye(2)[None]])
def test_without_data_there_are_no_moments(inputs):
    with pytest.raises(ValueError, match="no batch was added"):
        GramSums(inputs).result()


def test_few_positions_say_little_of_how_inputs_go_together(rng):
    """With the rows' own output as target, shrinking moves nothing: they stay the best fit."""
    rows = rng.normal(size=(1, 3, 8))
    found = {}
    for count in (8, 100_000):
        x = (rng.normal(size=(1, count, 8)) @ rng.normal(size=(8, 8))).astype(np.float32)
        sums = GramSums()
        sums.update(x, (x[0] @ rows[0].T).astype(np.float32))
        gram = sums.result()
        less = gram.shrunk(rows)
        diagonal = np.diagonal(gram.inputs[0])
        np.testing.assert_allclose(np.diagonal(less.inputs[0]), diagonal)
        off = ~np.eye(8, dtype=bool)
        found[count] = (less.inputs[0][off] / gram.inputs[0][off]).mean()
        np.testing.assert_allclose(less.cross, rows @ less.inputs, rtol=1e-3, atol=1e-3)
        assert less.error(rows).max() < 1e-3 * less.var_y.max()
    assert found[8] == pytest.approx(0.5) and found[100_000] > 0.999
