"""Choose a layer's mask by what it costs the layer's output: the optimal-brain-surgeon objective.

Minimise ``(W - W*) H (W - W*)'`` over masks of a given size.  Gradual brain-surgeon elimination
needs an inverse per row and step; the alternating direction method of multipliers on the same
objective (ALPS, Meng et al. 2024, arXiv 2406.07831) shares a factorisation among all rows, costs
``K^3 / 3`` a round and ``2 K^2 R`` a step, and chose masks at least as good where measured
(docs/measurements.md).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.linalg import cho_factor, cho_solve

from asr_onnx.arrays import Float32Array, FloatArray, Mask
from asr_onnx.maths.least_squares import ridge
from asr_onnx.maths.second_moments import Gram
from asr_onnx.parallel import wide

Project = Callable[[FloatArray], Mask]  # scores (G, R, K) -> what stays

_STEPS = 4  # of one penalty
# Penalties, relative to a unit diagonal of H.  The slower they grow the better the mask: an error
# two per cent lower where that takes no time to speak of.
_SLOWLY = [0.05 * 1.3**n for n in range(20)]
_QUICKLY = [0.1 * 2.0**n for n in range(10)]  # of wide layers


def select(gram: Gram, old: FloatArray, importance: FloatArray, project: Project) -> Mask:
    """Mask (G, R, K) of the rows to keep, as ``project`` allows.

    ``importance`` (G, R) weighs each row's output error; multiplying a row of the weights and its
    output by a factor and dividing its importance by it leaves the mask as it is.
    Single precision throughout: the penalty keeps the factorised matrices well conditioned.
    """
    d = ridge(gram)
    diagonal = np.diagonal(gram.inputs, axis1=1, axis2=2) + d[:, 0]
    unit = np.sqrt(diagonal)[:, None, :]  # with each input at unit variance
    h = gram.inputs.astype(np.float32)
    h /= unit.astype(np.float32)
    h /= unit.transpose(0, 2, 1).astype(np.float32)
    h[:, np.arange(h.shape[1]), np.arange(h.shape[1])] = 1.0  # the ridge is in the unit
    weight = importance[:, :, None]
    right = ((gram.cross + d * old) * weight / unit).astype(np.float32)
    start = (old * weight * unit).astype(np.float32)
    mask = project(np.abs(start))
    kept = np.where(mask, start, np.float32(0))
    dual = np.zeros_like(kept)
    goal, w, candidate = (np.empty_like(kept) for _ in range(3))
    for rho in _QUICKLY if wide(h.shape[1]) else _SLOWLY:
        before = mask
        solve = _solver(h, rho)
        for _ in range(_STEPS):
            np.multiply(kept, rho, out=goal)  # in place: the arrays are large, and there are many
            goal += right
            goal -= dual
            solve(goal, w)
            np.divide(dual, rho, out=candidate)
            candidate += w
            mask = project(np.abs(candidate))
            np.multiply(candidate, mask, out=kept)
            w -= kept
            w *= rho
            dual += w
        if np.array_equal(mask, before):
            break  # as penalties grow, a mask that has settled stays
    return mask


def _solver(h: Float32Array, rho: float) -> Callable[[Float32Array, Float32Array], None]:
    """What solves ``w (h + rho I) = y`` for each group, ``y`` being overwritten.

    By factors, or where there are many groups, which are small, by inverses of all at once.
    """
    shifted = h.copy()
    shifted[:, np.arange(h.shape[1]), np.arange(h.shape[1])] += np.float32(rho)
    if len(h) > 1:
        inverse = np.linalg.inv(shifted)  # the penalty keeps it well conditioned

        def multiply(y: Float32Array, w: Float32Array) -> None:
            np.matmul(y, inverse, out=w)

        return multiply
    # Symmetric: in LAPACK's order without moving anything.
    factor: tuple[Float32Array, bool] = cho_factor(shifted[0].T, overwrite_a=True)

    def solve(y: Float32Array, w: Float32Array) -> None:
        w[0] = cho_solve(factor, y[0].T, overwrite_b=True, check_finite=False).T

    return solve
