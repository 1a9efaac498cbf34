"""Solve one site: its statistics in, its new weight and change of bias out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from asr_onnx.masks import Mask
from asr_onnx.moments import PairedAccumulator
from asr_onnx.options import RepairOptions
from asr_onnx.segments import Step
from asr_onnx.shrinkage import scale
from asr_onnx.types import AnyArray, Site
from asr_onnx.walk import Walk

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Solution:
    """``weight`` in the site's shape and dtype, ``bias_change`` (C,) to add to its bias, ``pruned``
    the weight that is merely masked, ``gamma`` and ``reliability`` (C,) for the report."""

    weight: AnyArray
    bias_change: Array
    pruned: AnyArray
    gamma: Array
    reliability: Array


def solve_scale(walk: Walk, step: Step, site: Site, mask: Mask, options: RepairOptions) -> Solution:
    """Scale each output channel and set its mean: arXiv 2605.21426, section 3, dense-referenced.

    Leaves the site's input live in the repaired stream.
    """
    pruned = masked(site, mask)
    sums = PairedAccumulator(site.axis)
    for batch, results in walk.repaired.run(step, site, pruned, hold_input=True):
        if batch in walk.solved_on:
            sums.update(walk.dense[batch, site.output], results[site.output])
    moments = sums.result()
    found = scale(moments, options.method, options.prior)
    change = np.zeros(site.channels)
    if options.method != "none":
        # y' = mu_d + gamma (y_p - mu_p), and y_p has the bias in it.
        change = moments.dense.mean - found.gamma * moments.pruned.mean
        change += (found.gamma - 1) * bias_of(site)
    weight = np.asarray(pruned * per_row(found.gamma, pruned), pruned.dtype)
    return Solution(weight, change, pruned, found.gamma, found.reliability)


def masked(site: Site, mask: Mask) -> AnyArray:
    """The site's weight with what the mask drops set to zero."""
    value = site.weight.value
    return np.where(mask, value, np.zeros((), value.dtype))


def bias_of(site: Site) -> Array:
    """The site's bias (C,), zeros when it has none."""
    if site.bias is None:
        return np.zeros(site.channels)
    return np.asarray(site.bias.value, np.float64).reshape(-1)


def per_row(values: Array, weight: AnyArray) -> Array:
    """(C,) shaped to multiply a weight (C, ...)."""
    return values.reshape(-1, *[1] * (weight.ndim - 1))
