"""What removing weights is told to cost, and the densities that follow."""

from __future__ import annotations

import numpy as np
import pytest

from asr_onnx.errors import UsageError
from asr_onnx.maths.densities import BY_ERROR, allocate, by_error
from asr_onnx.maths.least_squares import refit
from asr_onnx.maths.mask_search import select
from asr_onnx.maths.masks import largest_mask
from asr_onnx.maths.removal import GRID, removal_errors
from asr_onnx.maths.second_moments import GramSums


def layer(rng, rows=12, k=40, groups=1, redundant=0.0):
    """Second moments and rows of a layer; ``redundant`` inputs say what others say."""
    mixing = rng.normal(size=(groups, k, k)) / np.sqrt(k)
    mixing *= np.where(np.arange(k) < redundant * k, 0.05, 1.0)[:, None]
    x = (rng.normal(size=(groups, 4000, k)) @ mixing).astype(np.float32)
    w = rng.normal(size=(groups, rows, k))
    y = np.moveaxis(x @ w.transpose(0, 2, 1), 0, 1).reshape(4000, -1)
    sums = GramSums()
    sums.update(x, y.astype(np.float32))
    return sums.result(), w


@pytest.mark.parametrize("groups, rows", [(1, 12), (6, 1)])
@pytest.mark.parametrize("density", [0.3, 0.4, 0.5])
@pytest.mark.parametrize("redundant, bound", [(0.25, 2.5), (0.5, 4)])
def test_it_is_about_what_a_search_and_a_re_fit_leave(rng, groups, rows, density, redundant, bound):
    gram, w = layer(rng, rows=rows, groups=groups, redundant=redundant)
    equal = np.ones(w.shape[:2])
    told = np.interp(density, GRID, removal_errors(gram, w, equal))
    mask = select(gram, w, equal, lambda s: largest_mask(s, round(density * s.size)))
    left = gram.error(refit(gram, w, mask)).sum() / gram.var_y.sum()
    assert 0.4 < told / left < bound  # of redundant inputs a search makes more than is told


def test_nothing_gone_costs_nothing_and_all_of_it_everything(rng):
    gram, w = layer(rng)
    told = removal_errors(gram, w, np.ones(w.shape[:2]))
    assert told[-1] == 0 and told[0] == pytest.approx(1)
    assert (np.diff(told) <= 1e-12).all()


def test_the_scale_of_a_layer_does_not_matter_and_importance_does(rng):
    gram, w = layer(rng)
    weights = np.ones(w.shape[:2])
    weights[:, 0] = 100
    equal = removal_errors(gram, w, np.ones(w.shape[:2]))
    np.testing.assert_allclose(removal_errors(gram, w, np.full(w.shape[:2], 7.0)), equal)
    alone = removal_errors(gram, w, weights)
    assert np.interp(0.9, GRID, alone) < np.interp(0.9, GRID, equal)  # the other rows are free


def test_a_layer_that_says_nothing_costs_nothing(rng):
    gram, w = layer(rng)
    assert not removal_errors(gram, w, np.zeros(w.shape[:2])).any()


def test_what_can_spare_weights_gives_more(rng):
    names = {"plain": 0.0, "redundant": 0.8}
    found = {n: layer(rng, redundant=r) for n, r in names.items()}
    errors = {n: removal_errors(g, w, np.ones(w.shape[:2])) for n, (g, w) in found.items()}
    weights = {n: w[0] for n, (_, w) in found.items()}
    for sparsity in (0.5, 0.8):
        keep = allocate(weights, sparsity, by_error(errors))
        total = sum(w.size for w in weights.values())
        assert sum(keep.values()) == total - round(sparsity * total)
        assert keep["redundant"] < 0.8 * keep["plain"]
        assert keep["redundant"] >= 0.15 * (1 - sparsity) * weights["redundant"].size


def test_without_a_pass_of_the_network_nothing_is_known(rng):
    with pytest.raises(UsageError, match="needs a pass of the dense network"):
        allocate({"w": rng.normal(size=(4, 4))}, 0.5, BY_ERROR)
