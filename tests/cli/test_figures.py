"""A detector on the command line: what judges it, what does not and says so, and the user's metric.

The output is laid out as YOLO's: (N, 4 + classes, anchors), boxes in pixels beside scores.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from browser import check_sound, pictures, rows, visible
from models import build, normal, run, yolo

from asr_onnx.cli import request

SCRIPT = '''
"""F1 of the boxes found, the dense model's being the truth."""
import numpy as np

def _found(y):
    scores = y[:, 4:].max(axis=1)
    return np.where(scores > 0.5, y[:, 4:].argmax(axis=1), -1)

def _iou(a, b):
    low = np.maximum(a[:, :2] - a[:, 2:4] / 2, b[:, :2] - b[:, 2:4] / 2)
    high = np.minimum(a[:, :2] + a[:, 2:4] / 2, b[:, :2] + b[:, 2:4] / 2)
    both = np.prod(np.maximum(high - low, 0), axis=1)
    return both / (a[:, 2] * a[:, 3] + b[:, 2] * b[:, 3] - both)

def metric(dense_outputs, outputs):
    dense, other = dense_outputs["y"], outputs["y"]
    mine, theirs = _found(dense), _found(other)
    hits = (mine >= 0) & (mine == theirs) & (_iou(dense, other) > 0.5)
    f1 = 2 * hits.sum() / max((mine >= 0).sum() + (theirs >= 0).sum(), 1)
    dense_outputs["y"] -= 1e6  # a script may do with its arrays as it likes
    return {"f1": f1, "boxes": (theirs >= 0).sum()}
