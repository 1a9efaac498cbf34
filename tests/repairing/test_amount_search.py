"""The search for an amount, with repairs and judges that cost nothing."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import pytest

from asr_onnx import RepairOptions, recipe
from asr_onnx.evaluation.gates import Failure
from asr_onnx.repairing.amount_search import find, order
from asr_onnx.repairing.trials import Looked, Verdict

BAD = Looked((Failure("m", "--max-drop", "too much"),))
BEST = (recipe("best"),)


class Repaired(NamedTuple):
    """As much of a repair as the search looks at."""

    points: int
    options: RepairOptions


class Memory(dict):
    """Trials of earlier runs by points."""

    def read(self, points):
        found = self.get(points)
        return found and replace(found, before=True)

    def write(self, trial):
        self[trial.points] = trial


def searched(passes, judged=None, rungs=BEST, most=8, kept=None, end=100):
    """What is found, and the repairs that were made, where those pass of which it is said."""
    made = []

    def repair(points, options):
        made.append((points, options.recipe))
        return Repaired(points, options)

    def judge(result):
        if not passes(result):
            return Verdict(BAD)
        if judged is None:
            return Verdict(Looked())
        return Verdict(Looked(), Looked() if judged(result) else BAD)

    return find(repair, judge, rungs, "sparsity", most, kept, end=end), made


def points(made):
    return [p for p, _ in made]


@pytest.mark.parametrize("limit", [1, 40, 74, 75, 86, 99])
def test_the_result_is_the_repair_of_the_sparsest_that_passes(limit):
    found, made = searched(lambda r: r.points <= limit)
    assert found.result == Repaired(limit, BEST[0])
    assert found.trials.chosen.points == limit and found.trials.closed
    assert points(made) == [t.points for t in found.trials.tried]
    assert not found.failures and len(made) <= 8


@pytest.mark.parametrize("limit", [1, 30, 49, 50, 80])
def test_where_only_so_much_can_go_the_most_is_tried_first_and_no_more(limit):
    found, made = searched(lambda r: r.points <= limit, end=51)
    assert points(made)[0] == max(points(made)) == 50
    assert found.trials.chosen.points == min(limit, 50) and found.trials.closed
    assert len(made) <= 8


def test_where_nothing_passes_the_result_is_the_least_sparse_with_what_it_fails():
    found, made = searched(lambda r: False)
    assert found.result.points == min(points(made)) == 1
    assert found.failures == BAD.failures


def test_what_fails_the_judgement_gives_way_to_the_next_that_was_tried():
    found, made = searched(lambda r: r.points <= 86, judged=lambda r: r.points <= 82)
    passed = sorted(t.points for t in found.trials.tried if t.verdict.passed)
    assert found.result.points == max(p for p in passed if p <= 82)
    assert found.trials.looks == sum(p >= found.result.points for p in passed)
    assert len(made) == len(set(made))


def test_when_all_that_was_tried_fails_the_judgement_the_search_goes_on_below():
    found, made = searched(lambda r: r.points <= 86, judged=lambda r: r.points <= 60, most=20)
    assert found.result.points == 60 and not found.failures
    assert found.trials.closed and found.trials.failed == 61
    few, made = searched(lambda r: r.points <= 86, judged=lambda r: r.points <= 60, most=6)
    assert len(made) == 6 and few.failures == BAD.failures


def test_a_search_that_was_interrupted_goes_on_where_it_was():
    whole, made = searched(lambda r: r.points <= 86)
    for done in range(len(made) + 1):
        kept = Memory()
        for trial in whole.trials.tried[:done]:
            kept.write(trial)
        found, again = searched(lambda r: r.points <= 86, kept=kept)
        assert found.result == whole.result
        assert found.trials.repeated == done
        left = points(made[done:])
        # The result's repair is not kept: it is made again if its trial was.
        assert points(again) == left + ([86] if 86 not in left else [])
        assert sorted(kept) == sorted(points(made))


def test_of_recipe_auto_the_strongest_is_tried_and_with_few_samples_the_others_too():
    auto = RepairOptions(recipe="auto")
    assert [o.recipe for o in order(auto, few=False)] == ["best"]
    assert [o.recipe for o in order(auto, few=True)] == ["best", "refit", "asr"]
    assert order(recipe("asr"), few=True) == (recipe("asr"),)

    def passes(result):
        return result.points <= (80 if result.options.recipe == "refit" else 70)

    found, made = searched(passes, rungs=order(auto, few=True))
    assert (found.result.points, found.result.options.recipe) == (80, "refit")
    assert made[:5] == [(75, "best"), (75, "refit"), (87, "best"), (87, "refit"), (87, "asr")]


def test_most_is_kept_to():
    found, made = searched(lambda r: r.points <= 86, most=3)
    assert points(made) == [75, 87, 81]
    assert found.result.points == 81 and not found.trials.closed
