"""What was tried: which of it is the result, and what is said of the rest."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from asr_onnx.evaluation.gates import Failure
from asr_onnx.repairing.trials import Looked, Trial, Trials, Verdict

FAILED = Looked((Failure("m", "--max-drop", "too much"),), {"--max-drop": 0.02}, 50, (0.0, 0.04))
PASSED = Looked((), {"--max-drop": 0.001}, 50, (-0.01, 0.01))
KINDS = {
    "p": Verdict(PASSED, PASSED),  # passed
    "f": Verdict(FAILED),
    "j": Verdict(PASSED, FAILED),  # failed the judgement
    "o": Verdict(PASSED),  # passed, and there are no others to judge on
}


def trials(words, most=8):
    """``75p 87f``: what was tried, and what came of it."""
    tried = (Trial(int(w[:-1]), "best", KINDS[w[-1]], 1.5) for w in words.split())
    return Trials("sparsity", tuple(tried), most, "")


@pytest.mark.parametrize(
    "words, chosen, failed, closed, looks, inversions",
    [
        ("75p 87f 81p 82f", 81, 82, True, 1, ()),
        ("75p 87f 81p 84f", 81, 84, False, 1, ()),
        ("75p 87f 81j 82f", 75, 81, False, 2, ()),
        ("75j 87f 80j", 75, 75, False, 2, ()),
        ("75f 37f 1f", 1, 1, True, 0, ()),
        ("75p 87f 78f 77p 80p 81f", 80, 81, True, 1, ((78, 80),)),
        ("75p 78j 80p", 80, None, False, 1, ((78, 80),)),
        ("75p 99p", 99, None, True, 1, ()),
        ("75o 87f 80o", 80, 87, False, 0, ()),
    ],
)
def test_the_sparsest_that_stands_is_chosen(words, chosen, failed, closed, looks, inversions):
    found = trials(words)
    assert (found.chosen.points, found.failed, found.closed) == (chosen, failed, closed)
    assert (found.looks, found.inversions) == (looks, inversions)
    told = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert told["chosen"] == (chosen / 100 if found.chosen.verdict.stands else None)
    assert [t["removed"] for t in told["tried"]] == [t.points / 100 for t in found.tried]


def test_where_none_stands_the_failures_are_those_of_the_least_sparse():
    assert trials("75f 37f").chosen.verdict.failures == FAILED.failures
    assert trials("75j 80f").chosen.verdict.failures == FAILED.failures
    assert trials("75p").chosen.verdict.failures == ()


def test_only_what_was_tried_now_took_time():
    tried = trials("75p 87f").tried
    found = replace(trials("75p"), tried=(replace(tried[0], before=True), tried[1]))
    assert (found.seconds, found.repeated) == (1.5, 1)


@pytest.mark.parametrize("kind", KINDS)
def test_a_trial_is_read_back_as_it_was(kind):
    trial = Trial(81, "best", KINDS[kind], 2.5)
    record = json.loads(json.dumps(trial.to_record()))
    assert Trial.from_record(record) == replace(trial, before=True)


@pytest.mark.parametrize("key", ["points", "recipe", "verdict", "seconds"])
@pytest.mark.parametrize("value", [None, "x", [], {}])
def test_a_damaged_trial_is_none(key, value):
    record = Trial(81, "best", KINDS["j"], 2.5).to_record()
    assert Trial.from_record(record | {key: value}) is None
    assert Trial.from_record({k: v for k, v in record.items() if k != key}) is None
