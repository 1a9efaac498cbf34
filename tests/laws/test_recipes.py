"""Recipes: what each stands for, that single options win, and what is said about them."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from models import bare_net, norm_net, normal, run, stored

import asr_onnx
from asr_onnx import PruneOptions, RepairOptions, UsageError, prune, repair
from asr_onnx.cli.request import stronger
from asr_onnx.recipes import RECIPES, describe

FAST = {"sparsity": 0.6}


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_is_its_options_and_the_defaults(recipe):
    found = asr_onnx.recipe(recipe)
    assert found == RepairOptions(recipe=recipe, **RECIPES[recipe])
    assert found.to_dict()["recipe"] == recipe


def test_without_a_recipe_it_is_auto_or_asr_where_options_say_how():
    assert RepairOptions(0.5) == asr_onnx.recipe("auto", sparsity=0.5)
    assert RepairOptions(method="layerwise") == asr_onnx.recipe("asr", method="layerwise")


@pytest.mark.parametrize(
    "recipe, name, value",
    [
        ("asr", "reconstruct", True),
        ("best", "criterion", "magnitude"),
        ("best", "reconstruct", False),
        ("paper", "prior", "mean"),
        ("paper", "bn_stats", "dense"),
        ("paper", "one_shot", False),
        ("paper", "keep_first", False),
    ],
)
def test_an_option_given_by_itself_wins_alone(recipe, name, value):
    found, plain = asr_onnx.recipe(recipe, **{name: value}), asr_onnx.recipe(recipe)
    changed = {k for k, v in found.to_dict().items() if v != plain.to_dict()[k]}
    assert getattr(found, name) == value
    assert changed == {name}


def test_options_that_were_not_given_leave_the_recipe_alone():
    assert asr_onnx.recipe("best", criterion=None, reconstruct=None) == asr_onnx.recipe("best")


def test_an_unknown_recipe_is_refused():
    with pytest.raises(
        UsageError, match="recipe 'fast' is not one of auto, asr, refit, best, paper"
    ):
        asr_onnx.recipe("fast")


@pytest.mark.parametrize(
    "recipe, more",
    [
        ("asr", {"one_shot": True, "reconstruct": True}),
        ("asr", {"one_shot": True, "criterion": "obs"}),
        ("paper", {"reconstruct": True}),
        ("best", {"one_shot": True}),
    ],
)
def test_one_shot_statistics_do_not_go_with_second_moments(recipe, more):
    with pytest.raises(UsageError, match="one-shot statistics go with scaling"):
        asr_onnx.recipe(recipe, **more)


def test_the_hint_names_what_is_missing_and_nothing_else():
    masks, weights = "choose the masks", "re-fit the surviving weights"
    assert stronger(asr_onnx.recipe("best")) == ""
    for recipe in ("asr", "paper"):
        assert masks in stronger(asr_onnx.recipe(recipe)) and weights in stronger(
            asr_onnx.recipe(recipe)
        )
    half = stronger(asr_onnx.recipe("asr", reconstruct=True))
    assert masks in half and weights not in half
    other = stronger(asr_onnx.recipe("best", reconstruct=False))
    assert masks not in other and weights in other
    assert "\n" not in half and half.startswith("--recipe best")


def test_help_shows_every_recipe_as_its_options(asr):
    code, out, _ = asr("repair", "--help")
    assert code == 0
    words = "".join(out.split())  # a line may end anywhere in an option
    for recipe in RECIPES:
        assert f"{recipe}:{describe(recipe)}.".replace(" ", "") in words
    assert "--priormedian--bn-statsema--one-shot--keep-first" in words
    assert "--criterionobs--reconstruct" in words


@pytest.mark.parametrize(
    "words, hint",
    [
        (("--recipe", "asr"), True),
        (("--recipe", "paper", "--bn-batch-size", "8", "--bn-batches", "2"), True),
        (("--recipe", "best", "--no-reconstruct"), True),
        (("--recipe", "best"), False),
        (("--criterion", "obs", "--reconstruct"), False),
    ],
)
def test_the_command_line_hints_at_best_after_a_weaker_run(folder, asr, words, hint):
    """Also after one that did worse than plain pruning, as re-estimating on 10 samples does."""
    words = (*words, "--force")
    code, out, err = asr("repair", "m.onnx", "--calib", "x.npy", "--providers", "cpu", *words)
    assert code == 0, err
    assert ("--recipe best would also" in out) == hint


def test_the_command_line_lets_options_win_and_reports_them(folder, asr):
    words = ("--recipe", "best", "--criterion", "magnitude", "--prior", "median")
    code, _, err = asr(
        "repair", "m.onnx", "--calib", "x.npy", "--providers", "cpu", *words, "--report", "r.json"
    )
    assert code == 0, err
    found = json.loads((folder / "r.json").read_text(encoding="utf-8"))["options"]
    wanted = asr_onnx.recipe("best", criterion="magnitude", prior="median")
    assert found == json.loads(json.dumps(wanted.to_dict()))


def test_the_command_line_refuses_what_does_not_go_together(folder, asr):
    code, _, err = asr("repair", "m.onnx", "--calib", "x.npy", "--recipe", "best", "--one-shot")
    assert code == 2
    assert len(err.strip().splitlines()) == 1 and "one-shot" in err
    assert not (folder / "m.sparse.onnx").exists()


def test_the_papers_protocol_from_end_to_end(rng):
    model, x = norm_net(rng), normal(rng, 48, 3, 8, 8) + 0.5
    how = asr_onnx.recipe("paper", **FAST, bn_batch_size=16, bn_batches=3)
    result = repair(model, x, how)
    old, new = stored(model), stored(result.model)
    pruned = stored(prune(model, how))
    assert result.options == how
    np.testing.assert_array_equal(new["w1"], pruned["w1"])  # the first layer is only pruned
    assert (new["w2"] != pruned["w2"]).any()
    for name in ("w1", "w2"):
        np.testing.assert_array_equal(new[name] == 0, pruned[name] == 0)
    for name in ("m1", "v1", "m2", "v2"):  # re-estimated
        assert (new[name] != old[name]).all(), name
    for name in ("s1", "b1", "s2", "b2", "fw", "fb"):
        np.testing.assert_array_equal(new[name], old[name])
    assert np.isfinite(run(result.model, x=x)["y"]).all()


def test_one_shot_measures_every_layer_in_the_pruned_network(rng):
    """What is done to the first layer then does not reach the second's gain."""
    model, x = norm_net(rng), normal(rng, 32, 3, 8, 8)
    gains = {
        (once, kept): repair(
            model, x, asr_onnx.recipe("asr", one_shot=once, keep_first=kept, **FAST)
        )
        .sites[1]
        .gamma
        for once in (False, True)
        for kept in (False, True)
    }
    np.testing.assert_allclose(gains[True, False], gains[True, True], rtol=1e-6)
    assert abs(gains[False, False] - gains[False, True]).max() > 1e-3


