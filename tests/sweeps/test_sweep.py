"""Sweeps: a cell is what repair and compare say, and what is finished is not done again."""

from __future__ import annotations

import csv
import json
import shutil
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import joblib
import numpy as np
import onnx
import pytest
from joblib._parallel_backends import ThreadingBackend
from models import copied, run, stored
from PIL import Image

import asr_onnx
from asr_onnx import AsrError, CompareOptions, PruneOptions, UsageError
from asr_onnx.evaluation.labelled import LabelledData
from asr_onnx.graph.inputs import model_inputs
from asr_onnx.reports.sweep_chart import axes_of, curve, draw_file
from asr_onnx.sweeps import work
from asr_onnx.sweeps.source import Source, digest, open_source
from asr_onnx.sweeps.work import Group, Task, do_anywhere

SETTINGS = {"holdout": 0.5, "batch_size": 10}
LABELLED = {"data": "t.npy", "labels": "l.npy"}


def sweep(output="out", **settings):
    """A sweep and what it tells, of small things unless told otherwise."""
    lines = []
    given = {"recipes": ["asr"], "sparsities": [0.5, 0.7], **SETTINGS, **settings}
    model, calib = given.pop("model", "m.onnx"), given.pop("calib", "c.npy")
    found = asr_onnx.sweep(model, calib, output, tell=lines.append, **given)
    reused = next(line for line in lines if line.endswith("finished before"))
    return found, int(reused.split()[0])


def numbers(content):
    """What does not depend on how long it took or how much memory there was."""
    cells = json.loads(json.dumps(content["cells"]))
    for cell in cells:
        cell.pop("seconds")
    return content["dense"], cells


def state(folder="out"):
    """Each file of the finished models, with its content and when it was written."""
    return {p.name: (p.read_bytes(), p.stat().st_mtime_ns) for p in Path(folder, "cells").iterdir()}


def share(found):
    return {k: getattr(found, k) for k in ("correct", "total", "low", "high", "share")}


def test_a_cell_is_what_repair_and_compare_say(cases):
    content, _ = sweep(recipes=["asr", "best"], sparsities=[0.7], patterns=["2:4"], **LABELLED)
    assert (content["metric"], content["samples"]) == ("accuracy", 60)
    calibration = asr_onnx.as_batches(
        np.load("c.npy"), model_inputs(cases), holdout=0.5, batch_size=10
    )
    places = [(c["recipe"], c["sparsity"], c["pattern"]) for c in content["cells"]]
    points = [(0.7, None), (None, "2:4")]
    assert places == [(recipe, *point) for recipe in ("asr", "best") for point in points]
    for cell in content["cells"]:
        point = {k: cell[k] for k in ("sparsity", "pattern")}
        options = asr_onnx.recipe(cell["recipe"], **point)
        result = asr_onnx.repair(cases, calibration, options)
        pruned = asr_onnx.prune(cases, work.prune_options(options))  # by magnitude, always
        models = {"repaired": result.model, "pruned": pruned}
        x, labels = np.load("t.npy"), np.load("l.npy")
        compared = asr_onnx.compare(cases, models, x, labels, CompareOptions(latency=False))
        match = result.repaired_outputs["y"]
        assert cell["accuracy"] == share(compared.models[0].top1)
        assert cell["pruned"]["accuracy"] == share(compared.models[1].top1)
        assert content["dense"]["accuracy"] == share(compared.dense.top1)
        assert [cell[k] for k in ("value", "low", "high")] == [
            cell["accuracy"][k] for k in ("share", "low", "high")
        ]
        assert cell["agreement"] == match.agreement
        assert (cell["cosine"], cell["relative_error"]) == (match.cosine, match.relative_error)
        assert cell["zeros"] == result.sparsity
        assert cell["options"]["recipe"] == cell["recipe"]
        if cell["recipe"] == "asr":
            assert cell["pruned"]["agreement"] == result.pruned_outputs["y"].agreement


def test_without_labels_the_curve_is_of_agreement_on_samples_held_out(cases):
    content, _ = sweep()
    assert (content["metric"], content["samples"]) == ("agreement", 20)
    assert (content["dense"]["accuracy"], content["labels"]) == (None, None)
    for cell in content["cells"]:
        assert cell["value"] == cell["agreement"] and cell["accuracy"] is None
        assert 0 < cell["low"] < cell["value"] < cell["high"] < 1
        assert cell["pruned"]["value"] == cell["pruned"]["agreement"] < 1


