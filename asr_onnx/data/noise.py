"""Inputs for models that need only be run: noise, where there is no data."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from asr_onnx.arrays import Feeds
from asr_onnx.errors import UsageError
from asr_onnx.graph.inputs import ModelInput, fixed_batch

_SAMPLES = 4  # where the model does not say how many


def noise(inputs: Sequence[ModelInput], seed: int = 0) -> Feeds:
    """Standard normal numbers for inputs of floats, zeros for others.

    Raises ``UsageError`` for an input with sizes besides the batch that are open.
    """
    random, batch = np.random.default_rng(seed), fixed_batch(inputs) or _SAMPLES
    feeds = {}
    for i in inputs:
        dims = [batch if axis == i.batch_axis else d for axis, d in enumerate(i.shape)]
        shape = [d for d in dims if d is not None]
        if len(shape) < len(dims):
            raise UsageError(f"sizes of {i} are open: give --input-shapes, or data with --calib")
        values = random.normal(size=shape) if i.dtype.kind == "f" else np.zeros(shape)
        feeds[i.name] = values.astype(i.dtype)
    return feeds
