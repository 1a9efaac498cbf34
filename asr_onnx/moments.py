"""Per-channel count, mean, variance and covariance of two networks' outputs, batch by batch.

Where a channel's mean dwarfs its deviation, sums are taken around the first sample's mean, so that
no digits are lost; inner products run in float32 over one spatial row at a time, and rows are
added in float64.  Nothing but ``O(C)`` numbers survives a batch.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

_BLOCK = 1 << 17  # elements centred at a time: two float32 blocks of it stay in a core's cache


@dataclass(frozen=True)
class Moments:
    """``count`` samples per channel, ``mean`` (C,) and population variance ``var`` (C,)."""

    count: int
    mean: Array
    var: Array


@dataclass(frozen=True)
class PairedMoments:
    """Moments of the same positions in the dense and the pruned network, covariance (C,)."""

    dense: Moments
    pruned: Moments
    covariance: Array

    def __post_init__(self) -> None:
        if not self.dense.count == self.pruned.count > 0:
            raise ValueError(
                "paired moments need the same, positive number of samples on both sides"
            )

    @property
    def correlation(self) -> Array:
        """Pearson correlation per channel, clipped to [0, 1]; 0 where a side is constant."""
        norm = np.sqrt(self.dense.var * self.pruned.var)
        rho = np.divide(self.covariance, norm, out=np.zeros_like(norm), where=norm > 0)
        return np.clip(rho, 0.0, 1.0)


def rescaled(m: PairedMoments, gamma: Array, shift: Array) -> PairedMoments:
    """The moments with ``gamma * y + shift``, both (C,), for the pruned output ``y``."""
    pruned = Moments(m.pruned.count, gamma * m.pruned.mean + shift, gamma**2 * m.pruned.var)
    return PairedMoments(m.dense, pruned, gamma * m.covariance)


def channel_rows(y: NDArray[np.generic], axis: int) -> NDArray[np.generic]:
    """View an activation as ``(N, C, positions)`` with the channel ``axis`` second.

    A channel-last array (Gemm, MatMul) becomes one "sample" of ``(C, N * positions)``.
    """
    axis %= y.ndim
    if axis == 1 and y.ndim > 2:
        return y.reshape(y.shape[0], y.shape[1], -1)
    return np.moveaxis(y, axis, 0).reshape(1, y.shape[axis], -1)


def _pilot(y: NDArray[np.generic]) -> Array:
    """What to subtract from every channel of ``y`` (N, C, L) before squaring: (C,).

    The mean where it is large against the deviation; zeros, which cost nothing, where no channel
    would lose more than a few bits.
    """
    mean = y.mean(axis=(0, 2), dtype=np.float64)
    small = np.abs(mean) <= 8 * y.std(axis=(0, 2), dtype=np.float64)
    return np.zeros_like(mean) if small.all() else mean


class PairedAccumulator:
    """Running sums of a dense and a pruned output; ``update`` per batch, ``result`` at the end."""

    def __init__(self, axis: int = 1) -> None:
        self._axis = axis
        self._count = 0
        self._pilot: tuple[Array, Array] | None = None

    def update(self, dense: NDArray[np.generic], pruned: NDArray[np.generic]) -> None:
        """Add one batch; both arrays have the same shape, channels on ``axis``.

        Raises ``ValueError`` when the shapes differ.
        """
        if dense.shape != pruned.shape:
            raise ValueError(f"dense {dense.shape} and pruned {pruned.shape} differ in shape")
        d, p = channel_rows(dense, self._axis), channel_rows(pruned, self._axis)
        if self._pilot is None:
            self._pilot = (_pilot(d[:1]), _pilot(p[:1]))
            self._sums = np.zeros((5, d.shape[1]))
        shifts = [s.astype(np.float32)[:, None] if s.any() else None for s in self._pilot]
        step = max(1, _BLOCK // max(1, d[0].size))
        ones = np.ones(d.shape[2], np.float32)  # BLAS sums faster than a reduction
        for start in range(0, len(d), step):
            a, b = (
                np.asarray(y[start : start + step], np.float32)
                if s is None
                else np.subtract(y[start : start + step], s, dtype=np.float32)
                for y, s in zip((d, p), shifts, strict=True)
            )
            products = (a @ ones, b @ ones, np.vecdot(a, a), np.vecdot(b, b), np.vecdot(a, b))
            for total, rows in zip(self._sums, products, strict=True):
                total += rows.sum(axis=0, dtype=np.float64)
        self._count += d.shape[0] * d.shape[2]

    def result(self) -> PairedMoments:
        """The moments so far; raises ``ValueError`` before the first batch."""
        if self._pilot is None:
            raise ValueError("no batch was added")
        n = self._count
        # The pilot as it was subtracted: rounded to float32.
        pilots = [s.astype(np.float32).astype(np.float64) for s in self._pilot]
        a, b, aa, bb, ab = self._sums / n
        return PairedMoments(
            Moments(n, pilots[0] + a, np.maximum(aa - a * a, 0.0)),
            Moments(n, pilots[1] + b, np.maximum(bb - b * b, 0.0)),
            ab - a * b,
        )
