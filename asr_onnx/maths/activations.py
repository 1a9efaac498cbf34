"""Activation functions of rows (P, C): the rectifier, bounded ones, and any other by a table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from asr_onnx.arrays import Float32Array

POINTS = 4096  # of a table


def relu(total: Float32Array) -> Float32Array:
    """The rectifier, ``max(x, 0)``."""
    return np.maximum(total, 0)


@dataclass(frozen=True)
class Clipped:
    """The identity between ``low`` and ``high``, constant outside, as Relu6 is."""

    low: float
    high: float

    def __call__(self, total: Float32Array) -> Float32Array:
        return np.clip(total, self.low, self.high)


@dataclass(frozen=True)
class Tabulated:
    """A function given by ``values`` (points, C or 1) at ``low``, ``low + step``, ...

    Linear in between, and beyond the ends as at the ends.
    """

    low: float
    step: float
    values: Float32Array

    @classmethod
    def of(
        cls,
        function: Callable[[Float32Array], Float32Array],
        low: float,
        high: float,
        channels: int,
    ) -> Tabulated:
        """``function`` of rows (P, C), one of each element by itself."""
        step = max(high - low, 1e-6) / (POINTS - 1)
        values = function(np.repeat(_points(low, step)[:, None], channels, axis=1))
        alike = (values == values[:, :1]).all()
        return cls(low, step, np.ascontiguousarray(values[:, :1] if alike else values))

    @property
    def points(self) -> Float32Array:
        """Where the values are the function's."""
        return _points(self.low, self.step)

    @cached_property
    def _rises(self) -> Float32Array:
        return np.diff(self.values, axis=0)

    def __call__(self, total: Float32Array) -> Float32Array:
        return self.at(total)[0]

    def at(self, total: Float32Array) -> tuple[Float32Array, Float32Array]:
        """Values and slopes."""
        place = (total - np.float32(self.low)) * np.float32(1 / self.step)
        index = np.clip(place, 0, len(self.values) - 2).astype(np.int32)
        place -= index
        channels = self.values.shape[1]
        if channels > 1:
            index *= channels
            index += np.arange(channels, dtype=np.int32)
        rise = self._rises.take(index)
        return self.values.take(index) + rise * place, rise / np.float32(self.step)


def _points(low: float, step: float) -> Float32Array:
    return (low + step * np.arange(POINTS)).astype(np.float32)


Activation = Callable[[Float32Array], Float32Array] | Clipped | Tabulated


def recognised(
    function: Callable[[Float32Array], Float32Array], low: float, high: float, channels: int
) -> Clipped | Tabulated | None:
    """``function`` of rows (P, C), one of each element by itself, between ``low`` and ``high``.

    ``None`` where it is not finite, as a root of negative numbers: there is nothing to aim at.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        table = Tabulated.of(function, low, high, channels)
    if not np.isfinite(table.values).all():
        return None
    least, most = float(table.values.min()), float(table.values.max())
    clipped = np.clip(table.points, least, most)
    return Clipped(least, most) if (table.values == clipped[:, None]).all() else table
