"""What a sweep's curve is of without labels: answers where they are known, else cosine."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from models import build, copied, norm_net, normal, stored
from rich.console import Console

import asr_onnx
from asr_onnx import ModelError
from asr_onnx.graph.inputs import model_inputs
from asr_onnx.reports import sweep_tables


def sweep(**settings):
    """A sweep of small things, and how many of its cells were finished before."""
    lines = []
    given = {"recipes": ["asr"], "sparsities": [0.5], "holdout": 0.5, "batch_size": 10, **settings}
    found = asr_onnx.sweep("m.onnx", "c.npy", "out", tell=lines.append, **given)
    reused = next(line for line in lines if line.endswith("finished before"))
    return found, int(reused.split()[0])


MAPS = "maps (float[N,3,8,8] x) => (float[N,4,8,8] y) { c = Conv <pads = [1, 1, 1, 1]> (x, w) %s }"


def folder_of(graph, rng, channels=4):
    """The model and samples for it, in the current folder."""
    model = build(graph, {"w": normal(rng, channels, 3, 3, 3)})
    onnx.save(model, "m.onnx")
    np.save("c.npy", normal(rng, 20, 3, 8, 8))
    return model


def test_an_agreement_of_positions_has_no_interval(rng, tmp_path, monkeypatch):
    """They are not independent, and more than there are samples."""
    monkeypatch.chdir(tmp_path)
    folder_of(MAPS % "y = Softmax <axis = 1> (c)", rng)
    content, _ = sweep()
    assert content["metric"] == "agreement"
    assert 0 < content["cells"][0]["value"] < 1
    assert (content["cells"][0]["low"], content["cells"][0]["high"]) == (None, None)


def test_where_no_class_axis_is_known_the_curve_is_of_the_cosine(rng, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = folder_of(MAPS % "y = Identity (c)", rng)
    content, _ = sweep(sparsities=[0.3, 0.8])
    assert (content["metric"], content["samples"]) == ("cosine", 10)
    calibration = asr_onnx.as_batches(
        np.load("c.npy"), model_inputs(model), holdout=0.5, batch_size=10
    )
    for cell in content["cells"]:
        options = asr_onnx.recipe("asr", sparsity=cell["sparsity"])
        result = asr_onnx.repair(model, calibration, options)
        assert cell["value"] == cell["cosine"] == result.repaired_outputs["y"].cosine < 1
        assert cell["pruned"]["value"] == result.pruned_outputs["y"].cosine
        assert (cell["agreement"], cell["accuracy"], cell["low"]) == (None, None, None)
    first, second = content["cells"]
    assert first["value"] > second["value"]
    assert sweep(sparsities=[0.3, 0.8])[1] == 2  # what is kept is found again
    table = Console(width=100, record=True, quiet=True)
    with table.capture() as captured:
        table.quiet = False
        table.print(sweep_tables.table(content))
    text = captured.get()
    assert "Similarity to the dense outputs" in text and f"{first['value']:.3f}" in text
    assert "similarity to the dense outputs (cosine)" in Path("out/sweep.svg").read_text()


def test_a_dense_model_with_one_answer_has_a_curve_of_the_cosine(rng, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = norm_net(rng)
    biased = copied(model, fb=stored(model)["fb"] + 1e3 * np.eye(5, dtype=np.float32)[2])
    onnx.save(biased, "m.onnx")
    np.save("c.npy", normal(rng, 20, 3, 8, 8))
    content, _ = sweep()
    assert content["metric"] == "cosine"
    assert 0 < content["cells"][0]["value"] < 1


def test_a_model_of_text_alone_is_refused_before_any_work(rng, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    graph = """t (float[N,3,8,8] x) => (string[N,4,6,6] y) {
        c = Conv (x, w) y = Cast <to = 8> (c) }"""
    folder_of(graph, rng)
    with pytest.raises(ModelError, match="nothing to draw a curve of"):
        sweep()
    assert not Path("out").exists()
