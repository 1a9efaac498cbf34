"""Where the command line takes data from that are no images, and labels that go with them."""

from __future__ import annotations

import json
import math

import numpy as np
import onnx
import pytest
from models import balanced, batches, build, feeds_for, normal, run, two_inputs
from onnx import numpy_helper

SCRIPT = """
import numpy as np

def load_data():
    with np.load("d.npz") as data:
        arrays = dict(data)
    for start in range(0, 40, 10):
        yield {name: array[start : start + 10] for name, array in arrays.items()}
"""


@pytest.fixture
def two(folder):
    """``folder`` with a model of two inputs and data for it in four formats, and labels."""
    rng = np.random.default_rng(2)
    model = two_inputs(rng)
    feeds = feeds_for(model, rng)
    model = balanced(model, **feeds)
    onnx.save(model, "two.onnx")
    np.savez("d.npz", **feeds)
    (folder / "load.py").write_text(SCRIPT)
    for number, batch in enumerate(batches(feeds)):
        path = folder / "sets" / f"test_data_set_{number}"
        path.mkdir(parents=True)
        for index, (name, array) in enumerate(batch.items()):
            tensor = numpy_helper.from_array(array, name)
            (path / f"input_{index}.pb").write_bytes(tensor.SerializeToString())
    classes = run(model, **feeds)["y"].argmax(1)
    np.save("l.npy", classes)
    (folder / "l.json").write_text(json.dumps(classes.tolist()))
    return folder


SETTINGS = ("--sparsity", "0.5", "--providers", "cpu", "--batch-size", "8", "-q")
COMPARE = ("compare", "two.onnx", "two.sparse.onnx", "--providers", "cpu", "--no-latency")


@pytest.mark.parametrize("source", ["--data-loader-script load.py", "--load-inputs f.json", "sets"])
def test_the_command_line_takes_two_inputs_from_every_source(two, asr, source):
    if "json" in source:
        with np.load("d.npz") as data:
            pytest.importorskip("polygraphy.json").save_json(batches(dict(data)), "f.json")
    calib, data = (source.split() if "-" in source else (n, source) for n in ("--calib", "--data"))
    assert asr("repair", "two.onnx", "--calib", "d.npz", *SETTINGS) == (0, "", "")
    assert asr("repair", "two.onnx", *calib, "-o", "o.onnx", *SETTINGS) == (0, "", "")
    assert (two / "o.onnx").read_bytes() == (two / "two.sparse.onnx").read_bytes()
    contents = []
    for words in (("--data", "d.npz", "--labels", "l.npy"), (*data, "--labels", "l.json")):
        code, out, _ = asr(*COMPARE, *words, "--json", "-")
        contents.append(json.loads(out))
        assert code == 0 and contents[-1]["dense"]["top1"]["share"] == 1
    first, second = ({**c, "data": None, "labels": None, "config": None} for c in contents)
    assert first == second and first["samples"] == 40
    report = first["models"][0]
    assert report["outputs"].keys() == {"y", "maps"}
    assert all(math.isfinite(o["relative_error"]) for o in report["outputs"].values())
    assert report["top1"]["share"] == report["outputs"]["y"]["agreement"]


def test_labels_go_with_the_samples_drawn(two, asr):
    assert asr("prune", "two.onnx", "-o", "two.sparse.onnx", "-q")[0] == 0
    words = ("--data-loader-script", "load.py", "--num-samples", "7", "--json", "-")
    code, out, _ = asr(*COMPARE, *words, "--labels", "l.npy")
    assert code == 0
    assert (
        json.loads(out)["dense"]["top1"] | {"correct": 7, "total": 7}
        == (json.loads(out)["dense"]["top1"])
    )
    # Without labels the script is read no further than needed.
    code, out, _ = asr(*COMPARE, *words)
    assert (code, json.loads(out)["samples"], json.loads(out)["labels"]) == (0, 7, None)


def open_net(rng) -> onnx.ModelProto:
    return build(
        "net (float[N,3,H,W] x) => (float[N,4,H,W] y) { y = Conv (x, w) }",
        {"w": normal(rng, 4, 3, 1, 1)},
    )


def test_input_shapes_settle_what_the_models_leave_open(folder, rng, asr):
    onnx.save(open_net(rng), "open.onnx")
    words = ("compare", "open.onnx", "open.onnx", "--data", "images", "--no-latency", "--json", "-")
    for shapes, size in (((), "size as it is"), (("--input-shapes", "x:5x3x6x6"), "crop 6x6")):
        code, out, _ = asr(*words, "--providers", "cpu", *shapes)
        content = json.loads(out)
        assert (code, content["samples"]) == (0, 12)  # two batches of 5 and one of 2
        assert size in content["preprocessing"]
    code, _, err = asr(*words, "--input-shapes", "z:1x3x6x6")
    assert code == 2 and "'z', but the model's inputs are 'x'" in err


@pytest.mark.parametrize(
    "words, code, message",
    [
        ((), 2, "give one of --data, --data-loader-script, --load-inputs, not nothing"),
        (("--data", "d.npz", "--data-loader-script", "load.py"), 2, "not --data and --data-loader"),
        (("--data-loader-script", "load.py", "--mean", "0"), 2, "--data-loader-script is fed as"),
        (
            ("--data-loader-script", "load.py", "--max-drop", "0"),
            2,
            "--max-drop needs labels: give",
        ),
        (("--data-loader-script", "load.py:no"), 1, "'load.py' has no function 'no'"),
        (
            ("--data-loader-script", "load.py", "--labels", "s.npy"),
            1,
            "shape [3], but there are 40",
        ),
        (
            ("--data-loader-script", "load.py", "--labels", "n.json"),
            1,
            "give their labels in order",
        ),
        (("--load-inputs", "l.json"), 1, "'l.json': expected feeds"),
        (("--data", "x.npy"), 1, "give a .npz or a dict with an array for each"),
        (("--data", "images"), 1, "but the model has 2 inputs"),
    ],
)
def test_errors_name_the_thing(two, asr, words, code, message):
    np.save("s.npy", np.zeros(3, int))
    (two / "n.json").write_text('{"a.png": 0}')
    found, out, err = asr("compare", "two.onnx", "two.onnx", "--no-latency", "-q", *words)
    assert (found, out) == (code, "")
    assert message in err and "Traceback" not in err
