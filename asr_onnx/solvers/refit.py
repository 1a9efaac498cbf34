"""Solve a layer with second moments: choose the mask, re-fit what survives, keep the better.

One pass over the data gives the moments, each turn towards a rectified target another.  What the
re-fit gains is measured on data not solved on; a layer where scaling does better is scaled.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
from threadpoolctl import threadpool_limits

from asr_onnx.arrays import FloatArray, Mask
from asr_onnx.maths.least_squares import RIDGE, bias, refit, restore_variance
from asr_onnx.maths.moments import Moments, PairedMoments
from asr_onnx.maths.second_moments import Gram
from asr_onnx.maths.targets import rectified
from asr_onnx.options import RepairOptions
from asr_onnx.parallel import blas_threads
from asr_onnx.pruning.criteria import Choose
from asr_onnx.solvers.correction import Correction, Layer, require_finite, scaling

TURNS = 3  # re-fits towards the rectified target
POWER = 0.5  # of the variance correction
HEAD_RIDGE = 0.1  # linear heads have few positions for many weights


def solve(layer: Layer, choice: Mask | Choose, options: RepairOptions) -> Correction:
    """The layer's correction by second moments.

    ``choice`` is its mask (G, R, K), or what finds one in the moments.  Without
    ``options.reconstruct`` the selected weights are scaled, not re-fitted.
    """
    with threadpool_limits(blas_threads(layer.rows.shape[2]), user_api="blas"):
        gram = layer.gram()
        require_finite(layer, output=(gram.mean_y, gram.var_y), input=(gram.mean_x, gram.inputs))
        mask = choice(gram, layer.rows, np.abs(layer.gain)) if callable(choice) else choice
        moments = _output_moments(gram, np.where(mask, layer.rows, 0.0), layer.bias)
        scaled = replace(scaling(layer, mask, moments, options), shift=None)
        if not options.reconstruct:
            return scaled
        fitted = _fitted(layer, mask, gram, scaled)
        return min((fitted, scaled), key=lambda c: layer.error(c.rows, layer.bias + c.bias_change))


def _fitted(layer: Layer, mask: Mask, gram: Gram, scaled: Correction) -> Correction:
    head = layer.linear and bool(mask.all())
    share = HEAD_RIDGE if head else RIDGE
    fit = partial(refit, old=layer.rows, mask=mask, share=share, workers=layer.workers)
    rows = fit(gram)
    for _ in range(TURNS if layer.rectified else 0):
        gram = layer.gram(rectified, rows, bias(gram, rows))
        rows = fit(gram)
    rows = restore_variance(rows, gram, 0.0 if head else POWER)
    return replace(scaled, rows=rows, bias_change=bias(gram, rows) - layer.bias)


def _output_moments(gram: Gram, rows: FloatArray, offset: FloatArray) -> PairedMoments:
    """Moments of the target with the output that ``rows`` and the bias ``offset`` give."""
    mean = np.vecdot(rows, gram.mean_x[:, None, :]).reshape(-1) + offset
    return PairedMoments(
        Moments(gram.count, gram.mean_y.reshape(-1), gram.var_y.reshape(-1)),
        Moments(gram.count, mean, gram.output_variance(rows).reshape(-1)),
        np.vecdot(rows, gram.cross).reshape(-1),
    )
