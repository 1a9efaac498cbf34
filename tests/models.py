"""Small models for the tests: the graph as ONNX text, its weights as arrays."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import ArrayLike, NDArray
from onnx import numpy_helper

from asr_onnx.execution.session import Device, Runner
from asr_onnx.graph.inputs import model_inputs
from asr_onnx.graph.records import Site
from asr_onnx.graph.sites import find_sites

Array = NDArray[np.generic]

ROOT = Path(__file__).resolve().parents[1]
EVALUATION = ROOT.parent / "shared" / "eval"


def build(
    graph: str, weights: Mapping[str, ArrayLike], ir: int = 8, opset: int = 17, rest: str = ""
) -> onnx.ModelProto:
    """The ``graph`` with ``weights`` as initializers; ``rest`` may hold local functions."""
    domains = ', "local": 1' if rest else ""
    model = onnx.parser.parse_model(
        f'<ir_version: {ir}, opset_import: ["": {opset}{domains}]> {graph} {rest}'
    )
    for name, value in weights.items():
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
    return model


def run(model: onnx.ModelProto, **feeds: Array) -> dict[str, Array]:
    """The model's outputs by name, from ONNX Runtime on the CPU."""
    return Runner(model, Device()).run(feeds)


def tap(model: onnx.ModelProto, *tensors: str) -> onnx.ModelProto:
    """A copy with further tensors as outputs."""
    result = copied(model)
    result.graph.output.extend(onnx.ValueInfoProto(name=t) for t in tensors)
    return result


def stored(model: onnx.ModelProto) -> dict[str, Array]:
    """The initializers' values by name."""
    return {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}


def copied(model: onnx.ModelProto, **values: Array) -> onnx.ModelProto:
    """A copy of the model, with other values in the initializers that are named."""
    result = onnx.ModelProto()
    result.CopyFrom(model)
    for tensor in result.graph.initializer:
        if tensor.name in values:
            tensor.CopyFrom(numpy_helper.from_array(values[tensor.name], tensor.name))
    return result


def external_copy(
    model: onnx.ModelProto, folder: Path, name: str = "m.onnx", data: str = "weights.bin"
) -> Path:
    """Write the model into a folder with all its initializers in a data file; its path."""
    folder.mkdir(parents=True, exist_ok=True)
    onnx.save_model(
        copied(model),
        folder / name,
        save_as_external_data=True,
        location=data,
        size_threshold=0,
    )
    return folder / name


def files(folder: Path) -> list[str]:
    """All files under a folder, by relative path."""
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def site(model: onnx.ModelProto, name: str | None = None) -> Site:
    """The model's site of this name, or its only one."""
    (found,) = (s for s in find_sites(model).sites if name in (None, s.name))
    return found


def normal(rng: np.random.Generator, *shape: int, dtype: str = "float32") -> Array:
    """Standard normal numbers."""
    return rng.standard_normal(shape).astype(dtype)


def norm_weights(
    rng: np.random.Generator, channels: int, suffix: str = "", dtype: str = "float32"
) -> dict[str, Array]:
    """Parameters ``s``, ``b``, ``m``, ``v`` of a BatchNormalization as training leaves them."""
    values = {
        "s": rng.uniform(0.5, 1.5, channels),
        "b": rng.normal(size=channels),
        "m": rng.normal(size=channels),
        "v": rng.uniform(0.5, 2.0, channels),
    }
    return {k + suffix: v.astype(dtype) for k, v in values.items()}


def bare_net(rng: np.random.Generator, dtype: str = "float32", batch: str = "N") -> onnx.ModelProto:
    """Two bare convolutions, the first without a bias, and a linear head."""
    kind = {"float32": "float", "float64": "double"}.get(dtype, dtype)
    return build(
        f"""bare ({kind}[{batch},3,8,8] x) => ({kind}[{batch},5] y) {{
            c1 = Conv <pads = [1, 1, 1, 1]> (x, w1)
            r1 = Relu (c1)
            c2 = Conv <pads = [1, 1, 1, 1], strides = [2, 2]> (r1, w2, b2)
            r2 = Relu (c2)
            p = GlobalAveragePool (r2)
            f = Flatten (p)
            y = Gemm <transB = 1> (f, fw, fb)
        }}""",
        {
            "w1": normal(rng, 8, 3, 3, 3, dtype=dtype),
            "w2": normal(rng, 6, 8, 3, 3, dtype=dtype),
            "b2": normal(rng, 6, dtype=dtype),
            "fw": normal(rng, 5, 6, dtype=dtype),
            "fb": normal(rng, 5, dtype=dtype),
        },
    )


def norm_net(rng: np.random.Generator, dtype: str = "float32") -> onnx.ModelProto:
    """A residual block: two convolutions with BatchNormalization, and a linear head."""
    kind = {"float32": "float", "float64": "double"}.get(dtype, dtype)
    return build(
        f"""norms ({kind}[N,3,8,8] x) => ({kind}[N,5] y) {{
            c1 = Conv <pads = [1, 1, 1, 1]> (x, w1)
            n1 = BatchNormalization (c1, s1, b1, m1, v1)
            r1 = Relu (n1)
            c2 = Conv <pads = [1, 1, 1, 1]> (r1, w2)
            n2 = BatchNormalization (c2, s2, b2, m2, v2)
            a = Add (n2, r1)
            r2 = Relu (a)
            p = GlobalAveragePool (r2)
            f = Flatten (p)
            y = Gemm <transB = 1> (f, fw, fb)
        }}""",
        {
            "w1": normal(rng, 8, 3, 3, 3, dtype=dtype),
            "w2": normal(rng, 8, 8, 3, 3, dtype=dtype),
            "fw": normal(rng, 5, 8, dtype=dtype),
            "fb": normal(rng, 5, dtype=dtype),
        }
        | norm_weights(rng, 8, "1", dtype)
        | norm_weights(rng, 8, "2", dtype),
    )


