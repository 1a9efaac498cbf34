"""Choose a layer's mask by what it costs the layer's output: the optimal-brain-surgeon objective.

Minimise ``(W - W*) H (W - W*)'`` over masks of a given size.  Gradual brain-surgeon elimination
needs an inverse per row and step; the alternating direction method of multipliers on the same
objective (ALPS, Meng et al. 2024, arXiv 2406.07831) shares one factorisation among all rows, costs
``O(K^3) + 4 K^2 R`` per step, and chose masks at least as good where measured
(docs/measurements.md).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from asr_onnx.gram import Array, Gram
from asr_onnx.masks import Mask
from asr_onnx.reconstruct import ridge

Project = Callable[[Array], Mask]  # scores (G, R, K) -> what stays

_STEPS = 40
_RHO = 0.1  # first penalty, relative to a unit diagonal of H
_GROWTH = 1.2  # of the penalty per step


def select(gram: Gram, old: Array, importance: Array, project: Project) -> Mask:
    """Mask (G, R, K) of the rows to keep, as ``project`` allows.

    ``importance`` (G, R) weighs each row's output error; multiplying a row of the weights and its
    output by a factor and dividing its importance by it leaves the mask as it is.
    """
    d = ridge(gram)
    h = gram.inputs + d * np.eye(gram.inputs.shape[1])
    right = (gram.cross + d * old) * importance[:, :, None]
    unit = np.sqrt(np.diagonal(h, axis1=1, axis2=2))  # each input at unit variance
    h = h / (unit[:, :, None] * unit[:, None, :])
    values, vectors = np.linalg.eigh(h.astype(np.float32))
    values = np.maximum(values, 1e-6)[:, None, :].astype(np.float64)
    turned = (right / unit[:, None, :]) @ vectors
    back = vectors.transpose(0, 2, 1)
    w = (turned / values) @ back
    kept = np.where(project(np.abs(w)), w, 0.0)
    dual = np.zeros_like(w)
    rho = _RHO
    for _ in range(_STEPS):
        w = ((turned + (rho * kept - dual) @ vectors) / (values + rho)) @ back
        candidate = w + dual / rho
        mask = project(np.abs(candidate))
        kept = np.where(mask, candidate, 0.0)
        dual += rho * (w - kept)
        rho *= _GROWTH
    return mask
