"""Per-channel moments: equal to two float64 passes, whatever the order, axis and element type."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asr_onnx.maths.moments import Moments, PairedMoments, paired_moments, pooled


def accumulate(batches, axis=1):
    return pooled(paired_moments(dense, pruned, axis) for dense, pruned in batches)


def two_pass(dense, pruned, axis=1):
    """Mean, variance and covariance in float64, the mean first."""
    others = tuple(i for i in range(dense.ndim) if i != axis % dense.ndim)
    d, p = np.asarray(dense, np.float64), np.asarray(pruned, np.float64)
    dc, pc = (a - a.mean(others, keepdims=True) for a in (d, p))
    products = ((dc * dc).mean(others), (pc * pc).mean(others), (dc * pc).mean(others))
    return d.mean(others), p.mean(others), *products


def assert_equal(found, dense, pruned, axis=1, rtol=1e-5):
    mean_d, mean_p, var_d, var_p, cov = two_pass(dense, pruned, axis)
    size = np.sqrt(var_d * var_p)
    np.testing.assert_allclose(found.dense.mean, mean_d, rtol=1e-7, atol=1e-6)
    np.testing.assert_allclose(found.pruned.mean, mean_p, rtol=1e-7, atol=1e-6)
    np.testing.assert_allclose(found.dense.var, var_d, rtol=rtol)
    np.testing.assert_allclose(found.pruned.var, var_p, rtol=rtol)
    np.testing.assert_allclose(found.covariance, cov, rtol=rtol, atol=rtol * size.max())


def far_pair(rng, shape, dtype):
    """Data whose mean, 300, dwarfs its deviation, 0.5."""
    dense = 300 + 0.5 * rng.standard_normal(shape)
    pruned = 0.3 * dense + 0.2 * rng.standard_normal(shape)
    return dense.astype(dtype), pruned.astype(dtype)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_a_large_mean_costs_no_digits(rng, dtype):
    dense, pruned = far_pair(rng, (24, 5, 7, 9), dtype)
    found = accumulate([(dense[i : i + 8], pruned[i : i + 8]) for i in range(0, 24, 8)])
    assert found.dense.count == 24 * 7 * 9
    assert_equal(found, dense, pruned)


@pytest.mark.parametrize("shape", [(40, 6), (40, 6, 1, 1), (40, 6, 11), (12, 6, 2, 3, 4)])
def test_any_rank_with_channels_second(rng, shape):
    dense, pruned = far_pair(rng, shape, "float32")
    assert_equal(accumulate([(dense[:7], pruned[:7]), (dense[7:], pruned[7:])]), dense, pruned)


@pytest.mark.parametrize("shape", [(50, 6), (10, 9, 6), (3, 8, 8, 6), (2, 300, 300, 4)])
def test_channels_last(rng, shape):
    dense, pruned = far_pair(rng, shape, "float32")
    assert_equal(accumulate([(dense, pruned)], axis=-1), dense, pruned, axis=-1)


def test_a_channel_last_array_equals_its_transpose(rng):
    dense, pruned = far_pair(rng, (4, 5, 6, 7), "float32")
    second = accumulate([(dense, pruned)])
    last = accumulate([(np.moveaxis(dense, 1, -1), np.moveaxis(pruned, 1, -1))], axis=-1)
    np.testing.assert_allclose(last.dense.var, second.dense.var, rtol=1e-5)
    np.testing.assert_allclose(last.covariance, second.covariance, rtol=1e-4)


@given(st.integers(0, 2**32 - 1), st.lists(st.integers(1, 19), max_size=5))
def test_neither_the_split_nor_the_order_of_batches_matters(seed, cuts):
    rng = np.random.default_rng(seed)
    dense, pruned = far_pair(rng, (20, 3, 4, 4), "float32")
    edges = [0, *sorted(set(cuts)), 20]
    parts = [slice(a, b) for a, b in pairwise(edges)]
    rng.shuffle(parts)
    split = accumulate([(dense[p], pruned[p]) for p in parts])
    whole = accumulate([(dense, pruned)])
    assert split.dense.count == whole.dense.count
    for a, b in ((split.dense, whole.dense), (split.pruned, whole.pruned)):
        np.testing.assert_allclose(a.mean, b.mean, rtol=1e-7)
        np.testing.assert_allclose(a.var, b.var, rtol=1e-5)
    np.testing.assert_allclose(split.covariance, whole.covariance, rtol=1e-4, atol=1e-6)


def test_a_first_batch_unlike_the_others_does_no_harm(rng):
    dense, pruned = far_pair(rng, (16, 4, 8, 8), "float32")
    dense[:2] -= 290
    parts = [slice(0, 2), slice(2, 16)]
    assert_equal(accumulate([(dense[p], pruned[p]) for p in parts]), dense, pruned)


def test_a_batch_larger_than_a_block(rng):
    dense, pruned = far_pair(rng, (3, 20, 120, 120), "float32")
    assert_equal(accumulate([(dense, pruned)]), dense, pruned)


def test_constant_channels_have_no_variance_and_no_correlation(rng):
    dense, pruned = far_pair(rng, (8, 3, 5, 5), "float32")
    pruned[:, 1] = -7.125
    found = accumulate([(dense, pruned)])
    assert found.pruned.var[1] == 0
    assert found.pruned.mean[1] == -7.125
    assert found.correlation[1] == 0


def test_correlation_is_pearsons_clipped_to_positive(rng):
    dense, pruned = far_pair(rng, (8, 3, 20, 20), "float64")
    pruned[:, 2] = -pruned[:, 2]
    rho = accumulate([(dense, pruned)]).correlation
    columns = [np.corrcoef(dense[:, c].ravel(), pruned[:, c].ravel())[0, 1] for c in range(3)]
    assert columns[2] < -0.1
    np.testing.assert_allclose(rho, np.clip(columns, 0, 1), rtol=1e-5)


def test_neither_input_is_written_to(rng):
    dense, pruned = far_pair(rng, (4, 3, 5, 5), "float32")
    for array in (dense, pruned):
        array.flags.writeable = False
    accumulate([(dense, pruned)])


def test_what_cannot_be_paired_is_refused():
    ones = np.ones((2, 3, 4, 4), np.float32)
    with pytest.raises(ValueError, match="differ in shape"):
        paired_moments(ones, ones[:1])
    with pytest.raises(ValueError, match="no moments"):
        pooled([])
    few, many = (Moments(n, np.zeros(3), np.ones(3)) for n in (4, 5))
    with pytest.raises(ValueError, match="same, positive number"):
        PairedMoments(few, many, np.zeros(3))