def narrow(model, channels):
    """``norm_net`` with fewer channels."""
    w = {n: v for n, v in stored(model).items() if n != "fb"}
    cut = {n: v[:channels] for n, v in w.items() if n != "fw"}
    cut |= {"w2": cut["w2"][:, :channels], "fw": w["fw"][:, :channels]}
    return copied(model, **cut)


def test_cells_whose_models_are_narrower_go_over_work_and_time(cases, monkeypatch):
    """Whatever made them so; the others stay over zeros."""
    repair_all = work.repair_all

    def narrowing(*given, **settings):
        results = repair_all(*given, **settings)
        return tuple(
            replace(r, model=narrow(r.model, 6 - 2 * n)) if n else r for n, r in enumerate(results)
        )

    plain, _ = sweep("plain", sparsities=[0.5, 0.6, 0.7])
    assert axes_of(plain) == ["zeros"] and not Path("plain/sweep.macs_share.svg").exists()
    assert [c["macs_share"] for c in plain["cells"]] == [1.0] * 3
    assert [c["latency_ratio"] for c in plain["cells"]] == [None] * 3
    monkeypatch.setattr(work, "repair_all", narrowing)
    content, _ = sweep(sparsities=[0.5, 0.6, 0.7])
    whole = 64 * (27 * 8 + 72 * 8) + 40
    assert [c["macs_share"] for c in content["cells"]] == [1.0] + [
        (64 * (27 * k + 9 * k * k) + 5 * k) / whole for k in (4, 2)
    ]
    assert content["cells"][0]["latency_ratio"] is None
    assert all(c["latency_ratio"] > 0 for c in content["cells"][1:])
    assert axes_of(content) == ["zeros", "macs_share", "latency_ratio"]
    for name in ("sweep.svg", "sweep.macs_share.svg", "sweep.latency_ratio.svg"):
        ET.parse(Path("out", name))
    text = Path("out/sweep.macs_share.svg").read_text()
    assert "multiply-accumulates over the dense model" in text
    lines = list(csv.DictReader(Path("out/sweep.csv").read_text().splitlines()))
    assert [float(r["macs_share"]) for r in lines] == [c["macs_share"] for c in content["cells"]]
    assert lines[0]["latency_ratio"] == "" and float(lines[1]["latency_ratio"]) > 0


def test_what_is_finished_is_not_done_again(cases, monkeypatch):
    first, reused = sweep(**LABELLED)
    before = state()
    assert reused == 0 and len(before) == 6  # dense, 2 pruned, 2 repaired, what this is

    def no_work(*_, **__):
        raise AssertionError("there was something to do")

    with monkeypatch.context() as patch:
        patch.setattr(work, "repair_all", no_work)
        patch.setattr(LabelledData, "top1", no_work)
        again, reused = sweep(**LABELLED)
    assert reused == 2 and again == first and state() == before
    more, reused = sweep(recipes=["best", "asr"], sparsities=[0.7, 0.6], **LABELLED)
    assert reused == 1 and len(more["cells"]) == 4
    assert before.items() <= state().items()


def test_each_model_is_scored_once(cases, monkeypatch):
    scored = []

    def top1(self, models, progress=None, wrapped=LabelledData.top1):
        scored.extend(models)
        return wrapped(self, models, progress)

    monkeypatch.setattr(LabelledData, "top1", top1)
    sweep(recipes=["asr", "best"], **LABELLED)
    assert sorted(scored) == [
        "asr at 50 %", "asr at 70 %", "best at 50 %", "best at 70 %", "dense",
        "pruned at 50 %", "pruned at 70 %",
    ]  # fmt: skip


def other_model():
    model = onnx.load("m.onnx")
    onnx.save(copied(model, w1=stored(model)["w1"] + 0.01), "m.onnx")


def other_samples():
    np.save("c.npy", np.load("c.npy") + 0.01)


def other_labels():
    np.save("l.npy", (np.load("l.npy") + (np.arange(60) == 3)) % 5)


def other_test():
    np.save("t.npy", np.load("t.npy") * 1.01)


