"""HTML reports as a reader has them: opened in a browser, on a desk and on a phone."""

from __future__ import annotations

import json
import re
from copy import deepcopy
from functools import partial

import numpy as np
import pytest
from browser import HOSTILE, WIDTHS, check_sound, pictures, rows, visible
from models import balanced, norm_net, normal

from asr_onnx import RepairOptions, repair
from asr_onnx.provenance import dumps
from asr_onnx.reports import page as pages
from asr_onnx.reports import repair_page, repair_tables
from asr_onnx.reports.repair_charts import charts

OPTIONS = RepairOptions(0.6, method="asr")


@pytest.fixture(scope="module")
def told():
    """A report as JSON gives it back."""
    rng = np.random.default_rng(1)
    x = normal(rng, 20, 3, 8, 8)
    result = repair(balanced(norm_net(rng), x=x), x, OPTIONS)
    return json.loads(dumps(repair_tables.to_dict(result, model="nets/m.onnx")))


@pytest.mark.parametrize("width", WIDTHS)
def test_the_command_line_writes_a_page_that_tells_everything(folder, asr, show, width):
    words = ("--calib", "images", "--sparsity", "0.6", "--providers", "cpu", "--holdout", "0.5")
    words = (*words, "--recipe", "asr")
    reports = ("--report", "r.html", "--report", "r.json")
    assert asr("repair", "m.onnx", *words, *reports, "-q") == (0, "", "")
    page = show(folder / "r.html", width)
    check_sound(page)
    told, text = json.loads((folder / "r.json").read_text()), visible(page)
    repaired = told["outputs"]["repaired"]["y"]["agreement"]
    for words in (
        "m.onnx", f"gives the dense model's answer on {repaired:.1%} of 6 held-out images",
        "Agreement, pruned", "6 solved on, 6 held out", "on cpu", "class0/",
        "Conv 8×3×3×3", "criterion", "magnitude", told["preprocessing"], told["files"]["m.onnx"],
        told["versions"]["onnx"], "reliability", "Samples", f"{told['sparsity']:.2%}",
        "The first 6 of 6 samples",
    ):  # fmt: skip
        assert words in text, words
    assert page.js("document.title") == "m.onnx: asr-onnx repair"
    assert len(rows(page, "sites")) == 2
    assert [r[:3] for r in rows(page, "costs")] == [
        ["before", "50.7 k", "901"], ["repaired", "50.7 k", "901"], ["× before", "1.00", "1.00"],
    ]  # fmt: skip
    images = page.js(
        "[...document.images].map(i => [i.complete, i.naturalWidth, i.alt, i.src.slice(0, 14)])"
    )
    assert len(images) >= 6
    assert all(p[:2] == [True, 8] and p[2] and p[3] == "data:image/png" for p in images)


@pytest.mark.parametrize("width", WIDTHS)
def test_charts_are_pictures_with_words_axes_and_legends(show, told, width):
    page = show(repair_page.render(told), width)
    check_sound(page)
    found = pictures(page)
    assert len(found) == 4
    for (label, text, wide), axis in zip(
        found,
        ("output variance / dense variance", "weights left (%)", "factor on a channel", "reliab"),
        strict=True,
    ):
        assert "2 sites in execution order" in label
        assert axis in text and "site, in execution order" in text
        assert 300 < wide <= min(width, 600)
    for word in ("dense (= 1)", "pruned", "repaired"):
        assert word in found[0][1]


@pytest.mark.parametrize("width", WIDTHS)
def test_tables_scroll_inside_their_box(show, told, width):
    page = show(repair_page.render(told), width)
    box = "document.querySelector('#sites .scroll')"
    assert page.js(f"getComputedStyle({box}).overflowX") == "auto"
    assert page.js(f"{box}.getBoundingClientRect().right <= window.innerWidth")
    assert page.js(f"{box}.scrollWidth > {box}.clientWidth") == (width == 390)


