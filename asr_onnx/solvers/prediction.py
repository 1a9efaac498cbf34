"""What removing weights will cost a layer, from its second moments in the dense network."""

from __future__ import annotations

import numpy as np
from threadpoolctl import threadpool_limits

from asr_onnx.arrays import FloatArray
from asr_onnx.maths.removal import removal_errors
from asr_onnx.parallel import blas_threads
from asr_onnx.solvers.correction import Layer, require_finite


def predict(layer: Layer) -> FloatArray:
    """The layer's ``removal_errors``, rows weighed as the search for a mask weighs them."""
    with threadpool_limits(blas_threads(layer.rows.shape[2]), user_api="blas"):
        gram = layer.gram()
        require_finite(layer, output=(gram.mean_y, gram.var_y), input=(gram.mean_x, gram.inputs))
        return removal_errors(gram.shrunk(layer.rows), layer.rows, np.abs(layer.gain))
