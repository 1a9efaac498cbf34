"""``asr-onnx check``: exit codes, a line for each model or violation, reports."""

from __future__ import annotations

import json
from xml.etree import ElementTree as ET

import onnx
import pytest
from models import copied, files, stored


@pytest.fixture
def cases(folder, asr):
    """``folder`` with a model that holds 2:4 (``p.onnx``) and one at half sparsity (``h.onnx``)."""
    assert asr("prune", "m.onnx", "--pattern", "2:4", "-o", "p.onnx", "-q")[0] == 0
    assert asr("prune", "m.onnx", "--sparsity", "0.5", "-o", "h.onnx", "-q")[0] == 0
    return folder


def test_models_that_hold_their_mask_have_a_line_each(cases, asr):
    code, out, err = asr("check", "p.onnx", "p.onnx", "--pattern", "2:4")
    assert (code, err) == (0, "")
    assert out == "p.onnx: 2:4 in 1 site, 50.00% of 576 weights are zero; 1 left alone\n"
    code, out, err = asr("check", "h.onnx", "--sparsity", "50%")
    assert (code, out, err) == (0, "h.onnx: 50.00% of 792 weights are zero in 2 sites\n", "")
    assert asr("check", "h.onnx", "--sparsity", "50%", "-q") == (0, "", "")


def test_a_broken_mask_names_the_site_and_the_figure(cases, asr):
    model = onnx.load("p.onnx")
    weight = stored(model)["w2"].copy()
    weight[0, :4, 0, :2] = 1
    onnx.save(copied(model, w2=weight), "b.onnx")
    code, out, err = asr("check", "p.onnx", "b.onnx", "--pattern", "2:4")
    assert (code, out.count("\n")) == (3, 1)
    first, last = err.splitlines()
    assert first == "b.onnx: 'w2' breaks 2:4: 2 of 144 groups of 4 have more than 2 weights"
    assert last == "error: 1 of 2 models do not hold their mask"
    code, out, err = asr("check", "h.onnx", "--sparsity", "0.6")
    assert (code, out) == (3, "")
    assert "396 of 792 weights are zero (50.00%), 475 were asked for: fewest in '" in err
    code, _, err = asr("check", "m.onnx", "--sparsity", "0.6")
    assert code == 3 and "no weight is zero: not pruned, or whole channels are gone" in err


def test_a_model_that_cannot_be_read_hides_no_other(cases, asr):
    (cases / "x.onnx").write_text("version https://git-lfs.github.com/spec/v1\n")
    code, out, err = asr("check", "x.onnx", "p.onnx", "h.onnx", "--pattern", "2:4")
    assert code == 1 and out.startswith("p.onnx: ")
    lines = err.splitlines()
    assert lines[0].startswith("x.onnx: model 'x.onnx' is not an ONNX file")
    assert lines[1].startswith("h.onnx: ")
    assert lines[-1] == "error: 1 of 3 models cannot be checked"
    code, _, err = asr("check", "x.onnx", "--pattern", "2:4")
    assert code == 1 and err.startswith("error: model 'x.onnx' is not") and err.count("\n") == 1


@pytest.mark.parametrize(
    "words, message",
    [
        ((), "nothing to check: give a pattern N:M, such as 2:4, or a sparsity"),
        (("--pattern", "channel"), "channels that are gone leave nothing to check"),
        (("--pattern", "2:4", "--sparsity", "0.6"), "pattern 2:4 leaves at most 50 % zeros"),
        (("--pattern", "2:3:4"), "is not N:M"),
        (("--sparsity", "auto"), "auto"),
        (("--pattern", "2:128"), "no site can hold the pattern 2:128"),
        (("--sparsity", "0.5", "--only-eligible"), "goes with an N:M pattern"),
        (("--sparsity", "0.5", "--report", "r.html"), "can be .json, .md or .xml, not .html"),
        (("--sparsity", "0.5", "--json", "m.onnx"), "exists already"),
        (("--sparsity", "0.5", "--json", "./p.onnx", "--force"), "is a model that is read"),
    ],
)
def test_bad_options_are_exit_code_2(cases, asr, words, message):
    before = files(cases)
    code, out, err = asr("check", "p.onnx", *words)
    assert (code, out, files(cases)) == (2, "", before)
    assert message in err and "Traceback" not in err


def test_reports_have_every_model(cases, asr):
    (cases / "x.onnx").write_text("none")
    names = ["p.onnx", "h.onnx", "x.onnx"]
    words = ("--pattern", "2:4", "--json", "c.json", "--report", "c.xml", "--report", "c.md")
    assert asr("check", *names, *words, "-q")[0] == 1
    content = json.loads((cases / "c.json").read_text())
    assert [m["name"] for m in content["models"]] == names
    assert [c["outcome"] for c in content["checks"]] == ["passed", "failed", "failed"]
    assert [c["value"] for c in content["checks"]][0::2] == [0, None]
    assert content["options"]["pattern"] == "2:4" and set(content["files"]) == {"p.onnx", "h.onnx"}
    suites = ET.parse(cases / "c.xml").getroot()
    assert [s.get("failures") for s in suites] == ["0", "1", "1"]
    text = (cases / "c.md").read_text()
    assert text.startswith("## asr-onnx check: failed\n") and "### Sites of `h.onnx`" in text
    assert asr("render", "c.json", "-o", "d.md", "-q") == (0, "", "")
    assert (cases / "d.md").read_text() == text
    code, _, err = asr("render", "c.json")
    assert code == 2 and "not .html" in err
    code, out, err = asr("check", "p.onnx", "--pattern", "2:4", "--json", "-")
    assert code == 0 and json.loads(out)["failures"] == [] and err.startswith("p.onnx: ")
