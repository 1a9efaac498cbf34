"""The page of ``asr-onnx sweep`` as a reader has it: opened in a browser, on desk and phone."""

from __future__ import annotations

import json
from copy import deepcopy

import numpy as np
import onnx
import pytest
from browser import HOSTILE, WIDTHS, check_sound, pictures, rows, visible
from models import norm_net
from PIL import Image
from rich.console import Console

import asr_onnx
from asr_onnx.reports import sweep_page, sweep_tables


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model, 15 images in class folders, and a sweep of two recipes over three points."""
    rng = np.random.default_rng(3)
    path = tmp_path_factory.mktemp("sweep")
    onnx.save(norm_net(rng), path / "m.onnx")
    for number in range(15):
        image = path / "images" / f"{number % 5}" / f"{number}.png"
        image.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).save(image)
    asr_onnx.sweep(
        path / "m.onnx", path / "images", path / "out", data=path / "images",
        sparsities=(0.3, 0.6), patterns=("1:2",), recipes=("asr", "paper"), providers="cpu",
    )  # fmt: skip
    return path


@pytest.fixture(scope="module")
def told(folder):
    return json.loads((folder / "out" / "sweep.json").read_text())


@pytest.mark.parametrize("width", WIDTHS)
def test_the_page_tells_everything(show, told, width):
    page = show(sweep_page.sweep_page(told), width)
    check_sound(page)
    assert page.js("document.title") == "m.onnx: asr-onnx sweep"
    table = rows(page, "cells")
    assert [r[:2] for r in table] == [
        [recipe, point] for recipe in ("asr", "paper") for point in ("30 %", "60 %", "1:2")
    ]
    for row, cell in zip(table, told["cells"], strict=True):
        top1 = cell["accuracy"]
        assert row[2:7] == [
            f"{cell['zeros']:.2%}", f"{top1['share']:.1%}", f"{top1['low']:.1%} to "
            f"{top1['high']:.1%}", f"{cell['pruned']['value']:.1%}", f"{cell['agreement']:.1%}",
        ]  # fmt: skip
    assert ["prior", "correlation", "median"] in rows(page, "provenance")
    assert not {"sparsity", "pattern"} & {r[0] for r in rows(page, "provenance")}
    text = visible(page)
    for words in (
        "Recipe asr", "Recipe paper", "of repair on cpu", told["preprocessing"],
        told["labels"], told["data"]["test"], told["versions"]["onnx"], *told["files"].values(),
        "on 15 samples, asr ", "Top-1, dense", f"{told['dense']['accuracy']['correct']} of 15",
    ):  # fmt: skip
        assert words in text, words


@pytest.mark.parametrize("width", WIDTHS)
def test_the_curve_has_words_axes_and_a_legend(show, told, width):
    ((label, text, wide),) = pictures(show(sweep_page.sweep_page(told), width))
    assert 300 < wide <= min(width, 768)
    assert "zeros among the weights" in text and "top-1 accuracy (%)" in text
    for name in ("dense", "pruned only (magnitude)", "asr", "paper", "asr, 1:2", "paper, 1:2"):
        assert name in text
    assert f"{100 * told['cells'][0]['value']:.1f} at " in label


def hostile(told):
    told["model"] = f"nets/{HOSTILE.replace('/', '')}"
    told["device"] = told["preprocessing"] = told["labels"] = HOSTILE
    told["files"] = told["data"] = told["versions"] = {HOSTILE: HOSTILE}
    for cell in told["cells"][:3]:
        cell["options"] = {HOSTILE: HOSTILE}
    told["cells"][0]["worse_than_pruning"] = HOSTILE
    told["cells"][5] = {"recipe": "paper", "sparsity": None, "pattern": "1:2", "error": HOSTILE}


@pytest.mark.parametrize("width", WIDTHS)
def test_names_are_text_whatever_is_in_them(show, told, width):
    told = deepcopy(told)
    hostile(told)
    page = show(sweep_page.sweep_page(told), width)
    check_sound(page)
    assert page.js("document.images.length") == 0
    assert page.js("document.title").endswith(": asr-onnx sweep")
    assert rows(page, "cells")[5] == ["paper", "1:2", f"failed: {HOSTILE}"]
    assert visible(page).count(HOSTILE) >= 13


def agreement(told):
    told |= {"metric": "agreement", "labels": None, "dense": {"accuracy": None}}
    for cell in told["cells"]:
        cell |= {"accuracy": None, "value": 0.995, "agreement": 0.995, "low": None, "high": None}
    told["cells"][1]["value"] = 0.98


def cosine(told):
    told |= {"metric": "cosine", "labels": None, "dense": {"accuracy": None}}
    for cell in told["cells"]:
        cell |= {"accuracy": None, "value": 0.995, "agreement": None, "low": None, "high": None}
        cell["pruned"] = {"value": -0.25, "agreement": None, "accuracy": None}
    told["cells"][1]["value"] = 0.98


def one_failed(told):
    cell = told["cells"][4]
    told["cells"][4] = {k: cell[k] for k in ("recipe", "sparsity", "pattern")}
    told["cells"][4]["error"] = "the model has no BatchNormalization"


def all_failed(told):
    for number, cell in enumerate(told["cells"]):
        told["cells"][number] = {k: cell[k] for k in ("recipe", "sparsity", "pattern")}
        told["cells"][number]["error"] = "nothing works"


def worse(told):
    told["cells"][2]["worse_than_pruning"] = "'y' is off by 0.9 of its spread, not 0.8"


def many_cells(told):
    points = [{"sparsity": n / 50, "pattern": None, "zeros": n / 50} for n in range(1, 50)]
    points += [{"sparsity": None, "pattern": p, "zeros": 0.5} for p in ("2:4", "1:2", "4:8")]
    told["cells"] = [
        told["cells"][0] | point | {"recipe": recipe}
        for recipe in ("asr", "best", "paper")
        for point in points
    ]


def channels(told):
    """One recipe at four shares of MACs besides sparsities, as a pattern that makes models narrower
    gives them; the last has no time."""
    cells = [told["cells"][0] | {"recipe": "asr"}]
    for n, share in enumerate((0.9, 0.7, 0.5, 0.3)):
        cells.append(
            told["cells"][0]
            | {"pattern": "channel", "sparsity": None, "macs": share, "macs_share": share - 0.004}
            | {"latency_ratio": share + 0.1, "latency_reliable": n != 1}
        )
    cells[-1] |= {"latency_ratio": None, "latency_reliable": None}
    told["cells"] = cells


def only_channels(told):
    channels(told)
    del told["cells"][0]


@pytest.mark.parametrize(
    "change, words, curves",
    [
        (agreement, ("answer in at least 99% on 15 samples, asr reaches 30 % (99.5%) and 1:2",
                     "paper reaches 60 % (99.5%)"), 1),
        (cosine, ("Keeping a cosine of 0.99 with the dense outputs on 15 samples, asr reaches 30 % "
                  "(0.995) and 1:2 (0.995)", "at most 0.01 lost", "-0.250",
                  "similarity to the dense outputs (cosine)"), 1),
        (one_failed, ("1 of 6 cells failed", "failed: the model has no BatchNorm"), 1),
        (all_failed, ("No cell could be measured.", "6 of 6 cells failed", "nothing works"), 0),
        (worse, ("asr at 1:2 did worse than plain pruning: 'y' is off by 0.9",), 1),
        (many_cells, ("Recipe best", "98 %"), 1),
        (channels, ("Accuracy over sparsity", "Accuracy over work", "Accuracy over time", "0.80 ?",
                    "channel 50 % MACs", "multiply-accumulates over the dense model's (%)",
                    "time of a run over the dense model's (%)"), 3),
        (only_channels, ("Accuracy over work", "Accuracy over time"), 2),
    ],
)  # fmt: skip
@pytest.mark.parametrize("width", WIDTHS)
def test_odd_results_are_shown_too(show, told, change, words, curves, width):
    told = deepcopy(told)
    change(told)
    page = show(sweep_page.sweep_page(told), width)
    check_sound(page)
    text = visible(page)
    text += "".join(drawn for _, drawn, _ in pictures(page))
    for word in words:
        assert word in text, word
    assert len(pictures(page)) == curves
    assert len({len(row) for row in rows(page, "cells") if "failed" not in row[-1]}) <= 1
    assert len(rows(page, "cells")) == len(told["cells"])


def test_narrower_models_are_told_with_what_is_left_of_work_and_time(told):
    told = deepcopy(told)
    channels(told)
    assert [c["costs"] for c in sweep_page.cells(told)][1:] == [
        ("0.90", "1.00"), ("0.70", "0.80 ?"), ("0.50", "0.60"), ("0.30", "–"),
    ]  # fmt: skip
    told["dense"]["accuracy"]["share"] = 0.80
    for cell, value in zip(told["cells"], (0.8, 0.8, 0.795, 0.79, 0.7), strict=True):
        cell["value"] = value
    reached = "asr reaches 30 % (80.0%) and channel 50 % MACs (79.0%)"
    assert reached in sweep_page.verdict(told)
    assert max(map(len, printed(told, 80))) <= 80
    shown = [[c.strip() for c in line.split("│")[1:5]] for line in printed(told, 90)]
    assert ["asr", "channel 70 % MACs", "0.70", "0.80 ?"] in shown


def printed(told, width):
    console = Console(width=width)
    with console.capture() as text:
        console.print(sweep_tables.table(told))
    return text.get().splitlines()


@pytest.mark.parametrize(
    "values, words",
    [
        ((0.79, 0.79), "asr reaches 60 % (79.0%) and 1:2 (79.0%); paper"),
        ((0.79, 0.78), "asr reaches 30 % (79.0%) and 1:2 (79.0%); paper"),
        ((0.78, 0.80), "asr reaches 1:2 (79.0%); paper"),
    ],
)
def test_the_verdict_takes_the_highest_sparsity_up_to_which_at_most_a_point_is_lost(
    told, values, words
):
    told = deepcopy(told)
    told["dense"]["accuracy"]["share"] = 0.80
    for cell, value in zip(told["cells"], (*values, 0.79, 0.1, 0.1, 0.1), strict=True):
        cell["value"] = value
    assert words in sweep_page.verdict(told)
    assert sweep_page.verdict(told).endswith("paper loses more from the start.")


def test_the_command_line_writes_the_page_and_json_becomes_it_later(folder, asr, show, monkeypatch):
    monkeypatch.chdir(folder)
    words = ("--sparsities", "0.3,0.6", "--patterns", "1:2", "--recipes", "asr,paper")
    data = ("--calib", "images", "--data", "images", "--providers", "cpu")
    assert asr("sweep", "m.onnx", *data, *words, "-o", "out", "-q") == (0, "", "")
    page = show(folder / "out" / "sweep.html")
    check_sound(page)
    assert len(rows(page, "cells")) == 6
    assert asr("render", "out/sweep.json", "-o", "later.html", "-q") == (0, "", "")
    assert (folder / "later.html").read_bytes() == (folder / "out" / "sweep.html").read_bytes()


def test_json_of_a_sweep_that_lacks_something_is_not_rendered(tmp_path, asr, told):
    content = {k: v for k, v in told.items() if k != "cells"}
    (tmp_path / "s.json").write_text(json.dumps(content))
    code, _, err = asr("render", tmp_path / "s.json")
    assert code == 1 and "no JSON report of asr-onnx" in err
    assert not (tmp_path / "s.html").exists()
