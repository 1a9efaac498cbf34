"""The page of ``asr-onnx compare`` as a reader has it: opened in a browser, on desk and phone."""

from __future__ import annotations

import json
from copy import deepcopy

import numpy as np
import pytest
from browser import HOSTILE, WIDTHS, check_sound, pictures, rows, visible
from models import balanced, norm_net, normal, run

import asr_onnx
from asr_onnx import CompareOptions, Gates, PruneOptions
from asr_onnx.provenance import dumps
from asr_onnx.reports import comparison_page, comparison_tables


@pytest.fixture(scope="module")
def told():
    """A comparison with labels, as JSON gives it back: the dense model is right on 33 of 40."""
    rng = np.random.default_rng(7)
    x = normal(rng, 40, 3, 8, 8)
    net = balanced(norm_net(rng), x=x)
    labels = run(net, x=x)["y"].argmax(1)
    labels[:7] = (labels[:7] + 1) % 5
    models = {f"{s:.0%}.onnx": asr_onnx.prune(net, PruneOptions(s)) for s in (0.3, 0.95)}
    found = asr_onnx.compare(net, models, x, labels, CompareOptions(topk=2))
    content = comparison_tables.to_dict(
        found, Gates(), files={"m.onnx": "f" * 64}, data={"path": "x.npy", "seed": 0}
    )
    content = json.loads(dumps(content))
    for m in (content["dense"], *content["models"]):
        m["latency"] |= {"low": 1.1e-3, "median": 1.5e-3, "high": 2e-3, "ratio": 1.0}
    return content


@pytest.mark.parametrize("width", WIDTHS)
def test_the_page_tells_everything(show, told, width):
    page = show(comparison_page.comparison_page(told), width)
    check_sound(page)
    assert page.js("document.title") == "dense: asr-onnx compare"
    first, last = told["models"]
    table = rows(page, "accuracy")
    assert [r[0] for r in table] == ["dense (dense)", "30%.onnx", "95%.onnx"]
    assert table[0][1:] == ["82.5%", "68.1% to 91.3%", *table[0][3:5], "–", "–", "–"]
    top1, test = last["top1"], last["against_dense"]
    assert table[2][1:3] == [f"{top1['share']:.1%}", f"{top1['low']:.1%} to {top1['high']:.1%}"]
    assert table[2][5:7] == [
        f"{test['first_only']} / {test['second_only']}", f"worse, p = {test['p_value']:.2g}",
    ]  # fmt: skip
    assert table[1][7] == "–" and "p = " in table[2][7]
    match = first["outputs"]["y"]
    assert rows(page, "outputs")[0] == [
        "30%.onnx", "y", f"{match['relative_error']:#.3g}", f"{match['cosine']:#.4g}",
        f"{match['agreement']:.1%}", "40", "40",
    ]  # fmt: skip
    assert rows(page, "metrics") == []
    zeros = rows(page, "zeros")
    assert zeros[2][2:4] == [f"{last['footprint']['zero_share']:.1%}",
                             f"{last['footprint']['dead']} of 16"]  # fmt: skip
    effective = last["cost"]["effective_macs"], last["ratios"]["effective_macs"]
    assert zeros[2][5:] == [f"{effective[0] / 1e3:.1f} k", f"{effective[1]:.2f}"]
    cost = rows(page, "costs")
    macs, parameters = last["cost"]["macs"], last["cost"]["parameters"]
    assert cost[2][1:7] == [f"{macs / 1e3:.1f} k", "1.00", f"{parameters}", "1.00",
                            "6.0 KiB", "1.00"]  # fmt: skip
    assert cost[0][9:] == ["1.500 ms", "1.100 to 2.000 ms", "1.00"]
    text = visible(page)
    for words in (
        "On 40 samples the dense model's top-1 accuracy is 82.5%",
        "(45.0%) are significantly worse.",
        "33 of 40; 95\u00a0% interval 68.1% to 91.3%", "arrays as they are", "x.npy", "f" * 64,
        told["versions"]["onnx"], "class output", "batch of 1", "labelled; on cpu",
    ):  # fmt: skip
        assert words in text, words


@pytest.mark.parametrize("width", WIDTHS)
def test_charts_have_words_axes_and_units(show, told, width):
    found = pictures(show(comparison_page.comparison_page(told), width))
    axes = (
        "accuracy (%), 95 % interval",
        "same answer as the dense model (%)",
        "× the dense model's",
        "size (KiB)",
        "time of a run (ms), median and quartiles",
    )
    for (label, text, wide), axis in zip(found, axes, strict=True):
        assert axis in text and "30%.onnx" in text and "95%.onnx" in label
        assert 300 < wide <= min(width, 600)
    assert "dense 82.5 (68.1 to 91.3); 30%.onnx " in found[0][0]
    for word in ("dense, top-1", "top-1", "top-2"):
        assert word in found[0][1]
    unchanged = ", ".join(
        f"{n} 1.00" for n in ("MACs", "parameters", "activations", "file", "time")
    )
    assert f"95%.onnx {unchanged}" in found[2][0]
    for word in ("MACs", "parameters", "activations", "file", "time"):
        assert word in found[2][1]


