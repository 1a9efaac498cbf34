"""Rounding to integers: on the grid, within the mask, and never worse than each by itself."""

from __future__ import annotations

import numpy as np
import pytest

from asr_onnx.maths.rounding import nearest, rounded, scales


def problem(rng, groups=2, rows=5, k=40):
    mixed = rng.normal(size=(groups, 4 * k, k)) @ (np.eye(k) + rng.normal(size=(k, k)) / 4)
    inputs = mixed.transpose(0, 2, 1) @ mixed / (4 * k)
    weights = rng.normal(size=(groups, rows, k))
    mask = rng.random(weights.shape) < 0.6
    return np.where(mask, weights, 0.0), mask, inputs


def error(found, rows, inputs):
    return np.vecdot((found - rows) @ inputs, found - rows)


def power(inputs):
    return np.diagonal(inputs, axis1=1, axis2=2)


@pytest.mark.parametrize("k", [40, 300])  # one block, several
@pytest.mark.parametrize("limit", [7, 127])
def test_each_row_is_at_least_as_good_as_rounded_weight_by_weight(rng, limit, k):
    rows, mask, inputs = problem(rng, k=k)
    step = scales(rows, power(inputs), limit)
    plain, found = nearest(rows, step, limit), rounded(rows, mask, inputs, step, limit)
    before, after = error(plain, rows, inputs), error(found, rows, inputs)
    assert (after <= before * (1 + 1e-9)).all()
    assert after.sum() < 0.9 * before.sum()


def test_what_comes_out_is_integers_times_the_scale_within_the_mask(rng):
    rows, mask, inputs = problem(rng)
    step = scales(rows, power(inputs), 127)
    found = rounded(rows, mask, inputs, step, 127)
    integers = found / step[:, :, None]
    np.testing.assert_allclose(integers, np.rint(integers), atol=1e-9)
    assert abs(integers).max() <= 127 + 1e-9
    assert not found[~mask].any()
    np.testing.assert_array_equal(step.astype(np.float32), step)  # what the file can hold


def test_a_fine_grid_leaves_weights_as_they_are(rng):
    rows, mask, inputs = problem(rng)
    limit = (1 << 15) - 1
    step = scales(rows, power(inputs), limit)
    np.testing.assert_allclose(rounded(rows, mask, inputs, step, limit), rows, atol=2e-4)


def test_a_scale_costs_no_more_than_one_that_reaches_the_largest_weight(rng):
    rows, _, inputs = problem(rng)
    widest = abs(rows).max(axis=2) / 7
    found = scales(rows, power(inputs), 7)
    weighed = [
        (np.square(nearest(rows, s, 7) - rows) * power(inputs)[:, None]).sum(axis=2)
        for s in (found, widest)
    ]
    assert (weighed[0] <= weighed[1] * (1 + 1e-6)).all()
    assert (found < widest * (1 - 1e-3)).any()


def test_groups_that_share_their_scales_have_the_widest(rng):
    rows, _, inputs = problem(rng)
    alone, shared = (scales(rows, power(inputs), 127, shared=s) for s in (False, True))
    np.testing.assert_array_equal(shared, np.broadcast_to(alone.max(axis=0), alone.shape))


def test_rows_and_inputs_that_are_dead_do_no_harm(rng):
    rows, mask, inputs = problem(rng)
    rows[0, 0], mask[0, 0] = 0.0, False
    inputs[:, 3], inputs[:, :, 3] = 0.0, 0.0
    step = scales(rows, power(inputs), 127)
    found = rounded(rows, mask, inputs, step, 127)
    assert np.isfinite(found).all() and np.isfinite(step).all() and (step > 0).all()
    assert not found[0, 0].any()