def balanced(model: onnx.ModelProto, **feeds: Array) -> onnx.ModelProto:
    """The model with a bias ``fb`` of its head at which answers differ: else one class wins."""
    return copied(model, fb=stored(model)["fb"] - run(model, **feeds)["y"].mean(0))


def detector(rng: np.random.Generator) -> onnx.ModelProto:
    """Boxes (N, 16, 4) and scores (N, 3, 16) from feature maps, and the detections (M, 3)."""
    return build(
        """detector (float[N,3,8,8] x) => (float[N,A,4] boxes, float[N,3,A] scores,
                                           int64[M,3] found) {
            c1 = Conv <pads = [1, 1, 1, 1]> (x, w1)
            r1 = Relu (c1)
            c2 = Conv <pads = [1, 1, 1, 1], strides = [2, 2]> (r1, w2)
            r2 = Relu (c2)
            b = Conv (r2, wb)
            flat = Reshape (b, shape_b)
            boxes = Transpose <perm = [0, 2, 1]> (flat)
            s = Conv (r2, ws)
            logits = Reshape (s, shape_s)
            scores = Sigmoid (logits)
            found = NonMaxSuppression <center_point_box = 1> (boxes, scores, most, iou, least)
        }""",
        {
            "w1": normal(rng, 8, 3, 3, 3),
            "w2": normal(rng, 8, 8, 3, 3),
            "wb": 0.1 * normal(rng, 4, 8, 1, 1),
            "ws": 0.1 * normal(rng, 3, 8, 1, 1),
            "shape_b": np.array([0, 4, -1], np.int64),
            "shape_s": np.array([0, 3, -1], np.int64),
            "most": np.array([5], np.int64),
            "iou": np.array([0.5], np.float32),
            "least": np.array([0.5], np.float32),
        },
    )


def yolo(rng: np.random.Generator) -> onnx.ModelProto:
    """(N, 4 + 3, 64): boxes in pixels around a grid, and scores, above 0.5 at a few anchors."""
    place = 8 * np.stack(np.meshgrid(np.arange(8), np.arange(8))).reshape(2, 64)
    grid = np.concatenate([place, np.full((2, 64), 12)]).astype(np.float32)
    net = build(
        """yolo (float[N,3,16,16] x) => (float[N,7,A] y) {
            c1 = Conv <pads = [1, 1, 1, 1]> (x, w1, b1)
            r1 = Relu (c1)
            c2 = Conv <pads = [1, 1, 1, 1], strides = [2, 2]> (r1, w2, b2)
            r2 = Relu (c2)
            b = Conv (r2, wb)
            flat_b = Reshape (b, shape_b)
            boxes = Add (flat_b, grid)
            s = Conv (r2, ws, bs)
            logits = Reshape (s, shape_s)
            scores = Sigmoid (logits)
            y = Concat <axis = 1> (boxes, scores)
        }""",
        {
            "w1": 0.3 * normal(rng, 8, 3, 3, 3),
            "b1": 0.1 * normal(rng, 8),
            "w2": 0.3 * normal(rng, 8, 8, 3, 3),
            "b2": 0.1 * normal(rng, 8),
            "wb": 0.3 * normal(rng, 4, 8, 1, 1),
            "ws": 3 * normal(rng, 3, 8, 1, 1),
            "bs": np.zeros(3, np.float32),
            "grid": grid,
            "shape_b": np.array([0, 4, -1], np.int64),
            "shape_s": np.array([0, 3, -1], np.int64),
        },
    )
    logits = run(tap(net, "logits"), x=normal(rng, 64, 3, 16, 16))["logits"]
    return copied(net, bs=-np.quantile(logits, 0.97, axis=(0, 2)).astype(np.float32))


def two_inputs(rng: np.random.Generator) -> onnx.ModelProto:
    """A vector weighs the channels of an image's features; classes and maps come out."""
    return build(
        """two (float[N,3,8,8] image, float[N,6] gain) => (float[N,5] y, float[N,4,6,6] maps) {
            c1 = Conv <pads = [1, 1, 1, 1]> (image, w1)
            r1 = Relu (c1)
            g = Reshape (gain, shape)
            m = Mul (r1, g)
            maps = Conv (m, w2)
            r2 = Relu (maps)
            p = GlobalAveragePool (r2)
            f = Flatten (p)
            y = Gemm <transB = 1> (f, fw, fb)
        }""",
        {
            "w1": normal(rng, 6, 3, 3, 3),
            "w2": normal(rng, 4, 6, 3, 3),
            "fw": normal(rng, 5, 4),
            "fb": np.zeros(5, np.float32),
            "shape": np.array([-1, 6, 1, 1], np.int64),
        },
    )


def feeds_for(
    model: onnx.ModelProto, rng: np.random.Generator, count: int = 40
) -> dict[str, Array]:
    """``count`` samples by input name, of mean 1."""
    return {i.name: normal(rng, count, *i.shape[1:]) + 1 for i in model_inputs(model)}


def batches(feeds: Mapping[str, Array], size: int = 10) -> list[dict[str, Array]]:
    """The samples in batches, as loaders yield them."""
    count = len(next(iter(feeds.values())))
    return [{n: a[i : i + size] for n, a in feeds.items()} for i in range(0, count, size)]
