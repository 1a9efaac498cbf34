"""The repair: what it promises of the model it returns, on small networks."""

from __future__ import annotations

import numpy as np
import pytest
from models import (
    bare_net,
    build,
    copied,
    norm_net,
    norm_weights,
    normal,
    run,
    stored,
    tap,
)

from asr_onnx import Execution, ModelError, PruneOptions, RepairOptions, as_batches, prune, repair
from asr_onnx.execution.lockstep import Lockstep
from asr_onnx.graph.inputs import model_inputs
from asr_onnx.pipeline import repair_all
from asr_onnx.repairing import job as module
from asr_onnx.repairing.self_check import require_same

NETS = {"bare": bare_net, "norm": norm_net}


def options(sparsity=0.6, **more):
    return RepairOptions(**{"sparsity": sparsity, "method": "asr"} | more)


def calibration(model, x, **settings):
    """Batches on all of ``x``, unless ``holdout`` says otherwise."""
    return as_batches(x, model_inputs(model), **{"holdout": 0.0, "batch_size": 16} | settings)


def shared_mean_net(rng):
    """BatchNormalizations that share one mean: the correction has to go into the biases."""
    return build(
        """net (float[N,3,8,8] x) => (float[N,6,8,8] y) {
            c1 = Conv <pads = [1, 1, 1, 1]> (x, w1)
            n1 = BatchNormalization (c1, s, b, m, v)
            c2 = Conv <pads = [1, 1, 1, 1]> (n1, w2, k2)
            y = BatchNormalization (c2, s, b, m, v)
        }""",
        {"w1": normal(rng, 6, 3, 3, 3), "w2": normal(rng, 6, 6, 3, 3), "k2": normal(rng, 6)}
        | norm_weights(rng, 6),
    )


def means(model, tensors, x):
    found = run(tap(model, *tensors), x=x)
    return {t: found[t].mean(axis=(0, 2, 3), dtype=np.float64) for t in tensors}


@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize("prior", ["correlation", "median"])
def test_without_pruning_nothing_changes_beyond_rounding(rng, net, prior):
    model, x = NETS[net](rng), normal(rng, 40, 3, 8, 8)
    result = repair(model, x, options(0.0, prior=prior))
    np.testing.assert_allclose(run(result.model, x=x)["y"], run(model, x=x)["y"], atol=2e-5)
    assert all(abs(s.gamma - 1).max() < 1e-5 for s in result.sites)
    assert result.sparsity == 0


@pytest.mark.parametrize(
    "net, tensors",
    [
        (bare_net, ["c1", "c2"]),
        (norm_net, ["n1", "n2"]),
        (shared_mean_net, ["c1", "n1", "c2"]),
    ],
)
@pytest.mark.parametrize("method", ["asr", "channelwise", "layerwise"])
def test_every_channels_mean_is_the_dense_one_on_the_images_solved_on(rng, net, tensors, method):
    model, x = net(rng), normal(rng, 48, 3, 8, 8) + 0.5
    result = repair(model, calibration(model, x), options(method=method))
    wanted, pruned = means(model, tensors, x), means(prune(model, options()), tensors, x)
    for name, found in means(result.model, tensors, x).items():
        np.testing.assert_allclose(found, wanted[name], atol=1e-5 * abs(wanted[name]).max())
        assert abs(pruned[name] - wanted[name]).max() > 0.05, "nothing to repair"


@pytest.mark.parametrize("net, tensors", [(bare_net, ["c1", "c2"]), (norm_net, ["n1", "n2"])])
def test_channelwise_gives_every_living_channel_its_deviation_back(rng, net, tensors):
    model, x = net(rng), normal(rng, 48, 3, 8, 8)
    result = repair(model, calibration(model, x), options(method="channelwise"))
    dense, repaired = run(tap(model, *tensors), x=x), run(tap(result.model, *tensors), x=x)
    for name, site in zip(tensors, result.sites, strict=True):
        assert site.dead == 0
        np.testing.assert_allclose(
            repaired[name].std(axis=(0, 2, 3)), dense[name].std(axis=(0, 2, 3)), rtol=1e-4
        )
        assert site.variance_repaired == pytest.approx(1, rel=1e-4)
        assert site.variance_pruned < 0.95


@pytest.mark.parametrize("net", NETS)
def test_zeros_stay_zeros_and_their_number_is_exact(rng, net):
    model, x = NETS[net](rng), normal(rng, 32, 3, 8, 8)
    for sparsity in (0.3, 0.77, 0.9):
        result = repair(model, x, options(sparsity))
        found, pruned = stored(result.model), stored(prune(model, PruneOptions(sparsity)))
        weights = [s.name for s in result.sites]
        for name in weights:
            np.testing.assert_array_equal(found[name] == 0, pruned[name] == 0)
        total = sum(found[n].size for n in weights)
        zeros = sum(int((found[n] == 0).sum()) for n in weights)
        assert zeros == round(sparsity * total) == sum(s.zeros for s in result.sites)
        assert result.sparsity == zeros / total


