"""The range of values that integers stand for: what lies beyond it is cut off.

A wide range rounds coarsely, a narrow one cuts much off.  A rule takes a ``Histogram`` and a
``Grid`` and returns the range.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from asr_onnx.arrays import AnyArray, FloatArray

BINS = 4096
_PERCENTILE = 0.9999  # of the values that are not cut off
_SHARES = np.linspace(1.0, 0.2, 161)  # of the whole range, that are tried


@dataclass(frozen=True)
class Grid:
    """Integers from ``low`` to ``high``; ``symmetric``: zero stands for zero."""

    low: int
    high: int
    symmetric: bool

    def step(self, low: float, high: float) -> tuple[float, int]:
        """The scale and the integer for zero of a range (ONNX, QuantizeLinear)."""
        if self.symmetric:
            return max(-low, high) / self.high or 1.0, 0
        scale = (high - low) / (self.high - self.low) or 1.0
        return scale, int(np.clip(np.rint(self.low - low / scale), self.low, self.high))

    def rounded(self, values: FloatArray, low: float, high: float) -> FloatArray:
        """What is left of values."""
        scale, zero = self.step(low, high)
        integers = np.clip(np.rint(values / scale) + zero, self.low, self.high)
        return np.asarray((integers - zero) * scale)


@dataclass
class Histogram:
    """How often values fell into each of ``BINS`` bins between ``low`` and ``high``, zero in it."""

    low: float
    high: float
    counts: FloatArray

    @classmethod
    def between(cls, low: float, high: float) -> Histogram:
        return cls(min(low, 0.0), max(high, 0.0), np.zeros(BINS))

    def add(self, values: AnyArray) -> None:
        if self.high > self.low:
            found, _ = np.histogram(
                values.astype(np.float64), bins=BINS, range=(self.low, self.high)
            )
            self.counts += found

    @property
    def centres(self) -> FloatArray:
        edges = np.linspace(self.low, self.high, BINS + 1)
        return np.asarray((edges[1:] + edges[:-1]) / 2)


Rule = Callable[[Histogram, Grid], tuple[float, float]]


def whole(found: Histogram, grid: Grid) -> tuple[float, float]:
    """From the least to the greatest value: nothing is cut off."""
    return found.low, found.high


def percentile(found: Histogram, grid: Grid) -> tuple[float, float]:
    """All but one in ten thousand, at both ends or, for a symmetric grid, by size."""
    edges = np.linspace(found.low, found.high, BINS + 1)
    if grid.symmetric:
        size = np.maximum(np.abs(edges[1:]), np.abs(edges[:-1]))
        order = np.argsort(size, kind="stable")
        end = float(size[order][_beyond(found.counts[order], _PERCENTILE)])
        return max(found.low, -end), min(found.high, end)
    share = (1 + _PERCENTILE) / 2
    low = -float(-edges[:-1][::-1][_beyond(found.counts[::-1], share)])
    return min(low, 0.0), max(float(edges[1:][_beyond(found.counts, share)]), 0.0)


def _beyond(counts: FloatArray, share: float) -> int:
    """The first bin up to which at least a share of all is counted."""
    total = np.cumsum(counts)
    return min(int(np.searchsorted(total, share * total[-1])), len(counts) - 1)


def least_squares(found: Histogram, grid: Grid) -> tuple[float, float]:
    """The range with the least mean squared error of what is left of the values."""
    centres, best, chosen = found.centres, np.inf, (found.low, found.high)
    for share in _SHARES:
        low, high = share * found.low, share * found.high
        error = float(found.counts @ np.square(grid.rounded(centres, low, high) - centres))
        if error < best:
            best, chosen = error, (low, high)
    return chosen


RANGES: dict[str, Rule] = {"min-max": whole, "percentile": percentile, "mse": least_squares}