@pytest.mark.parametrize(
    "change",
    [other_model, other_samples, other_labels, other_test, {"seed": 1}, {"num_samples": 30},
     {"holdout": 0.3}, {"batch_size": 20}, {"exclude": "w2"}, {"row_scale": "normalize"},
     {"data": None, "labels": None}],
)  # fmt: skip
def test_what_changes_a_result_changes_its_name(cases, change):
    """Cells of before stay, and are not taken for the new ones."""
    sweep(**LABELLED)
    before = state()
    settings = LABELLED
    if callable(change):
        change()
    else:
        settings = LABELLED | change
    assert sweep(**settings)[1] == 0
    assert before.items() <= state().items()
    assert sweep(**settings)[1] == 2


@pytest.mark.parametrize(
    "change", [{"memory_limit": 1 << 20}, {"cells_per_walk": 1}, {"calib": "copy.npy"}]
)
def test_what_changes_no_result_changes_no_name(cases, change):
    shutil.copy("c.npy", "copy.npy")
    sweep()
    assert sweep(**change)[1] == 2


def test_images_are_known_by_what_is_in_them_and_done_to_them(cases, rng):
    for number in range(20):
        path = Path("images", f"{number}.png")
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).save(path)
    assert [sweep(calib="images")[1] for _ in range(2)] == [0, 2]
    assert sweep(calib="images", preprocess="raw")[1] == 0
    assert sweep(calib="images", mean=[0.5, 0.5, 0.5])[1] == 0
    Path("images").rename("moved")
    assert sweep(calib="moved")[1] == 2
    Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).save("moved/3.png")
    assert sweep(calib="moved")[1] == 0


def test_preprocessing_is_for_images_wherever_they_are(cases, rng):
    for number in range(10):
        path = Path("images", f"{number % 5}", f"{number}.png")
        path.parent.mkdir(exist_ok=True, parents=True)
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).save(path)
    content, _ = sweep(data="images", preprocess="raw")
    assert content["preprocessing"] == "arrays as they are"
    assert "mean" not in content["data"]["test_preprocessing"]
    assert content["samples"] == 10


@pytest.mark.parametrize(
    "damage", ["", "{", "[]", '{"name": "another", "record": {}}', "[" * 100_000]
)
def test_a_damaged_cell_is_done_again(cases, damage):
    first, _ = sweep()
    name = next(p for p in Path("out/cells").glob("cell-*"))
    name.write_text(damage)
    again, reused = sweep()
    assert reused == 1 and numbers(again) == numbers(first)


def test_a_cell_that_fails_leaves_its_group_alone(cases):
    """All are of one recipe and one walk."""
    content, _ = sweep(patterns=["2:5", "2:4"], exclude="w1")
    assert [c["pattern"] for c in content["cells"] if "error" in c] == ["2:5"]
    assert "no site can hold the pattern 2:5" in content["cells"][2]["error"]
    assert [c["value"] is not None for c in content["cells"] if "error" not in c] == [True] * 3
    _, reused = sweep(patterns=["2:5", "2:4"], exclude="w1")
    assert reused == 3


def test_labelled_data_that_cannot_be_used_spoil_the_sweep(cases):
    x = np.load("t.npy")
    x[59, 0, 0, 0] = np.nan
    np.save("t.npy", x)
    with pytest.raises(AsrError, match=r"sample 59 of 't.npy' has NaN"):
        sweep(**LABELLED)


@pytest.mark.slow
def test_jobs_in_processes_of_their_own_find_the_same(cases):
    alone, _ = sweep(recipes=["asr", "best"], **LABELLED)
    shared, reused = sweep("o2", recipes=["asr", "best"], jobs=2, memory_limit=1 << 30, **LABELLED)
    assert reused == 0 and numbers(shared) == numbers(alone)


class Tardy(ThreadingBackend):
    """As Ray's backend: results are there when the last call has ended, and not before."""

    supports_return_generator = False


@pytest.mark.parametrize("backend", ["threading", Tardy()])
def test_the_backend_is_the_users_choice(cases, backend):
    alone, _ = sweep()
    with joblib.parallel_config(backend=backend, n_jobs=2):
        found, _ = sweep("o2", cells_per_walk=1)
    assert numbers(found) == numbers(alone)


