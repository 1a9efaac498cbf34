"""Which weights to zero: scores in, boolean masks out (True: the weight stays).

Counts are exact and ties are broken by position, so the same model gives the same file everywhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from asr_onnx.arrays import FloatArray, Mask
from asr_onnx.errors import UsageError

Array = NDArray[np.floating]


def check_sparsity(sparsity: float) -> float:
    """``sparsity`` itself, a share in [0, 1); raises ``UsageError`` otherwise."""
    if not 0 <= sparsity < 1:
        raise UsageError(f"sparsity {sparsity:g} is outside [0, 1): 0.9 zeroes nine weights of ten")
    return sparsity


def smallest(scores: Array, count: int) -> Mask:
    """Mask of the ``count`` smallest entries of a flat array, the earliest first among equals."""
    out = np.zeros(scores.shape, bool)
    if count <= 0:
        return out
    threshold = np.partition(scores, count - 1)[count - 1]
    out[scores < threshold] = True
    ties = np.flatnonzero(scores == threshold)
    out[ties[: count - int(out.sum())]] = True
    return out


def global_masks(scores: Mapping[str, Array], sparsity: float) -> dict[str, Mask]:
    """Keep the highest scores over all sites together; exactly ``round(sparsity * total)`` drop.

    ``scores`` maps a site to an array of its weight's shape; masks come back in the same shapes.
    """
    check_sparsity(sparsity)
    if not scores:
        return {}
    flat = np.concatenate([s.ravel() for s in scores.values()])
    keep = largest_mask(flat, flat.size - round(sparsity * flat.size))
    masks, start = {}, 0
    for name, s in scores.items():
        masks[name] = keep[start : start + s.size].reshape(s.shape)
        start += s.size
    return masks


def pattern_mask(scores: Array, kept: int, group: int) -> Mask:
    """Keep the ``kept`` highest of every ``group`` neighbours on the last axis, first among equals.

    Raises ``ValueError`` when the axis is no multiple of ``group``.
    """
    blocks = scores.reshape(-1, group)
    order = np.argsort(-blocks, axis=1, kind="stable")
    mask = np.zeros(blocks.shape, bool)
    np.put_along_axis(mask, order[:, :kept], True, axis=1)
    return mask.reshape(scores.shape)


def largest_mask(scores: Array, count: int) -> Mask:
    """Keep the ``count`` highest entries of the whole array."""
    flat = scores.reshape(-1)
    return ~smallest(flat, flat.size - count).reshape(scores.shape)


def row_norms(weight: Array) -> FloatArray:
    """L2 norm of each row of ``weight`` (C, ...), shaped (C, 1, ...); 1 for a zero row."""
    rows = np.asarray(weight, np.float64).reshape(len(weight), -1)
    norms = np.linalg.norm(rows, axis=1)
    norms[norms == 0] = 1.0
    return np.asarray(norms.reshape(-1, *[1] * (weight.ndim - 1)))


def zero_count(masks: Sequence[Mask] | Mapping[str, Mask]) -> int:
    """Number of weights the masks zero."""
    values = masks.values() if isinstance(masks, Mapping) else masks
    return sum(int(m.size - np.count_nonzero(m)) for m in values)
