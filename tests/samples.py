"""Samples to calibrate on, and the inputs they are for."""

from __future__ import annotations

import numpy as np
from PIL import Image

from asr_onnx.data.arrays import ArraySamples
from asr_onnx.graph.inputs import ModelInput

X = ModelInput("x", np.dtype("float32"), (None, 3, 4, 4))
FREE = ModelInput("x", np.dtype("float32"), (None, 3, None, None))  # any size
VEC = ModelInput("v", np.dtype("float32"), (None, 2))


def rows(count: int, shape: tuple[int, ...] = (3, 4, 4), dtype: str = "float32") -> np.ndarray:
    """Samples that know their number: all elements of sample i are i."""
    ramp = np.arange(count).reshape(-1, *[1] * len(shape))
    return np.broadcast_to(ramp, (count, *shape)).astype(dtype)


def samples(count: int, inputs: tuple[ModelInput, ...] = (X,)) -> ArraySamples:
    return ArraySamples.from_data({i.name: rows(count, i.shape[1:]) for i in inputs}, inputs)


def picture(path, value: int, size: tuple[int, int] = (4, 4)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (value,) * 3).save(path)