@pytest.mark.slow
def test_a_worker_that_dies_is_told_of_and_what_is_finished_is_kept(cases):
    Path("load.py").write_text(
        "import os\n"
        "from multiprocessing import current_process\n"
        "from pathlib import Path\n"
        "import numpy as np\n"
        "HERE = Path(__file__).parent\n"
        "def load_data():\n"
        "    if current_process().name != 'MainProcess' and (HERE / 'die').exists():\n"
        "        os._exit(1)\n"
        "    yield {'x': np.load(HERE / 'c.npy')}\n"
    )
    loaded = {"calib": None, "data_loader_script": "load.py"}
    sweep(**loaded, sparsities=[0.5])
    before = state()
    Path("die").touch()
    with pytest.raises(AsrError, match="a worker process died, most likely for want of memory"):
        sweep(**loaded, jobs=2)
    assert state() == before
    Path("die").unlink()
    assert sweep(**loaded, jobs=2)[1] == 1


def test_processes_that_see_other_files_are_refused(cases):
    opened = open_source(Source(model=Path("m.onnx"), calib=Path("c.npy"), **SETTINGS))
    task = Task("t", "cell", asr_onnx.recipe("asr", sparsity=0.5))
    job = Group(opened.source, digest(opened.identity), (task,))
    assert do_anywhere(job)[0].record["recipe"] == "asr"
    other_samples()
    with pytest.raises(AsrError, match=r"differ between the processes of the sweep of 'm.onnx'"):
        do_anywhere(replace(job, identity="of another"))
    assert digest(open_source(opened.source).identity) != job.identity


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"recipes": []}, "no recipes to sweep"),
        (
            {"recipes": ["asr", "worst"]},
            "recipe 'worst' is not one of auto, asr, refit, best, paper",
        ),
        ({"sparsities": [0.5, 1]}, r"sparsity 1 is outside \[0, 1\)"),
        ({"patterns": ["4:2"]}, "pattern '4:2' is not N:M"),
        ({"jobs": 0}, "0 jobs do nothing"),
        ({"cells_per_walk": 0}, "0 cells per walk are too few"),
        ({"reconstruct": True}, "a sweep has no option 'reconstruct'"),
        ({"sparsity": 0.3}, "a sweep has no option 'sparsity'"),
        ({"pattern": "2:4"}, "a sweep has no option 'pattern'"),
        ({"sparsities": "half"}, "sparsities 'half' is not numbers"),
        ({"recipes": "best"}, "recipes 'best' is not a tuple of texts"),
        ({"labels": "l.npy"}, "--labels is about labelled data"),
        ({"output": "m.onnx"}, "output 'm.onnx' is no folder"),
        ({"output": "none/out"}, "folder 'none' of the output does not exist"),
        ({"output": "."}, "has other things than a sweep in it"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_any_work(cases, settings, message):
    before = sorted(Path().rglob("*"))
    with pytest.raises(UsageError, match=message):
        sweep(**settings)
    assert sorted(Path().rglob("*")) == before


def test_a_scorer_fills_batches_and_runs_models_of_a_fixed_batch(cases, rng):
    """60 samples in batches of 8."""
    fixed = copied(cases)
    for value in (*fixed.graph.input, *fixed.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 8
    pruned = asr_onnx.prune(fixed, PruneOptions(0.6))
    found = LabelledData(fixed, Path("t.npy"), Path("l.npy")).top1(
        {"dense": fixed, "pruned": pruned}
    )
    right = run(asr_onnx.prune(cases, PruneOptions(0.6)), x=np.load("t.npy"))["y"].argmax(1)
    assert (found["dense"].correct, found["dense"].total) == (60, 60)
    assert found["pruned"].correct == int((right == np.load("l.npy")).sum()) < 60


def test_the_plot_has_axes_units_and_every_curve(cases):
    content, _ = sweep(recipes=["asr", "best"], patterns=["2:4"], **LABELLED)
    root = ET.fromstring(draw_file(content))
    texts = ["".join(e.itertext()).strip() for e in root.iter("{http://www.w3.org/2000/svg}text")]
    for text in ("top-1 accuracy (%)", "zeros among the weights of the pruned sites (%)", "dense",
                 "pruned only (magnitude)", "asr", "best", "asr, 2:4", "m.onnx", "50"):  # fmt: skip
        assert text in texts, text
    alt = root.attrib["aria-label"]
    for cell in content["cells"]:
        assert f"{100 * cell['value']:.1f} at " in alt
    assert "m.onnx" not in curve(content).svg
    for cell in content["cells"]:
        cell.update(low=None, high=None)
    assert len(curve(content).svg) < len(draw_file(content))


def test_a_plot_of_nothing_but_failures_is_a_plot(cases):
    content, _ = sweep(sparsities=[], patterns=["2:5"])
    assert "error" in content["cells"][0]
    ET.fromstring(draw_file(content))