@pytest.mark.parametrize("net", [bare_net, norm_net])
def test_best_is_closer_to_the_dense_model_than_asr(rng, net):
    model, x = net(rng), normal(rng, 256, 3, 8, 8) + 0.3
    errors = [
        repair(model, x, asr_onnx.recipe(name, **FAST)).repaired_outputs["y"].relative_error
        for name in ("asr", "best")
    ]
    assert errors[1] < 0.8 * errors[0]


def test_a_recipe_by_its_name_is_the_recipe():
    """Not the defaults that call themselves by its name."""
    assert RepairOptions(recipe="best") == asr_onnx.recipe("best")
    assert asr_onnx.recipe("best", sparsity=0.8).criterion == "obs"


@pytest.mark.parametrize(
    "given",
    [
        {"recipe": "fast"}, {"recipe": ""}, {"criterion": "l1"}, {"method": "magic"},
        {"prior": "none"}, {"allocation": "even"}, {"row_scale": "no"}, {"bn_stats": "new"},
    ],
)  # fmt: skip
def test_what_is_not_known_is_an_error_at_birth(given):
    (value,) = given.values()
    with pytest.raises(UsageError, match=f"'{value}' is not one of"):
        RepairOptions(**given)


def test_a_repair_by_the_name_of_a_recipe_is_that_repair(rng):
    model, x = bare_net(rng), normal(rng, 32, 3, 8, 8)
    named, spelt = (
        repair(model, x, RepairOptions(**given, **FAST))
        for given in ({"recipe": "best"}, {"criterion": "obs", "reconstruct": True})
    )
    assert named.model.SerializeToString() == spelt.model.SerializeToString()


