"""Intervals and paired tests against published values and the definitions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asr_onnx.maths.intervals import (
    accuracy,
    drop_interval,
    mcnemar,
    paired_test,
    top_hits,
    wilson,
)

COUNTS = st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


@pytest.mark.parametrize(
    "correct, total, low, high",
    [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_gives_the_values_of_newcombe_1998(correct, total, low, high):
    assert wilson(correct, total) == pytest.approx((low, high), abs=5e-5)


@given(COUNTS)
def test_wilson_is_the_score_test_inverted(counts):
    correct, total = counts
    share, z2 = correct / total, 1.959963984540054**2
    for bound in wilson(correct, total):
        assert (share - bound) ** 2 == pytest.approx(z2 * bound * (1 - bound) / total, abs=1e-12)


@given(COUNTS)
def test_wilson_of_the_misses_is_the_mirror_image(counts):
    correct, total = counts
    low, high = wilson(correct, total)
    assert wilson(total - correct, total) == pytest.approx((1 - high, 1 - low))


@pytest.mark.parametrize("correct, total", [(0, 0), (3, 2), (-1, 2)])
def test_wilson_refuses_what_is_no_share(correct, total):
    with pytest.raises(ValueError):
        wilson(correct, total)


def test_mcnemar_is_the_two_sided_binomial_tail():
    assert mcnemar(1, 9) == pytest.approx(2 * (1 + 10) / 2**10)
    assert mcnemar(0, 6) == pytest.approx(2 / 2**6)
    assert mcnemar(0, 0) == 1


@given(st.integers(0, 200), st.integers(0, 200))
def test_mcnemar_is_symmetric_and_sees_no_difference_in_equal_counts(one, two):
    assert mcnemar(one, two) == pytest.approx(mcnemar(two, one))
    assert mcnemar(one, one) == pytest.approx(1)


def test_a_paired_test_counts_who_alone_is_right(rng):
    first, second = rng.random(500) < 0.7, rng.random(500) < 0.9
    test = paired_test(first, second)
    gain = int(second.sum()) - int(first.sum())
    assert test.second_only - test.first_only == gain > 0
    assert test.first_only == sum(a and not b for a, b in zip(first, second, strict=True))
    assert test.p_value == mcnemar(test.first_only, test.second_only)
    assert test.significant and str(test).startswith("significantly better on 500 images")
    assert str(paired_test(second, first)).startswith("significantly worse")
    with pytest.raises(ValueError, match="not paired"):
        paired_test(first, second[1:])


def test_a_model_is_not_distinguishable_from_itself(rng):
    hits = rng.random(40) < 0.5
    test = paired_test(hits, hits)
    assert (test.p_value, test.significant) == (1, False)
    assert "not distinguishable on 40 images" in str(test)


def test_an_accuracy_lies_in_its_interval(rng):
    found = accuracy(rng.random(300) < 0.8)
    assert found.low < found.share < found.high
    assert (found.low, found.high) == wilson(found.correct, 300)


@pytest.mark.parametrize("k", [1, 2, 5])
def test_top_hits_are_what_a_stable_sort_says(rng, k):
    scores = rng.integers(0, 4, (200, 6)).astype(np.float32)  # with many ties
    labels = rng.integers(0, 6, 200)
    best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    wanted = (best == labels[:, None]).any(axis=1)
    np.testing.assert_array_equal(top_hits(scores, labels, k), wanted)


def test_nan_is_no_hit_and_beats_nothing():
    scores = np.array([[np.nan, 1.0, 0.0], [np.nan, np.nan, np.nan]])
    assert top_hits(scores, np.array([1, 1]), 1).tolist() == [True, False]
    assert top_hits(scores, np.array([0, 0]), 3).tolist() == [False, False]


def tables(*counts):
    """Hits of two models: both right, the first alone, the second alone, neither, so often."""
    first, second = zip((1, 1), (1, 0), (0, 1), (0, 0), strict=True)
    return np.repeat(first, counts).astype(bool), np.repeat(second, counts).astype(bool)


@pytest.mark.parametrize(
    "counts, low, high",
    [
        ((36, 12, 2, 0), 0.0569, 0.3404),  # Newcombe 1998
        ((1, 1, 7, 12), -0.507, -0.026),  # Fagerland, Lydersen, Laake 2014
    ],
)
def test_the_interval_of_a_drop_has_the_published_values(counts, low, high):
    assert drop_interval(*tables(*counts)) == pytest.approx((low, high), abs=6e-4)


@given(st.tuples(*[st.integers(0, 60)] * 4).filter(any))
def test_the_interval_of_a_drop_holds_it_and_is_mirrored_by_the_other_order(counts):
    first, second = tables(*counts)
    low, high = drop_interval(first, second)
    assert -1 - 1e-9 <= low <= first.mean() - second.mean() <= high <= 1 + 1e-9
    assert drop_interval(second, first) == pytest.approx((-high, -low))
    assert drop_interval(~first, ~second) == pytest.approx((-high, -low))


def test_agreement_of_the_models_makes_the_interval_of_a_drop_narrower():
    widths = [np.ptp(drop_interval(*tables(40 - n, n, n, 40 - n))) for n in range(0, 41, 10)]
    assert sorted(widths) == widths and widths[0] < widths[-1]
