"""Labelled data: where models are right, on all of the samples or on some."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from models import balanced, norm_net, normal, run

from asr_onnx import prune
from asr_onnx.data.arrays import ArraySamples
from asr_onnx.errors import CalibrationError
from asr_onnx.evaluation.labelled import LabelledData
from asr_onnx.graph.inputs import model_inputs
from asr_onnx.options import PruneOptions


@pytest.fixture
def case(tmp_path):
    """A model, its 50 samples, and the labelled data that it labels itself."""
    rng = np.random.default_rng(7)
    x = normal(rng, 50, 3, 8, 8)
    model = balanced(norm_net(rng), x=x)
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "l.npy", run(model, x=x)["y"].argmax(1))
    data = LabelledData(model, Path(tmp_path, "x.npy"), Path(tmp_path, "l.npy"), batch_size=8)
    return model, x, data


def test_hits_are_where_the_arg_max_is_the_label(case):
    model, x, data = case
    pruned = prune(model, PruneOptions(0.6))
    found = data.hits({"dense": model, "pruned": pruned})
    assert found["dense"].all() and found["dense"].shape == (50,)
    assert np.array_equal(found["pruned"], run(pruned, x=x)["y"].argmax(1) == data.labels.values)
    assert 0 < found["pruned"].mean() < 1
    top1 = data.top1({"pruned": pruned})["pruned"]
    assert (top1.correct, top1.total) == (found["pruned"].sum(), 50)


def test_samples_and_labels_may_be_given_as_they_are(case):
    model, x, data = case
    samples = ArraySamples.from_data(x, model_inputs(model))
    given = LabelledData(model, samples, data.labels.values, batch_size=8)
    models = {"pruned": prune(model, PruneOptions(0.6))}
    assert np.array_equal(given.hits(models)["pruned"], data.hits(models)["pruned"])
    with pytest.raises(CalibrationError, match=r"^labelled data given tells no accuracy"):
        LabelledData(model, samples)


def test_hits_on_some_samples_are_those_of_all_in_the_order_asked_for(case):
    model, _, data = case
    models = {"pruned": prune(model, PruneOptions(0.6))}
    chosen = [41, 3, 17, 8, 0, 49, 22, 5, 12, 30]
    whole, part = data.hits(models)["pruned"], data.hits(models, chosen)["pruned"]
    assert np.array_equal(part, whole[chosen])