def hostile(told):
    told["model"], told["warnings"] = f"nets/{HOSTILE.replace('/', '')}", [HOSTILE]
    told["skipped"] = [{"name": HOSTILE, "op": HOSTILE, "reason": HOSTILE}]
    told["options"]["include"] = told["device"] = told["preprocessing"] = HOSTILE
    told["files"] = {HOSTILE: "0" * 64}
    told["samples"]["shown"][0]["name"] = told["samples"]["output"] = HOSTILE
    for site in told["sites"]:
        site["name"] = site["node"] = HOSTILE
    for matches in told["outputs"].values():
        matches[HOSTILE] = matches.pop("y")


@pytest.mark.parametrize("width", WIDTHS)
def test_names_are_text_whatever_is_in_them(show, told, width):
    told = deepcopy(told)
    hostile(told)
    page = show(repair_page.render(told), width)
    check_sound(page)
    assert page.js("document.images.length") == 0
    assert HOSTILE in page.js("document.querySelector('#sites .name').textContent")
    assert page.js("document.title").endswith(": asr-onnx repair")
    assert visible(page).count(HOSTILE) >= 8


def one_site(told):
    del told["sites"][1:]


def many_sites(told):
    told["sites"] = [deepcopy(told["sites"][n % 2]) for n in range(200)]
    for n, site in enumerate(told["sites"]):
        site["node"] = f"/layer{n // 8}/blocks.{n % 8}/a_rather_long_name_of_a_node/conv/Conv"
        site["variance_pruned"] = 0.9**n


def dead_and_infinite(told):
    first, second = told["sites"]
    first |= {"zeros": first["weights"], "density": 0.0, "dead": 8, "variance_pruned": 0.0}
    first |= {"variance_repaired": 0.0, "reliability": [0.0] * 8}
    second |= {"variance_pruned": None, "error_pruned": None, "variance_repaired": 0.05}


def nothing_but_zeros(told):
    for site in told["sites"]:
        site |= {"variance_pruned": 0.0, "variance_repaired": 0.0, "gamma": [0.0] * 8}
        site |= {"zeros": site["weights"], "density": 0.0, "reliability": [None] * 8}


def no_sites(told):
    told["sites"] = []


def no_classes(told):
    told["samples"] = None
    for matches in told["outputs"].values():
        matches["y"] |= {"agreement": None, "relative_error": None}


def not_comparable(told):
    told["samples"]["output"] = None
    for matches in told["outputs"].values():
        matches["y"] |= {"agreement": None, "cosine": None, "relative_error": None}


def one_answer(told):
    for matches in told["outputs"].values():
        matches["y"] |= {"agreement": None, "one_answer": True, "answers": 0}


def with_metrics(told):
    told["metrics"] = {"pruned": {"f1": 0.25, HOSTILE: 0.0}, "repaired": {"f1": 0.75, HOSTILE: -1}}


def several_outputs(told):
    for matches in told["outputs"].values():
        matches["boxes"] = matches["y"] | {"agreement": None, "answers": 0}
    told["outputs"]["repaired"]["boxes"] |= {"cosine": 0.0, "relative_error": None}


def nothing_held_out(told):
    told["images"] = {"solve": 20, "held_out": 0}


def not_written(told):
    told["output"] = None
    told["outputs"]["repaired"]["y"]["relative_error"] = 0.5
    told["outputs"]["pruned"]["y"]["relative_error"] = 0.1


def of_an_older_version(told):
    for name in ("samples", "skipped", "model"):
        del told[name]


