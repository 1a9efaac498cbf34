"""``asr-onnx compare``: what it prints and writes, its exit codes, its errors."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
from PIL import Image


@pytest.fixture
def cases(folder, rng, asr):
    """``folder`` with a pruned model and 15 images labelled by the dense model, 3 per class."""
    net = onnx.load("m.onnx")
    assert asr("prune", "m.onnx", "--sparsity", "0.6", "-o", "p.onnx", "-q")[0] == 0
    labels = {}
    for number in range(15):
        path = folder / "labelled" / f"{number % 5}_kind" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).save(path)
        labels[path.relative_to(folder / "labelled").as_posix()] = number % 5
    (folder / "l.json").write_text(json.dumps(labels))
    (folder / "l.csv").write_text("".join(f"{k},{v}\n" for k, v in labels.items()))
    assert net.graph.output[0].name == "y"
    return folder


COMPARE = ("compare", "m.onnx", "p.onnx", "--data", "labelled", "--providers", "cpu")


def test_every_kind_of_label_gives_the_same_table_and_json(cases, asr):
    found = []
    for words in ((), ("--labels", "l.json"), ("--labels", "l.csv")):
        code, out, err = asr(*COMPARE, "--no-latency", "--json", "-", *words)
        assert code == 0 and "Accuracy on 15 samples" in err
        content = json.loads(out)
        content.pop("labels")
        content.pop("config")
        found.append(content)
    assert found[0] == found[1] == found[2]
    assert found[0]["dense"]["top1"]["total"] == 15


def test_the_tables_tell_accuracy_size_and_speed(cases, asr):
    code, out, _ = asr(*COMPARE, "p.onnx", "--topk", "2")
    assert code == 0
    for word in ("top-1", "top-2", "95 %", "zipped", "× dense", "integer that starts", "60.0%"):
        assert word in out
    assert "p.onnx against m.onnx: " in out and "(p = " in out
    assert "p.onnx (2) against p.onnx: not distinguishable on 15 images (p = 1)" in out


def test_without_labels_only_the_outputs_are_compared(cases, asr):
    code, out, _ = asr(*COMPARE, "--no-labels", "--no-latency")
    assert code == 0
    assert "top-1" not in out and "same answer" in out and "ms" not in out
    code, out, _ = asr(*COMPARE[:4], "x.npy", "--no-latency", "--providers", "cpu")
    assert code == 0
    assert "top-1" not in out and "12 samples" in out


def test_markdown_is_all_that_is_printed(cases, asr):
    words = ("--no-latency", "--markdown", "--report", "r.md", "--max-drop", "0")
    code, out, err = asr(*COMPARE, *words)
    assert code == 3 and out == (cases / "r.md").read_text(encoding="utf-8")
    assert out.startswith("## asr-onnx compare: failed\n") and "0 of 1 gate passed" in out
    assert "gate failed: p.onnx: drop of accuracy" in err and "top-1" not in err
    code, out, err = asr(*COMPARE, "--no-latency", "--markdown", "-q", "--no-labels")
    assert (code, err) == (0, "") and "No gate was set." in out and "### Accuracy" not in out
    code, out, err = asr(*COMPARE, "--markdown", "--json", "-")
    assert (code, out) == (2, "") and "--markdown and --json - both print" in err


GATES = ("--min-agreement", "1", "--min-accuracy", "1")


def test_a_failed_gate_is_exit_code_3_with_the_json_written(cases, asr):
    code, out, err = asr(*COMPARE, "-q", "--no-latency", "--json", "c.json", *GATES)
    assert (code, out) == (3, "")
    lines = err.splitlines()
    assert [line.split(":")[0] for line in lines] == ["gate failed", "gate failed", "error"]
    assert "--min-agreement" in lines[0] and "--min-accuracy" in lines[1]
    content = json.loads((cases / "c.json").read_text())
    assert len(content["failures"]) == 2
    assert content["models"][0]["agreement"] < 1
    asked = {"min_agreement": 1.0, "min_accuracy": 1.0}
    assert {k: v for k, v in content["gates"].items() if v not in (None, [])} == asked


def test_passed_gates_are_silent(cases, asr):
    words = ("-q", "--no-latency", "--min-agreement", "0", "--max-drop", "1")
    assert asr(*COMPARE, *words) == (0, "", "")


@pytest.mark.parametrize(
    "words, code, message",
    [
        (("--max-drop", "2"), 2, "--max-drop 2 is outside"),
        (("--labels", "l.json", "--no-labels"), 2, "--no-labels excludes --labels"),
        (("--max-drop", "0.1", "--no-labels"), 2, "--max-drop needs labels"),
        (("--json", "l.json"), 2, "'l.json' exists already"),
        (("--json", "none/c.json"), 2, "folder 'none' of the output does not exist"),
        (("--data", "nowhere"), 1, "'nowhere' does not exist"),
        (("--data", "images"), 1, "2 class folders, but output 'y' has 5"),
        (("--labels", "gone.csv"), 1, "'gone.csv' cannot be read"),
        (("--classes", "l.csv"), 1, "class folder '0_kind' is not among"),
        (("--providers", "gpu"), 2, "provider 'gpu' is not one of"),
        (("gone.onnx",), 1, "model 'gone.onnx' does not exist"),
        (("x.npy",), 1, "model 'x.npy' is not an ONNX file"),
        (("--topk", "0"), 2, "--topk"),
    ],
)
def test_errors_name_the_thing(cases, asr, words, code, message):
    found, out, err = asr(*COMPARE, "-q", "--no-latency", *words)
    assert (found, out) == (code, "")
    assert message in err and "Traceback" not in err
