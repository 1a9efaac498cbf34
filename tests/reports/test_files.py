"""Which report files are written, what is refused before any work, and what samples are shown."""

from __future__ import annotations

import base64
import io
import json
import os
import subprocess
import sys
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from models import ROOT, copied, external_copy, files, norm_net, normal, stored
from PIL import Image

from asr_onnx.data.arrays import ArraySamples
from asr_onnx.data.batches import Batches
from asr_onnx.evaluation.samples import SHOWN, collect
from asr_onnx.graph.inputs import ModelInput
from asr_onnx.reports.thumbnails import SIDE, data_uri, from_array, thumbnails

REPAIR = ("repair", "m.onnx", "--calib", "images", "--providers", "cpu", "-q")


def test_the_suffix_chooses_the_format_and_json_becomes_the_page_later(folder, asr):
    words = ("--report", "a.json", "--report", "b.HTML")
    assert asr(*REPAIR, *words) == (0, "", "")
    assert json.loads((folder / "a.json").read_text())["model"] == "m.onnx"
    assert (folder / "b.HTML").read_text(encoding="utf-8").startswith("<!doctype html>")
    assert asr("render", "a.json")[0] == 0
    with_pictures = (folder / "b.HTML").read_text(encoding="utf-8")
    without = (folder / "a.html").read_text(encoding="utf-8")
    assert "data:image/png" in with_pictures and "data:image/png" not in without
    assert without.count("<svg") == with_pictures.count("<svg") == 4
    assert "data:image" not in (folder / "a.json").read_text()


@pytest.mark.parametrize(
    "words, message",
    [
        (("--report", "r.txt"), "has to end in .json, .html, .md or .xml"),
        (("--report", "r"), "has to end in .json, .html, .md or .xml"),
        (("--report", "r.html", "--report", "./r.html"), "another report are one file"),
        (("--report", "r.html", "-o", "r.html"), "the output are one file"),
        (("--report", "none/r.html"), "does not exist"),
    ],
)
def test_refused_before_any_work(folder, asr, words, message):
    before = files(folder)
    code, out, err = asr(*REPAIR, *words)
    assert (code, out, files(folder)) == (2, "", before)
    assert message in err and err.count("\n") == 1


def test_markdown_and_junit_are_made_of_the_same_content(folder, asr):
    """Right away and of the JSON later; the page of a sweep has no gates to list."""
    names = ("a.json", "a.md", "a.xml")
    words = [w for name in names for w in ("--report", name)]
    assert asr(*REPAIR, *words, "--max-error", "1e9") == (0, "", "")
    for kind in ("md", "xml"):
        assert asr("render", "a.json", "-o", f"b.{kind}", "-q") == (0, "", "")
    text = (folder / "a.md").read_text(encoding="utf-8")
    assert (folder / "b.md").read_text(encoding="utf-8") == text
    assert text.startswith("## asr-onnx: passed, `m.sparse.onnx`\n")
    assert "**2 of 2 gates passed.**" in text
    first, second = (ET.parse(folder / f"{n}.xml").getroot()[0] for n in "ab")
    assert [c.get("name") for c in first.iter("testcase")] == [
        "--max-error", "no worse than unrepaired",
    ]  # fmt: skip
    assert [ET.tostring(e) for e in first] == [ET.tostring(e) for e in second]
    (folder / "s.json").write_text('{"asr_onnx_sweep": 2}')
    assert asr("render", "s.json", "-o", "s.md")[0] == 1


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"asr_onnx_report": 1}', "[" * 5000, None])
def test_what_is_no_report_is_not_rendered(folder, asr, content):
    if content is not None:
        (folder / "r.json").write_text(content)
    before = files(folder)
    code, out, err = asr("render", "r.json")
    assert (code, out, files(folder)) == (1, "", before)
    assert err.startswith("error: ") and err.count("\n") == 1
    assert "unexpected" not in err


def test_starting_the_command_line_loads_neither_charts_nor_templates():
    code = "import sys, asr_onnx.cli; print({'matplotlib', 'jinja2'} & sys.modules.keys())"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout.strip() == "set()", done.stderr


