"""``asr-onnx sweep``: what it prints and writes, its exit codes, a kill half-way."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from models import ROOT, files, norm_net, normal, run, stored

from asr_onnx.sweeps import work

SWEEP = ("sweep", "m.onnx", "--calib", "c.npy", "--holdout", "0.5", "--providers", "cpu",
         "-o", "out")  # fmt: skip
DATA = ("--data", "t.npy", "--labels", "l.npy")


@pytest.fixture
def cases(folder):
    """``folder`` with 40 samples to calibrate on, and 60 that the dense model labels."""
    rng = np.random.default_rng(7)
    model = norm_net(rng)
    for name, count in (("c", 40), ("t", 60)):
        np.save(f"{name}.npy", normal(rng, count, 3, 8, 8))
    scores = run(model, x=np.load("t.npy"))["y"]
    bias = next(t for t in model.graph.initializer if t.name == "fb")
    bias.CopyFrom(onnx.numpy_helper.from_array(stored(model)["fb"] - scores.mean(0), "fb"))
    onnx.save(model, "m.onnx")
    np.save("l.npy", run(model, x=np.load("t.npy"))["y"].argmax(1))
    return folder


def report():
    return json.loads(Path("out/sweep.json").read_text(encoding="utf-8"))


def test_the_table_tells_the_curve_and_the_files_hold_it(cases, asr):
    words = ("--recipes", "asr,best", "--sparsities", "0.5,0.8", "--patterns", "2:4")
    code, out, err = asr(*SWEEP, *DATA, *words)
    assert code == 0
    for word in ("Top-1 accuracy", "60 labelled", "dense", "best", "80 %", "2:4", "pruned only"):
        assert word in out
    assert "calibration: 40 samples" in err and "0 of 6 cells were finished before" in err
    content = report()
    assert content.keys() == {
        "asr_onnx_sweep", "versions", "model", "files", "data", "preprocessing", "device",
        "metric", "samples", "labels", "dense", "cells", "config",
    }  # fmt: skip
    assert content["files"].keys() == {"m.onnx"}
    assert content["dense"]["accuracy"]["share"] == 1
    assert content["data"]["holdout"] == 0.5 and content["data"]["test"] == "t.npy"
    cells = content["cells"]
    assert all(f"{c['value']:.1%}" in out and f"{c['pruned']['value']:.1%}" in out for c in cells)
    rows = list(csv.DictReader(Path("out/sweep.csv").read_text(encoding="utf-8").splitlines()))
    assert [r["recipe"] for r in rows] == ["asr"] * 3 + ["best"] * 3
    for row, cell in zip(rows, cells, strict=True):
        assert (row["pattern"] or None) == cell["pattern"]
        assert float(row["value"]) == cell["value"] == float(row["accuracy_share"])
        assert float(row["pruned_accuracy_low"]) == cell["pruned"]["accuracy"]["low"]
    assert Path("out/sweep.svg").read_text(encoding="utf-8").startswith("<?xml")


def test_quiet_is_silent_and_options_reach_the_cells(cases, asr):
    words = ("--recipes", "asr", "--sparsities", "0.5", "--exclude", "w1", "--memory-limit", "1GiB")
    assert asr(*SWEEP, "-q", *words) == (0, "", "")
    (cell,) = report()["cells"]
    assert cell["options"]["exclude"] == "w1"
    assert report()["metric"] == "agreement"


def in_a_process(*words):
    """Started, with what it starts itself as a group that can be killed."""
    return subprocess.Popen(
        [sys.executable, "-m", "asr_onnx", *words],
        env=os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "200"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        start_new_session=True,
    )


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "killpg"), reason="Windows")
@pytest.mark.parametrize("jobs", ["1", "2"])
def test_killed_and_started_again_it_does_the_rest(cases, jobs):
    sparsities = ",".join(f"0.{n}" for n in range(10, 90, 8))
    words = (*SWEEP, *DATA, "--recipes", "asr,best", "--sparsities", sparsities, "--jobs", jobs,
             "--cells-per-walk", "2")  # fmt: skip
    process = in_a_process(*words)
    deadline = time.monotonic() + 60
    while not list(cases.glob("out/cells/cell-*.json")):
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    before = {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in cases.glob("out/cells/*.json")}
    finished = sum(p.name.startswith("cell-") for p in before)
    assert 0 < finished < 20 and not Path("out/sweep.json").exists()
    again = in_a_process(*words)
    _, err = again.communicate(timeout=120)
    assert again.returncode == 0, err
    assert f"{finished} of 20 cells were finished before" in err
    assert {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in before} == before
    assert len(report()["cells"]) == len(list(cases.glob("out/cells/cell-*.json"))) == 20


def test_an_interrupt_keeps_what_is_finished(cases, asr, monkeypatch):
    def interrupted(*args, wrapped=work.repair_all, calls=[], **settings):  # noqa: B006
        calls.append(args)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return wrapped(*args, **settings)

    monkeypatch.setattr(work, "repair_all", interrupted)
    words = (*SWEEP, "--recipes", "asr", "--sparsities", "0.5,0.7", "--cells-per-walk", "1")
    code, out, err = asr(*words)
    last = err.splitlines()[-1]
    assert (code, out) == (130, "") and last.startswith("interrupted: written before: ")
    assert len(list(cases.glob("out/cells/cell-*.json"))) == 1
    assert "1 of 2 cells were finished before" in asr(*words)[2]


def test_cells_that_fail_are_named_and_the_others_written(cases, asr):
    words = (
        "--recipes",
        "asr",
        "--sparsities",
        "0.5",
        "--patterns",
        "2:5",
        "-q",
        "--exclude",
        "w1",
    )
    code, out, err = asr(*SWEEP, *words)
    assert (code, out) == (1, "")
    assert err.splitlines() == [
        "failed: asr at 2:5: no site can hold the pattern 2:5 (w2: input channels per group are no "
        "multiple of 5: stays dense)",
        "error: 1 of 2 cells failed; all others are in 'out'",
    ]
    good, bad = report()["cells"]
    assert 0 < good["value"] <= 1
    assert bad["error"].startswith("no site can hold the pattern 2:5 (w2: input channels")
    assert {"sweep.json", "sweep.csv", "sweep.svg"} <= set(files(cases / "out"))


def test_a_folder_with_other_things_is_used_only_if_forced(cases, asr):
    (cases / "out").mkdir()
    words = (*SWEEP, "-q", "--recipes", "asr", "--sparsities", "0.5")
    assert asr(*words)[0] == 0  # an empty folder will do
    (cases / "out" / "notes.txt").write_text("good at 0.5")
    assert asr(*words)[0] == 0  # and so will a sweep's, whatever was put there later
    (cases / "other").mkdir()
    (cases / "other" / "notes.txt").write_text("of mine")
    code, out, err = asr(*words[:-5], "-q", "-o", "other")
    assert (code, out) == (2, "")
    assert err.startswith("error: folder 'other' has other things than a sweep in it")
    assert files(cases / "other") == ["notes.txt"]
    words = ("-o", "other", "--force", "--recipes", "asr", "--sparsities", "0.5", "-q")
    assert asr(*SWEEP, *words)[0] == 0
    assert "notes.txt" in files(cases / "other") and "sweep.json" in files(cases / "other")


@pytest.mark.parametrize(
    "words, code, message",
    [
        (("--sparsities", ""), 2, "'' is not numbers"),
        (("--sparsities", "none"), 2, "'none' is not numbers"),
        (("--sparsities", "0.5,1"), 2, "sparsity 1 is outside [0, 1)"),
        (("--sparsities", "nan"), 2, "sparsity nan is outside [0, 1)"),
        (("--patterns", ""), 2, "--patterns is empty"),
        (("--patterns", "2:4,4"), 2, "pattern '4' is not N:M"),
        (("--recipes", ""), 2, "no recipes to sweep"),
        (("--recipes", "asr,worst"), 2, "recipe 'worst' is not one of"),
        (("--labels", "l.npy"), 2, "--labels is about labelled data: give --data"),
        (("--providers", "gpu"), 2, "provider 'gpu' is not one of"),
        (("--jobs", "0"), 2, "--jobs"),
        (("--cells-per-walk", "0"), 2, "--cells-per-walk"),
        (("--calib", "gone"), 1, "'gone' does not exist"),
        (("--data", "gone"), 1, "'gone' does not exist"),
        (("--data", "t.npy"), 1, "'t.npy' tells no accuracy: it takes class folders or --labels"),
        (("--data", "images"), 1, "2 class folders, but output 'y' has 5"),
        (("--load-inputs", "x.json"), 2, "data: give one of --calib"),
        (("-o", "m.onnx"), 2, "output 'm.onnx' is no folder"),
        (("-o", "none/out"), 2, "folder 'none' of the output does not exist"),
    ],
)
def test_one_line_of_error_and_nothing_written(cases, asr, words, code, message):
    before = files(cases)
    found, out, err = asr(*SWEEP, "-q", *words)
    assert (found, out) == (code, "")
    assert message in err and "Traceback" not in err
    assert files(cases) == before and not (cases / "out").exists()


def test_a_model_that_is_none_is_told_in_one_line(cases, asr):
    code, out, err = asr("sweep", "gone.onnx", *SWEEP[2:])
    assert (code, out, err.splitlines()[-1]) == (1, "", "error: model 'gone.onnx' does not exist")
