"""Which weights to zero: scores in, boolean masks out (True: the weight stays).

Counts are exact and ties are broken by position, so the same model gives the same file everywhere.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from asr_onnx.arrays import FloatArray, Mask
from asr_onnx.errors import UsageError

Array = NDArray[np.floating]

_DIGIT = 16  # bits of a float looked at in a pass
_CHUNK = 1 << 22


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
    total = sum(s.size for s in scores.values())
    count = round(sparsity * total)
    threshold, ties = _kth_smallest(scores, count) if count else (-np.inf, 0)
    masks = {}
    for name, s in scores.items():
        flat = s.ravel()
        keep = flat > threshold
        equal = np.flatnonzero(flat == threshold)
        keep[equal[ties:]] = True
        ties = max(ties - len(equal), 0)
        masks[name] = keep.reshape(s.shape)
    return masks


def _kth_smallest(scores: Mapping[str, Array], k: int) -> tuple[float, int]:
    """The ``k``-th smallest of all scores, and how many equal to it are among the ``k`` smallest.

    Digit after digit of their bits, so that never more than one array is in memory.
    """
    dtype = np.result_type(*{s.dtype for s in scores.values()})
    word = np.dtype(f"u{dtype.itemsize}")
    bits, prefix = 8 * dtype.itemsize, 0
    for shift in range(bits - _DIGIT, -1, -_DIGIT):
        counts = np.zeros(1 << _DIGIT, np.int64)
        for s in scores.values():
            flat = s.reshape(-1)
            for start in range(0, flat.size, _CHUNK):
                keys = _ordered(flat[start : start + _CHUNK].astype(dtype), word)
                if shift + _DIGIT < bits:
                    keys = keys[keys >> word.type(shift + _DIGIT) == prefix]
                digits = (keys >> word.type(shift)) & word.type((1 << _DIGIT) - 1)
                counts += np.bincount(digits.astype(np.intp), minlength=1 << _DIGIT)
        before = np.cumsum(counts)
        digit = int(np.searchsorted(before, k))
        k -= int(before[digit] - counts[digit])
        prefix = prefix << _DIGIT | digit
    top = 1 << (bits - 1)
    value = prefix ^ top if prefix & top else prefix ^ (2 * top - 1)
    return float(np.array(value, word).view(dtype)), k


def _ordered(values: Array, word: np.dtype[np.unsignedinteger]) -> NDArray[np.unsignedinteger]:
    """Integers in the same order as the floats ``values``."""
    keys = (values + 0.0).view(word)  # no zero is negative
    top = word.type(1 << (8 * word.itemsize - 1))
    return np.where(keys & top, ~keys, keys | top)


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
