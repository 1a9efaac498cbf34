"""Ranges of activations, and what is left of values in them."""

from __future__ import annotations

import numpy as np
import pytest

from asr_onnx.maths.clipping import RANGES, Grid, Histogram, least_squares, percentile, whole

INT8, UINT8 = Grid(-127, 127, symmetric=True), Grid(0, 255, symmetric=False)


def histogram(values):
    found = Histogram.between(float(values.min()), float(values.max()))
    found.add(values)
    return found


@pytest.mark.parametrize("grid", [INT8, UINT8])
@pytest.mark.parametrize("rule", RANGES.values())
def test_zero_stays_zero_whatever_the_range(rng, rule, grid):
    for values in (rng.normal(size=1000), rng.exponential(size=1000), -rng.random(1000)):
        low, high = rule(histogram(values), grid)
        assert low <= 0 <= high
        assert grid.rounded(np.zeros(1), low, high) == 0


@pytest.mark.parametrize("grid", [INT8, UINT8])
def test_the_whole_range_is_rounded_by_half_a_step(rng, grid):
    values = rng.normal(size=1000)
    low, high = whole(histogram(values), grid)
    step, _ = grid.step(low, high)
    off = abs(grid.rounded(values, low, high) - values)
    assert off.max() <= (0.5 if grid.symmetric else 1.0) * step + 1e-9  # the zero is rounded, too


@pytest.mark.parametrize("grid", [INT8, UINT8])
def test_rare_large_values_are_cut_off_where_the_rest_gains_by_it(rng, grid):
    values = np.concatenate([rng.normal(size=100_000), [200.0]])
    found = histogram(values)

    def error(ends):
        return np.square(grid.rounded(values, *ends) - values).mean()

    assert error(least_squares(found, grid)) < 0.9 * error(whole(found, grid))
    assert percentile(found, grid)[1] < 10


def test_percentiles_leave_out_one_in_ten_thousand():
    values = np.linspace(-1.0, 3.0, 100_001)
    low, high = percentile(histogram(values), UINT8)
    assert (values < low).sum() + (values > high).sum() == pytest.approx(10, abs=50)
    low, high = percentile(histogram(values), INT8)
    assert low == pytest.approx(-1.0) and high == pytest.approx(3.0, abs=0.01)


def test_what_is_always_zero_has_a_scale_all_the_same():
    found = histogram(np.zeros(10))
    for rule in RANGES.values():
        for grid in (INT8, UINT8):
            assert grid.step(*rule(found, grid))[0] > 0
