"""Quality gates of ``repair``: what ships, what is rejected and where it goes, what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from browser import WIDTHS, check_sound, rows, visible
from models import balanced, external_copy, files, norm_net, normal, run, stored

from asr_onnx.cli import request
from asr_onnx.graph.model_file import load
from asr_onnx.repairing import verdict

REPAIR = ("repair", "m.onnx", "--calib", "c.npy", "-o", "out.onnx", "--sparsity", "0.7",
          "--holdout", "0.5", "--providers", "cpu", "-q")  # fmt: skip
DATA = ("--data", "t.npy", "--labels", "l.npy")


@pytest.fixture
def cases(folder):
    """``folder`` with 40 samples to calibrate on, and 60 that the dense model labels."""
    rng = np.random.default_rng(7)
    model = norm_net(rng)
    images = {name: normal(rng, count, 3, 8, 8) for name, count in (("c", 40), ("t", 60))}
    model = balanced(model, x=images["t"])
    onnx.save(model, "m.onnx")
    for name, array in images.items():
        np.save(f"{name}.npy", array)
    np.save("l.npy", run(model, x=images["t"])["y"].argmax(1))
    return folder


def report():
    return json.loads(Path("r.json").read_text(encoding="utf-8"))


def test_accuracy_is_told_with_its_interval_even_without_a_gate(cases, asr):
    words = [w for w in REPAIR if w != "-q"]
    code, out, _ = asr(*words, *DATA, "--report", "r.json")
    assert code == 0
    assert "Accuracy on 60 samples" in out and "out.onnx against dense: " in out
    found = report()
    accuracy, model = found["accuracy"], load("out.onnx").proto
    right = int((run(model, x=np.load("t.npy"))["y"].argmax(1) == np.load("l.npy")).sum())
    assert accuracy["dense"]["top1"]["correct"] == accuracy["samples"] == 60
    top1 = accuracy["repaired"]["top1"]
    assert top1["correct"] == right < 60
    assert top1["low"] < top1["share"] < top1["high"]
    assert accuracy["repaired"]["against_dense"]["first_only"] == 60 - right
    assert (accuracy["data"], accuracy["class_output"], accuracy["topk"]) == ("t.npy", "y", None)
    assert (found["failures"], found["rejected"]) == ([], None)
    assert all(bound in (None, []) for bound in found["gates"].values())


def test_met_gates_let_the_model_pass_and_missed_ones_do_not(cases, asr):
    """The bounds are what was measured, and a hair beyond."""
    assert asr(*REPAIR, *DATA, "--report", "r.json") == (0, "", "")
    wanted, found = (cases / "out.onnx").read_bytes(), report()
    agreement = found["outputs"]["repaired"]["y"]["agreement"]
    accuracy = found["accuracy"]["repaired"]["top1"]["share"]
    assert agreement < 1 and accuracy < 1
    bounds = {"--min-agreement": agreement, "--min-accuracy": accuracy, "--max-drop": 1 - accuracy}
    met = [str(word) for pair in bounds.items() for word in pair]
    (cases / "out.onnx").unlink()
    assert asr(*REPAIR, *DATA, *met) == (0, "", "")
    assert (cases / "out.onnx").read_bytes() == wanted
    for option, bound in bounds.items():
        (cases / "out.onnx").unlink(missing_ok=True)
        (cases / "r.json").unlink()
        beyond = bound + (-1e-4 if option == "--max-drop" else 1e-4)
        words = (*met, option, str(beyond), "--report", "r.json")  # the last of an option counts
        code, out, err = asr(*REPAIR, *DATA, *words)
        assert (code, out) == (3, "")
        first, last = err.splitlines()
        assert first.startswith("gate failed: out.onnx: ") and option in first
        assert last == "error: 1 quality gate failed: no model is written"
        assert not list(cases.glob("out*"))
        found = report()
        (failure,) = found["failures"]
        assert (failure["model"], failure["gate"]) == ("out.onnx", option)
        assert first == f"gate failed: out.onnx: {failure['reason']}"
        assert found["gates"][option[2:].replace("-", "_")] == beyond
        assert (found["output"], found["rejected"]) == (None, None)
        assert found["files"].keys() == {"m.onnx"}


MISSED = ("--min-agreement", "1", "--min-accuracy", "1", "--max-drop", "0")


def test_a_rejected_model_is_kept_under_another_name_if_asked_for(cases, asr):
    words = (*MISSED, "--keep-rejected", "--report", "r.json")
    code, _, err = asr(*REPAIR, *DATA, *words)
    assert code == 3
    assert err.endswith("error: 3 quality gates failed: the model is kept as 'out.rejected.onnx'\n")
    assert [p.name for p in cases.glob("out*")] == ["out.rejected.onnx"]
    found = report()
    assert (found["output"], found["rejected"]) == (None, "out.rejected.onnx")
    assert found["files"].keys() == {"m.onnx", "out.rejected.onnx"}
    assert len(found["failures"]) == 3
    # It is the model that would have been written; one that passes lies at its own place only.
    assert asr(*REPAIR, *DATA, "--keep-rejected", "--force") == (0, "", "")
    assert (cases / "out.onnx").read_bytes() == (cases / "out.rejected.onnx").read_bytes()


def test_a_rejected_model_keeps_its_external_data_apart(cases, asr):
    external_copy(load("m.onnx").proto, cases / "e", "m.onnx", "m.onnx.data")
    words = ("repair", "e/m.onnx", *REPAIR[2:4], "-o", "e/out.onnx", *REPAIR[6:])
    assert asr(*words, "--min-agreement", "1", "--keep-rejected")[0] == 3
    *others, data = files(cases / "e")
    assert others == ["m.onnx", "m.onnx.data", "out.rejected.onnx"]
    assert data.startswith("out.rejected.onnx.")
    assert (stored(load("e/out.rejected.onnx").proto)["w2"] == 0).any()


@pytest.mark.parametrize("keep", [False, True])
def test_force_overwrites_but_waives_no_gate(cases, asr, keep):
    for name in ("out.onnx", "out.rejected.onnx", "r.json"):
        (cases / name).write_text("of an earlier run")
    words = (*MISSED, "--force", "--report", "r.json", *(["--keep-rejected"] * keep))
    assert asr(*REPAIR, *DATA, *words)[0] == 3
    assert (cases / "out.onnx").read_text() == "of an earlier run"
    assert "out.onnx" not in report()["files"]
    rejected = (cases / "out.rejected.onnx").read_bytes()
    assert (rejected == b"of an earlier run") == (not keep)


@pytest.fixture
def worse(cases, monkeypatch):
    """As if every repair were worse than plain pruning."""
    monkeypatch.setattr(verdict, "is_worse", lambda pruned, repaired, rounding: "'y' is worse")
    return cases


def test_what_is_worse_than_plain_pruning_is_rejected_the_same_way(worse, asr):
    words = ("--report", "r.json", "--keep-rejected")
    code, out, err = asr(*REPAIR, *words)
    assert (code, out) == (3, "")
    assert err == (
        "error: repair did worse than plain pruning on held-out images ('y' is worse): the model "
        "is kept as 'out.rejected.onnx'; give more or better calibration images, less sparsity, "
        "or --force\n"
    )
    assert [p.name for p in worse.glob("out*")] == ["out.rejected.onnx"]
    assert len(report()["failures"]) == 1
    _, _, err = asr(*REPAIR, "--min-agreement", "1")
    assert "error: 1 quality gate failed, and repair did worse" in err
    assert err.endswith("('y' is worse): no model is written\n")


def test_force_lets_pass_what_is_worse_but_no_gate(worse, asr):
    assert asr(*REPAIR, "--force", "--report", "r.json") == (0, "", "")
    assert (worse / "out.onnx").is_file() and report()["failures"] == []
    (worse / "out.onnx").unlink()
    code, _, err = asr(*REPAIR, "--force", "--min-agreement", "1")
    assert code == 3 and "plain pruning" not in err
    assert not (worse / "out.onnx").exists()


def test_every_gate_is_told_of_passed_or_not(cases, asr):
    met = ("--min-agreement", "0", "--max-drop", "1", "--min-accuracy", "1", "--report", "r.json")
    assert asr(*REPAIR, *DATA, *met)[0] == 3
    found = report()
    assert [(c["gate"], c["outcome"]) for c in found["checks"]] == [
        ("--min-agreement", "passed"), ("--min-accuracy", "failed"), ("--max-drop", "passed"),
        ("no worse than unrepaired", "passed"),
    ]  # fmt: skip
    agreement, accuracy, drop, plain = found["checks"]
    assert agreement["value"] == found["outputs"]["repaired"]["y"]["agreement"]
    assert accuracy["value"] == found["accuracy"]["repaired"]["top1"]["share"]
    assert drop["value"] == pytest.approx(1 - accuracy["value"])
    assert plain["value"] == found["outputs"]["repaired"]["y"]["relative_error"] < plain["bound"]
    assert plain["bound"] > found["outputs"]["pruned"]["y"]["relative_error"]
    assert [f["reason"] for f in found["failures"]] == [accuracy["reason"]]


def test_what_is_worse_and_waived_is_told_as_that(worse, asr):
    assert asr(*REPAIR, "--report", "r.json")[0] == 3
    (check,) = report()["checks"]
    assert check["outcome"] == "failed" and "worse than plain pruning" in check["reason"]
    assert asr(*REPAIR, "--force", "--report", "r.json", "--report", "r.md")[0] == 0
    (check,) = report()["checks"]
    assert check["outcome"] == "waived" and "worse than plain pruning" in check["reason"]
    assert "failed, waived" in Path("r.md").read_text(encoding="utf-8")


def no_work(*_, **__):
    raise AssertionError("the repair was begun")


@pytest.mark.parametrize(
    "words, code, message",
    [
        (("--min-agreement", "2"), 2, "--min-agreement 2 is outside [0, 1]"),
        (("--min-accuracy", "0.9"), 2, "--min-accuracy needs labelled data: give --data"),
        (("--max-drop", "0.1"), 2, "--max-drop needs labelled data: give --data"),
        (("--labels", "l.npy"), 2, "--labels is about labelled data: give --data, too"),
        (("--classes", "l.npy"), 2, "--classes is about labelled data: give --data, too"),
        (("--min-agreement", "0.9", "--holdout", "0"), 2, "--min-agreement is about samples that"),
        (("--keep-rejected",), 2, "'out.rejected.onnx' exists already"),
        (("--data", "t.npy"), 1, "'t.npy' tells no accuracy: it takes class folders or --labels"),
        (("--data", "images/class0"), 1, "'images/class0' tells no accuracy"),
        (("--data", "images"), 1, "2 class folders, but output 'y' has 5"),
        (("--data", "none"), 1, "'none' does not exist"),
        (("--data", "t.npy", "--labels", "c.npy"), 2, "labels 'c.npy' are float32"),
        (("--data", "c.npy", "--labels", "l.npy"), 1, "shape [60], but there are 40 samples"),
    ],
)
def test_what_cannot_be_is_refused_before_any_work(cases, asr, monkeypatch, words, code, message):
    (cases / "out.rejected.onnx").write_text("of an earlier run")
    monkeypatch.setattr(request, "repair_model", no_work)
    before = {name: (cases / name).read_bytes() for name in files(cases)}
    found, out, err = asr(*REPAIR, *words)
    assert (found, out) == (code, "")
    assert message in err
    assert {name: (cases / name).read_bytes() for name in files(cases)} == before


def test_preprocessing_is_for_images_wherever_they_are(cases, asr):
    """Batches on arrays, accuracy on images, and the other way round."""
    (cases / "classes.txt").write_text("class0\nclass1\n2\n3\n4\n")
    images = ("--classes", "classes.txt", "--preprocess", "raw", "--report", "r.json", "--force")
    assert asr(*REPAIR, "--data", "images", *images) == (0, "", "")
    found = report()
    assert found["preprocessing"] == "arrays as they are"
    assert found["accuracy"]["samples"] == 12
    assert "mean" not in found["accuracy"]["preprocessing"]
    assert "8x8" in found["accuracy"]["preprocessing"]
    assert asr(*REPAIR, *DATA, "--calib", "images", *images[2:]) == (0, "", "")
    found = report()
    assert found["accuracy"]["preprocessing"] == "arrays as they are"
    assert "8x8" in found["preprocessing"]


def test_a_model_pruned_elsewhere_is_held_against_its_dense_one(cases, asr):
    """Even if the exporter called its tensors otherwise."""
    assert asr("prune", "m.onnx", "--sparsity", "0.7", "-o", "p.onnx", "-q")[0] == 0
    pruned = load("p.onnx").proto
    pruned.graph.input[0].name = pruned.graph.node[0].input[0] = "pixels"
    onnx.save(pruned, "p.onnx")
    words = ("repair", "p.onnx", "--dense", "m.onnx", *REPAIR[2:6], *REPAIR[8:])
    assert asr(*words, *DATA, "--report", "r.json") == (0, "", "")
    assert report()["accuracy"]["dense"]["top1"]["share"] == 1
    assert report()["accuracy"]["repaired"]["top1"]["share"] < 1


@pytest.mark.parametrize("width", WIDTHS)
def test_the_page_tells_the_accuracy_and_why_the_model_is_rejected(cases, asr, show, width):
    words = (*MISSED, "--keep-rejected", "--report", "r.html", "--report", "r.json")
    assert asr(*REPAIR, *DATA, *words)[0] == 3
    page = show(cases / "r.html", width)
    check_sound(page)
    text, found = visible(page), report()
    assert "The model is rejected." in text and "kept as out.rejected.onnx" in text
    for failure in found["failures"]:
        assert f"Rejected: {failure['model']}: {failure['reason']}." in text
    top1 = found["accuracy"]["repaired"]["top1"]
    first, second = rows(page, "accuracy")
    assert (first[:2], second[:2]) == (["dense", "100.0%"], ["repaired", f"{top1['share']:.1%}"])
    assert second[2] == f"{top1['low']:.1%} … {top1['high']:.1%}"
    for gate, bound in found["gates"].items():
        assert (gate in text) == (bound not in (None, []))
