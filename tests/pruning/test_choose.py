"""Which sites are pruned, and masks by a score that may ignore the scale of a row."""

from __future__ import annotations

import numpy as np
import pytest
from models import bare_net, build, copied, norm_net, norm_weights, normal, stored

from asr_onnx import PruneOptions, UsageError, prune
from asr_onnx.graph.sites import find_sites
from asr_onnx.maths.masks import row_norms
from asr_onnx.pruning.choose import (
    masks_by_score,
    nonzero,
    prunable,
    rows_are_rescaled,
    site_scores,
)
from asr_onnx.pruning.patterns import Unstructured


def masks_of(model, **options):
    o, sites = PruneOptions(**options), find_sites(model).sites
    chosen = prunable(sites, o.ops, o.structure, o.include, o.exclude)
    found = masks_by_score(chosen, np.abs, o.structure, o.sparsity, o.row_scale)
    return {s.name: nonzero(s) for s in sites} | found


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
        auto = masks_by_score(sites, np.abs, Unstructured(), 0.5)
        word = "normalize" if normal_rows else "keep"
        same = masks_by_score(sites, np.abs, Unstructured(), 0.5, word)
        assert all((auto[n] == same[n]).all() for n in auto)


def test_normalised_rows_have_norm_1_and_a_zero_row_stays_zero(rng):
    weights = normal(rng, 4, 3, 3, 3)
    weights[2] = 0
    model = build("g (float[N,3,8,8] x) => (float[N,4,6,6] y) { y = Conv (x, w) }", {"w": weights})
    rows = site_scores(find_sites(model).sites[0], np.abs, normalize=True).reshape(4, -1)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), [1, 1, 0, 1], rtol=1e-12)
    assert row_norms(weights).shape == (4, 1, 1, 1)


def test_excluded_sites_stay_whole_and_the_others_bear_all(rng):
    masks = masks_of(norm_net(rng), sparsity=0.5, exclude="w1")
    assert masks["w1"].all()
    assert np.count_nonzero(~masks["w2"]) == masks["w2"].size // 2


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


def names(rng, include=None, exclude=None):
    model = norm_net(rng)
    model.graph.node[0].name = "stem"
    sites = find_sites(model).sites
    return [s.name for s in prunable(sites, ["Conv"], Unstructured(), include, exclude)]


def test_include_and_exclude_find_weights_and_nodes(rng):
    assert names(rng) == ["w1", "w2"]
    assert names(rng, include="2$") == ["w2"]
    assert names(rng, include="^stem$") == ["w1"]
    assert names(rng, exclude="stem") == ["w2"]
    assert names(rng, include="w", exclude="w2") == ["w1"]


def test_a_selection_of_nothing_and_a_bad_pattern_are_refused(rng):
    with pytest.raises(UsageError, match="leave nothing to prune"):
        names(rng, include="nothing")
    for option in ("include", "exclude"):
        with pytest.raises(UsageError, match=r"(in|ex)clude '\(' is not a regular expression"):
            names(rng, **{option: "("})
