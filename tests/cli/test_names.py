"""Names and paths are shown as they are: no markup, no escape sequence, wherever they come from."""

from __future__ import annotations

import io
import json

import numpy as np
import onnx
import pytest
from models import bare_net, normal

from asr_onnx.cli import progress
from asr_onnx.cli.terminal import Terminal

BAD = ("layer[/conv]", "[red]x", "a\x1b[31mb", "two\nlines", ":smile:", "<b>&amp;", "\u202etxt")
MODEL = "[red]m[x].onnx"
CALIB = ("--calib", "x.npy", "--providers", "cpu", "--force", "--class-axis", f"{BAD[0]}\x1b[31m:1")


@pytest.fixture
def named(tmp_path, rng, monkeypatch):
    """A folder with a model whose names all have in them what some reader could take for code."""
    model = bare_net(rng)
    new = {}

    def rename(old, number):
        return new.setdefault(old, f"{BAD[number % len(BAD)]}{BAD[(number + 2) % len(BAD)]}{old}")

    new["y"] = f"{BAD[0]}\x1b[31m"
    for number, node in enumerate(model.graph.node):
        node.name = f"{BAD[number % len(BAD)]}\x1b[2J\n[/conv]{number}"
        node.input[:] = [rename(n, number + i) for i, n in enumerate(node.input)]
        node.output[:] = [rename(n, number + 3) for n in node.output]
    for value in (*model.graph.input, *model.graph.output, *model.graph.initializer):
        value.name = rename(value.name, 0)
    onnx.save(model, tmp_path / MODEL)
    np.save(tmp_path / "x.npy", normal(rng, 40, 3, 8, 8))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "400")
    return tmp_path


def assert_harmless(text):
    assert not set(text) & {"\x1b", "\x07", "\r", "\u202e", "😄"}


def test_every_command_tells_of_any_name(named, asr):
    for words in (
        ("inspect", MODEL),
        ("prune", MODEL, "-o", "[red]p.onnx"),
        ("repair", MODEL, *CALIB, "-v", "-o", "[o].onnx", "--report", "r.html", "--report", "r.md",
         "--report", "r.xml"),
        ("repair", MODEL, *CALIB, "-o", "[o].onnx", "--report", "r.json"),
        ("compare", MODEL, "[o].onnx", "--data", "x.npy", "--report", "c.html", "--report", "c.md"),
        ("check", "[o].onnx", "--sparsity", "0.5", "--report", "k.md", "--report", "k.xml"),
    ):  # fmt: skip
        code, out, err = asr(*words)
        assert code == 0, err
        assert_harmless(out + err)
        whole = "".join((out + err).split())
        assert "layer[/conv]" in whole or words[0] in ("prune", "compare", "check")
        assert all(name in whole for name in ("[red]x", r"a\x1b[31mb") if words[0] == "inspect")
    for name in ("r.html", "c.html", "r.md", "c.md", "k.md", "r.xml", "k.xml"):
        page = (named / name).read_text(encoding="utf-8")
        assert_harmless(page)
        assert "<b>" not in page
    report = json.loads((named / "r.json").read_text())
    assert report["outputs"]["repaired"].keys() == {f"{BAD[0]}\x1b[31m"}


@pytest.mark.parametrize("words", [
    ("inspect", "a\x1b[31m[x].onnx"),
    ("prune", MODEL, "--include", "\x1b[31m["),
    ("prune", MODEL, "--no\x1b[31mne"),
    ("repair", MODEL, "--calib", "[none]\x1b]0;x\x07"),
    ("compare", MODEL, MODEL, "--data", "x.npy", "--class-axis", "\x1b[1m:1"),
])  # fmt: skip
def test_errors_do_not_act_on_the_terminal(named, asr, words):
    code, out, err = asr(*words)
    assert code
    assert_harmless(out + err)
    assert r"\x1b" in err or "No such option: --none" in err  # older clicks take it out themselves


def test_failed_gates_and_failing_models_are_told_of_harmlessly(named, asr):
    code, out, err = asr("repair", MODEL, *CALIB, "-q", "--max-error", "1e-9")
    assert code == 3 and "gate failed: " in err
    assert_harmless(out + err)


def test_bars_show_names_as_they_are():
    out = io.StringIO()
    with progress.reporting(Terminal(file=out, force_terminal=True, width=120)) as report:
        report(0, 2, "layer[/conv] \x1b[5m[red]x")
    assert r"layer[/conv] \x1b[5m[red]x" in out.getvalue()
    assert "\x1b[5m" not in out.getvalue()
