"""Masked least squares: what the best surviving weights are, and what does not change them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asr_onnx.maths import least_squares
from asr_onnx.maths.least_squares import Refit, bias, refit, restore_variance, ridge
from asr_onnx.maths.masks import largest_mask
from asr_onnx.maths.second_moments import GramSums

TINY = 1e-9


def problem(rng, groups=1, rows=4, k=12, positions=600, noise=0.0, mean=1.0):
    """Correlated patches, rows, and what the rows give: (x, old, y, offset of the rows)."""
    x = rng.normal(size=(groups, positions, k)) @ rng.normal(size=(groups, k, k)) / np.sqrt(k)
    x = (x + mean * rng.normal(size=(groups, 1, k))).astype(np.float32)
    old, offset = rng.normal(size=(groups, rows, k)), rng.normal(size=groups * rows)
    y = outputs(x, old) + offset
    return x, old, (y + noise * rng.normal(size=y.shape)).astype(np.float32), offset


def outputs(x, rows):
    return np.moveaxis(x @ rows.transpose(0, 2, 1), 0, 1).reshape(x.shape[1], -1)


def moments(x, y, size=10_000):
    sums = GramSums()
    for start in range(0, len(y), size):
        sums.update(x[:, start : start + size], y[start : start + size])
    return sums.result()


def random_mask(rng, shape, density=0.4):
    return rng.random(shape) < density


WAY_NAMES = ("_Rows", "_Small", "_Gradients", "_Whole")


def solver(monkeypatch, name):
    """Make ``Refit`` use one of its ways; the list returned has the groups of each use."""
    used = []
    ways = {other: getattr(least_squares, other) for other in WAY_NAMES}

    def made(h, mask, workers):
        used.append(len(h))
        return ways[name](h, mask, workers)

    for other in WAY_NAMES:
        monkeypatch.setattr(least_squares, other, made)
    if name == "_Whole":  # where a factorisation fails
        monkeypatch.setattr(least_squares, "_Gradients", ways["_Gradients"])
    return used


WAYS = pytest.mark.parametrize("way", ["_Rows", "_Small", "_Gradients"])


@pytest.mark.parametrize("way", WAY_NAMES)
@pytest.mark.parametrize("groups, rows", [(1, 6), (3, 2), (8, 1)])
def test_a_full_mask_gives_the_dense_weights_back(rng, monkeypatch, way, groups, rows):
    used = solver(monkeypatch, way)
    x, old, y, offset = problem(rng, groups, rows, k=9)
    gram = moments(x, y)
    found = refit(gram, old, np.ones(old.shape, bool))
    assert sum(used) == groups
    np.testing.assert_allclose(found, old, atol=1e-4)
    np.testing.assert_allclose(bias(gram, found), offset, atol=1e-3)


@WAYS
def test_zeros_stay_zeros_and_empty_rows_too(rng, monkeypatch, way):
    solver(monkeypatch, way)
    x, old, y, _ = problem(rng, 2, 5)
    mask = random_mask(rng, old.shape)
    mask[1, 2] = False
    found = refit(moments(x, y), old, mask)
    assert not found[~mask].any()
    assert found[mask].all()


@given(seed=st.integers(0, 2**32 - 1), groups=st.integers(1, 3), density=st.floats(0.05, 0.9))
def test_more_weights_never_fit_worse(seed, groups, density):
    rng = np.random.default_rng(seed)
    x, old, y, _ = problem(rng, groups, noise=0.3)
    gram = moments(x, y)
    small = random_mask(rng, old.shape, density)
    large = small | random_mask(rng, old.shape, 0.3)
    errors = [gram.error(refit(gram, old, mask, TINY)) for mask in (small, large)]
    assert (errors[1] <= errors[0] * (1 + 1e-6) + 1e-6 * gram.var_y).all()
    assert errors[1].sum() < gram.error(np.where(large, old, 0.0)).sum() + 1e-6


def test_no_other_rows_with_the_mask_fit_better(rng):
    x, old, y, _ = problem(rng, 2, noise=0.3)
    gram, mask = moments(x, y), random_mask(rng, old.shape)
    best = refit(gram, old, mask, TINY)
    for _ in range(20):
        other = best + 0.01 * np.where(mask, rng.normal(size=old.shape), 0.0)
        assert (gram.error(other) >= gram.error(best) * (1 - 1e-9)).all()


def test_it_is_least_squares_with_an_intercept(rng):
    x, old, y, _ = problem(rng, 1, 3, noise=0.5, mean=20.0)
    gram, mask = moments(x, y), random_mask(rng, old.shape)
    found = refit(gram, old, mask, TINY)
    offset = bias(gram, found)
    for row in range(3):
        kept = np.flatnonzero(mask[0, row])
        design = np.column_stack([x[0][:, kept], np.ones(len(y))]).astype(np.float64)
        wanted = np.linalg.lstsq(design, y[:, row].astype(np.float64), rcond=None)[0]
        np.testing.assert_allclose(found[0, row, kept], wanted[:-1], atol=2e-3)
        np.testing.assert_allclose(
            design @ [*found[0, row, kept], offset[row]], design @ wanted, atol=2e-3
        )


@pytest.mark.parametrize("size", [7, 100])
def test_neither_batches_nor_order_change_the_solution_beyond_rounding(rng, size):
    x, old, y, _ = problem(rng, 2, noise=0.3, mean=30.0)
    mask, order = random_mask(rng, old.shape), rng.permutation(len(y))
    whole = refit(moments(x, y), old, mask)
    parts = refit(moments(x[:, order], y[order], size), old, mask)
    np.testing.assert_allclose(parts, whole, atol=1e-4 * abs(whole).max())


@WAYS
def test_rescaling_an_output_channel_rescales_its_solution_alone(rng, monkeypatch, way):
    solver(monkeypatch, way)
    x, old, y, _ = problem(rng, 2, 3, noise=0.3)
    factors = np.array([1.0, 8.0, 0.125, -2.0, 1.0, 0.5])  # exact in binary
    mask = random_mask(rng, old.shape)
    gram, scaled = moments(x, y), moments(x, y * factors.astype(np.float32))
    by_row = factors.reshape(2, 3, 1)
    one, other = refit(gram, old, mask), refit(scaled, old * by_row, mask)
    np.testing.assert_allclose(other, one * by_row, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(bias(scaled, other), bias(gram, one) * factors, atol=1e-3)


def test_groups_do_not_meet(rng):
    x, old, y, _ = problem(rng, 3, 2, noise=0.3)
    mask = random_mask(rng, old.shape)
    together = refit(moments(x, y), old, mask)
    for g in range(3):
        alone = refit(moments(x[g : g + 1], y[:, 2 * g : 2 * g + 2]), old[[g]], mask[[g]])
        np.testing.assert_allclose(together[g], alone[0], rtol=1e-9, atol=1e-12)


@given(seed=st.integers(0, 2**32 - 1), rows=st.integers(1, 8), density=st.floats(0.1, 1.0))
def test_all_ways_agree(seed, rows, density):
    rng = np.random.default_rng(seed)
    x, old, y, _ = problem(rng, 2, rows, k=24, noise=0.2)
    gram, mask = moments(x, y), random_mask(rng, old.shape, density)
    d = ridge(gram)
    h, right = gram.inputs + d * np.eye(24), gram.cross + d * old
    start = np.where(mask, old, 0.0)
    exact, small, cg = (
        getattr(least_squares, way)(h, mask, 1)(right, start)
        for way in ("_Rows", "_Small", "_Gradients")
    )
    np.testing.assert_allclose(small, exact, rtol=1e-7, atol=1e-9)
    residual = np.linalg.norm(np.where(mask, right - cg @ h, 0.0), axis=2)
    assert (residual <= 1.01e-5 * np.linalg.norm(np.where(mask, right, 0.0), axis=2)).all()
    change = np.linalg.norm(cg - exact, axis=2)
    worst = max(np.linalg.cond(part) for part in h)
    assert (change <= 1e-5 * worst * np.linalg.norm(exact, axis=2) + 1e-12).all()


def test_the_cheaper_way_is_taken(rng, monkeypatch):
    taken = []
    for name in WAY_NAMES:
        way = getattr(least_squares, name)

        def made(h, mask, workers, name=name, way=way):
            taken.append((name, len(h)))
            return way(h, mask, workers)

        monkeypatch.setattr(least_squares, name, made)
    x, old, y, _ = problem(rng, 5, 3, k=400, positions=900)
    mask = np.zeros(old.shape, bool)
    mask[0, :, :20] = mask[1, 0, :3] = True  # few survivors
    mask[2, :, :100] = True
    mask[3, :, 1:] = True
    mask[4] = True
    refit(moments(x, y), old, mask)
    assert sorted(set(taken)) == [("_Gradients", 1), ("_Rows", 1), ("_Small", 2), ("_Whole", 1)]


def test_full_rows_share_a_factorisation(rng, monkeypatch):
    x, old, y, _ = problem(rng, 2, 3, k=40, positions=900)
    whole = np.ones(old.shape, bool)
    wanted = refit(moments(x, y), old, whole)
    solver(monkeypatch, "_Rows")
    np.testing.assert_allclose(refit(moments(x, y), old, whole), wanted, rtol=1e-9, atol=1e-12)


@WAYS
@pytest.mark.parametrize("kept", [0, 1 << 25])
def test_other_targets_are_fitted_as_the_first(rng, monkeypatch, way, kept):
    monkeypatch.setattr(least_squares, "_KEPT", kept)
    solver(monkeypatch, way)
    x, old, y, _ = problem(rng, 2, 3, noise=0.3)
    mask, gram, other = random_mask(rng, old.shape), moments(x, y), moments(x, 2 * y[:, ::-1])
    fit = Refit(gram, old, mask)
    first = fit(gram.cross)
    found = fit(other.cross, start=first)
    np.testing.assert_allclose(found, refit(other, old, mask), rtol=1e-3, atol=1e-4)
    np.testing.assert_array_equal(fit(gram.cross), first)


def test_a_dead_input_keeps_the_old_weights(rng):
    x, old, _, _ = problem(rng, 1, 3)
    x[:] = 5.0
    y = np.full((x.shape[1], 3), 2.0, np.float32)
    mask = random_mask(rng, old.shape)
    gram = moments(x, y)
    found = refit(gram, old, mask)
    np.testing.assert_allclose(found, np.where(mask, old, 0.0), rtol=1e-6)
    np.testing.assert_allclose(outputs(x, found)[0] + bias(gram, found), 2.0, atol=1e-5)


def test_the_ridge_leads_from_the_best_fit_to_the_old_weights(rng):
    x, old, y, _ = problem(rng, 1, 3, noise=0.3)
    gram, mask = moments(x, y), random_mask(rng, old.shape)
    kept = np.where(mask, old, 0.0)
    fits = [refit(gram, old, mask, share) for share in (TINY, 0.1, 10.0, 1e7)]
    errors = [gram.error(f).sum() for f in fits]
    distances = [np.linalg.norm(f - kept) for f in fits]
    assert errors == sorted(errors) and distances == sorted(distances, reverse=True)
    np.testing.assert_allclose(fits[-1], kept, atol=1e-4)


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
def test_the_variance_comes_back_by_its_power(rng, power):
    x, old, y, _ = problem(rng, 2, 3, noise=0.3)
    gram = moments(x, y)
    rows = refit(gram, old, largest_mask(abs(old), old.size // 5))
    before = gram.output_variance(rows) / gram.var_y
    assert (before < 0.95).any(), "nothing to restore"
    after = gram.output_variance(restore_variance(rows, gram, power)) / gram.var_y
    np.testing.assert_allclose(after, np.where(before > 0, before ** (1 - power), 0), rtol=1e-6)


def test_a_dead_row_has_no_variance_to_restore(rng):
    x, old, y, _ = problem(rng)
    old[0, 1] = 0
    np.testing.assert_array_equal(restore_variance(old, moments(x, y), 1.0)[0, 1], 0)
