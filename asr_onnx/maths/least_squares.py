"""Re-fit the surviving weights to the dense output: masked least squares on second moments.

``w_S = (H_SS + d I)^-1 (G_S + d w0_S)`` for each row, with ``S`` its surviving positions,
``H = X'X / N``, ``G = Y'X / N`` and the ridge ``d`` towards the old weights (AdaPrune, Hubara et
al. 2021; OBC, Frantar & Alistarh 2022, arXiv 2208.11580, for the objective).
"""

from __future__ import annotations

import numpy as np
from scipy.linalg import LinAlgError, cho_factor, cho_solve
from threadpoolctl import threadpool_limits

from asr_onnx.arrays import FloatArray, Mask
from asr_onnx.maths.second_moments import Gram
from asr_onnx.parallel import each

RIDGE = 0.01  # share of the mean of H's diagonal

_CG_STEPS = 200
_CG_TOLERANCE = 1e-5


def ridge(gram: Gram, share: float = RIDGE) -> FloatArray:
    """``d = share * mean(diag H)`` per group, shape (G, 1, 1); positive even for a dead input."""
    diagonal = np.diagonal(gram.inputs, axis1=1, axis2=2)
    return np.asarray(np.maximum(share * diagonal.mean(axis=1), 1e-12)[:, None, None])


def refit(
    gram: Gram, old: FloatArray, mask: Mask, share: float = RIDGE, workers: int = 1
) -> FloatArray:
    """The best rows (G, R, K) that are zero where ``mask`` is False, near ``old`` by the ridge.

    Full rows share one factorisation.  Rows with few survivors are solved exactly, ``|S|^3 / 3``
    operations each; when that would cost more than conjugate gradients on all rows of a group at
    once, ``2 K^2 R`` operations a step, those are used, to a relative residual of 1e-5.
    ``workers`` threads share the rows.
    """
    d = ridge(gram, share)
    right = gram.cross + d * old
    result = np.zeros_like(right)
    for g in range(len(right)):
        h = gram.inputs[g].copy()
        np.fill_diagonal(h, np.diagonal(h) + d[g])
        survivors = mask[g].sum(axis=1, dtype=np.float64)
        exact = float((survivors**3).sum()) / 3
        solve = _exact if exact <= 2 * h.size * len(right[g]) * _CG_STEPS / 4 else _masked_cg
        if mask[g].all():
            solve = _whole
        result[g] = solve(h, right[g], mask[g], np.where(mask[g], old[g], 0.0), workers)
    return result


def _whole(
    h: FloatArray, right: FloatArray, mask: Mask, start: FloatArray, workers: int = 1
) -> FloatArray:
    """All rows by one factorisation: none has lost a weight."""
    try:
        return np.asarray(cho_solve(cho_factor(h), right.T).T, np.float64)
    except LinAlgError:  # not positive by rounding
        return _masked_cg(h, right, mask, start)


def _exact(
    h: FloatArray, right: FloatArray, mask: Mask, start: FloatArray, workers: int = 1
) -> FloatArray:
    """Row by row, each with the factorisation of its own part of ``h``."""

    def solve(i: int) -> FloatArray:
        row: FloatArray = np.zeros_like(right[i])
        s = np.flatnonzero(mask[i])
        try:
            factor = cho_factor(h[np.ix_(s, s)], overwrite_a=True, check_finite=False)
            row[s] = cho_solve(factor, right[i, s], check_finite=False) if s.size else 0.0
        except LinAlgError:  # not positive by rounding: the old weights stay
            row[s] = start[i, s]
        return row

    with threadpool_limits(1, user_api="blas"):
        return np.stack(list(each(solve, range(len(right)), workers)))


def _masked_cg(
    h: FloatArray, right: FloatArray, mask: Mask, start: FloatArray, workers: int = 1
) -> FloatArray:
    """Jacobi-preconditioned conjugate gradients for all rows together, each in its own subspace."""
    inverse = 1.0 / np.diag(h)
    w = start.astype(np.float64)
    residual = np.where(mask, right - w @ h, 0.0)
    goal = _CG_TOLERANCE * np.linalg.norm(np.where(mask, right, 0.0), axis=1)
    z = residual * inverse
    direction = z.copy()
    rz = np.vecdot(residual, z)
    for _ in range(_CG_STEPS):
        active = np.linalg.norm(residual, axis=1) > goal
        if not active.any():
            break
        hp = np.where(mask, direction @ h, 0.0)
        curvature = np.vecdot(direction, hp)
        moving = active & (curvature > 0)
        step = np.divide(rz, curvature, out=np.zeros_like(rz), where=moving)[:, None]
        w += step * direction
        residual -= step * hp
        z = residual * inverse
        new = np.vecdot(residual, z)
        direction = z + np.divide(new, rz, out=np.zeros_like(rz), where=rz > 0)[:, None] * direction
        rz = new
    return w


def restore_variance(rows: FloatArray, gram: Gram, power: float) -> FloatArray:
    """Multiply each row by ``(sigma_d / sigma_fit) ** power``; a fit shrinks the variance."""
    fitted = gram.output_variance(rows)
    alive = fitted > 1e-12 * np.maximum(gram.var_y, 1e-300)
    ratio = np.divide(gram.var_y, fitted, out=np.ones_like(fitted), where=alive)
    return np.asarray(rows * (ratio ** (power / 2))[:, :, None])


def bias(gram: Gram, rows: FloatArray) -> FloatArray:
    """Bias (C,) with which the rows' outputs have the targets' means."""
    return np.asarray(gram.mean_y - np.vecdot(rows, gram.mean_x[:, None, :])).reshape(-1)
