"""How alike two models' outputs are: no labels needed, any number of outputs of any shape."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from asr_onnx.arrays import AnyArray, Outputs


@dataclass(frozen=True)
class OutputMatch:
    """One output of a model against the dense model's, over all samples.

    ``agreement``: share of positions with the same arg-max along axis 1 (``None`` for outputs
    without classes there); ``cosine``: mean cosine similarity per sample; ``relative_error``:
    ``||other - dense|| / ||dense||``.  Both are NaN for text, and where the shapes differ, as the
    number of detections does.
    """

    samples: int
    agreement: float | None
    cosine: float
    relative_error: float


def class_scores(output: AnyArray, samples: int) -> AnyArray | None:
    """The scores (N, C) of an output that gives each of ``samples`` one class; else ``None``.

    That is (N, C) with more than one class, or the same with further axes of 1, as a convolution
    leaves them: (N, C, 1, 1).
    """
    if output.ndim < 2 or len(output) != samples or output.dtype.kind not in "fiu":
        return None
    classes = output.shape[1]
    return output.reshape(samples, classes) if math.prod(output.shape[1:]) == classes > 1 else None


def stack(batches: Sequence[AnyArray]) -> AnyArray:
    """Batches of one output along the first axis, flat if their other axes differ (``NonZero``)."""
    arrays = [np.atleast_1d(b) for b in batches]
    alike = len({a.shape[1:] for a in arrays}) == 1
    return np.concatenate([a if alike else a.reshape(-1) for a in arrays])


def stacked(batches: Sequence[Outputs]) -> dict[str, AnyArray]:
    """Batches of a model's outputs, each put together along the first axis."""
    return {name: stack([b[name] for b in batches]) for name in batches[0]}


def compare_outputs(dense: Outputs, other: Outputs) -> dict[str, OutputMatch]:
    """Compare outputs of the same name, shape (N, ...)."""
    return {name: compare_output(dense[name], other[name]) for name in dense if name in other}


def compare_output(dense: AnyArray, other: AnyArray) -> OutputMatch:
    """Compare two arrays, commonly of one shape (N, ...); see ``OutputMatch``."""
    match = MatchAccumulator()
    match.update(dense, other)
    return match.result()


class MatchAccumulator:
    """``OutputMatch`` of one output, batch by batch: nothing of a batch is kept but sums."""

    def __init__(self) -> None:
        self._shape: tuple[int, ...] | None = None  # (B, *_shape) is a batch
        self._alike = self._classes = True
        self._samples = self._positions = self._same = 0
        self._cosine = self._size = self._error = 0.0

    def update(self, dense: AnyArray, other: AnyArray) -> None:
        """Add a batch (B, ...) of both models; a scalar counts as one sample."""
        dense, other = np.atleast_1d(dense), np.atleast_1d(other)
        self._samples += len(dense)
        self._alike &= dense.shape == other.shape and dense.dtype.kind in "fiub"
        if not self._alike:
            return
        self._shape = dense.shape[1:] if self._shape is None else self._shape
        self._classes &= dense.ndim >= 2 and dense.shape[1] > 1 and dense.shape[1:] == self._shape
        if self._classes:
            same = dense.argmax(axis=1) == other.argmax(axis=1)
            self._same += int(np.count_nonzero(same))
            self._positions += same.size
        a = np.asarray(dense, np.float64).reshape(len(dense), math.prod(dense.shape[1:]))
        b = np.asarray(other, np.float64).reshape(a.shape)
        norm_a, norm_b = np.linalg.norm(a, axis=1), np.linalg.norm(b, axis=1)
        norms = norm_a * norm_b
        cosine = np.vecdot(a, b) / np.where(norms > 0, norms, 1.0)
        self._cosine += float(np.where((norm_a == 0) & (norm_b == 0), 1.0, cosine).sum())
        self._size = math.hypot(self._size, float(np.linalg.norm(a)))
        self._error = math.hypot(self._error, float(np.linalg.norm(b - a)))

    def result(self) -> OutputMatch:
        """The match over all batches so far."""
        if not (self._alike and self._samples):
            return OutputMatch(self._samples, None, float("nan"), float("nan"))
        agreement = self._same / self._positions if self._classes and self._positions else None
        relative = 0.0 if self._error == 0 else float("inf")
        if self._size:
            relative = self._error / self._size
        cosine = self._cosine / self._samples
        return OutputMatch(self._samples, agreement, cosine, relative)