def failure(model):
    return {"model": model, "gate": "--min-accuracy", "reason": "accuracy is below"}


def hostile(told):
    told["dense"]["name"] = told["models"][0]["name"] = HOSTILE
    told["device"] = told["labels"] = told["preprocessing"] = told["class_output"] = HOSTILE
    told["files"] = told["data"] = told["versions"] = {HOSTILE: HOSTILE}
    told["failures"] = [failure(HOSTILE)]
    for m in told["models"]:
        m["outputs"] = {HOSTILE: m["outputs"].pop("y")}


@pytest.mark.parametrize("width", WIDTHS)
def test_names_are_text_whatever_is_in_them(show, told, width):
    told = deepcopy(told)
    hostile(told)
    page = show(comparison_page.comparison_page(told), width)
    check_sound(page)
    assert page.js("document.images.length") == 0
    assert page.js("document.title").endswith(": asr-onnx compare")
    assert [r[0] for r in rows(page, "costs")] == [HOSTILE + " (dense)", HOSTILE, "95%.onnx"]
    assert visible(page).count(HOSTILE) >= 15
    assert HOSTILE in pictures(page)[0][0]


def no_labels(told):
    told["labels"] = told["class_output"] = told["topk"] = None
    for m in (told["dense"], *told["models"]):
        m |= dict.fromkeys(("top1", "topk", "against_dense", "against_previous"))


def no_classes(told):
    no_labels(told)
    for m in told["models"]:
        m["agreement"] = m["outputs"]["y"]["agreement"] = None


def infinite(told):
    no_classes(told)
    told["models"][1]["outputs"]["y"] |= {"cosine": 0.0, "relative_error": None}


def one_answer(told):
    for m in told["models"]:
        m["agreement"] = m["outputs"]["y"]["agreement"] = None
        m["outputs"]["y"] |= {"one_answer": True, "answers": 0}


def with_metrics(told):
    for n, m in enumerate((told["dense"], *told["models"])):
        m["metrics"] = {"f1": 1 - n / 4, HOSTILE: -float(n)}


def not_comparable(told):
    no_classes(told)
    for m in told["models"]:
        m["outputs"]["y"] |= {"cosine": None, "relative_error": None}


def no_times(told):
    for m in (told["dense"], *told["models"]):
        m["latency"] = None


def no_costs(told):
    for m in (told["dense"], *told["models"]):
        for name in ("macs", "effective_macs", "activation_bytes"):
            m["cost"][name] = m["ratios"][name] = None


def narrower(told):
    for m in told["models"]:
        m["cost"] |= {"macs": 12_500_000_000, "parameters": 125, "activation_bytes": 1e12}
        m["ratios"] |= {"macs": 0.5, "parameters": 0.45, "activation_bytes": 40.0}


def slow_and_large(told):
    for m in (told["dense"], *told["models"]):
        m["footprint"] |= {"size": 3 * 2**30, "compressed": 2**30}
        m["latency"] |= {"low": 11.0, "median": 12.0, "high": 13.0}


def no_convolutions(told):
    for m in (told["dense"], *told["models"]):
        m["footprint"] |= {"weights": 0, "zeros": 0, "channels": 0, "dead": 0, "zero_share": None}


def many_models(told):
    told["models"] = [deepcopy(told["models"][0]) for _ in range(30)]
    for n, m in enumerate(told["models"]):
        m["name"] = f"runs/of/some/experiment_with_a_long_name/{n:02}/モデル\n.onnx"


def certain(told):
    told["models"][0]["against_dense"] |= {"p_value": 0.0, "significant": True, "second_only": 99}