def calibration(rng, samples=40, holdout=0.5, shape=(3, 4, 4)):
    x = normal(rng, samples, *shape)
    inputs = [ModelInput("x", np.dtype(np.float32), (None, *shape))]
    return Batches(ArraySamples.from_data(x, inputs), inputs, holdout=holdout)


@pytest.mark.parametrize("holdout", [0.0, 0.5])
def test_answers_are_those_of_the_samples_checked(rng, holdout):
    data = calibration(rng, holdout=holdout)
    count = data.num_held_out or data.num_solve
    wanted = [i for b in data.batches if b.held_out or not holdout for i in b.samples]
    dense = normal(rng, count, 5)
    other = np.roll(dense, 1, axis=1)
    repaired = dense.copy()
    repaired[-1] = other[-1]
    text = np.array(["a"] * count)
    found = collect(data, *({"t": text, "y": y} for y in (dense, other, repaired)))
    assert found.output == "y"
    assert [s.index for s in found.samples] == wanted
    assert [s.dense for s in found.samples] == dense.argmax(axis=1).tolist()
    assert [s.pruned for s in found.samples] == other.argmax(axis=1).tolist()
    told = found.to_dict()
    assert len(told["shown"]) == SHOWN and told["checked"] == count
    assert [s["index"] for s in told["differing"]] == wanted[-1:]
    assert told["differing_count"] == 1
    json.dumps(told)


@pytest.mark.parametrize("shape", [(20,), (20, 1), (20, 5, 2), (19, 5)])
def test_outputs_without_a_class_for_each_sample_have_no_answers(rng, shape):
    data = calibration(rng)
    y = {"y": normal(rng, *shape)}
    found = collect(data, y, y, y)
    assert found.output is None and len(found.samples) == 20
    assert found.to_dict()["differing"] == []


def decoded(uri):
    head, _, body = uri.partition(",")
    assert head == "data:image/png;base64"
    return Image.open(io.BytesIO(base64.b64decode(body)))


def test_pictures_are_small_and_keep_their_shape():
    assert decoded(data_uri(Image.new("RGB", (1000, 500)))).size == (SIDE, SIDE // 2)
    assert decoded(data_uri(Image.new("L", (8, 8)))).size == (8, 8)


@pytest.mark.parametrize(
    "shape, size",
    [((3, 4, 6), (6, 4)), ((4, 6, 3), (6, 4)), ((1, 4, 6), (6, 4)), ((4, 6), (6, 4)),
     ((5, 4, 6), None), ((7,), None), ((3, 0, 0), None)],
)  # fmt: skip
def test_arrays_as_pictures(rng, shape, size):
    found = from_array(normal(rng, *shape))
    assert (found.size if found else None) == size
    if found:
        assert found.getextrema() != (0, 0) and np.asarray(found).max() == 255
        assert np.asarray(from_array(np.ones(shape, np.float32))).max() == 0


def test_thumbnails_leave_out_what_is_no_picture(rng):
    assert thumbnails(calibration(rng), [3, 1]).keys() == {3, 1}
    assert thumbnails(calibration(rng, shape=(7,)), [0]) == {}


def test_hashes_cover_external_data(folder, asr, rng):
    """Models that differ in nothing but their data file are told apart."""
    model = norm_net(rng)
    other = copied(model, w1=stored(model)["w1"] * np.float32(1.5))
    found = {}
    for name, proto in (("a", model), ("b", other)):
        path = external_copy(proto, folder / name)
        words = (
            "repair",
            path,
            "--calib",
            "x.npy",
            "--providers",
            "cpu",
            "--report",
            f"{name}.json",
        )
        assert asr(*words, "-q")[0] == 0
        found[name] = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))["files"]
        assert found[name].keys() == {str(p) for p in path.parent.iterdir()}
        assert (
            asr("compare", path, path, "--data", "x.npy", "--json", f"{name}.compared.json")[0] == 0
        )
        compared = json.loads((folder / f"{name}.compared.json").read_text(encoding="utf-8"))
        assert compared["files"].items() <= found[name].items()
    graph, data = (
        [h[f"{folder}/{n}/{f}"] for n, h in found.items()] for f in ("m.onnx", "weights.bin")
    )
    assert graph[0] == graph[1] and data[0] != data[1]
