"""Masks: exact counts, stable ties, and a criterion that ignores the scale of a row."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from models import bare_net, build, copied, norm_net, norm_weights, normal, stored

from asr_onnx.errors import UsageError
from asr_onnx.graph.sites import find_sites
from asr_onnx.maths.masks import check_sparsity, global_masks, row_norms, smallest, zero_count
from asr_onnx.options import PruneOptions
from asr_onnx.pruning.choose import magnitude, magnitude_masks, prune, rows_are_rescaled

few_values = hnp.arrays(np.float64, st.integers(1, 60), elements=st.sampled_from([0.0, 1.0, 2.0]))


def masks_of(model, **options):
    return magnitude_masks(find_sites(model).sites, PruneOptions(**options))


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
    assert zero_count(masks) == zero_count(list(masks.values())) == round(sparsity * total)
    kept = [s for n, a in scores.items() for s in a[masks[n]]]
    dropped = [s for n, a in scores.items() for s in a[~masks[n]]]
    assert not kept or not dropped or max(dropped) <= min(kept)


def test_equal_scores_drop_from_the_front():
    masks = global_masks({"a": np.ones((2, 3)), "b": np.ones(4)}, 0.7)
    np.testing.assert_array_equal(masks["a"], np.zeros((2, 3), bool))
    np.testing.assert_array_equal(masks["b"], [False, True, True, True])


def test_half_a_million_weights_at_0_9(rng):
    masks = global_masks({"w": rng.random((500, 1000)).astype(np.float32)}, 0.9)
    assert zero_count(masks) == 450_000


def test_masks_do_not_change_from_run_to_run(rng):
    model = norm_net(rng)
    first, second = masks_of(model, sparsity=0.6), masks_of(model, sparsity=0.6)
    assert first.keys() == second.keys()
    for name in first:
        np.testing.assert_array_equal(first[name], second[name])


def rescaled(model, rng):
    """A copy with every output channel of w1 and w2 multiplied by a power of two."""
    weights = {n: w for n, w in stored(model).items() if n in ("w1", "w2")}
    factors = (2.0 ** rng.integers(-3, 4, (len(w), 1, 1, 1)) for w in weights.values())
    scaled = (w * f.astype("f4") for w, f in zip(weights.values(), factors, strict=True))
    return copied(model, **dict(zip(weights, scaled, strict=True)))


@pytest.mark.parametrize("row_scale", ["normalize", "auto"])
def test_rescaled_rows_leave_the_normalised_mask_as_it_is(rng, row_scale):
    model = bare_net(rng)
    other = rescaled(model, rng)
    for name, mask in masks_of(model, sparsity=0.7, row_scale=row_scale).items():
        np.testing.assert_array_equal(
            masks_of(other, sparsity=0.7, row_scale=row_scale)[name], mask
        )


def test_plain_magnitude_does_see_the_scale_of_a_row(rng):
    model = bare_net(rng)
    masks, others = (
        masks_of(m, sparsity=0.7, row_scale="keep") for m in (model, rescaled(model, rng))
    )
    assert any((masks[n] != others[n]).any() for n in masks)


def test_auto_normalises_only_where_batch_normalisation_was_folded(rng):
    folded, kept = (find_sites(net(rng)).sites for net in (bare_net, norm_net))
    assert rows_are_rescaled(folded) and not rows_are_rescaled(kept)
    for sites, normal_rows in ((folded, True), (kept, False)):
        auto = magnitude_masks(sites, PruneOptions(sparsity=0.5))
        word = "normalize" if normal_rows else "keep"
        same = magnitude_masks(sites, PruneOptions(sparsity=0.5, row_scale=word))
        assert all((auto[n] == same[n]).all() for n in auto)


def test_normalised_rows_have_norm_1_and_a_zero_row_stays_zero(rng):
    weights = normal(rng, 4, 3, 3, 3)
    weights[2] = 0
    model = build("g (float[N,3,8,8] x) => (float[N,4,6,6] y) { y = Conv (x, w) }", {"w": weights})
    rows = magnitude(find_sites(model).sites[0], normalize=True).reshape(4, -1)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), [1, 1, 0, 1], rtol=1e-12)
    assert row_norms(weights).shape == (4, 1, 1, 1)


@pytest.mark.parametrize("sparsity", [-0.1, 1.0, 1.5, float("nan"), float("inf")])
def test_a_sparsity_outside_0_to_1_is_refused(sparsity):
    for refuse in (
        check_sparsity,
        lambda s: global_masks({}, s),
        lambda s: PruneOptions(sparsity=s),
    ):
        with pytest.raises(UsageError, match="outside"):
            refuse(sparsity)


def test_excluded_sites_stay_whole_and_the_others_bear_all(rng):
    masks = masks_of(norm_net(rng), sparsity=0.5, exclude="w1")
    assert masks["w1"].all()
    assert zero_count([masks["w2"]]) == masks["w2"].size // 2


def test_prune_zeroes_the_mask_and_touches_nothing_else(rng):
    model = norm_net(rng)
    pruned = prune(model, PruneOptions(sparsity=0.6))
    masks = masks_of(model, sparsity=0.6)
    before, after = stored(model), stored(pruned)
    for name, value in before.items():
        wanted = np.where(masks[name], value, 0) if name in masks else value
        assert wanted.tobytes() == after[name].tobytes()
    for proto in (model, pruned):
        del proto.graph.initializer[:]
    assert model.SerializeToString() == pruned.SerializeToString()


def test_sparsity_0_gives_the_same_bytes(rng):
    model = norm_net(rng)
    assert prune(model, PruneOptions(sparsity=0)).SerializeToString() == model.SerializeToString()


def test_weights_that_were_zero_count(rng):
    weights = normal(rng, 10, 10, 1, 1) + 5
    weights.ravel()[:30] = 0
    graph = "g (float[N,10,4,4] x) => (float[N,10,4,4] y) { c = Conv (x, w)\n"
    graph += "y = BatchNormalization (c, s, b, m, v) }"
    model = build(graph, {"w": weights} | norm_weights(rng, 10))
    pruned = stored(prune(model, PruneOptions(sparsity=0.5)))["w"]
    assert np.count_nonzero(pruned) == 50
    assert not pruned.ravel()[:30].any()
