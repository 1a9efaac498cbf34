"""How alike two models' outputs are: no labels needed, any number of outputs of any shape."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from asr_onnx.types import AnyArray

Outputs = Mapping[str, AnyArray]


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


def stack(batches: Sequence[AnyArray]) -> AnyArray:
    """Batches of one output along the first axis, flat if their other axes differ (``NonZero``)."""
    arrays = [np.atleast_1d(b) for b in batches]
    alike = len({a.shape[1:] for a in arrays}) == 1
    return np.concatenate([a if alike else a.reshape(-1) for a in arrays])


def compare_outputs(dense: Outputs, other: Outputs) -> dict[str, OutputMatch]:
    """Compare outputs of the same name, shape (N, ...)."""
    return {name: compare_output(dense[name], other[name]) for name in dense if name in other}


def compare_output(dense: AnyArray, other: AnyArray) -> OutputMatch:
    """Compare two arrays, commonly of one shape (N, ...); see ``OutputMatch``."""
    if dense.shape != other.shape or dense.dtype.kind not in "fiub":
        return OutputMatch(len(dense), None, float("nan"), float("nan"))
    agreement = None
    if dense.ndim >= 2 and dense.shape[1] > 1:
        agreement = float(np.mean(dense.argmax(axis=1) == other.argmax(axis=1)))
    a = np.asarray(dense, np.float64).reshape(len(dense), -1)
    b = np.asarray(other, np.float64).reshape(len(other), -1)
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    both_zero = (np.linalg.norm(a, axis=1) == 0) & (np.linalg.norm(b, axis=1) == 0)
    cosine = np.where(both_zero, 1.0, np.vecdot(a, b) / np.where(norms > 0, norms, 1.0))
    size = float(np.linalg.norm(a))
    error = float(np.linalg.norm(b - a))
    relative = error / size if size else (0.0 if error == 0 else float("inf"))
    return OutputMatch(len(dense), agreement, float(cosine.mean()), relative)
