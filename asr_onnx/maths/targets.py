"""What a site's output should be, given what comes behind it: a shortcut, a rectifier.

All functions work on positions as rows, (P, C), in the units of the *sum*: behind the
BatchNormalization, with the shortcut added.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from asr_onnx.arrays import Float32Array

# The dense sum and the sum that is fitted now, both (P, C) -> the sum to aim at.
Goal = Callable[[Float32Array, Float32Array], Float32Array]


@dataclass(frozen=True)
class Frame:
    """The way from a site's output ``y`` to the sum, ``gain * y + offset``, at some positions.

    ``gain`` (C,); ``dense`` and ``repaired`` (P, C) or (1, C) are the offsets in the two networks:
    the BatchNormalization's, and the shortcut's where there is one.
    """

    gain: Float32Array
    dense: Float32Array
    repaired: Float32Array

    def dense_sum(self, y: Float32Array) -> Float32Array:
        """The dense network's sum for its output ``y`` (P, C)."""
        return y * self.gain + self.dense

    def repaired_sum(self, y: Float32Array) -> Float32Array:
        """The repaired network's sum for an output ``y`` (P, C)."""
        return y * self.gain + self.repaired

    def output_for(self, total: Float32Array, fallback: Float32Array) -> Float32Array:
        """The output that gives ``total`` in the repaired network.

        ``fallback`` (P, C) for channels the BatchNormalization has (almost) switched off.
        """
        alive = np.abs(self.gain) > 1e-3 * np.abs(self.gain).max()
        safe = np.where(alive, self.gain, 1.0)
        return np.where(alive, (total - self.repaired) / safe, fallback).astype(np.float32)


def rectified(dense: Float32Array, fitted: Float32Array) -> Float32Array:
    """The sum to aim at when a Relu follows: where both are negative the fit is perfect as it is.

    Minimises ``(relu(dense) - relu(s))^2`` by alternating with the fit that gave ``fitted`` (the
    auxiliary variable of Zhang et al. 2015, arXiv 1505.06798, section 3.2, at infinite penalty).
    """
    return np.where(dense > 0, dense, np.minimum(fitted, 0.0)).astype(np.float32)
