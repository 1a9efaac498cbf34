"""Small models for the tests: the graph as ONNX text, its weights as arrays."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import ArrayLike, NDArray
from onnx import numpy_helper

from asr_onnx.sessions import Device, Runner
from asr_onnx.sites import find_sites
from asr_onnx.types import Site

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
