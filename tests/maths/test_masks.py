"""Masks: exact counts and stable ties."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from asr_onnx.errors import UsageError
from asr_onnx.maths.masks import check_sparsity, global_masks, smallest
from asr_onnx.options import PruneOptions

few_values = hnp.arrays(np.float64, st.integers(1, 60), elements=st.sampled_from([0.0, 1.0, 2.0]))


@given(few_values, st.data())
def test_smallest_is_a_stable_sort(scores, data):
    count = data.draw(st.integers(0, scores.size))
    wanted = np.zeros(scores.size, bool)
    wanted[np.argsort(scores, kind="stable")[:count]] = True
    np.testing.assert_array_equal(smallest(scores, count), wanted)


@given(st.lists(few_values, min_size=1, max_size=4), st.floats(0, 1, exclude_max=True))
def test_the_count_over_all_sites_is_exact(arrays, sparsity):
    scores = {str(i): a for i, a in enumerate(arrays)}
    total = sum(a.size for a in arrays)
    masks = global_masks(scores, sparsity)
    assert sum(np.count_nonzero(~m) for m in masks.values()) == round(sparsity * total)
    kept = [s for n, a in scores.items() for s in a[masks[n]]]
    dropped = [s for n, a in scores.items() for s in a[~masks[n]]]
    assert not kept or not dropped or max(dropped) <= min(kept)


signed = st.sampled_from([-np.inf, -2.0, -1.5, -0.0, 0.0, 1e-7, 1.0, 3.0, np.inf])


@given(
    st.sampled_from([np.float16, np.float32, np.float64]).flatmap(
        lambda kind: st.lists(
            hnp.arrays(kind, st.integers(1, 40), elements=signed.map(kind)), min_size=1, max_size=4
        )
    ),
    st.floats(0, 1, exclude_max=True),
)
def test_over_all_sites_it_is_a_stable_sort_too(arrays, sparsity):
    masks = global_masks({str(i): a for i, a in enumerate(arrays)}, sparsity)
    flat = np.concatenate(arrays)
    np.testing.assert_array_equal(
        np.concatenate(list(masks.values())), ~smallest(flat, round(sparsity * flat.size))
    )


def test_equal_scores_drop_from_the_front():
    masks = global_masks({"a": np.ones((2, 3)), "b": np.ones(4)}, 0.7)
    np.testing.assert_array_equal(masks["a"], np.zeros((2, 3), bool))
    np.testing.assert_array_equal(masks["b"], [False, True, True, True])


def test_half_a_million_weights_at_0_9(rng):
    masks = global_masks({"w": rng.random((500, 1000)).astype(np.float32)}, 0.9)
    assert np.count_nonzero(~masks["w"]) == 450_000


@pytest.mark.parametrize("sparsity", [-0.1, 1.0, 1.5, float("nan"), float("inf")])
def test_a_sparsity_outside_0_to_1_is_refused(sparsity):
    for refuse in (
        check_sparsity,
        lambda s: global_masks({}, s),
        lambda s: PruneOptions(sparsity=s),
    ):
        with pytest.raises(UsageError, match="outside"):
            refuse(sparsity)
