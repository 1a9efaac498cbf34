"""Filters that were written down, not learned: blurs, derivatives, Fourier bases.

Zeroing their weights breaks what they are for, and there is nothing in them to spare.
"""

from __future__ import annotations

import numpy as np

from asr_onnx.maths.masks import Array

_FEW_VALUES = 4  # different magnitudes in a kernel that was written by hand
_LONG = 32  # taps of a row from which on it may be a wave
_LOBE = 2  # bins next to a window's peak that hold its energy
_WAVE = 0.95  # of a row's energy near one frequency


def fixed_filter(weight: Array) -> str:
    """Why a weight (C, *kernel, Cin / groups) looks fixed, as a phrase; empty if it looks learned.

    Only kernels of one input channel are looked at, of more than one tap.
    """
    taps = weight[0].size
    if weight.shape[-1] != 1 or taps < 3 or not weight.any():
        return ""
    rows = np.asarray(weight, np.float64).reshape(len(weight), -1)
    if taps >= _LONG and len(rows) >= 4 and _are_waves(rows):
        return "its rows are sines and cosines, a fixed transform"
    scale = np.abs(rows).max()
    if len(rows) > 1 and np.ptp(rows, axis=0).max() <= 1e-6 * scale:
        return "the same kernel for each channel, a fixed filter"
    magnitudes = np.unique(np.round(np.abs(rows[rows != 0]) / scale, 5))
    often = np.count_nonzero(rows) >= 3 * len(magnitudes)
    if taps >= 9 and often and len(magnitudes) <= _FEW_VALUES:
        return f"its weights have {len(magnitudes)} different sizes, a fixed filter"
    kernel = np.asarray(weight, np.float64)
    if len(rows) == 1 and taps >= 9 and _is_symmetric(kernel[0, ..., 0]):
        return "a symmetric kernel of one channel, a fixed filter"
    return ""


def _is_symmetric(kernel: Array) -> bool:
    """Whether a kernel is its own mirror image, along each axis."""
    scale = np.abs(kernel).max()
    flips = (np.flip(kernel, axis) for axis in range(kernel.ndim))
    return all(np.allclose(kernel, flipped, atol=1e-6 * scale) for flipped in flips)


def _are_waves(rows: Array) -> bool:
    """Whether nine rows of ten have their energy at one frequency each, and not all at the same."""
    power = np.abs(np.fft.rfft(rows, axis=1)) ** 2
    peak = power.argmax(axis=1)
    near = np.abs(np.arange(power.shape[1]) - peak[:, None]) <= _LOBE
    total = power.sum(axis=1)
    share = np.divide((power * near).sum(axis=1), total, out=np.ones_like(total), where=total > 0)
    return bool((share > _WAVE).mean() >= 0.9 and len(np.unique(peak)) > len(rows) / 4)
