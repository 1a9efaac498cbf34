"""What is removed costs least for what it saves, and the budget holds."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asr_onnx.errors import UsageError
from asr_onnx.maths.widths import Costs, allocate


def chain(*widths, units=None):
    """Products between neighbours of a chain; ends of 3 and 10 channels."""
    count = len(widths)
    reads, makes = np.zeros((count + 1, count + 1)), np.zeros((count + 1, count + 1))
    reads[0, -1], makes[-1, -1] = 3, 10
    for n in range(count):
        makes[n, n] = reads[n + 1, n] = 1
    return Costs(np.ones(count + 1) if units is None else np.array(units), reads, makes)


def test_what_products_cost():
    costs = chain(4, 6, units=[2.0, 1.0, 1.0])
    assert costs(np.array([4, 6])) == 2 * 3 * 4 + 4 * 6 + 6 * 10
    kept = np.array([3, 5])
    saved = costs.saved(kept, 0, np.array([1, 2]))
    assert saved.tolist() == [costs(kept) - costs(np.array([n, 5])) for n in (1, 2)]


def test_a_product_within_a_group_is_saved_from_both_ends():
    costs = Costs(np.ones(1), np.array([[1.0, 0.0]]), np.array([[1.0, 0.0]]))
    assert costs.saved(np.array([5]), 0, np.array([2])).tolist() == [25 - 4]


@given(st.data())
def test_the_budget_holds_and_no_group_keeps_what_fits_not(data):
    widths = data.draw(st.lists(st.integers(1, 12), min_size=1, max_size=4))
    step = data.draw(st.sampled_from([1, 2, 4]))
    losses = [
        np.cumsum([0.0, *data.draw(st.lists(st.floats(0, 1), min_size=w, max_size=w))])
        for w in widths
    ]
    costs = chain(*widths)
    least = np.array([min(step, w) for w in widths])
    share = data.draw(st.floats(0, 1))
    budget = costs(least) + share * (costs(np.array(widths)) - costs(least))
    kept = allocate(losses, costs, budget, [step] * len(widths))
    assert costs(kept) <= budget * (1 + 1e-6)
    for k, w in zip(kept.tolist(), widths, strict=True):
        assert k == w or (k % step == 0 and k > 0)


def test_it_is_as_good_as_trying_all_where_that_can_be_done(rng):
    worse = []
    for _ in range(20):
        widths = [6, 5, 7]
        losses = [np.cumsum(np.sort(rng.uniform(size=w + 1)) * [0, *[1] * w]) for w in widths]
        costs = chain(*widths)
        budget = 0.5 * costs(np.array(widths))
        kept = allocate(losses, costs, budget, [1, 1, 1])

        def lost(kept, losses=losses, widths=widths):
            return sum(e[w - k] for e, w, k in zip(losses, widths, kept, strict=True))

        every = product(*(range(1, w + 1) for w in widths))
        best = min(lost(k) for k in every if costs(np.array(k)) <= budget)
        worse.append(lost(kept) / best)
    assert np.median(worse) < 1.1
    assert max(worse) < 1.6


def test_what_cannot_be_reached_is_said():
    with pytest.raises(UsageError, match=r"no more than 7\d\.\d % can go"):
        allocate([np.arange(9.0)], chain(8), 1.0, [2])
