"""Recipe auto: the first rung that is good enough, else the best."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from asr_onnx import RepairOptions, recipe, repair, repair_all
from asr_onnx.evaluation.match import OutputMatch
from asr_onnx.repairing.ladder import ANYTHING, ONE_ANSWER, climb, excess
from asr_onnx.repairing.result import RepairResult
from tests.models import norm_net, normal

MATCH = OutputMatch(samples=100, agreement=0.9, cosine=0.9, relative_error=0.0, answers=100)


def result(options, error):
    outputs = {"y": replace(MATCH, relative_error=error)}
    return RepairResult(None, options, (), (), outputs, outputs, "cpu", 1.0, 80, 20)


def climbed(errors, accept=None):
    """The climb of a ladder whose recipes have those errors, and the recipes that were run."""
    ran = []

    def run(options):
        ran.append(options.recipe)
        return result(options, errors[options.recipe])

    return climb(RepairOptions(0.5).rungs, run, accept), ran


@pytest.mark.parametrize(
    "errors, taken, ran",
    [
        ({"asr": 0.2}, "asr", ["asr"]),
        ({"asr": 0.4, "refit": 0.2}, "refit", ["asr", "refit"]),
        ({"asr": 0.9, "best": 0.3}, "best", ["asr", "best"]),
        ({"asr": 0.4, "refit": 0.3, "best": 0.25}, "best", ["asr", "refit", "best"]),
        ({"asr": 0.4, "refit": 0.25, "best": 0.3}, "refit", ["asr", "refit", "best"]),
    ],
)
def test_the_first_that_is_good_enough_is_taken_else_the_best(errors, taken, ran):
    found, tried = climbed(errors)
    assert (found.options.recipe, tried) == (taken, ran)
    assert [r.recipe for r in found.rungs] == ran
    assert [r.recipe for r in found.rungs if r.taken] == [taken]


def test_with_few_samples_no_rung_is_left_out():
    errors = {"asr": 0.9, "refit": 0.3, "best": 0.4}
    found = climb(RepairOptions(0.5).rungs, lambda o: result(o, errors[o.recipe]), thorough=True)
    assert [r.recipe for r in found.rungs] == list(errors)
    assert found.options.recipe == "refit"


def test_gates_have_a_say():
    found, tried = climbed({"asr": 0.01, "refit": 0.1}, lambda r: r.options.recipe != "asr")
    assert (found.options.recipe, tried) == ("refit", ["asr", "refit"])
    assert [r.accepted for r in found.rungs] == [False, True]


def test_an_arg_max_forgives_more_than_boxes_do():
    one, many = (
        replace(MATCH, relative_error=0.15),
        replace(MATCH, answers=700, relative_error=0.15),
    )
    none = replace(MATCH, agreement=None, answers=0, relative_error=0.15)
    assert excess({"y": one}) == pytest.approx(0.15 / ONE_ANSWER)
    assert excess({"y": many}) == excess({"y": none}) == pytest.approx(0.15 / ANYTHING)
    assert excess({"a": one, "b": none}) == excess({"b": none})
    assert excess({"text": replace(none, relative_error=np.nan)}) == np.inf


def test_the_rungs_are_the_recipes_with_what_was_given():
    assert RepairOptions(0.8, exclude="b").rungs == tuple(
        recipe(name, sparsity=0.8, exclude="b") for name in ("asr", "refit", "best")
    )
    assert RepairOptions(recipe="best").rungs == (RepairOptions(recipe="best"),)
    assert [o.recipe for o in recipe("auto", reconstruct=True).rungs] == ["asr", "best"]
    assert [o.recipe for o in recipe("auto", one_shot=True).rungs] == ["asr"]
    given = RepairOptions(ops=("Conv",)).for_given_mask()
    assert [o.recipe for o in given.rungs] == ["asr", "refit"]  # no mask is searched for


def test_a_repair_without_a_recipe_climbs(rng):
    model, x = norm_net(rng), normal(rng, 80, 3, 8, 8)
    light, heavy = (repair(model, x, RepairOptions(s)) for s in (0.02, 0.8))
    assert [r.recipe for r in light.rungs] == ["asr"]
    assert heavy.rungs[-1].recipe == "best" and sum(r.taken for r in heavy.rungs) == 1
    (again,) = repair_all(model, x, [RepairOptions(0.8)])
    assert again.model.SerializeToString() == heavy.model.SerializeToString()
    alone = repair(model, x, heavy.options)
    assert alone.model.SerializeToString() == heavy.model.SerializeToString()