@pytest.mark.parametrize(
    "change, words",
    [
        (one_site, ("Output variance",)),
        (many_sites, ("/layer24/blocks.7/a_rather_long_name", "200")),
        (dead_and_infinite, ("∞", "1 of 2 sites have no weight left", "8 / 8", "▼", "▲")),
        (nothing_but_zeros, ("2 of 2 sites have no weight left",)),
        (no_sites, ("Outputs against the dense model",)),
        (no_classes, ("differs from the dense model's by",)),
        (not_comparable, ("cannot be compared",)),
        (
            one_answer,
            (
                "The dense model gives one and the same answer in output 'y' on all 4",
                "The dense model's answer is the same on all of them",
                "one answer",
            ),
        ),
        (with_metrics, ("Metrics of the script", "f1, repaired", "merely pruned 0.250", HOSTILE)),
        (several_outputs, ("the repaired model's output 'y' differs", "boxes", "∞")),
        (nothing_held_out, ("20 calibration images (none held out)", "No images were held out")),
        (not_written, ("No model was written", "The repair made it worse.")),
        (of_an_older_version, ("Sites",)),
    ],
)
@pytest.mark.parametrize("width", WIDTHS)
def test_odd_results_are_shown_too(show, told, change, words, width):
    told = deepcopy(told)
    change(told)
    page = show(repair_page.render(told), width)
    check_sound(page)
    text = visible(page)
    for word in words:
        assert word in text, word
    assert page.js("document.querySelectorAll('svg').length") == (0 if change is no_sites else 4)
    assert len(rows(page, "sites")) == len(told["sites"])


def test_print_shows_tables_whole(show, told):
    page = show(repair_page.render(told))
    page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    try:
        box = "document.querySelector('#sites .scroll')"
        assert page.js(f"getComputedStyle({box}).overflowX") == "visible"
    finally:
        page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})


def test_the_same_report_is_the_same_page_with_nothing_from_elsewhere(told):
    text = repair_page.render(told)
    assert text == repair_page.render(deepcopy(told))
    assert re.findall(r"""(?:src|href)=["'](?!#|data:)[^"']*""", text) == []
    assert "url(http" not in text and "@import" not in text
    assert set(re.findall(r'https?://[^"\s<)]+', text)) <= {
        "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink",
    }  # fmt: skip


def test_a_users_own_chart_style_changes_nothing_and_is_kept(told):
    import matplotlib

    before = [c.svg for c in charts(told)]
    with matplotlib.rc_context({"axes.facecolor": "black", "font.size": 30}):
        assert [c.svg for c in charts(told)] == before
        assert matplotlib.rcParams["font.size"] == 30


def test_the_words_of_a_chart_have_its_numbers(told):
    told = deepcopy(told)
    told["sites"][0]["variance_pruned"], told["sites"][1]["variance_pruned"] = 0.5, 0.001
    alt = charts(told)[0].alt
    assert "pruned: lowest 0.001 at site 2, highest 0.5 at site 1" in alt
    assert "Logarithmic" in charts(told)[0].caption
    told["sites"][1]["variance_pruned"] = 0.4
    assert "Logarithmic" not in charts(told)[0].caption


@pytest.mark.parametrize(
    "write, x, shown",
    [
        (pages.listed, ["a"], "a"), (pages.listed, ["a", "b", "c"], "a, b and c"),
        (pages.share, None, "–"), (pages.share, 0.5, "50.0%"), (pages.number, None, "–"),
        (pages.number, 0.0, "0"), (pages.number, 0.95, "0.950"), (pages.number, 1.0984, "1.098"),
        (pages.number, 123.4, "123.4"), (pages.ratio, None, "∞"), (pages.middle, [], "–"),
        (pages.middle, [3.0, None, 1.0], "2.000"), (pages.value, True, "yes"),
        (pages.value, ["Conv", "Gemm"], "Conv, Gemm"), (pages.value, None, "–"),
        (partial(pages.number, digits=4), 0.78404, "0.7840"),
    ],
)  # fmt: skip
def test_numbers_for_people(write, x, shown):
    assert write(x) == shown


def test_a_map_of_classes_has_positions_not_images(told):
    told = deepcopy(told)
    told["samples"] = None
    told["outputs"]["repaired"]["y"] |= {"agreement": 0.5, "answers": 1200}
    verdict = repair_page.verdict(told)
    assert "the dense model's answer on 50.0% of 1,200 positions in 4 held-out images" in verdict
    assert repair_page.main_output(told) == "y"
