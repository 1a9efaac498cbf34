"""``repair_auto``: the repair at the sparsity it found, with what can be shared done once."""

from __future__ import annotations

import numpy as np
import pytest

from asr_onnx import Gates, RepairOptions, UsageError, as_batches, recipe, repair, repair_auto
from asr_onnx.graph.inputs import model_inputs
from asr_onnx.repairing.trials import Looked, Trial, Verdict
from asr_onnx.sweeps import automatic
from asr_onnx.sweeps.automatic import KeptTrials
from asr_onnx.sweeps.folder import SweepFolder


@pytest.fixture
def data(cases):
    return as_batches(np.load("c.npy"), model_inputs(cases), holdout=0.5, batch_size=10)


def test_the_result_is_the_repair_at_the_sparsity_found(cases, data):
    found = repair_auto(cases, data, Gates(min_cosine=0.9), recipe("asr"))
    assert not found.failures and found.trials.closed
    points = found.trials.chosen.points
    alone = repair(cases, data, recipe("asr", sparsity=points / 100))
    assert found.result.model.SerializeToString() == alone.model.SerializeToString()
    assert alone.repaired_outputs["y"].cosine >= 0.9
    beyond = repair(cases, data, recipe("asr", sparsity=found.trials.failed / 100))
    assert beyond.repaired_outputs["y"].cosine < 0.9


def test_layers_are_weighed_once_for_all_sparsities(cases, data, monkeypatch):
    weighed = []

    def counted(*args, **settings):
        weighed.append(args)
        return weigh(*args, **settings)

    weigh = automatic.weigh
    monkeypatch.setattr(automatic, "weigh", counted)
    monkeypatch.setattr("asr_onnx.pipeline.weigh", counted)
    found = repair_auto(cases, data, Gates(min_cosine=0.8), recipe("best"), steps=3)
    assert len(found.trials.tried) == 3 and len(weighed) == 1
    points = found.trials.chosen.points
    alone = repair(cases, data, recipe("best", sparsity=points / 100))
    assert found.result.model.SerializeToString() == alone.model.SerializeToString()


def test_a_function_may_judge(cases, data):
    found = repair_auto(cases, data, lambda result: result.sparsity < 0.52, recipe("asr"))
    assert found.result.sparsity < 0.52 and found.trials.chosen.points in (51, 52)
    none = repair_auto(cases, data, lambda result: False, recipe("asr"), steps=2)
    assert [t.points for t in none.trials.tried] == [75, 37] and none.failures
    assert none.result.options.sparsity == 0.37


def test_accuracy_is_of_test_data(cases, data, tmp_path):
    with pytest.raises(UsageError, match="--max-drop needs labelled data"):
        repair_auto(cases, data, Gates(max_drop=0.1))
    with pytest.raises(UsageError, match="needs a quality gate"):
        repair_auto(cases, data, Gates())


@pytest.mark.parametrize(
    "options, message",
    [
        (RepairOptions(pattern="127:128"), "pattern 127:128 leaves less than 1 % zeros"),
        (RepairOptions(sparsity=0.5), "sparsity is given and sparsity to be found"),
        (RepairOptions(criterion="given"), "pruned already"),
    ],
)
def test_what_leaves_nothing_to_find_is_refused(cases, data, options, message):
    with pytest.raises(UsageError, match=message):
        repair_auto(cases, data, Gates(min_cosine=0.9), options)


def test_an_amount_there_is_not_is_refused(cases, data):
    with pytest.raises(UsageError, match="amount 'colour' is not one of sparsity"):
        repair_auto(cases, data, Gates(min_cosine=0.9), amount="colour")
    with pytest.raises(UsageError, match="0 steps find nothing"):
        automatic.AutoOptions(auto_steps=0)


def test_kept_trials_are_those_of_the_same_facts_alone(tmp_path):
    folder = SweepFolder(tmp_path / "work")
    folder.create()
    trial = Trial(81, "best", Verdict(Looked()), 2.0)
    KeptTrials(folder, ["a"]).write(trial)
    found = KeptTrials(folder, ["a"]).read(81)
    assert (found.points, found.recipe, found.before) == (81, "best", True)
    assert KeptTrials(folder, ["b"]).read(81) is None
    assert KeptTrials(folder, ["a"]).read(80) is None


def test_the_least_work_is_found_where_channels_go(cases, data, monkeypatch):
    weighed = []
    weigh = automatic.weigh

    def counted(*args, **settings):
        weighed.append(args)
        return weigh(*args, **settings)

    monkeypatch.setattr(automatic, "weigh", counted)
    options = recipe("best", pattern="channel", channel_multiple=1)
    found = repair_auto(cases, data, Gates(min_cosine=0.9), options, amount="macs")
    chosen = found.trials.chosen
    assert len(weighed) == 1 and len(found.trials.tried) > 2
    assert not found.failures and found.result.options.macs == 1 - chosen.points / 100
    assert found.result.cost.macs <= (1 - chosen.points / 100) * found.result.cost_before.macs
    alone = repair(cases, data, recipe("best", pattern="channel", macs=found.result.options.macs,
                                       channel_multiple=1))  # fmt: skip
    assert found.result.model.SerializeToString() == alone.model.SerializeToString()


def test_what_is_out_of_reach_fails_and_the_search_goes_on(cases, data):
    found = repair_auto(
        cases, data, lambda result: True, recipe("asr", pattern="channel", channel_multiple=4),
        amount="macs",
    )  # fmt: skip
    last = max(found.trials.tried, key=lambda t: t.points)
    assert "can go by removing channels" in last.verdict.failures[0].reason
    assert not found.failures and found.trials.closed


@pytest.mark.parametrize(
    ("options", "amount", "reason"),
    [
        (RepairOptions(), "macs", "macs auto goes with the pattern channel"),
        (RepairOptions(pattern="channel", macs=0.5), "sparsity", "macs is given"),
        (RepairOptions(pattern="channel", sparsity=0.5), "macs", "sparsity is given"),
    ],
)
def test_amounts_that_do_not_go_together_are_refused(cases, data, options, amount, reason):
    with pytest.raises(UsageError, match=reason):
        repair_auto(cases, data, lambda result: True, options, amount=amount)
