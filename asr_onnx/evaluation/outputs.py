"""Outputs of a model: the rule what a class output is, and batches put together."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from asr_onnx.arrays import AnyArray, Outputs


def class_scores(output: AnyArray, samples: int) -> AnyArray | None:
    """The scores (N, C) of an output that gives each of ``samples`` one class; else ``None``.

    That is (N, C) with more than one class, or the same with further axes of 1, as a convolution
    leaves them: (N, C, 1, 1).
    """
    if output.ndim < 2 or len(output) != samples or output.dtype.kind not in "fiu":
        return None
    classes = output.shape[1]
    return output.reshape(samples, classes) if math.prod(output.shape[1:]) == classes > 1 else None


def batch_axis(shape: tuple[int, ...], samples: int) -> int | None:
    """The axis that the batch lies along: 0 nearly always, 1 for (T, N, C) and states (L, N, H).

    ``None`` for what has no such axis, as a list of detections.
    """
    found = (axis for axis in (0, 1) if len(shape) > 2 * axis and shape[axis] == samples)
    return next(found, None)


def stack(batches: Sequence[AnyArray]) -> AnyArray:
    """Batches of one output along the first axis, flat if their other axes differ (``NonZero``)."""
    arrays = [np.atleast_1d(b) for b in batches]
    alike = len({a.shape[1:] for a in arrays}) == 1
    return np.concatenate([a if alike else a.reshape(-1) for a in arrays])


def stacked(batches: Sequence[Outputs]) -> dict[str, AnyArray]:
    """Batches of a model's outputs, each put together along the first axis."""
    return {name: stack([b[name] for b in batches]) for name in batches[0]}
