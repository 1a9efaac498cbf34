"""Damaged and hostile files: they work or are refused in one line, and nothing takes long."""

from __future__ import annotations

import io
import json
import time

import numpy as np
import onnx
import pytest
from models import build, detector, norm_net, normal
from mutations import mutated_bytes, mutated_model, mutated_text
from PIL import Image

import asr_onnx
from asr_onnx.data.foreign import from_json, from_test_data
from asr_onnx.data.labels import find_labels
from asr_onnx.data.openers import open_samples
from asr_onnx.data.preprocess_files import load_preprocess
from asr_onnx.errors import AsrError
from asr_onnx.graph.inputs import ModelInput

X = ModelInput("x", np.dtype("float32"), (None, 3, 8, 8))


def survives(call):
    """Whether a call works; it may raise an ``AsrError`` of one line and take a second or two."""
    start = time.perf_counter()
    try:
        call()
        worked = True
    except AsrError as error:
        assert str(error) and len(str(error)) < 2000
        worked = False
    assert time.perf_counter() - start < 3  # leaves room for a busy machine
    return worked


def opened(path):
    """All that ``inspect`` and ``prune`` do."""
    model = asr_onnx.load(path)
    asr_onnx.inspect(model.proto)
    asr_onnx.prune(model.proto)


def small(rng):
    return {
        "norms": norm_net(rng),
        "detector": detector(rng),
        "constants": build(
            """net (float[N,4,8,8] x) => (float[?,?,?,?] y) {
                k = Constant <value = int64[4] {4, 4, 1, 1}> ()
                r = Reshape (flat, k)
                c = Conv (x, r)
                e = Expand (one, four)
                z = ConstantOfShape (four)
                n = BatchNormalization (c, e, z, z, e)
                y = Conv <group = 2, dilations = [2, 2], pads = [1, 1, 1, 1]> (n, w, b)
            }""",
            {
                "flat": normal(rng, 16),
                "four": np.array([4]),
                "one": np.ones(1, np.float32),
                "w": normal(rng, 6, 2, 3, 3),
                "b": normal(rng, 6),
            },
        ),
    }


@pytest.mark.parametrize("name", ["norms", "detector", "constants"])
def test_damaged_models_are_opened_or_refused(rng, tmp_path, name):
    model, path = small(rng)[name], tmp_path / "m.onnx"
    whole, worked = model.SerializeToString(), 0
    for seed in range(150):
        rng = np.random.default_rng(seed)
        structural = seed % 3 > 0
        data = (
            mutated_model(rng, model).SerializeToString()
            if structural
            else mutated_bytes(rng, whole)
        )
        path.write_bytes(data)
        worked += survives(lambda: opened(path))
    assert 0 < worked < 150


def image(rng, form):
    buffer = io.BytesIO()
    Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).save(buffer, form)
    return buffer.getvalue()


def saved(save, *args, **arrays):
    buffer = io.BytesIO()
    save(buffer, *args, **arrays)
    return buffer.getvalue()


def polygraphy(rng):
    import base64

    array = base64.b64encode(saved(np.save, normal(rng, 2, 3, 8, 8))).decode()
    return json.dumps([{"x": {"array": array, "polygraphy_class": "ndarray"}}]).encode()


def all_of(samples):
    for index in range(len(samples)):
        assert samples[index]["x"].shape == (3, 8, 8)


PREPROCESS = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "size": {"height": 8, "width": 8}}
DATA = {  # name of the file, its content, what opens it
    "a.png": (lambda rng: image(rng, "PNG"), lambda p: all_of(open_samples(p.parent, [X]))),
    "a.jpg": (lambda rng: image(rng, "JPEG"), lambda p: all_of(open_samples(p.parent, [X]))),
    "a.gif": (lambda rng: image(rng, "GIF"), lambda p: all_of(open_samples(p.parent, [X]))),
    "a.tif": (lambda rng: image(rng, "TIFF"), lambda p: all_of(open_samples(p.parent, [X]))),
    "a.webp": (lambda rng: image(rng, "WEBP"), lambda p: all_of(open_samples(p.parent, [X]))),
    "a.npy": (
        lambda rng: saved(np.save, normal(rng, 2, 3, 8, 8)),
        lambda p: all_of(open_samples(p, [X])),
    ),
    "a.npz": (
        lambda rng: saved(np.savez_compressed, x=np.ones((2, 3, 8, 8), np.float32)),
        lambda p: all_of(open_samples(p, [X])),
    ),
    "input_0.pb": (
        lambda rng: onnx.numpy_helper.from_array(normal(rng, 2, 3, 8, 8)).SerializeToString(),
        lambda p: all_of(from_test_data(p.parent, [X])),
    ),
    "inputs.json": (polygraphy, lambda p: all_of(from_json([p], [X]))),
    "labels.csv": (
        lambda rng: b"file,label\na.png,3\nb.png,4\n",
        lambda p: find_labels(p, list_of_two(p)),
    ),
    "labels.json": (lambda rng: b"[3, 4]", lambda p: find_labels(p, list_of_two(p))),
    "labels.npy": (
        lambda rng: saved(np.save, np.array([3, 4])),
        lambda p: find_labels(p, list_of_two(p)),
    ),
    "p.json": (lambda rng: json.dumps(PREPROCESS).encode(), load_preprocess),
}


def list_of_two(path):
    """Two samples, called as the lines of the labels say."""
    folder = path.parent / "images"
    folder.mkdir(exist_ok=True)
    for name in "ab":
        if not (folder / f"{name}.png").exists():
            Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(folder / f"{name}.png")
    return open_samples(folder, [X])


@pytest.mark.parametrize("name", DATA)
@pytest.mark.filterwarnings("ignore")  # decoders warn of what they mend
def test_damaged_data_are_opened_or_refused(rng, tmp_path, name):
    make, read = DATA[name]
    whole, path = make(rng), tmp_path / name
    path.write_bytes(whole)
    assert survives(lambda: read(path))
    mutated = mutated_text if name.endswith(("csv", "json")) else mutated_bytes
    for seed in range(60):
        path.write_bytes(mutated(np.random.default_rng(seed), whole))
        survives(lambda: read(path))
