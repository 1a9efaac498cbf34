"""Activation functions of rows (P, C): the rectifier, and any other by a table."""

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
        grid = (low + step * np.arange(POINTS)).astype(np.float32)
        values = function(np.repeat(grid[:, None], channels, axis=1))
        alike = (values == values[:, :1]).all()
        return cls(low, step, np.ascontiguousarray(values[:, :1] if alike else values))

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


Activation = Callable[[Float32Array], Float32Array] | Tabulated
