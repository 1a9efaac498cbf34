"""``quantize``, and ``repair --precision int8``: what is written, told and refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from models import bare_net, normal, stored

from asr_onnx import load
from asr_onnx.graph.qdq import stored_integers
from asr_onnx.repairing import job

CALIBRATION = ("--calib", "c.npy", "--providers", "cpu")
QUANTIZE = ("quantize", "m.onnx", *CALIBRATION)


@pytest.fixture
def cases(folder, rng):
    """``folder`` with more samples, and a model pruned to 2:4."""
    np.save("c.npy", normal(rng, 80, 3, 8, 8))
    return folder


def report():
    return json.loads(Path("r.json").read_text(encoding="utf-8"))


def test_the_model_is_written_in_integers_and_told_of(cases, asr):
    code, out, err = asr(*QUANTIZE, "--report", "r.json", "--report", "r.html")
    assert code == 0, err
    assert "int8 for tensorrt: 3 products, 3 of them repaired" in out
    model = load("m.int8.onnx").proto
    onnx.checker.check_model(model, full_check=True)
    assert len(stored_integers(model)) == 3
    found = report()
    assert found["options"]["precision"] == "int8"
    integers = found["integers"]
    assert (integers["engine"], integers["products"], integers["activations"]) == ("tensorrt", 3, 5)
    assert integers["rounded_to_zero"] == sum(s["rounded_to_zero"] for s in found["sites"])
    assert "int8" in Path("r.html").read_text(encoding="utf-8")


def test_what_was_pruned_keeps_its_zeros_and_looks_at_the_dense_model(cases, asr):
    asr("prune", "m.onnx", "--pattern", "2:4", "-q")
    words = ("quantize", "m.pruned.onnx", "--dense", "m.onnx", "--for", "onnxruntime", "-q")
    assert asr(*words, *CALIBRATION)[0] == 0
    pruned, model = load("m.pruned.onnx").proto, load("m.pruned.int8.onnx").proto
    (place,) = (p for t, p in stored_integers(model).items() if t.startswith("w2"))
    assert not stored(model)[place.integers][stored(pruned)["w2"] == 0].any()
    assert stored(model)["x_zero_point"].dtype == np.uint8


def test_both_in_one_step_is_inspected_as_int8(cases, asr):
    words = ("repair", "m.onnx", "--pattern", "2:4", "--precision", "int8", "-o", "q.onnx", "-q")
    assert asr(*words, *CALIBRATION)[0] == 0
    code, out, _ = asr("inspect", "q.onnx", "--engine", "tensorrt")
    assert code == 0 and "int8" in out
    code, out, _ = asr("compare", "m.onnx", "q.onnx", "--data", "c.npy", "--providers", "cpu")
    assert code == 0 and "q.onnx" in out


def test_what_is_quantised_is_not_quantised_again(cases, asr):
    assert asr(*QUANTIZE, "-q")[0] == 0
    code, _, err = asr("quantize", "m.int8.onnx", *CALIBRATION)
    assert code == 1
    assert err.splitlines()[-1].startswith("error: the model has no convolution that can be pruned")
    assert not Path("m.int8.int8.onnx").exists()


def test_gates_are_held(cases, asr):
    code, _, err = asr(*QUANTIZE, "--min-cosine", "0.999999", "-q")
    assert code == 3 and "gate failed" in err
    assert not Path("m.int8.onnx").exists()


def test_kernels_that_are_off_are_warned_of(cases, asr, monkeypatch):
    exact = job.run_checked

    def saturated(*args):
        return [{n: v * np.float32(0.5) for n, v in batch.items()} for batch in exact(*args)]

    monkeypatch.setattr(job, "run_checked", saturated)
    code, _, err = asr(*QUANTIZE)
    assert code == 0
    assert "warning: computed in integers by ONNX Runtime on this machine, 'y' is off by" in err


@pytest.mark.parametrize(
    "words, told",
    [
        (("--exclude", "."), "no product of float32"),
        (("--for", "openvino"), "'openvino' is not one of"),
        (("--sparsity", "0.5"), "No such option"),
    ],
)
def test_mistakes_are_one_line(cases, asr, words, told):
    code, _, err = asr(*QUANTIZE, *words)
    assert code != 0 and told in err
    assert not Path("m.int8.onnx").exists()


def test_engines_and_ranges_are_of_int8(cases, asr):
    code, _, err = asr("repair", "m.onnx", *CALIBRATION, "--for", "onnxruntime")
    assert code == 2 and "--for and --ranges go with --precision int8" in err


def test_what_a_repair_has_written_can_be_quantized_after_the_model_it_was(cases, asr, rng):
    """Though repair gives convolutions a bias that had none."""
    onnx.save(bare_net(rng), "bare.onnx")
    assert asr("repair", "bare.onnx", *CALIBRATION, "--pattern", "2:4", "-q")[0] == 0
    words = ("quantize", "bare.sparse.onnx", "--dense", "bare.onnx", "-q")
    code, _, err = asr(*words, *CALIBRATION)
    assert code == 0, err
