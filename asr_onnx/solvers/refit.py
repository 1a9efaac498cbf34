"""Solve a layer with second moments: choose the mask, re-fit what survives, keep the better.

One pass over the data gives the moments, each turn towards what an activation passes on another.
What the re-fit gains is measured on data not solved on; a layer where scaling does better is
scaled, and where data are scarce they choose the ridge, which leads from the one to the other.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from threadpoolctl import threadpool_limits

from asr_onnx.arrays import FloatArray, Mask
from asr_onnx.maths.activations import Clipped, Tabulated
from asr_onnx.maths.least_squares import RIDGE, Refit, bias, restore_variance
from asr_onnx.maths.moments import Moments, PairedMoments
from asr_onnx.maths.second_moments import Gram
from asr_onnx.maths.targets import goal_of
from asr_onnx.options import RepairOptions
from asr_onnx.parallel import blas_threads, wide
from asr_onnx.pruning.criteria import Choose
from asr_onnx.solvers.correction import Correction, Layer, require_finite, scaling
from asr_onnx.solvers.integers import Integers, rounded

TURNS = 3  # re-fits towards what the activation behind passes on;
WIDE_TURNS = 2  # the third gains little, and of wide layers each takes as long as the dense network
POWER = 0.5  # of the variance correction
LINEAR_RIDGE = 0.1  # of linear layers that are not pruned and have others behind them
FEW = 50  # positions per weight of a row below which a stronger ridge may be better
STRONGER = (10, 100)  # times the ridge
WORTH = 0.05  # relative error of a fit above which a smooth activation is worth the turns


def solve(
    layer: Layer, choice: Mask | Choose, options: RepairOptions, integers: Integers | None = None
) -> Correction:
    """The layer's correction by second moments.

    ``choice`` is its mask (G, R, K), or what finds one in the moments.  Without
    ``options.reconstruct`` the selected weights are scaled, not re-fitted.  With ``integers`` they
    are rounded.
    """
    with threadpool_limits(blas_threads(layer.rows.shape[2]), user_api="blas"):
        gram = layer.gram()
        require_finite(layer, output=(gram.mean_y, gram.var_y), input=(gram.mean_x, gram.inputs))
        if callable(choice):
            choice = choice(gram.shrunk(layer.rows), layer.rows, np.abs(layer.gain))
        mask = choice
        moments = _output_moments(gram, np.where(mask, layer.rows, 0.0), layer.bias)
        scaled = replace(scaling(layer, mask, moments, options), shift=None)
        found = scaled
        if options.reconstruct:
            fitted = _fitted(layer, mask, gram, scaled)
            found = min(
                (fitted, scaled), key=lambda c: layer.error(c.rows, layer.bias + c.bias_change)
            )
        return rounded(found, gram, integers) if integers else found


def _fitted(layer: Layer, mask: Mask, gram: Gram, scaled: Correction) -> Correction:
    """The least-squares correction; with few positions its ridge is the best on those held out."""
    head = layer.linear and bool(mask.all())
    share = LINEAR_RIDGE if head and not layer.last else RIDGE
    few = gram.count < FEW * layer.rows.shape[2]
    fit = _with_best_ridge(layer, mask, gram, share) if few else _fit(layer, mask, gram, share)
    rows = fit(gram.cross)
    for _ in range(_turns(layer, gram, rows)):
        assert layer.activation is not None
        gram = layer.gram(goal_of(layer.activation), rows, bias(gram, rows))
        rows = fit(gram.cross, start=rows)
    rows = restore_variance(rows, gram, 0.0 if head else POWER)
    return replace(scaled, rows=rows, bias_change=bias(gram, rows) - layer.bias)


def _fit(layer: Layer, mask: Mask, gram: Gram, share: float) -> Refit:
    return Refit(gram, layer.rows, mask, share, layer.workers)


def _with_best_ridge(layer: Layer, mask: Mask, gram: Gram, share: float) -> Refit:
    """With the ridge or, as long as what is held out is fitted better by them, stronger ones."""
    found, best = None, math.inf
    for factor in (1, *STRONGER):
        fit = _fit(layer, mask, gram, factor * share)
        rows = fit(gram.cross)
        error = layer.error(rows, bias(gram, rows))
        if found and error >= best:
            return found
        found, best = fit, error
    assert found
    return found


def _turns(layer: Layer, gram: Gram, rows: FloatArray) -> int:
    """Re-fits that are worth their time."""
    if not layer.activation:
        return 0
    smooth = isinstance(layer.activation, Clipped | Tabulated)
    if smooth and gram.error(rows).sum() < WORTH * gram.var_y.sum():
        return 0
    return WIDE_TURNS if wide(rows.shape[2]) else TURNS


def _output_moments(gram: Gram, rows: FloatArray, offset: FloatArray) -> PairedMoments:
    """Moments of the target with the output that ``rows`` and the bias ``offset`` give."""
    mean = np.vecdot(rows, gram.mean_x[:, None, :]).reshape(-1) + offset
    return PairedMoments(
        Moments(gram.count, gram.mean_y.reshape(-1), gram.var_y.reshape(-1)),
        Moments(gram.count, mean, gram.output_variance(rows).reshape(-1)),
        np.vecdot(rows, gram.cross).reshape(-1),
    )
