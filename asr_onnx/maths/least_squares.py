"""Re-fit the surviving weights to the dense output: masked least squares on second moments.

``w_S = (H_SS + d I)^-1 (G_S + d w0_S)`` for each row, with ``S`` its surviving positions,
``H = X'X / N``, ``G = Y'X / N`` and the ridge ``d`` towards the old weights (AdaPrune, Hubara et
al. 2021; OBC, Frantar & Alistarh 2022, arXiv 2208.11580, for the objective).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.linalg.lapack import dpotrf, dpotrs, spotrf, spotrs
from threadpoolctl import threadpool_limits

from asr_onnx.arrays import FloatArray, Mask
from asr_onnx.maths.second_moments import Gram
from asr_onnx.parallel import each

RIDGE = 0.01  # share of the mean of H's diagonal

_SMALL = 64  # survivors up to which a row's inverse is cheaper than a call for it
_PADDED = 1 << 21  # elements inverted at a time
_TOGETHER = 32  # rows that a thread takes at a time
_KEPT = 1 << 25  # elements of factors that are kept: 256 MiB
_CG_STEPS = 200
_CG_TOLERANCE = 1e-5


def ridge(gram: Gram, share: float = RIDGE) -> FloatArray:
    """``d = share * mean(diag H)`` per group, shape (G, 1, 1); positive even for a dead input."""
    diagonal = np.diagonal(gram.inputs, axis1=1, axis2=2)
    return np.asarray(np.maximum(share * diagonal.mean(axis=1), 1e-12)[:, None, None])


class Refit:
    """The best rows (G, R, K) that are zero where ``mask`` is False, near ``old`` by the ridge.

    Factorised once, for any number of targets on the inputs of ``gram``.  Groups with no weight
    lost share one factorisation among their rows; else each row has its own, ``|S|^3 / 3``
    operations, small ones many at a time.  Where that would cost more than conjugate gradients on
    all rows of a group at once, ``2 K^2 R`` operations a step, those are used.  ``workers`` threads
    share the rows.
    """

    def __init__(
        self, gram: Gram, old: FloatArray, mask: Mask, share: float = RIDGE, workers: int = 1
    ) -> None:
        d = ridge(gram, share)
        k = old.shape[2]
        h = gram.inputs.copy()
        h[:, np.arange(k), np.arange(k)] += d[:, 0].astype(h.dtype)
        survivors = mask.sum(axis=2)
        exact = (survivors.astype(np.float64) ** 3).sum(axis=1) / 3
        small = survivors.max(axis=1) <= _SMALL
        whole = ~small & (survivors == k).all(axis=1)
        dear = ~small & ~whole & (exact > 2 * k**2 * mask.shape[1] * _CG_STEPS / 4)
        rest = ~(small | whole | dear)
        self._mask, self._old, self._towards_old = mask, old, d * old
        self._ways: list[tuple[NDArray[np.intp], _Way]] = []
        makers: tuple[type[_Way], ...] = (_Small, _Whole, _Gradients, _Rows)
        for make, chosen in zip(makers, (small, whole, dear, rest), strict=True):
            groups = np.flatnonzero(chosen)
            if groups.size:
                part = h if groups.size == len(h) else h[groups]
                self._ways.append((groups, make(part, mask[groups], workers)))

    def __call__(self, cross: FloatArray, start: FloatArray | None = None) -> FloatArray:
        """Rows for the ``cross`` moments (G, R, K) of a target; ``start`` may be near them."""
        right = cross + self._towards_old
        start = np.where(self._mask, self._old if start is None else start, 0.0)
        result = np.empty_like(right)
        for groups, way in self._ways:
            result[groups] = way(right[groups], start[groups])
        return result


def refit(
    gram: Gram, old: FloatArray, mask: Mask, share: float = RIDGE, workers: int = 1
) -> FloatArray:
    """``Refit`` for the one target that ``gram`` has."""
    return Refit(gram, old, mask, share, workers)(gram.cross)


class _Way(Protocol):
    """One way to solve, for some groups: made of their ``h``, mask and the number of threads."""

    def __init__(self, h: FloatArray, mask: Mask, workers: int) -> None: ...

    def __call__(self, right: FloatArray, start: FloatArray) -> FloatArray: ...


class _Whole:
    """All rows by one factorisation: none has lost a weight."""

    def __init__(self, h: FloatArray, mask: Mask, workers: int) -> None:
        self._factors = [_cholesky(m.copy()) for m in h]
        self._failed = any(f is None for f in self._factors)
        self._otherwise = _Gradients(h, mask, workers)

    def __call__(self, right: FloatArray, start: FloatArray) -> FloatArray:
        found = self._otherwise(right, start) if self._failed else np.empty_like(right)
        for rows, factor, y in zip(found, self._factors, right, strict=True):
            if factor is not None:
                rows[:] = _solve(factor, y.T).T
        return found


class _Small:
    """Rows with few survivors, many at a time: inverses of their parts of ``h``, padded."""

    def __init__(self, h: FloatArray, mask: Mask, workers: int) -> None:
        flat = mask.reshape(-1, mask.shape[2])
        sizes = flat.sum(axis=1)
        self._parts = []
        for rows in _alike(sizes):
            size = sizes[rows].max()
            # Survivors in their order, then as many others as make up for the largest row.
            index = np.argsort(~flat[rows], axis=1, kind="stable")[:, :size]
            kept = np.take_along_axis(flat[rows], index, axis=1)
            group = (rows // mask.shape[1])[:, None, None]
            part = h[group, index[:, :, None], index[:, None, :]]
            part = np.where(kept[:, :, None] & kept[:, None, :], part, np.eye(size))  # float64
            self._parts.append((rows, index, kept, np.linalg.inv(part)))

    def __call__(self, right: FloatArray, start: FloatArray) -> FloatArray:
        result = np.zeros_like(start).reshape(-1, start.shape[2])
        for rows, index, kept, inverse in self._parts:
            y = np.take_along_axis(right.reshape(result.shape)[rows], index, axis=1)
            found = (inverse @ np.where(kept, y, 0.0)[:, :, None])[:, :, 0]
            result[rows[:, None], index] = found
        return result.reshape(start.shape)


def _alike(sizes: NDArray[np.intp]) -> Iterator[NDArray[np.intp]]:
    """Rows of similar size in sets whose padded matrices are a bounded number of elements."""
    order = np.argsort(sizes, kind="stable")
    while order.size:
        elements = np.arange(1, order.size + 1) * sizes[order].astype(np.float64) ** 2
        count = max(1, int(np.searchsorted(elements, _PADDED, side="right")))
        yield order[:count]
        order = order[count:]


class _Rows:
    """Row by row, each with the factorisation of its own part of ``h``; kept while they are few."""

    def __init__(self, h: FloatArray, mask: Mask, workers: int) -> None:
        self._h, self._workers = h, workers
        self._survivors = [[np.flatnonzero(row) for row in group] for group in mask]
        self._known: dict[tuple[int, int], FloatArray | None] = {}
        self._room = _KEPT

    def __call__(self, right: FloatArray, start: FloatArray) -> FloatArray:
        places = [(g, r) for g, rows in enumerate(self._survivors) for r in range(len(rows))]

        def solve(places: list[tuple[int, int]]) -> list[FloatArray]:
            return [self._solved(place, right[place], start[place]) for place in places]

        parts = [places[n : n + _TOGETHER] for n in range(0, len(places), _TOGETHER)]
        with threadpool_limits(1, user_api="blas"):
            rows = [row for part in each(solve, parts, self._workers) for row in part]
        return np.stack(rows).reshape(right.shape)

    def _solved(self, place: tuple[int, int], right: FloatArray, start: FloatArray) -> FloatArray:
        row: FloatArray = np.zeros(right.size)
        survivors = self._survivors[place[0]][place[1]]
        if not survivors.size:
            return row
        factor = self._factor(place, survivors)
        if factor is None:  # not positive by rounding: the old weights stay
            return start
        row[survivors] = _solve(factor, right[survivors])
        return row

    def _factor(self, place: tuple[int, int], survivors: NDArray[np.intp]) -> FloatArray | None:
        if place in self._known:
            return self._known[place]
        part = self._h[place[0]].take(survivors, axis=0).take(survivors, axis=1)
        factor = _cholesky(part)  # two takes are several times as fast as np.ix_
        if self._room > 0:
            self._room -= survivors.size**2
            self._known[place] = factor
        return factor


def _cholesky(h: FloatArray) -> FloatArray | None:
    """The factor of ``h``, which it overwrites; ``None`` for what is not positive by rounding."""
    factorise = spotrf if h.dtype == np.float32 else dpotrf  # without SciPy's wrapping: many rows
    factor, failed = factorise(h.T, overwrite_a=1)
    return None if failed else np.asarray(factor)


def _solve(factor: FloatArray, right: FloatArray) -> FloatArray:
    single = factor.dtype == np.float32
    found, _ = (spotrs if single else dpotrs)(factor, right.astype(factor.dtype, copy=False))
    return np.asarray(found)


class _Gradients:
    """Jacobi-preconditioned conjugate gradients for all rows together, each in its own subspace."""

    def __init__(self, h: FloatArray, mask: Mask, workers: int) -> None:
        self._h, self._mask = h, mask

    def __call__(self, right: FloatArray, start: FloatArray) -> FloatArray:
        parts = zip(self._h, right, self._mask, start, strict=True)
        return np.stack([_gradients(*part) for part in parts])


def _gradients(h: FloatArray, right: FloatArray, mask: Mask, start: FloatArray) -> FloatArray:
    """Rows (R, K) for one group; ``start`` is zero where the mask is."""
    inverse = 1.0 / np.diag(h)
    w = start.copy()
    residual = np.where(mask, right - w.astype(h.dtype, copy=False) @ h, 0.0)
    goal = _CG_TOLERANCE * np.linalg.norm(np.where(mask, right, 0.0), axis=1)
    z = residual * inverse
    direction = z.copy()
    rz = np.vecdot(residual, z)
    for _ in range(_CG_STEPS):
        active = np.linalg.norm(residual, axis=1) > goal
        if not active.any():
            break
        hp = np.where(mask, direction.astype(h.dtype, copy=False) @ h, 0.0)
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
