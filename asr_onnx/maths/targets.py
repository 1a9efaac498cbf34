"""What a site's output should be, given what comes behind it: a shortcut, a rectifier.

All functions work on positions as rows, (P, C), in the units of the *sum*: behind the
BatchNormalization, with the shortcut added.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from asr_onnx.arrays import Float32Array
from asr_onnx.maths.activations import Activation, Clipped, Tabulated

# The dense sum and the sum that is fitted now, both (P, C) -> the sum to aim at.
Goal = Callable[[Float32Array, Float32Array], Float32Array]

_FLAT = 1e-6  # the steepest slope of a channel below which nothing gets through


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
        total = y * self.gain
        total += self.dense
        return total

    def repaired_sum(self, y: Float32Array) -> Float32Array:
        """The repaired network's sum for an output ``y`` (P, C)."""
        total = y * self.gain
        total += self.repaired
        return total

    def output_for(self, total: Float32Array, fallback: Float32Array) -> Float32Array:
        """The output that gives ``total`` in the repaired network.

        ``fallback`` (P, C) for channels the BatchNormalization has (almost) switched off.
        """
        alive = np.abs(self.gain) > 1e-3 * np.abs(self.gain).max()
        wanted = total - self.repaired
        wanted /= np.where(alive, self.gain, np.float32(1))
        return wanted if alive.all() else np.where(alive, wanted, fallback)


def goal_of(activation: Activation) -> Goal:
    """How to aim at what an activation passes on."""
    if isinstance(activation, Tabulated):
        return partial(towards, activation)
    return partial(bounded, activation) if isinstance(activation, Clipped) else rectified


def towards(activation: Tabulated, dense: Float32Array, fitted: Float32Array) -> Float32Array:
    """The sum to aim at when an activation ``f`` follows: errors count as far as they get through.

    Minimises ``(f(dense) - f(s))^2`` by alternating with the fit that gave ``fitted``: a quadratic
    upper bound of it, whose curvature is the steepest slope squared, has its least value at
    ``s + f'(s) (f(d) - f(s))`` (majorisation, Hunter & Lange 2004), slopes in units of the
    steepest.  Where ``f`` is flat at ``s`` and steep at ``d`` that would not move; there the slope
    at ``d`` weighs the distance.  For the rectifier it is ``rectified``.
    """
    (wanted, at_dense), (have, at_fitted) = activation.at(dense), activation.at(fitted)
    steepest = np.maximum(np.abs(at_dense).max(axis=0), _FLAT)
    at_dense /= steepest
    at_fitted /= steepest
    steep = np.abs(at_dense) >= np.abs(at_fitted)
    step = np.where(
        steep, np.square(at_dense) * (dense - fitted), at_fitted * (wanted - have) / steepest
    )
    low, high = np.minimum(dense, fitted), np.maximum(dense, fitted)
    return np.asarray(np.clip(fitted + step, low, high), np.float32)


def rectified(dense: Float32Array, fitted: Float32Array) -> Float32Array:
    """The sum to aim at when a Relu follows: where both are negative the fit is perfect as it is.

    Minimises ``(relu(dense) - relu(s))^2`` by alternating with the fit that gave ``fitted`` (the
    auxiliary variable of Zhang et al. 2015, arXiv 1505.06798, section 3.2, at infinite penalty).
    """
    return np.where(dense > 0, dense, np.minimum(fitted, 0.0)).astype(np.float32)


def bounded(activation: Clipped, dense: Float32Array, fitted: Float32Array) -> Float32Array:
    """``rectified`` for two ends: beyond one, a fit beyond it too is perfect as it is."""
    low, high = np.float32(activation.low), np.float32(activation.high)
    total = np.where(dense > low, dense, np.minimum(fitted, low))
    return np.where(dense < high, total, np.maximum(fitted, high))
