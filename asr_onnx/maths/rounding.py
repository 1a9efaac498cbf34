"""Round weights to integers times a scale, so that the layer's output changes least.

Minimise ``(q - w) H (q - w)'`` for each row over integers ``q / s`` that are zero where the mask
is, ``H`` being the second moments of the layer's inputs: what rounding one weight does to the
output is made up for by how the others of its row are rounded.  OBC (Frantar & Alistarh 2022, arXiv
2208.11580, section 5) and GPTQ (2210.17323) round weights once, in an order; cyclic descent over
the coordinates goes on until none wants to move (QuantEase, Behdin et al. 2023, arXiv 2309.01885,
section 3), and as each step lowers the error it can only be better than where it began.
"""

from __future__ import annotations

import numpy as np

from asr_onnx.arrays import FloatArray, Mask

_BLOCK = 128  # weights of a row that are rounded before the rest of the row is told
_SWEEPS = 8
_SETTLED = 0.002  # of the weights, so few of which move that it is worth no further sweep
_SHARES = np.linspace(1.0, 0.6, 41)  # of the largest weight, that the largest integer stands for
_TINY = float(np.finfo(np.float32).tiny)


def scales(rows: FloatArray, power: FloatArray, limit: int, shared: bool = False) -> FloatArray:
    """A scale (G, R) for each of ``rows`` (G, R, K) with which rounding them costs least.

    Exact in float32.  ``power`` (G, K) is the mean square of each input, ``limit`` the largest
    integer.  Weights that a scale does not reach are cut off.  ``shared``: rows have one scale in
    all groups, the largest.
    """
    largest = np.abs(rows).max(axis=2)
    found = np.where(largest > 0, largest, 1.0) / limit
    best = np.full(found.shape, np.inf)
    chosen = found
    for share in _SHARES:
        tried = _single(found * share)
        error = np.vecdot(np.square(nearest(rows, tried, limit) - rows), power[:, None, :])
        better = error < best
        best, chosen = np.where(better, error, best), np.where(better, tried, chosen)
    if shared:
        chosen = np.broadcast_to(chosen.max(axis=0), chosen.shape)
    return np.asarray(chosen)


def nearest(rows: FloatArray, scale: FloatArray, limit: int) -> FloatArray:
    """Each weight of ``rows`` (G, R, K) by itself to the nearest multiple of ``scale`` (G, R)."""
    step = scale[:, :, None]
    return np.asarray(np.clip(np.rint(rows / step), -limit, limit) * step)


def rounded(
    rows: FloatArray, mask: Mask, inputs: FloatArray, scale: FloatArray, limit: int
) -> FloatArray:
    """``rows`` (G, R, K) on the grid of ``scale`` (G, R), zero where ``mask`` is.

    ``inputs`` (G, K, K) are the second moments of the inputs, centred: the bias makes up for means.
    """
    values = np.ascontiguousarray(nearest(np.where(mask, rows, 0.0), scale, limit))
    h = inputs  # wide ones are float32: sums of steps of the grid need no more
    slope = (values - rows).astype(h.dtype, copy=False) @ h
    curvature = np.diagonal(h, axis1=1, axis2=2)[:, None, :]
    moves = mask & (curvature > 0)
    for _ in range(_SWEEPS):
        moved = 0
        for start in range(0, rows.shape[2], _BLOCK):
            block = slice(start, start + _BLOCK)
            before = values[:, :, block].copy()
            inside, part = slope[:, :, block].copy(), h[:, block, block]
            for j in range(before.shape[2]):
                k = start + j
                best = values[:, :, k] - inside[:, :, j] / np.where(
                    curvature[:, :, k] > 0, curvature[:, :, k], 1.0
                )
                new = np.clip(np.rint(best / scale), -limit, limit) * scale
                change = np.where(moves[:, :, k], new - values[:, :, k], 0.0)
                if change.any():
                    values[:, :, k] += change
                    inside += change[:, :, None] * part[:, None, j]
            change = (values[:, :, block] - before).astype(h.dtype, copy=False)
            if count := int(np.count_nonzero(change)):
                moved += count
                slope += change @ h[:, block]
        if moved <= _SETTLED * mask.sum():
            break
    return nearest(values, scale, limit)  # sums of steps round


def _single(scale: FloatArray) -> FloatArray:
    """As float32 has them, and no smaller than it can divide by."""
    return np.maximum(scale, _TINY).astype(np.float32).astype(np.float64)
