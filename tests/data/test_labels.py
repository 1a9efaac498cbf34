"""Labels: every way of writing the same labels gives the same labels, or a line that says why."""

from __future__ import annotations

import json

import numpy as np
import pytest
from models import normal
from PIL import Image

from asr_onnx import CalibrationError, UsageError
from asr_onnx.data.arrays import ArraySamples
from asr_onnx.data.labels import find_labels
from asr_onnx.data.openers import open_samples
from asr_onnx.graph.inputs import ModelInput

INPUTS = (ModelInput("x", np.dtype("float32"), (None, 3, 4, 4)),)


def images(root, *names):
    """Image files of these names under ``root``, as samples."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4)).save(root / name)
    return open_samples(root, INPUTS)


@pytest.fixture
def samples(tmp_path):
    return images(tmp_path / "d", "2_cat/a.png", "0_dog/b.png", "2_cat/c.png", "10_cow/d.png")


def by_name(found, samples):
    return {samples.name(i): int(v) for i, v in enumerate(found.values)}


WANTED = {"2_cat/a.png": 2, "0_dog/b.png": 0, "2_cat/c.png": 2, "10_cow/d.png": 10}


def test_class_folders_are_labelled_by_their_integers(samples):
    found = find_labels(None, samples)
    assert by_name(found, samples) == WANTED
    assert "integer" in found.source


@pytest.mark.parametrize("kind", ["csv", "header", "json", "list", "names", "bases", "txt", "npy"])
def test_every_way_of_writing_labels_says_the_same(samples, tmp_path, kind):
    path, classes = tmp_path / "labels.csv", None
    rows = [f"{n},{v}" for n, v in WANTED.items()]
    if kind == "json":
        path = tmp_path / "labels.json"
        path.write_text(json.dumps(WANTED))
    elif kind == "list":
        path, classes = tmp_path / "labels.json", [f"c{i}" for i in range(11)]
        path.write_text(json.dumps([f"c{WANTED[samples.name(i)]}" for i in range(4)]))
    elif kind == "npy":
        path = tmp_path / "labels.npy"
        np.save(path, [WANTED[samples.name(i)] for i in range(4)])
    elif kind == "txt":
        path = tmp_path / "labels.txt"
        path.write_text("\n".join(f"{n} {v}" for n, v in WANTED.items()))
    elif kind == "names":
        classes = tmp_path / "classes.txt"
        classes.write_text("\n".join(f"c{i}" for i in range(11)) + "\n")
        path.write_text("\n".join(f"{n},c{v}" for n, v in WANTED.items()))
    elif kind == "bases":
        path.write_text("\n".join(r.split("/")[1] for r in rows))
    else:
        head = ["file,label"] if kind == "header" else []
        path.write_text("\r\n".join([*head, *rows, "elsewhere.png,3", ""]), encoding="utf-8-sig")
    found = find_labels(path, samples, classes)
    assert by_name(found, samples) == WANTED
    assert str(path) in found.source


def test_mappings_and_arrays_do_too(samples):
    assert by_name(find_labels(WANTED, samples), samples) == WANTED
    values = np.array([WANTED[samples.name(i)] for i in range(4)])
    assert by_name(find_labels(values, samples), samples) == WANTED


@pytest.mark.parametrize("suffix", [".txt", ".json"])
def test_wordnet_folders_are_indexed_by_the_classes(tmp_path, suffix):
    samples = images(tmp_path / "d", "n03/a.png", "n01/b.png")
    names = ["n09", "n03 tench, Tinca", "n02 shark", "n01 hen"]
    path = tmp_path / f"classes{suffix}"
    path.write_text(json.dumps(names) if suffix == ".json" else "\n".join(names) + "\n\n")
    for classes in (path, names):
        found = find_labels(None, samples, classes)
        assert by_name(found, samples) == {"n03/a.png": 1, "n01/b.png": 3}


def test_without_integers_a_label_is_the_position(tmp_path):
    samples = images(tmp_path, "dog/a.png", "cat/b.png", "7_cow/c.png")
    found = find_labels(None, samples)
    assert by_name(found, samples) == {"7_cow/c.png": 0, "cat/b.png": 1, "dog/a.png": 2}
    assert "position" in found.source
    found.check(3, samples, "y")
    with pytest.raises(CalibrationError, match="3 class folders, but output 'y' has 5"):
        found.check(5, samples, "y")


def test_integers_that_are_not_distinct_are_no_labels(tmp_path):
    samples = images(tmp_path, "1_a/a.png", "1_b/b.png")
    assert by_name(find_labels(None, samples), samples) == {"1_a/a.png": 0, "1_b/b.png": 1}


def test_what_lies_in_no_class_folder_has_no_labels(tmp_path, rng):
    assert find_labels(None, images(tmp_path / "flat", "a.png", "b.png")) is None
    assert find_labels(None, images(tmp_path / "one", "images/a.png", "images/b.png")) is None
    assert find_labels(None, ArraySamples.from_data(normal(rng, 5, 3, 4, 4), INPUTS)) is None


def test_labels_can_be_declined(samples):
    assert find_labels(False, samples) is None


def test_a_single_folder_with_an_integer_is_a_class(tmp_path):
    samples = images(tmp_path, "7/a.png")
    assert by_name(find_labels(None, samples), samples) == {"7/a.png": 7}


@pytest.mark.parametrize("classes, wrong", [(10, "10"), (2, "2")])
def test_a_label_has_to_be_a_class(samples, classes, wrong):
    found = find_labels({n: v if v in (0, int(wrong)) else 0 for n, v in WANTED.items()}, samples)
    with pytest.raises(CalibrationError, match=rf"label {wrong} of .* not one of the {classes} cl"):
        found.check(classes, samples, "y")


@pytest.mark.parametrize(
    "name, text, message",
    [
        ("l.csv", "a.png,1\nb.png,0\nc.png,2\n", "nothing for '10_cow/d.png'"),
        ("l.csv", "a.png,1,2\n", "line 1 has 3 columns"),
        ("l.csv", "a.png,1\na.png,2\n", "'a.png' has the labels '1' and '2'"),
        ("l.csv", "a.png,cat\nb.png,0\nc.png,2\nd.png,1", "'2_cat/a.png' is the name 'cat'"),
        ("l.json", "7", "no JSON object of file -> label, nor a list"),
        ("l.json", "[1, 2]", r"have shape \[2\], but there are 4"),
        ("l.json", '[1, 2, "cat", 0]', "label 2 is the name 'cat'"),
        ("l.json", "{", "no JSON"),
        ("l.json", '{"a.png": 1.5, "b.png": 0, "c.png": 0, "d.png": 0}', "is 1.5, neither"),
        ("l.npy", "nothing", "'l.npy' cannot be read"),
        ("gone.csv", None, "'gone.csv' cannot be read: No such file"),
    ],
)
def test_unusable_label_files_are_named(samples, tmp_path, monkeypatch, name, text, message):
    monkeypatch.chdir(tmp_path)
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(CalibrationError, match=message) as caught:
        find_labels(name, samples)
    assert f"'{name}'" in str(caught.value)


@pytest.mark.parametrize(
    "classes, message",
    [
        (["2_cat", "0_dog"], "class folder '10_cow' is not among"),
        (["a", "b", "a"], "'a' is there twice"),
        (["a", "", "b"], "entry 1 is empty"),
        ([], "are empty"),
        ([1, 2], "no list of names"),
        ("gone.txt", "'gone.txt' cannot be read"),
    ],
)
def test_unusable_classes_are_refused(samples, classes, message):
    with pytest.raises(CalibrationError, match=message):
        find_labels(None, samples, classes)


def test_an_image_outside_of_the_class_folders_is_named(tmp_path):
    with pytest.raises(CalibrationError, match=r"image 'b\.png' lies in no class folder"):
        find_labels(None, images(tmp_path, "0/a.png", "b.png"))


def test_arrays_of_labels_have_to_fit(samples):
    with pytest.raises(CalibrationError, match="shape \\[3\\], but there are 4"):
        find_labels(np.array([0, 1, 2]), samples)
    with pytest.raises(UsageError, match="float64"):
        find_labels(np.zeros(4), samples)
