"""Solve a layer by statistics of its output alone."""

from __future__ import annotations

import numpy as np

from asr_onnx.arrays import Mask
from asr_onnx.options import RepairOptions
from asr_onnx.solvers.correction import Correction, Layer, require_finite, scaling


def solve(layer: Layer, mask: Mask, options: RepairOptions) -> Correction:
    """Scale each output channel and set its mean; ``mask`` (G, R, K)."""
    moments = layer.moments(np.where(mask, layer.rows, 0.0))
    require_finite(layer, output=(moments.dense.var, moments.pruned.var))
    return scaling(layer, mask, moments, options)
