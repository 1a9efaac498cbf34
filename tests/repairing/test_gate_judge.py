"""Gates on halves: what each half says is what those samples alone say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from models import balanced, norm_net, normal, run

from asr_onnx import Gates, UsageError, as_batches, recipe, repair
from asr_onnx.evaluation.figures import Figures
from asr_onnx.evaluation.gates import worst_agreement
from asr_onnx.evaluation.labelled import LabelledData
from asr_onnx.execution.session import Device
from asr_onnx.graph.inputs import model_inputs
from asr_onnx.maths.halves import halves
from asr_onnx.repairing import gate_judge, verdict
from asr_onnx.repairing.gate_judge import GateJudge

COUNT = 60


class Case:
    """A repaired model, what it was repaired on, and labelled samples."""

    def __init__(self, folder: Path) -> None:
        rng = np.random.default_rng(7)
        self.x = normal(rng, COUNT, 3, 8, 8)
        self.dense = balanced(norm_net(rng), x=self.x)
        self.labels = run(self.dense, x=self.x)["y"].argmax(1)
        self.labels[:6] = (self.labels[:6] + 1) % 5  # the dense model is wrong there
        np.save(folder / "x.npy", self.x)
        np.save(folder / "l.npy", self.labels)
        self.labelled = LabelledData(self.dense, folder / "x.npy", folder / "l.npy")
        calib = normal(rng, 80, 3, 8, 8)
        inputs = model_inputs(self.dense)
        self.batches = as_batches(calib, inputs, holdout=0.5, batch_size=10)
        options = recipe("asr", sparsity=0.7)
        self.result = repair(self.dense, self.batches, options)
        self.hits = run(self.result.model, x=self.x)["y"].argmax(1) == self.labels

    def shares(self, seed):
        """Accuracy on either half."""
        return [self.hits[half].mean() for half in halves(self.labels, seed)]

    def judge(self, gates, seed=3, **more):
        labelled = self.labelled if gates.label_gates else None
        given = (gates, self.dense, self.batches, labelled, Figures(), Device(), "m", seed)
        return GateJudge(*given, **more)


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    return Case(tmp_path_factory.mktemp("judge"))


@pytest.fixture
def enough(monkeypatch):
    """As if there were enough samples to halve."""
    monkeypatch.setattr(gate_judge, "ENOUGH", 40)


def test_accuracy_is_searched_on_one_half_and_judged_on_the_other(case, enough):
    one, two = halves(case.labels, 3)
    dense = run(case.dense, x=case.x)["y"].argmax(1) == case.labels
    found = case.judge(Gates(min_accuracy=0.0, max_drop=1.0))(case.result)
    assert found.stands and found.judged
    for looked, half in ((found.searched, one), (found.judged, two)):
        accuracy = case.hits[half].mean()
        drop = dense[half].mean() - accuracy
        assert looked.figures == pytest.approx({"--min-accuracy": accuracy, "--max-drop": drop})
        assert looked.labelled == len(half) == COUNT // 2
        assert looked.drop[0] < drop < looked.drop[1]


@pytest.mark.parametrize("side", ["kept for the judgement", "of the search"])
def test_what_passes_on_one_half_alone_does_not_stand(case, enough, side):
    better, worse = (0, 1) if side == "kept for the judgement" else (1, 0)
    seed = next(s for s in range(99) if case.shares(s)[better] > case.shares(s)[worse])
    gates = Gates(min_accuracy=sum(case.shares(seed)) / 2)
    found = case.judge(gates, seed)(case.result)
    assert not found.stands and found.passed == (better == 0)
    assert (found.judged is None) == (better == 1)
    (failure,) = found.failures
    assert f"on the samples {side}" in failure.reason


def test_few_samples_are_not_halved(case):
    judge = case.judge(Gates(min_accuracy=0.0, min_agreement=0.0))
    found = judge(case.result)
    assert found.stands and found.judged is None
    assert found.searched.labelled == COUNT
    assert found.searched.figures["--min-accuracy"] == pytest.approx(case.hits.mean())
    assert judge.describe() == (
        "accuracy: searched and judged on the same 60 samples, too few to halve; "
        "outputs: searched and judged on the same 40 samples, too few to halve"
    )


def test_outputs_held_out_are_halved_by_batches(case, enough):
    judge = case.judge(Gates(min_agreement=0.0))
    found = judge(case.result)
    whole = worst_agreement(case.result.repaired_outputs)[1]
    sides = [s.figures["--min-agreement"] for s in (found.searched, found.judged)]
    assert sides[0] != sides[1]
    assert sum(sides) / 2 == pytest.approx(whole)  # both halves are of twenty
    assert judge.describe() == "outputs: searched on 20 samples, judged on 20 others"
    assert case.judge(Gates(max_drop=0)).describe() == (
        "accuracy: searched on 30 samples, judged on 30 others"
    )


def test_what_costs_a_run_of_the_labelled_data_is_asked_last(case, enough, monkeypatch):
    ran = []
    hits = LabelledData.hits

    def counted(self, models, indices=None, progress=None):
        ran.append((*models, None if indices is None else len(indices)))
        return hits(self, models, indices, progress)

    monkeypatch.setattr(LabelledData, "hits", counted)
    failing = case.judge(Gates(min_agreement=1.0, max_drop=1.0))
    assert not failing(case.result).passed and ran == []
    judge = case.judge(Gates(max_drop=0.0))  # fails on the half of the search
    assert not judge(case.result).passed and ran == [("m", 30), ("dense", None)]
    judge(case.result)
    assert ran[2:] == [("m", 30)]  # the dense model is not run again


def test_what_is_worse_than_plain_pruning_fails(case, monkeypatch):
    monkeypatch.setattr(verdict, "is_worse", lambda pruned, repaired, rounding: "'y' is worse")
    gates = Gates(min_cosine=-1.0)
    (failure,) = case.judge(gates)(case.result).failures
    assert failure.gate is None and "worse than plain pruning" in failure.reason
    assert case.judge(gates, allow_worse=True)(case.result).stands


def test_what_stands_passes_on_all_samples_too(case, enough, monkeypatch):
    """Of a figure that is no mean, both halves do not tell."""
    monkeypatch.setattr(
        gate_judge, "_measured", lambda _: gate_judge.Measured({}, metrics={"f1": 0.0})
    )
    judge = case.judge(Gates(min_metric=("f1=0.5",)))
    monkeypatch.setattr(judge, "_figures", OneMetric())
    found = judge(case.result)
    assert found.passed and not found.stands
    assert "metric f1 0.0000 is below" in found.failures[0].reason


class OneMetric:
    """Figures whose metric is content with any outputs."""

    def axes(self, proto):
        return {}

    def metric(self, dense, outputs, sizes):
        return {"f1": 1.0}


def test_without_a_gate_or_its_labels_there_is_no_judge(case):
    with pytest.raises(UsageError, match="needs a quality gate"):
        case.judge(Gates())
    with pytest.raises(UsageError, match="--max-drop needs labelled data"):
        GateJudge(Gates(max_drop=0.1), case.dense, case.batches, None, Figures(), Device(), "m", 3)
