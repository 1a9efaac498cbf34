"""What somebody who reads the documentation has at hand: models, and images in class folders.

The models are small, so that what is typed there takes no time; one of them knows digits.
"""

from __future__ import annotations

import shutil
from functools import cache
from pathlib import Path

import numpy as np
import onnx
from models import ROOT, build, normal, run, tap, yolo
from PIL import Image

SAMPLES = ROOT / "sample_models" / "digits"
PER_CLASS = 5  # images


def prepare(folder: Path) -> Path:
    """Fill a folder, and return it."""
    onnx.save(_digits(), folder / "model.onnx")
    for name, images in (("images", "calib"), ("test", "test")):
        for source in (SAMPLES / images).iterdir():
            (folder / name / source.name).mkdir(parents=True)
            for image in sorted(source.iterdir())[:PER_CLASS]:
                shutil.copy(image, folder / name / source.name)
    detector = yolo(np.random.default_rng(0))
    onnx.save(_renamed(detector, y="output0"), folder / "detector.onnx")
    np.save(folder / "pages.npy", normal(np.random.default_rng(1), 64, 3, 16, 16))
    onnx.save(_lines(np.random.default_rng(2)), folder / "lines.onnx")
    np.save(folder / "lines.npy", normal(np.random.default_rng(3), 64, 1, 8, 32))
    return folder


@cache
def _digits() -> onnx.ModelProto:
    """Random convolutions, BatchNormalization as after training, and a head by ridge regression."""
    rng, sizes = np.random.default_rng(0), (1, 32, 32, 32)
    weights, lines = {}, []
    for n in (1, 2, 3):
        ends = (
            f"<pads = [1, 1, 1, 1], strides = [2, 2]> ({f'r{n - 1}' if n > 1 else 'input'}, w{n})"
        )
        lines.append(f"c{n} = Conv {ends}")
        lines.append(f"n{n} = BatchNormalization (c{n}, s{n}, b{n}, m{n}, v{n})")
        lines.append(f"r{n} = Relu (n{n})")
        scale = np.float32(np.sqrt(2 / (9 * sizes[n - 1])))
        weights[f"w{n}"] = scale * normal(rng, sizes[n], sizes[n - 1], 3, 3)
        ones = {"s": 1, "b": 0.1, "m": 0, "v": 1}
        weights |= {f"{k}{n}": np.full(sizes[n], v, np.float32) for k, v in ones.items()}
    net = build(
        f"""digits (float[N,1,32,32] input) => (float[N,10] logits) {{
            {" ".join(lines)}
            flat = Flatten (r3)
            logits = Gemm (flat, head, bias)
        }}""",
        weights | {"head": np.zeros((512, 10), np.float32), "bias": np.zeros(10, np.float32)},
    )
    paths = sorted((SAMPLES / "calib").rglob("*.png"))
    pixels = np.stack([np.asarray(Image.open(p), np.float32)[None] for p in paths])
    x, labels = (pixels / 255 - 0.449) / 0.226, np.array([int(p.parent.name) for p in paths])
    for n in (1, 2, 3):
        out = run(tap(net, f"c{n}"), input=x)[f"c{n}"]
        _set(net, **{f"m{n}": out.mean((0, 2, 3)), f"v{n}": out.var((0, 2, 3))})
    features = run(tap(net, "flat"), input=x)["flat"].astype(np.float64)
    mean, wanted = features.mean(0), 10 * np.eye(10)[labels]
    centred = features - mean
    gram = centred.T @ centred + 0.01 * len(x) * np.eye(512)
    head = np.linalg.solve(gram, centred.T @ (wanted - wanted.mean(0)))
    _set(net, head=head, bias=wanted.mean(0) - mean @ head)
    return net


def _lines(rng: np.random.Generator) -> onnx.ModelProto:
    """Scores of six classes at eight steps (N, 8, 6) from lines of text; the first is blank."""
    return build(
        """lines (float[N,1,8,32] x) => (float[N,8,6] text) {
            c1 = Conv <pads = [1, 1, 1, 1], strides = [2, 2]> (x, w1, b1)
            r1 = Relu (c1)
            c2 = Conv <pads = [1, 1, 1, 1], strides = [2, 2]> (r1, w2, b2)
            r2 = Relu (c2)
            c3 = Conv <strides = [2, 1]> (r2, w3, b3)
            flat = Reshape (c3, shape)
            text = Transpose <perm = [0, 2, 1]> (flat)
        }""",
        {
            "w1": 0.3 * normal(rng, 8, 1, 3, 3),
            "b1": 0.1 * normal(rng, 8),
            "w2": 0.3 * normal(rng, 8, 8, 3, 3),
            "b2": 0.1 * normal(rng, 8),
            "w3": normal(rng, 6, 8, 2, 1),
            "b3": np.array([0.3, 0, 0, 0, 0, 0], np.float32),
            "shape": np.array([0, 6, -1], np.int64),
        },
    )


def _renamed(model: onnx.ModelProto, **names: str) -> onnx.ModelProto:
    """The model, with other names of outputs."""
    for old, new in names.items():
        for node in model.graph.node:
            node.output[:] = [new if o == old else o for o in node.output]
        for output in model.graph.output:
            output.name = new if output.name == old else output.name
    return model


def _set(model: onnx.ModelProto, **values: np.ndarray) -> None:
    for tensor in model.graph.initializer:
        if tensor.name in values:
            value = np.asarray(values[tensor.name], np.float32)
            tensor.CopyFrom(onnx.numpy_helper.from_array(value, tensor.name))