'''
COMPARE = ("compare", "m.onnx", "p.onnx", "--data", "x.npy", "--providers", "cpu", "--no-latency")
REPAIR = ("repair", "m.onnx", "--calib", "x.npy", "--providers", "cpu", "-o", "o.onnx",
          "--batch-size", "16")  # fmt: skip
LOST = (*REPAIR, "--sparsity", "0.97")


@pytest.fixture
def cases(folder, rng, asr):
    """``folder`` with a detector, and the same pruned until it finds nothing."""
    model = yolo(rng)
    onnx.save(model, "m.onnx")
    x = normal(rng, 60, 3, 16, 16)
    np.save("x.npy", x)
    assert asr("prune", "m.onnx", "--sparsity", "0.97", "-o", "p.onnx", "-q")[0] == 0
    (folder / "f1.py").write_text(SCRIPT)
    found = [run(m, x=x)["y"][:, 4:].max(axis=1) > 0.5 for m in (model, onnx.load("p.onnx"))]
    assert found[0].sum() > 100 and found[1].sum() == 0
    return folder


def report():
    return json.loads(Path("r.json").read_text(encoding="utf-8"))


def test_a_detector_that_finds_nothing_fails_on_its_error(cases, asr):
    """Though boxes hardly move: most of their arg-max, and of their size, is the grid."""
    code, out, err = asr(*COMPARE, "--max-error", "0.5", "--report", "r.json")
    assert code == 3
    assert "gate failed: p.onnx: error (output 'y') " in err and "--max-error 0.5" in err
    match = report()["models"][0]["outputs"]["y"]
    assert match["relative_error"] > 0.8 and match["cosine"] < 0.5
    assert (match["agreement"], match["one_answer"]) == (None, False)
    assert "same answer" in out and "–" in out
    dense, lost = (run(onnx.load(m), x=np.load("x.npy"))["y"] for m in ("m.onnx", "p.onnx"))
    assert (dense.argmax(axis=1) == lost.argmax(axis=1)).mean() > 0.9  # what it used to be told by
    assert asr(*COMPARE, "--min-cosine", "0.5")[0] == 3
    assert (
        asr(*COMPARE[:2], "m.onnx", *COMPARE[3:], "--max-error", "0", "--min-cosine", "1")[0] == 0
    )


@pytest.mark.parametrize("words", [COMPARE, LOST])
def test_agreement_with_a_detector_is_refused_with_the_option_that_declares_the_axis(
    cases, asr, monkeypatch, words
):
    monkeypatch.setattr(request, "repair_model", no_work)
    code, out, err = asr(*words, "-q", "--min-agreement", "0.9", "--report", "r.json")
    assert (code, out) == (2, "")
    assert "the class axis of 'y' is not known: declare it with --class-axis OUTPUT:AXIS" in err
    assert not (cases / "r.json").exists() and not (cases / "o.onnx").exists()


def no_work(*_, **__):
    raise AssertionError("the repair was begun")


def test_a_declared_axis_has_an_agreement(cases, asr):
    code, out, _ = asr(*COMPARE, "--class-axis", "y:1", "--json", "-")
    match = json.loads(out)["models"][0]["outputs"]["y"]
    assert code == 0 and 0 <= match["agreement"] < 1 and 0 < match["answers"] < 60 * 64


def test_a_metric_of_the_users_gates_a_comparison(cases, asr, show):
    script = ("--metric-script", "f1.py")
    gate = ("--min-metric", "f1=0.9", "--report", "r.html", "--report", "r.json")
    code, out, err = asr(*COMPARE, *script, *gate)
    assert code == 3
    assert "gate failed: p.onnx: metric f1 0.0000 is below --min-metric f1=0.9\n" in err
    assert "Metrics of --metric-script" in out
    found = report()
    assert found["dense"]["metrics"]["f1"] == 1 and found["dense"]["metrics"]["boxes"] > 100
    assert found["models"][0]["metrics"] == {"f1": 0.0, "boxes": 0.0}
    page = show(cases / "r.html")
    check_sound(page)
    assert rows(page, "metrics")[1] == ["p.onnx", "0", "0"]
    text = visible(page)
    assert "p.onnx fails the gates (--min-metric f1=0.9)." in text
    assert "Metric f1" in text and "Error of the outputs" in text
    assert len(pictures(page)) == 5
    assert asr(*COMPARE[:2], "m.onnx", *COMPARE[3:], *script, *gate[:2])[0] == 0


def test_a_metric_of_the_users_gates_a_repair(cases, asr, show):
    gate = ("--metric-script", "f1.py:metric", "--min-metric", "f1=0.9", "--report", "r.json")
    code, out, err = asr(*LOST, *gate)
    assert code == 3 and "metric f1 0." in err and "below --min-metric f1=0.9" in err
    assert not (cases / "o.onnx").exists()
    assert report()["metrics"]["pruned"] == {"f1": 0.0, "boxes": 0.0}
    (cases / "r.json").unlink()
    code, out, err = asr(*REPAIR, "--sparsity", "0.1", *gate, "--report", "r.html")
    assert code == 0, err
    assert "Metrics of --metric-script" in out and "f1" in out
    found = report()["metrics"]
    assert found["repaired"]["f1"] > max(0.9, found["pruned"]["f1"] - 0.1)
    page = show(cases / "r.html")
    check_sound(page)
    assert [r[0] for r in rows(page, "metrics")] == ["f1", "boxes"]
    assert "f1, repaired" in visible(page) and "min_metric" in visible(page)


def test_metrics_without_a_gate_are_told_all_the_same(cases, asr):
    code, out, _ = asr(*COMPARE, "--metric-script", "f1.py", "--json", "-")
    assert code == 0 and json.loads(out)["models"][0]["metrics"]["f1"] == 0


BROKEN = {
    "gone.py": (None, "metric script 'gone.py' does not exist"),
    "f1.py:f2": (SCRIPT, "metric script 'f1.py' has no function 'f2'"),
    "raises.py": ("def metric(a, b):\n    return a['z']\n", "'raises.py', line 2: KeyError: 'z'"),
    "broken.py": ("def metric(a, b)\n", "'broken.py', line 1: SyntaxError: "),
    "number.py": ("def metric(a, b): return 0.5\n", "metric() gives a float, not {name: value}"),
    "nothing.py": ("def metric(a, b): pass\n", "metric() gives nothing, not {name: value}"),
    "empty.py": ("def metric(a, b): return {}\n", "metric() gives nothing, not {name: value}"),
    "words.py": ("def metric(a, b): return {'f1': 'good'}\n", "'f1' is good, not a finite number"),
    "arrays.py": ("def metric(a, b): return {'f1': a['y']}\n", "not a finite number"),
    "nan.py": ("def metric(a, b): return {'f1': float('nan')}\n", "'f1' is nan, not a finite"),
    "leaves.py": ("def metric(a, b): raise SystemExit('bye')\n", "line 1: SystemExit: bye"),
}


@pytest.mark.parametrize("command", [COMPARE, LOST])
@pytest.mark.parametrize("name", BROKEN)
def test_a_metric_script_that_does_not_work_is_one_line(cases, asr, monkeypatch, command, name):
    monkeypatch.setattr(request, "repair_model", no_work)
    content, message = BROKEN[name]
    if content:
        (cases / name.split(":")[0]).write_text(content)
    words = ("-q", "--metric-script", name, "--min-metric", "f1=0.5", "--report", "r.json")
    code, out, err = asr(*command, *words)
    assert (code, out) == (1, "")
    assert err.startswith("error: ") and err.count("\n") == 1 and message in err
    assert not (cases / "r.json").exists()


@pytest.mark.parametrize("command", [COMPARE, LOST])
@pytest.mark.parametrize(
    "words, message",
    [
        (("--class-axis", "scores:1"), "the model's outputs are 'y', none is 'scores'"),
        (("--class-axis", "y:3"), "output 'y' has 3 axes, of which 0 is the batch"),
        (("--class-axis", "y:-3"), "output 'y' has 3 axes, of which 0 is the batch"),
        (("--class-axis", "y"), "class axis 'y' is not OUTPUT:AXIS, such as scores:2"),
        (("--class-axis", "y:0"), "class axis 'y:0' is not OUTPUT:AXIS"),
        (("--min-metric", "f1=0.9"), "--min-metric is about --metric-script: give that, too"),
        (("--metric-script", "f1.py", "--min-metric", "f2=1"), "gives 'f1', 'boxes'"),
        (("--min-metric", "f1"), "--min-metric 'f1' is not NAME=VALUE"),
        (("--max-error", "-1"), "--max-error -1 is negative"),
        (("--min-cosine", "2"), "--min-cosine 2 is outside [-1, 1]"),
    ],
)
def test_what_cannot_be_is_refused(cases, asr, monkeypatch, command, words, message):
    monkeypatch.setattr(request, "repair_model", no_work)
    code, out, err = asr(*command, "-q", *words)
    assert (code, out) == (2, "")
    assert message in err


def test_a_dense_model_with_one_answer_is_told_loudly(folder, asr, show):
    model = onnx.load("m.onnx")
    bias = next(t for t in model.graph.initializer if t.name == "fb")
    bias.CopyFrom(onnx.numpy_helper.from_array(np.float32([1e3, 0, 0, 0, 0]), "fb"))
    onnx.save(model, "m.onnx")
    assert asr("prune", "m.onnx", "-o", "p.onnx", "-q")[0] == 0
    words = ("--report", "r.html", "--report", "r.json")
    warning = "the dense model gives one and the same answer in output 'y' on all 12 samples"
    code, out, err = asr(*COMPARE, *words)
    assert code == 0 and f"warning: {warning}" in err and "one answer" in out
    assert report()["models"][0]["agreement"] is None
    assert warning[1:] in visible(show(folder / "r.html"))
    code, _, err = asr(*COMPARE, "--min-agreement", "0.5")
    assert code == 3 and "which gives the same answer to all samples, was not measured" in err
    code, out, err = asr(*REPAIR, "--force", *words)
    assert code == 0 and "warning: the dense model gives one" in err and "one answer" in out
    assert "The dense model gives one and the same answer" in visible(show(folder / "r.html"))


TEXTS = {  # the graph behind features (N, 4, 6, 6), and what declares the classes
    "N,T,C": ("f = Reshape (c, shape) t = Transpose <perm = [0, 2, 1]> (f) "
              "y = Softmax <axis = 2> (t)", "float[N,36,4] y", ()),
    "T,N,C": ("f = Reshape (c, shape) t = Transpose <perm = [2, 0, 1]> (f) y = LogSoftmax (t)",
              "float[36,N,4] y", ()),
    "T,N,C by hand": ("f = Reshape (c, shape) y = Transpose <perm = [2, 0, 1]> (f)",
                      "float[36,N,4] y", ("--class-axis", "y:-1")),
    "NHWC": ("y = Transpose <perm = [0, 2, 3, 1]> (c)", "float[N,6,6,4] y",
             ("--class-axis", "y:3")),
    "NCHW": ("y = Softmax <axis = 1> (c)", "float[N,4,6,6] y", ()),
}  # fmt: skip


@pytest.mark.parametrize("layout", TEXTS)
def test_texts_and_maps_of_any_layout_are_repaired_and_compared_alike(folder, rng, asr, layout):
    """The same answers, however they are laid out."""
    nodes, output, declared = TEXTS[layout]
    weights = {"w": normal(rng, 4, 3, 3, 3), "b": np.float32([2, 0, 0, 0])}
    weights |= {"shape": np.array([0, 4, -1], np.int64)}
    graph = f"g (float[N,3,8,8] x) => ({output}) {{ c = Conv (x, w, b) %s }}"
    onnx.save(build(graph % nodes, weights), "m.onnx")
    x = normal(rng, 25, 3, 8, 8)
    np.save("x.npy", x)
    words = (*REPAIR, "--sparsity", "0.5", "--holdout", "0.4", "--batch-size", "4", *declared)
    code, out, err = asr(*words, "--min-agreement", "0.1", "--report", "r.json")
    assert code == 0, err
    repaired = report()["outputs"]["repaired"]["y"]
    assert repaired["samples"] == 10 and 0 < repaired["answers"] < 36 * 10
    assert asr("prune", "m.onnx", "--sparsity", "0.5", "-o", "p.onnx", "-q")[0] == 0
    code, out, _ = asr(*COMPARE, *declared, "--json", "-", "--batch-size", "4")
    match = json.loads(out)["models"][0]["outputs"]["y"]
    # Blank, or background, is what the dense model answers most.
    plain = "c = Conv (x, w, b) y = Identity (c)"
    model = build(f"g (float[N,3,8,8] x) => (float[N,4,6,6] y) {{ {plain} }}", weights)
    dense = run(model, x=x)["y"].argmax(axis=1)
    pruned = next(t for t in onnx.load("p.onnx").graph.initializer if t.name == "w")
    model = build(f"g (float[N,3,8,8] x) => (float[N,4,6,6] y) {{ {plain} }}",
                  weights | {"w": onnx.numpy_helper.to_array(pruned)})  # fmt: skip
    other = run(model, x=x)["y"].argmax(axis=1)
    counts = dense != np.bincount(dense.ravel()).argmax()
    assert match["answers"] == counts.sum()
    assert match["agreement"] == pytest.approx((dense == other)[counts].mean(), abs=0.003)
