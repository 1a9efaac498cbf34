"""What a notebook shows of each result: inside a page of either theme, narrow or wide."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from browser import HOSTILE, WIDTHS, check_sound, visible
from models import balanced, norm_net, normal

import asr_onnx
from asr_onnx import Gates, PruneOptions, RepairOptions
from asr_onnx.evaluation.gates import Failure
from asr_onnx.reports import display
from asr_onnx.sweeps.results import SweepResult

# As JupyterLab has them for what a cell shows.
JUPYTER = """
.out { color: var(--c); line-height: 1.3; }
.out table { border: none; border-collapse: collapse; font-size: 12px; table-layout: fixed; }
.out td, .out th, .out tr { text-align: right; vertical-align: middle; max-width: none; }
.out p { margin: 0 0 1em; }
.out ul { list-style: disc; padding-left: 2em; }
"""
THEMES = {"light": ("#fff", "rgb(0, 0, 0)"), "dark": ("#111", "rgb(255, 255, 255)")}


def cell(place, pruned, **more):
    recipe, sparsity = place
    figures = {"value": 0.9, "low": 0.8, "high": 0.95, "agreement": 0.9, "cosine": 0.9}
    return {
        "recipe": recipe, "sparsity": sparsity, "pattern": None, "macs": None, "zeros": sparsity,
        "relative_error": 0.2, "macs_share": 1.0, "seconds": 1.0, "worse_than_pruning": "",
        "accuracy": None, "options": {}, "pruned": {**figures, "value": pruned}, **figures, **more,
    }  # fmt: skip


@pytest.fixture(scope="module")
def results():
    """One of each kind, by name."""
    rng = np.random.default_rng(1)
    x = normal(rng, 20, 3, 8, 8)
    model = balanced(norm_net(rng), x=x)
    options = RepairOptions(0.6, method="asr")
    repaired = asr_onnx.repair(model, x, options)
    cells = [cell(("asr", s), 0.5) for s in (0.5, 0.9)]
    failed = {**{n: cells[0][n] for n in ("recipe", "sparsity", "pattern", "macs")}, "error": "no"}
    return {
        "repair": repaired,
        "compare": asr_onnx.compare(model, {"repaired": repaired.model}, x),
        "inspect": asr_onnx.inspect(model),
        "compact": asr_onnx.compact(asr_onnx.prune(model, PruneOptions(0.95)), x),
        "auto": asr_onnx.repair_auto(
            model, x, Gates(min_agreement=0.5), RepairOptions(method="asr"), steps=2
        ),
        "sweep": SweepResult(
            model="nets/m.onnx", metric="agreement", samples=4, labels=None, device="cpu",
            data={"holdout": 0.2}, dense={"accuracy": None}, cells=[*cells, failed],
        ),
    }  # fmt: skip


NAMES = ("repair", "compare", "inspect", "compact", "auto", "sweep")


class Tags(HTMLParser):
    """The elements and attributes of a text."""

    def __init__(self, text):
        super().__init__()
        self.names, self.attributes, self.open = set(), set(), []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.names.add(tag)
        self.attributes |= {name for name, _ in attrs}
        if tag not in ("img", "br", "path", "use", "rect", "progress"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        if self.open and self.open[-1] == tag:
            self.open.pop()


@pytest.mark.parametrize("name", NAMES)
def test_it_is_a_part_of_a_page_and_acts_on_nothing_else(results, name):
    text = results[name]._repr_html_()
    tags = Tags(text)
    assert not tags.names & {"html", "head", "body", "script", "link", "iframe"}
    assert not any(re.fullmatch(r"h\d", tag) for tag in tags.names)
    assert not any(a.startswith("on") for a in tags.attributes)
    assert tags.open == []
    style = re.search(r"<style>(.*?)</style>", text, re.S)[1]
    rules = re.findall(r"([^{}]+)\{[^{}]*\}", re.sub(r"/\*.*?\*/", "", style, flags=re.S))
    assert rules and all(rule.strip().startswith(".asr-onnx") for rule in rules)
    assert "asr-onnx " + name.replace("auto", "repair") in text


@pytest.mark.parametrize(("name", "words"), [
    ("repair", ("merely pruned", "Error, repaired", "of 792 weights", "Output variance", "sites")),
    ("compare", ("repaired has", "Samples", "Size and speed", "Agreement with the dense model")),
    ("inspect", ("2 sites can be pruned", "Pruned and repaired", "MACs per sample", "Weights")),
    ("compact", ("channels removed", "MACs per sample", "Parameters")),
    ("auto", ("Sparsity auto took", "What was tried", "--min-agreement, searched on", "taken")),
    ("sweep", ("m.onnx", "asr loses more", "1 of 3 cells failed", "Agreement over sparsity")),
])  # fmt: skip
def test_it_tells_what_the_report_does(results, name, words):
    text = results[name]._repr_html_()
    for word in words:
        assert word in text, word


def test_names_do_nothing(results):
    found = results["repair"]
    (name, match), *_ = found.repaired_outputs.items()
    outputs = {n: {HOSTILE: m[name]} for n, m in
               (("repaired_outputs", found.repaired_outputs),
                ("pruned_outputs", found.pruned_outputs))}  # fmt: skip
    sites = tuple(replace(s, node=HOSTILE + "\x1b\u202e") for s in found.sites)
    text = replace(found, sites=sites, answers=None, **outputs)._repr_html_()
    assert match
    assert {"script", "img"}.isdisjoint(Tags(text).names)
    assert "\x1b" not in text and "\u202e" not in text
    assert "&lt;script&gt;" in text


def test_of_many_sites_the_worst_are_shown(results):
    found = results["repair"]
    many = tuple(
        replace(found.sites[0], name=f"w{n}", node=f"node{n:03}" + "x" * 2000, error_repaired=n)
        for n in range(500)
    )
    text = replace(found, sites=many)._repr_html_()
    assert re.findall(r"node(\d{3})x", text)[:10] == [str(n) for n in range(499, 489, -1)]
    assert text.count('scope="row"') < 20
    assert len(text) < 100_000


def test_many_models_are_told_of_in_short(results):
    found = results["compare"]
    text = replace(found, models=found.models * 300)._repr_html_()
    assert len(text) < 100_000
    assert "and 281 more" in text  # of accuracies and outputs


def test_what_is_not_good_enough_says_so_first(results):
    found = results["auto"]
    chosen = found.trials.chosen
    looked = replace(chosen.verdict.searched, failures=(Failure("m", None, "it is <bad>"),))
    trial = replace(chosen, verdict=replace(chosen.verdict, searched=looked))
    text = replace(found, trials=replace(found.trials, tried=(trial,)))._repr_html_()
    assert "It is &lt;bad&gt;." in text and 'class="notes failed"' in text


def test_what_is_no_result_is_refused():
    with pytest.raises(TypeError, match="a int is no result"):
        display.html(3)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("theme", THEMES)
def test_it_is_readable_in_a_notebook(results, show, theme, width):
    paper, ink = THEMES[theme]
    shown = "".join(f'<div class="out">{results[n]._repr_html_()}</div>' for n in NAMES)
    page = show(
        f'<!doctype html><html style="--c: {ink}; background: {paper}"><meta charset="utf-8">'
        f'<link rel="icon" href="data:,"><title>n</title><style>{JUPYTER}</style>{shown}',
        width,
    )
    page.js("document.querySelectorAll('details').forEach(d => d.open = true)")
    check_sound(page)
    assert "Error, repaired" in visible(page)
    colors = page.js(
        "[...document.querySelectorAll('.out :is(th, td, p, strong, figcaption), svg text')]"
        ".map(e => e instanceof SVGElement ? getComputedStyle(e).fill : getComputedStyle(e).color)"
    )
    assert set(colors) == {ink}
    first = "document.querySelector('tbody td:not(.n)')"
    assert page.js(f"getComputedStyle({first}).textAlign") == "left"
    parts = "[...document.querySelectorAll('.asr-onnx')]"
    assert page.js(f"{parts}.every(e => e.scrollWidth <= e.clientWidth)")
