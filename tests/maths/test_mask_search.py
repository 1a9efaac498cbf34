"""Masks by what they cost a layer's output: sizes, patterns, and better than magnitude."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asr_onnx.maths.least_squares import refit
from asr_onnx.maths.mask_search import select
from asr_onnx.maths.masks import largest_mask, pattern_mask
from asr_onnx.maths.second_moments import Gram, GramSums


def problem(seed, groups=1, rows=4, k=16, positions=500, noise=0.0):
    """Moments of correlated patches with what ``old`` (G, R, K) gives on them; both."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(groups, positions, k)) @ rng.normal(size=(groups, k, k)) + 2.0
    old = rng.normal(size=(groups, rows, k))
    y = np.moveaxis(x @ old.transpose(0, 2, 1), 0, 1).reshape(positions, -1)
    sums = GramSums()
    sums.update(x.astype(np.float32), (y + noise * rng.normal(size=y.shape)).astype(np.float32))
    return sums.result(), old


def ones(old):
    return np.ones(old.shape[:2])


def error(gram: Gram, old, mask) -> float:
    """Squared error of the best rows with this mask."""
    return float(gram.error(refit(gram, old, mask, 1e-9)).sum())


@given(
    seed=st.integers(0, 2**32 - 1),
    groups=st.integers(1, 3),
    rows=st.integers(1, 4),
    density=st.floats(0, 1),
)
def test_as_many_stay_as_were_asked_for(seed, groups, rows, density):
    gram, old = problem(seed, groups, rows, k=8, positions=50)
    count = round(density * old.size)
    mask = select(gram, old, ones(old), partial(largest_mask, count=count))
    assert mask.shape == old.shape and mask.dtype == bool
    assert mask.sum() == count


@pytest.mark.parametrize("kept, group", [(2, 4), (1, 4), (4, 8)])
def test_every_group_of_a_pattern_keeps_its_number(kept, group):
    gram, old = problem(1, groups=2)
    mask = select(gram, old, ones(old), partial(pattern_mask, kept=kept, group=group))
    np.testing.assert_array_equal(mask.reshape(-1, group).sum(axis=1), kept)


@given(
    seed=st.integers(0, 2**32 - 1),
    powers=st.lists(st.integers(-6, 6), min_size=4, max_size=4),
    pattern=st.booleans(),
)
def test_a_rescaled_row_with_rescaled_importance_has_the_same_mask(seed, powers, pattern):
    """As when a BatchNormalization behind the layer divides by what was multiplied."""
    gram, old = problem(seed)
    factor = 2.0 ** np.array(powers)[None, :]
    scaled = Gram(
        gram.count,
        gram.inputs,
        gram.cross * factor[:, :, None],
        gram.mean_x,
        gram.mean_y * factor,
        gram.var_y * factor**2,
    )
    importance = np.random.default_rng(seed).uniform(0.5, 2, (1, 4))
    project = partial(pattern_mask, kept=2, group=4) if pattern else partial(largest_mask, count=20)
    np.testing.assert_array_equal(
        select(scaled, old * factor[:, :, None], importance / factor, project),
        select(gram, old, importance, project),
    )


@pytest.mark.parametrize("count", [12, 24, 40])
def test_the_selected_mask_costs_less_than_magnitudes(count):
    project = partial(largest_mask, count=count)
    chosen, plain = [], []
    for seed in range(8):
        gram, old = problem(seed)
        chosen.append(error(gram, old, select(gram, old, ones(old), project)))
        plain.append(error(gram, old, project(abs(old))))
    assert sum(c <= p for c, p in zip(chosen, plain, strict=True)) >= 7
    assert sum(chosen) < 0.85 * sum(plain)


def test_the_selected_pattern_costs_less_than_magnitudes():
    project = partial(pattern_mask, kept=2, group=4)
    chosen, plain = [], []
    for seed in range(8):
        gram, old = problem(seed)
        chosen.append(error(gram, old, select(gram, old, ones(old), project)))
        plain.append(error(gram, old, project(abs(old))))
    assert sum(chosen) < 0.85 * sum(plain)


@pytest.mark.parametrize("seed", range(5))
def test_the_true_support_of_a_sparse_regression_is_found(seed):
    """Old weights mislead: inputs of large variance have small weights."""
    rng = np.random.default_rng(seed)
    truth = np.zeros((1, 3, 20))
    for row in truth[0]:
        row[rng.choice(20, 4, replace=False)] = rng.choice([-1, 1], 4) * rng.uniform(1, 2, 4)
    mix = np.eye(20) + 0.3 * rng.normal(size=(20, 20)) / np.sqrt(20)
    x = rng.normal(size=(1, 2000, 20)) @ mix
    y = (x @ truth.transpose(0, 2, 1))[0] + 0.05 * rng.normal(size=(2000, 3))
    sums = GramSums()
    sums.update(x.astype(np.float32), y.astype(np.float32))
    old = truth + 0.4 * rng.normal(size=truth.shape)
    mask = select(sums.result(), old, ones(old), partial(largest_mask, count=12))
    np.testing.assert_array_equal(mask, truth != 0)


def test_an_important_row_keeps_more():
    gram, old = problem(3)
    project = partial(largest_mask, count=24)
    importance = np.array([[10.0, 1.0, 1.0, 1.0]])
    more = select(gram, old, importance, project)[0, 0].sum()
    assert more > select(gram, old, ones(old), project)[0, 0].sum()