@pytest.mark.parametrize(
    "change, words, charts",
    [
        (no_labels, ("95%.onnx", "Agreement, 30%.onnx", "without labels", "30%.onnx is the closest "
                     "to the dense model of 2: it has the dense model's answer in "), 4),
        (no_classes, ("Error, 95%.onnx", "differ from the dense model's by", "of their spread",
                      "Error of the outputs", "lower is better"), 4),
        (infinite, ("Error, 95%.onnx", "∞"), 3),
        (one_answer, ("The dense model gives one and the same answer in output 'y' on all 40",
                      "Error of the outputs"), 5),
        (with_metrics, ("Metrics of the script", "Metric f1", HOSTILE), 7),
        (not_comparable, ("The outputs cannot be compared in numbers on 40 samples.",), 3),
        (no_times, ("Size and speed",), 4),
        (no_costs, ("Size and speed", "–"), 5),
        (narrower, ("0.50", "12.5 G"), 5),
        (slow_and_large, ("3.0 GiB", "12 s", "11 to 13 s"), 5),
        (no_convolutions, ("Size and speed",), 5),
        (many_models, ("all 30 models are", "Top-1, runs/of/some"), 5),
        (certain, ("better, p < 1e-300", "30%.onnx (", "is significantly better"), 5),
    ],
)  # fmt: skip
@pytest.mark.parametrize("width", WIDTHS)
def test_odd_results_are_shown_too(show, told, change, words, charts, width):
    told = deepcopy(told)
    change(told)
    page = show(comparison_page.comparison_page(told), width)
    check_sound(page)
    text = visible(page)
    for word in words:
        assert word in text, word
    assert len(pictures(page)) == charts
    assert len(rows(page, "accuracy")) == (0 if told["labels"] is None else 1 + len(told["models"]))
    assert len(rows(page, "costs")) == 1 + len(told["models"])


def test_a_name_that_begins_another_is_not_blamed_for_it(told):
    told = deepcopy(told)
    told["models"][0]["name"], told["models"][1]["name"] = "a", "a: b"
    told["gates"] = told["gates"] | {"min_accuracy": 0.8}
    told["failures"] = [failure("a: b")]
    assert comparison_page.verdict(told).startswith("a: b fails the gates")


@pytest.mark.parametrize(
    "failures, words",
    [
        ([], "30%.onnx and 95%.onnx pass the gates (--min-accuracy 0.8). On 40"),
        ([failure("95%.onnx")], "95%.onnx fails the gates (--min-accuracy 0.8). On 40"),
        (
            [failure("30%.onnx"), failure("95%.onnx")],
            "30%.onnx and 95%.onnx fail the gates (--min-accuracy 0.8).",
        ),
    ],
)
def test_the_verdict_begins_with_the_gates(told, failures, words):
    told = told | {"failures": failures}
    told["gates"] = told["gates"] | {"min_accuracy": 0.8}
    assert comparison_page.verdict(told).startswith(words)
    assert comparison_page.options(told)["--min-accuracy"] == 0.8


def test_one_model_is_not_the_closest_of_any(told):
    told = deepcopy(told)
    no_labels(told)
    del told["models"][1:]
    assert comparison_page.verdict(told).startswith("30%.onnx has the dense model's answer in ")


WORDS = ("compare", "m.onnx", "p.onnx", "--data", "x.npy", "--providers", "cpu", "--no-latency")


@pytest.fixture
def models(folder, asr):
    assert asr("prune", "m.onnx", "--sparsity", "0.9", "-o", "p.onnx", "-q")[0] == 0
    return folder


def test_the_command_line_writes_the_page_though_a_gate_fails(models, asr, show):
    np.save("l.npy", np.arange(12) % 5)
    gates = ("--labels", "l.npy", "--min-accuracy", "1")
    reports = ("--report", "c.html", "--report", "c.json", "--json", "d.json")
    code, out, _ = asr(*WORDS, *gates, *reports, "-q")
    assert (code, out) == (3, "")
    assert (models / "c.json").read_bytes() == (models / "d.json").read_bytes()
    page = show(models / "c.html")
    check_sound(page)
    text = visible(page)
    assert "p.onnx fails the gates (--min-accuracy 1). On 12 samples" in text
    assert "Gate failed: p.onnx: accuracy " in text
    assert json.loads((models / "d.json").read_text())["files"]["p.onnx"] in text
    assert asr("render", "d.json", "-q") == (0, "", "")
    assert (models / "d.html").read_bytes() == (models / "c.html").read_bytes()


@pytest.mark.parametrize(
    "words, message",
    [
        (("--report", "c.txt"), "'c.txt': the name has to end in .json, .html, .md or .xml"),
        (("--report", "c.json", "--json", "./c.json"), "'c.json' and that of --json are one file"),
        (("--report", "c.html", "--report", "c.html"), "another report are one file"),
        (("--report", "none/c.html"), "does not exist"),
    ],
)
def test_refused_before_any_work(models, asr, words, message):
    code, out, err = asr(*WORDS, *words)
    assert (code, out) == (2, "")
    assert message in err and err.count("\n") == 1


def test_json_of_a_comparison_that_lacks_something_is_not_rendered(folder, asr, told):
    (folder / "c.json").write_text(json.dumps({k: v for k, v in told.items() if k != "models"}))
    code, _, err = asr("render", "c.json")
    assert code == 1 and "no JSON report of asr-onnx" in err
    assert not (folder / "c.html").exists()
