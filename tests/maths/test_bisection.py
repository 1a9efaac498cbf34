"""The search for the largest amount that passes: exact, sparing, and watchful."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asr_onnx.maths.bisection import search
from asr_onnx.repairing.amount_search import STEPS
from asr_onnx.repairing.trials import AMOUNTS, POINTS


def ends(steps):
    """The largest amount that passed and the smallest that failed."""
    passed = [s.amount for s in steps if s.passed]
    failed = [s.amount for s in steps if not s.passed]
    return max(passed, default=None), min(failed, default=None)


@given(st.integers(1, 300), st.data())
def test_where_passing_is_monotone_the_largest_that_passes_is_found(high, data):
    limit = data.draw(st.integers(0, high - 1))
    first = data.draw(st.none() | st.integers(1, high - 1)) if high > 1 else None
    steps = search(lambda amount: amount <= limit, 0, high, first, 1000)
    passed, failed = ends(steps)
    assert passed == (limit or None)
    assert failed == (limit + 1 if limit + 1 < high else None)
    assert all(s.passed == (s.amount <= limit) for s in steps)
    assert len({s.amount for s in steps}) == len(steps) <= high.bit_length() + 2


@pytest.mark.parametrize("limit", range(POINTS))
def test_so_many_steps_as_are_allowed_close_the_gap_wherever_it_is(limit):
    passed, failed = ends(
        search(lambda amount: amount <= limit, 0, POINTS, AMOUNTS["sparsity"].first, STEPS)
    )
    assert (passed or 0, failed or POINTS) == (limit, limit + 1)


@given(st.integers(0, 99), st.integers(1, 12))
def test_no_more_is_tried_than_is_allowed(limit, most):
    full = search(lambda amount: amount <= limit, 0, 100, 75, 100)
    assert search(lambda amount: amount <= limit, 0, 100, 75, most) == full[:most]


def test_what_passes_above_the_smallest_that_failed_is_found_and_gone_on_from():
    steps = search(lambda amount: amount <= 80 or 82 <= amount <= 84, 0, 100, 75, 20)
    assert [s.amount for s in steps if not s.passed] == [87, 81, 85, 86]
    assert ends(steps) == (84, 81)


@given(st.sets(st.integers(1, 99)), st.integers(1, 60))
def test_whatever_passes_no_amount_is_tried_twice_and_the_search_ends(passing, most):
    steps = search(lambda amount: amount in passing, 0, 100, 75, most)
    assert len({s.amount for s in steps}) == len(steps) <= most
    assert all(0 < s.amount < 100 and s.passed == (s.amount in passing) for s in steps)


def test_a_first_amount_that_is_known_already_is_refused():
    with pytest.raises(ValueError, match="100 is not between 0 and 100"):
        search(lambda _: True, 0, 100, 100, 5)
