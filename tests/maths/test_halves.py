"""Two halves of the samples: all of them, none twice, and of each label as many."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from asr_onnx.maths.halves import halves

LABELS = st.lists(st.integers(0, 5), min_size=2, max_size=80).map(np.array)


@given(LABELS, st.integers(0, 9))
def test_halves_share_out_all_samples_and_each_label_evenly(labels, seed):
    one, two = halves(labels, seed)
    assert sorted([*one, *two]) == list(range(len(labels)))
    assert 0 <= len(one) - len(two) <= 1
    for label in range(6):
        assert abs(int((labels[one] == label).sum() - (labels[two] == label).sum())) <= 1
    assert all((np.diff(half) > 0).all() for half in (one, two))


@given(LABELS, st.integers(0, 9))
def test_halves_follow_from_the_seed(labels, seed):
    assert all(map(np.array_equal, halves(labels, seed), halves(labels, seed)))


def test_another_seed_draws_others():
    labels = np.zeros(40, np.int64)
    assert not np.array_equal(halves(labels, 0)[0], halves(labels, 1)[0])
