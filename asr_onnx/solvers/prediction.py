"""What removing weights will cost a layer, from its second moments in the dense network."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from threadpoolctl import threadpool_limits

from asr_onnx.arrays import FloatArray, IntArray
from asr_onnx.maths.channel_removal import Reader, readers
from asr_onnx.maths.removal import removal_errors
from asr_onnx.maths.second_moments import Gram
from asr_onnx.parallel import blas_threads
from asr_onnx.solvers.correction import Layer, require_finite


def predict(layer: Layer) -> FloatArray:
    """The layer's ``removal_errors``, rows weighed as the search for a mask weighs them."""
    with threadpool_limits(blas_threads(layer.rows.shape[2]), user_api="blas"):
        return removal_errors(_gram(layer), layer.rows, np.abs(layer.gain))


def reading_of(
    layer: Layer, places: Sequence[Sequence[IntArray]]
) -> tuple[list[Reader], FloatArray]:
    """The layer as a reader of groups of atoms that lie at ``places`` among the K of its rows.

    And the mean (G, K) of what the rows are multiplied with.

    What it loses is told over the variance of what goes on behind it: a branch that adds little to
    its shortcut may lose much (docs/measurements.md).
    """
    with threadpool_limits(blas_threads(layer.rows.shape[2]), user_api="blas"):
        gram = _gram(layer)
        found = readers(gram, layer.rows, np.abs(layer.gain), places, layer.spread())
        return found, gram.mean_x


def _gram(layer: Layer) -> Gram:
    gram = layer.gram()
    require_finite(layer, output=(gram.mean_y, gram.var_y), input=(gram.mean_x, gram.inputs))
    return gram.shrunk(layer.rows)
