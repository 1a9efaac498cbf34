"""Per-channel count, mean, variance and covariance of two networks' outputs, batch by batch.

Where a channel's mean dwarfs its deviation in a sample, sums are taken around it, so that no digits
are lost; inner products run in float32 over one sample at a time, and samples are added in float64:
how they are batched shows in the last of its digits at most.  Nothing but ``O(C)`` numbers survives
a batch; batches are pooled afterwards.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce

import numpy as np
from numpy.typing import NDArray

from asr_onnx.arrays import Float32Array, FloatArray, Mask

_SAMPLE = 8  # positions that show whether a channel's mean is large
_BLOCK = 1 << 17  # elements centred at a time: two float32 blocks of it stay in a core's cache


@dataclass(frozen=True)
class Moments:
    """``count`` samples per channel, ``mean`` (C,) and population variance ``var`` (C,)."""

    count: int
    mean: FloatArray
    var: FloatArray


@dataclass(frozen=True)
class PairedMoments:
    """Moments of the same positions in the dense and the pruned network, covariance (C,)."""

    dense: Moments
    pruned: Moments
    covariance: FloatArray

    def __post_init__(self) -> None:
        if not self.dense.count == self.pruned.count > 0:
            raise ValueError(
                "paired moments need the same, positive number of samples on both sides"
            )

    @property
    def correlation(self) -> FloatArray:
        """Pearson correlation per channel, clipped to [0, 1]; 0 where a side is constant."""
        norm = np.sqrt(self.dense.var * self.pruned.var)
        rho = np.divide(self.covariance, norm, out=np.zeros_like(norm), where=norm > 0)
        return np.clip(rho, 0.0, 1.0)

    def of(self, channels: Mask) -> PairedMoments:
        """Those of some channels (C,)."""
        dense, pruned = (
            Moments(m.count, m.mean[channels], m.var[channels]) for m in (self.dense, self.pruned)
        )
        return PairedMoments(dense, pruned, self.covariance[channels])


def rescaled(m: PairedMoments, gamma: FloatArray, shift: FloatArray) -> PairedMoments:
    """The moments with ``gamma * y + shift``, both (C,), for the pruned output ``y``."""
    pruned = Moments(m.pruned.count, gamma * m.pruned.mean + shift, gamma**2 * m.pruned.var)
    return PairedMoments(m.dense, pruned, gamma * m.covariance)


def channel_rows(y: NDArray[np.generic], axis: int) -> NDArray[np.generic]:
    """View an activation as ``(N, C, positions)`` with the channel ``axis`` second."""
    moved = np.moveaxis(y, axis, 1)
    return moved.reshape(*moved.shape[:2], -1)


def _pilot(y: NDArray[np.generic]) -> Float32Array | None:
    """What to subtract from ``y`` (N, C, L) before squaring: (N, C, 1).

    About the mean in samples where it is large against the deviation, as a few positions show it,
    else zero; ``None`` where no sample would lose more than a few bits.
    """
    some = y[:, :, :: max(1, y.shape[2] // _SAMPLE)].astype(np.float32)
    mean = some.sum(axis=2) / np.float32(some.shape[2])
    power = np.vecdot(some, some) / np.float32(some.shape[2])
    large = (65 * mean**2 > 64 * power).any(axis=1)  # |mean| > 8 deviations
    return np.where(large[:, None], mean, np.float32(0))[:, :, None] if large.any() else None


@np.errstate(over="ignore", invalid="ignore")  # infinity shows in the moments
def paired_moments(
    dense: NDArray[np.generic], pruned: NDArray[np.generic], axis: int = 1
) -> PairedMoments:
    """Moments of one batch; both arrays have the same shape, channels on ``axis``.

    Raises ``ValueError`` when the shapes differ or there is no sample.
    """
    if dense.shape != pruned.shape:
        raise ValueError(f"dense {dense.shape} and pruned {pruned.shape} differ in shape")
    d, p = channel_rows(dense, axis), channel_rows(pruned, axis)
    if not d.size:
        raise ValueError("no samples to take moments of")
    pilots = _pilot(d), _pilot(p)
    step = max(1, _BLOCK // d[0].size)
    ones = np.ones(d.shape[2], np.float32)  # BLAS sums faster than a reduction
    sums = np.empty((5, *d.shape[:2]))
    for start in range(0, len(d), step):
        rows = slice(start, start + step)
        a, b = (
            np.asarray(y[rows], np.float32)
            if pilot is None
            else np.subtract(y[rows], pilot[rows], dtype=np.float32)
            for y, pilot in zip((d, p), pilots, strict=True)
        )
        sums[:, rows] = a @ ones, b @ ones, np.vecdot(a, a), np.vecdot(b, b), np.vecdot(a, b)
    a, b, aa, bb, ab = sums / d.shape[2]
    (mean_d, off_d), (mean_p, off_p) = (
        _centred(m if pilot is None else m + pilot[:, :, 0])
        for m, pilot in zip((a, b), pilots, strict=True)
    )
    count = d.shape[0] * d.shape[2]
    return PairedMoments(
        Moments(count, mean_d, np.maximum((aa - a * a + off_d**2).mean(axis=0), 0.0)),
        Moments(count, mean_p, np.maximum((bb - b * b + off_p**2).mean(axis=0), 0.0)),
        (ab - a * b + off_d * off_p).mean(axis=0),
    )


def _centred(means: FloatArray) -> tuple[FloatArray, FloatArray]:
    """The mean (C,) of the samples' means (N, C), and what each is off by."""
    centre = means.mean(axis=0)
    return centre, means - centre


def pooled(parts: Iterable[PairedMoments]) -> PairedMoments:
    """The moments of all samples, from those of disjoint parts of them.

    Pairwise update of Chan, Golub and LeVeque (1983), "Algorithms for computing the sample
    variance", eq. 2.1.  Raises ``ValueError`` when there is no part.
    """
    parts = list(parts)
    if not parts:
        raise ValueError("no moments to pool")
    return reduce(_pool, parts)


def _pool(a: PairedMoments, b: PairedMoments) -> PairedMoments:
    count = a.dense.count + b.dense.count
    share = b.dense.count / count
    shifts = b.dense.mean - a.dense.mean, b.pruned.mean - a.pruned.mean
    dense, pruned = (
        Moments(count, x.mean + share * s, _mix(x.var, y.var, share) + share * (1 - share) * s * s)
        for x, y, s in ((a.dense, b.dense, shifts[0]), (a.pruned, b.pruned, shifts[1]))
    )
    covariance = _mix(a.covariance, b.covariance, share)
    return PairedMoments(dense, pruned, covariance + share * (1 - share) * shifts[0] * shifts[1])


def _mix(a: FloatArray, b: FloatArray, share: float) -> FloatArray:
    return a + share * (b - a)
