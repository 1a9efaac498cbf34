"""How alike two arrays of many samples are, in units of how much the first one varies.

Deviations are taken from each element's mean over the samples, so that an array that ignores its
input has none, however large it is.  Elements may be of different units (boxes in pixels next to
scores): each index along the shortest axis behind the samples', which is rarely anything but
channels or time steps, is a group with a scale of its own.
"""

from __future__ import annotations

import math

import numpy as np

from asr_onnx.arrays import FloatArray

_FEW = 4  # samples from which on each element's own mean says something
_CONSTANT = 1e-10  # of a group's mean square: less is no variation but rounding
_MOST = 4.0  # times its variance is the most that one group's squared error counts: it is lost


class Likeness:
    """Sums over batches (B, ...) of a reference and another array; nothing else is kept.

    ``shape`` is that of the first batch.  Batches may differ in shape; both arrays of one are alike
    in it.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        inner = shape[1:]
        filled = [axis for axis, size in enumerate(inner, 1) if size]
        self._axis = min(filled, key=shape.__getitem__) if filled and len(inner) > 1 else None
        groups = 1 if self._axis is None else shape[self._axis]
        self._shape: tuple[int, ...] | None = inner  # None once batches differ in shape
        self._spoiled = False
        self._count = 0  # of samples
        self._sums = {name: np.zeros(groups) for name in ("n", "a", "b", "aa", "bb", "ab", "ee")}
        self._a, self._b = np.zeros(inner), np.zeros(inner)

    def update(self, a: FloatArray, b: FloatArray) -> None:
        """Add a batch of the reference ``a`` and of the other array, ``b``."""
        known = np.isfinite(a) & np.isfinite(b)
        if not known.all():
            # What is infinite or NaN in both says nothing; in one, that all is lost.
            self._spoiled |= not (known | (a == b) | (np.isnan(a) & np.isnan(b))).all()
            a, b = np.where(known, a, 0.0), np.where(known, b, 0.0)
        if a.shape[1:] != self._shape:
            self._shape = None
            if self._axis is not None and a.shape[self._axis : self._axis + 1] != (self._groups,):
                self._axis = None
                self._sums = {name: s.sum(keepdims=True) for name, s in self._sums.items()}
        else:
            self._a += a.sum(axis=0)
            self._b += b.sum(axis=0)
        self._count += len(a)
        e = self._split(a - b)
        a, b = self._split(a), self._split(b)
        found = {"n": a.size / self._groups, "a": a.sum(axis=(0, 2)), "b": b.sum(axis=(0, 2))}
        found |= {"aa": _dot(a, a), "bb": _dot(b, b), "ab": _dot(a, b), "ee": _dot(e, e)}
        for name, values in found.items():
            self._sums[name] = self._sums[name] + values

    @property
    def _groups(self) -> int:
        return len(self._sums["n"])

    def _split(self, y: FloatArray) -> FloatArray:
        """(before, groups, behind)"""
        if self._axis is None:
            return y.reshape(1, 1, y.size)
        before, behind = y.shape[: self._axis], y.shape[self._axis + 1 :]
        return y.reshape(math.prod(before), self._groups, math.prod(behind))

    def result(self) -> tuple[float, float]:
        """Mean cosine of the deviations in each group, and relative error.

        The error is the root of the mean over groups of squared difference over variance: 0 for
        equal arrays, about 1 for one that is lost; infinite where NaN or Inf stand in one alone.
        """
        s = self._sums
        if self._spoiled:
            return 0.0, math.inf
        if not s["ee"].any():
            return 1.0, 0.0
        aa, bb, ab = self._of_means()
        aa, bb = (_variation(s[n], of_means) for n, of_means in (("aa", aa), ("bb", bb)))
        if not aa.any():  # a constant: what the other differs by, in units of itself
            size = float(s["aa"].sum())
            return 0.0, math.sqrt(float(s["ee"].sum()) / size) if size else math.inf
        ratio = s["ee"] / np.where(aa > 0, aa, aa.sum() / len(aa))
        if len(ratio) > 1:
            ratio = np.minimum(ratio, _MOST)
        norm = np.sqrt(aa * bb)
        cosine = np.divide(s["ab"] - ab, norm, out=np.zeros_like(norm), where=norm > 0)[aa > 0]
        return float(np.clip(cosine, -1, 1).mean()), math.sqrt(float(ratio.mean()))

    def _of_means(self) -> tuple[FloatArray, FloatArray, FloatArray]:
        """What the sums of products would be if every element were its mean.

        Of few samples, or batches of several shapes, that is the group's mean.
        """
        s = self._sums
        if self._shape is None or self._count < _FEW:
            n = np.maximum(s["n"], 1)
            return s["a"] * s["a"] / n, s["b"] * s["b"] / n, s["a"] * s["b"] / n
        a, b = (self._split(m[None] / self._count) for m in (self._a, self._b))
        return self._count * _dot(a, a), self._count * _dot(b, b), self._count * _dot(a, b)


def _dot(a: FloatArray, b: FloatArray) -> FloatArray:
    """Products summed within each group."""
    found: FloatArray = np.einsum("pgq,pgq->g", a, b)
    return found


def _variation(squares: FloatArray, of_means: FloatArray) -> FloatArray:
    """Sum of squared deviations, 0 where rounding is all there is."""
    found = np.maximum(squares - of_means, 0.0)
    found[found <= _CONSTANT * squares] = 0.0
    return found