@pytest.mark.parametrize(
    "given",
    [
        {"sparsity": "0.9"}, {"sparsity": True}, {"prior": 3}, {"ops": 3}, {"ops": "Conv"},
        {"bn_batch_size": "8"}, {"recipe": ["best"]}, {"pattern": 24}, {"pattern": b"2:4"},
        {"include": 3}, {"bn_stats": print}, {"row_scale": len}, {"reconstruct": "yes"},
    ],
)  # fmt: skip
def test_a_value_of_another_kind_is_an_error_at_birth(given):
    (name,) = given
    with pytest.raises(UsageError, match=f"^{name} .* is not "):
        RepairOptions(**given)


@pytest.mark.parametrize("name", ["include", "exclude"])
def test_a_broken_expression_is_an_error_at_birth(name):
    with pytest.raises(UsageError, match=rf"{name} '\(' is not a regular expression"):
        PruneOptions(**{name: "("})


@pytest.mark.parametrize(
    "given", [{"memory_limit": -5}, {"memory_limit": "2GiB"}, {"providers": "gpu"}]
)
def test_where_to_run_is_checked_at_birth(given):
    with pytest.raises(UsageError, match=r"memory.limit|provider"):
        asr_onnx.Execution(**given)


def test_a_recipe_has_the_options_that_there_are():
    with pytest.raises(UsageError, match="a recipe has no option 'sparsty'"):
        asr_onnx.recipe("best", sparsty=0.9)
    options = asr_onnx.recipe("best", ops=["Conv", "Gemm"], sparsity=np.float32(0.5))
    assert options.ops == ("Conv", "Gemm") and hash(options)
    assert json.loads(json.dumps(options.to_dict()))["sparsity"] == 0.5


def test_the_sparsity_is_the_default_until_something_else_settles_it():
    assert RepairOptions().zeros == RepairOptions().to_dict()["sparsity"] == 0.9
    assert replace(RepairOptions(), pattern="2:4").zeros is None
    assert replace(RepairOptions(sparsity=0.5, recipe="asr"), sparsity=None).zeros == 0.9


def test_pruning_alone_takes_the_score_it_is_given(rng):
    model = bare_net(rng)
    other = prune(model, RepairOptions(0.5, criterion=lambda rows: -abs(rows)))
    assert other.SerializeToString() != prune(model, PruneOptions(0.5)).SerializeToString()
    with pytest.raises(UsageError, match="searches in the data"):
        prune(model, asr_onnx.recipe("best"))


@pytest.mark.parametrize("options", ["best", {"sparsity": 0.5}, PruneOptions()])
def test_options_of_another_kind_are_refused(rng, options):
    with pytest.raises(UsageError, match="give RepairOptions or a recipe"):
        repair(bare_net(rng), normal(rng, 16, 3, 8, 8), options)


def test_a_model_of_another_kind_is_refused(rng):
    with pytest.raises(asr_onnx.ModelError, match=r"a str is no ModelProto: give asr_onnx.load"):
        repair("m.onnx", normal(rng, 16, 3, 8, 8))