def test_with_batch_normalisation_only_four_initializers_differ(rng):
    model = norm_net(rng)
    before = model.SerializeToString()
    result = repair(model, normal(rng, 32, 3, 8, 8), options())
    assert model.SerializeToString() == before
    old, new = stored(model), stored(result.model)
    changed = {n for n in old if old[n].tobytes() != new[n].tobytes()}
    assert changed == {"w1", "w2", "m1", "m2"}
    assert (
        copied(result.model, **old).SerializeToString() == copied(model, **old).SerializeToString()
    )


def test_a_bare_conv_without_bias_gets_one_and_nothing_else_is_new(rng):
    model = bare_net(rng)
    result = repair(model, normal(rng, 32, 3, 8, 8), options())
    new = result.model.graph.initializer.pop()
    assert (new.name, list(new.dims)) == ("c1_bias", [8])
    assert list(result.model.graph.node[0].input) == ["x", "w1", "c1_bias"]
    result.model.graph.node[0].input.pop()
    old, found = stored(model), stored(result.model)
    assert {n for n in old if old[n].tobytes() != found[n].tobytes()} == {"w1", "w2", "b2"}
    assert (
        copied(result.model, **old).SerializeToString() == copied(model, **old).SerializeToString()
    )


@pytest.mark.parametrize("net", NETS)
def test_method_none_is_prune(rng, net):
    model = NETS[net](rng)
    result = repair(model, normal(rng, 16, 3, 8, 8), options(method="none"))
    wanted = prune(model, PruneOptions(0.6))
    assert result.model.SerializeToString() == wanted.SerializeToString()
    errors = [m["y"].relative_error for m in (result.pruned_outputs, result.repaired_outputs)]
    assert errors[0] == pytest.approx(errors[1], rel=1e-5)


def test_a_repair_is_closer_to_the_dense_model_than_the_pruned_one(rng):
    model = norm_net(rng)
    result = repair(model, normal(rng, 200, 3, 8, 8) + 0.3, options(0.7))
    pruned, repaired = result.pruned_outputs["y"], result.repaired_outputs["y"]
    assert repaired.relative_error < 0.6 * pruned.relative_error
    assert all(s.error_repaired < s.error_pruned for s in result.sites)


@pytest.mark.parametrize("net", NETS)
def test_neither_memory_nor_batches_nor_a_second_run_change_a_bit(rng, net):
    model, x = NETS[net](rng), normal(rng, 60, 3, 8, 8)
    whole = repair(
        model, x, options(), execution=Execution(memory_limit=1 << 40)
    ).model.SerializeToString()
    least = repair(model, x, options(), execution=Execution(memory_limit=0)).model
    assert least.SerializeToString() == whole
    assert repair(model, x, options()).model.SerializeToString() == whole


def test_the_batch_size_does_not_matter_beyond_rounding(rng):
    model, x = norm_net(rng), normal(rng, 40, 3, 8, 8)
    small, large = (
        stored(repair(model, calibration(model, x, batch_size=n), options()).model) for n in (3, 40)
    )
    for name, value in large.items():
        np.testing.assert_allclose(small[name], value, rtol=1e-4, atol=1e-5)


def test_held_out_images_are_not_solved_on(rng):
    model, x = norm_net(rng), normal(rng, 40, 3, 8, 8)
    data = calibration(model, x, holdout=0.25)
    held = [i for b in data.batches if b.held_out for i in b.samples]
    result = repair(model, data, options())
    assert (result.solve_images, result.held_out_images) == (30, 10)
    assert result.repaired_outputs["y"].samples == 10
    other = x.copy()
    other[held] = 7 * normal(rng, 10, 3, 8, 8)
    changed = repair(model, calibration(model, other, holdout=0.25), options())
    assert changed.model.SerializeToString() == result.model.SerializeToString()
    assert changed.repaired_outputs != result.repaired_outputs


def test_one_calibration_image(rng):
    model, x = norm_net(rng), normal(rng, 1, 3, 8, 8)
    result = repair(model, x, options())
    assert (result.solve_images, result.held_out_images) == (1, 0)
    wanted, found = means(model, ["n1", "n2"], x), means(result.model, ["n1", "n2"], x)
    for name in wanted:
        np.testing.assert_allclose(found[name], wanted[name], atol=1e-4)


def test_dead_channels_keep_a_gain_of_1_and_the_dense_mean(rng):
    model = bare_net(rng)
    weight = stored(model)["w1"].copy()
    weight[3] *= 1e-4
    model, x = copied(model, w1=weight), normal(rng, 32, 3, 8, 8)
    result = repair(model, calibration(model, x), options(row_scale="keep"))
    assert result.sites[0].dead == 1
    assert result.sites[0].gamma[3] == 1
    found, wanted = means(result.model, ["c1"], x)["c1"], means(model, ["c1"], x)["c1"]
    assert found[3] == pytest.approx(wanted[3], abs=1e-7)


def test_excluded_sites_keep_all_their_weights(rng):
    result = repair(norm_net(rng), normal(rng, 32, 3, 8, 8), options(0.5, exclude="w1"))
    assert [s.zeros for s in result.sites] == [0, 288]


