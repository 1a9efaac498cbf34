"""What a solver may ask of a layer, and what it answers.

The maths needs nothing else of a network: a layer is a ``Layer`` whoever gathers its statistics,
the streams of a repair or the arrays of a test.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from asr_onnx.arrays import FloatArray, Mask
from asr_onnx.errors import CalibrationError
from asr_onnx.maths.activations import Activation
from asr_onnx.maths.moments import PairedMoments
from asr_onnx.maths.scale_rules import scale
from asr_onnx.maths.second_moments import Gram
from asr_onnx.maths.targets import Goal
from asr_onnx.options import RepairOptions


class Layer(Protocol):
    """A linear map with ``rows`` (G, R, K) and ``bias`` (C,), C = G R, of patches (K,).

    ``gain`` (G, R): what the output is multiplied by before it is judged; ``activation``: what it
    goes through then, if anything; ``linear``: a fully connected layer; ``last``: its ``error`` is
    that of an output, on data held out; ``workers``: threads.
    """

    label: str
    rows: FloatArray
    bias: FloatArray
    gain: FloatArray
    linear: bool
    last: bool
    workers: int

    @property
    def activation(self) -> Activation | None:
        """Of sums (P, C)."""

    def moments(self, rows: FloatArray) -> PairedMoments:
        """Moments of the dense output with the output under ``rows``."""

    def gram(
        self,
        goal: Goal | None = None,
        rows: FloatArray | None = None,
        bias: FloatArray | None = None,
    ) -> Gram:
        """Second moments of the inputs with the dense output, or with what ``goal`` aims at."""

    def error(self, rows: FloatArray, bias: FloatArray) -> float:
        """Squared error of the output behind the layer, on data not solved on."""

    def spread(self) -> float:
        """Variance of what the dense network passes on behind the layer, over all channels."""


@dataclass(frozen=True)
class Correction:
    """The repaired ``rows`` (G, R, K), what is added to the bias (C,), the ``mask`` of the rows.

    ``gamma`` (C,) is the factor per channel and ``reliability`` (C,) how far it was trusted.
    ``shift`` (C,): the repaired output is ``gamma * y + shift`` of the output ``y`` whose moments
    were asked for.  ``None``: the layer has to run anew.  ``scales`` (G, R): the rows are integers
    times these.
    """

    rows: FloatArray
    bias_change: FloatArray
    mask: Mask
    gamma: FloatArray
    reliability: FloatArray
    shift: FloatArray | None = None
    scales: FloatArray | None = None


def scaling(layer: Layer, mask: Mask, moments: PairedMoments, options: RepairOptions) -> Correction:
    """Give each channel back its mean and, as far as it can be trusted, its variance.

    ``y' = mu_d + gamma (y_p - mu_p)`` (arXiv 2605.21426, section 3, with the dense network as the
    reference), folded: ``W' = gamma W``, and as ``y_p`` has the bias in it,
    ``b' = gamma b + mu_d - gamma mu_p``.
    """
    found = scale(moments, options.method, options.prior)
    shift = moments.dense.mean - found.gamma * moments.pruned.mean
    if not found.centred:
        shift = np.zeros_like(shift)
    change = shift + (found.gamma - 1) * layer.bias
    rows = np.where(mask, layer.rows, 0.0) * found.gamma.reshape(*layer.rows.shape[:2], 1)
    return Correction(rows, change, mask, found.gamma, found.reliability, shift)


def require_finite(layer: Layer, **statistics: Sequence[FloatArray]) -> None:
    """Raise ``CalibrationError`` when activations are infinite or NaN; their statistics tell.

    ``statistics`` go by what they are of: the layer's ``input``, its ``output``.
    """
    for what, arrays in statistics.items():
        if not all(np.isfinite(a).all() for a in arrays):
            raise CalibrationError(
                f"the {what} of '{layer.label}' is not finite on the calibration data: check the "
                "preprocessing, or export the model in float32"
            )
