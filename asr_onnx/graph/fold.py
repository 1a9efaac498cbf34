"""Fold a correction of a channel into the parameters that already stand in the file."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from asr_onnx.arrays import AnyArray, FloatArray
from asr_onnx.graph.records import Patch, Site


def norm_mean(mean: NDArray[np.floating], change: FloatArray) -> FloatArray:
    """BatchNormalization mean that does what adding ``change`` (C,) to the Conv bias would do.

    ``BN(y + change)`` with mean ``m`` equals ``BN(y)`` with mean ``m - change``; variance,
    scale and shift of the BatchNormalization stay.
    """
    return np.asarray(mean, np.float64) - change


def fold(site: Site, weight: AnyArray, bias_change: FloatArray) -> Patch:
    """The patch that gives ``site`` a new ``weight`` (its own shape) and ``b + bias_change`` (C,).

    The change of the bias goes into the mean of a following BatchNormalization where that can be
    written, else into the bias (a ``MatMul``'s is the ``Add`` behind it), which a convolution is
    given where there was none.  Rounding to the stored
    dtype happens here and nowhere else.  Without a change of the bias there is none in the patch.
    """
    assert site.weight.storage is not None
    values = {site.weight.storage.name: site.weight.storage.pack(weight)}
    if not bias_change.any():
        return Patch(values)
    if site.norm and (place := site.norm.mean.storage):
        mean = np.asarray(site.norm.mean.value, np.float64)
        return Patch(values | {place.name: place.pack(norm_mean(mean, bias_change))})
    if site.carrier and (place := site.carrier.storage):
        old = np.asarray(site.carrier.value, np.float64)
        return Patch(values | {place.name: place.pack(old + bias_change.reshape(old.shape))})
    bias = site.bias_value + bias_change
    return Patch(values, {site.output: bias.astype(site.weight.value.dtype)})


def mean_goes_to(site: Site) -> str:
    """Where ``fold`` puts a change of the bias, in words."""
    if site.norm and site.norm.mean.storage:
        return "BatchNormalization"
    return "bias" if site.carrier else "new bias"