@pytest.mark.parametrize("recipe", ["asr", "refit", "best", "paper"])
@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize("exclude, kept", [("^w1$", "w1"), ("^w2$", "w2 b2"), ("^fw$", "fw fb")])
def test_what_is_excluded_stays_byte_for_byte(rng, net, recipe, exclude, kept):
    """Convolutions that are not pruned, and the linear head, which is re-fitted otherwise."""
    if (net, recipe) == ("bare", "paper"):
        pytest.skip("the paper's protocol needs BatchNormalization")
    model = NETS[net](rng)
    old, x = stored(model), normal(rng, 60, 3, 8, 8)
    new = stored(repair(model, x, RepairOptions(recipe=recipe, exclude=exclude)).model)
    for name in set(kept.split()) & old.keys():
        np.testing.assert_array_equal(new[name], old[name])
    assert "c1_bias" not in new or exclude != "^w1$"
    whole = stored(repair(model, x, RepairOptions(recipe=recipe)).model)
    names = ("w1", "w2") if recipe in ("asr", "paper") else ("w1", "w2", "fw")
    assert all((whole[n] != old[n]).any() for n in names)


def test_include_chooses_what_is_pruned_and_not_what_is_repaired(rng):
    model, x = bare_net(rng), normal(rng, 60, 3, 8, 8)
    new = stored(repair(model, x, RepairOptions(recipe="best", include="^w1$")).model)
    assert (new["fw"] != stored(model)["fw"]).any() and (new["w2"] != 0).all()


def test_progress_counts_the_sites(rng):
    seen = []
    repair(norm_net(rng), normal(rng, 8, 3, 8, 8), options(), progress=lambda *a: seen.append(a))
    assert [(done, total) for done, total, _ in seen] == [(0, 2), (1, 2)]


def test_a_model_that_does_not_do_what_the_walk_computed_is_not_returned(rng, monkeypatch):
    fold = module.fold

    def wrong(site, weight, change, **more):
        return fold(site, weight * 1.2, change, **more)

    monkeypatch.setattr(module, "fold", wrong)
    with pytest.raises(ModelError, match=r"output 'y' of the model is off by"):
        repair(norm_net(rng), normal(rng, 16, 3, 8, 8), options())


def test_nor_one_with_a_nan_or_an_infinity_where_the_walk_had_none():
    values = np.array([np.nan, np.inf, 2.0], np.float32)
    require_same({"y": values}, {"y": values})
    for place, wrong in ((0, 2.0), (1, np.nan), (1, -np.inf), (2, np.nan), (2, np.inf)):
        other = values.copy()
        other[place] = wrong
        with pytest.raises(ModelError, match=r"output 'y' of the model is off by"):
            require_same({"y": values}, {"y": other})


def test_repairs_side_by_side_are_those_made_one_by_one(rng):
    model, x = norm_net(rng), normal(rng, 48, 3, 8, 8)
    cells = [
        options(0.3),
        options(0.5, criterion="obs", reconstruct=True),
        options(0.6, one_shot=True, keep_first=True, prior="median"),
        options(0.7, criterion="obs", reconstruct=True),
        options(0.5, bn_stats="cumulative", bn_batch_size=16),
    ]
    for cell, found in zip(cells, repair_all(model, x, cells), strict=True):
        alone = repair(model, x, cell)
        assert found.options == cell
        assert found.model.SerializeToString() == alone.model.SerializeToString()
        assert found.repaired_outputs == alone.repaired_outputs
        assert found.pruned_outputs == alone.pruned_outputs
        for a, b in zip(found.sites, alone.sites, strict=True):
            assert (a.name, a.zeros, a.error_repaired) == (b.name, b.zeros, b.error_repaired)


def test_the_dense_network_runs_once_for_all_repairs(rng, monkeypatch):
    model, x = norm_net(rng), normal(rng, 32, 3, 8, 8)
    ran = []
    run = Lockstep.run
    monkeypatch.setattr(Lockstep, "run", lambda self, stage: ran.append(stage) or run(self, stage))
    repair_all(model, x, [options(0.3), options(0.5), options(0.7)])
    assert len({id(s) for s in ran}) == len(ran)
    assert sum(len(stage.sites) for stage in ran) == 2


def test_a_network_that_takes_no_single_sample_is_repaired(rng):
    """Its batch of four is written into a Reshape, though the input says N."""
    weights = {"w": normal(rng, 6, 3, 3, 3), "v": normal(rng, 6, 6, 1, 1)}
    weights["shape"] = np.array([4, 6, 6, 6])
    model = build(
        """net (float[N,3,8,8] x) => (float[N,6,6,6] y) {
            a = Conv (x, w) b = Reshape (a, shape) y = Conv (b, v)
        }""",
        weights,
    )
    data = calibration(model, normal(rng, 16, 3, 8, 8), batch_size=4, holdout=0.25)
    assert repair(model, data, options(0.5)).sparsity == pytest.approx(0.5, abs=0.01)
