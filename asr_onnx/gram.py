"""Second moments of a site's patches and targets: all that reconstruction knows of the data.

Sums run around the first batch's means, products in float32 over a bounded block, blocks in
float64: large means lose no digits and no activation is kept.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Rows = NDArray[np.float32]

_SLICE = 4096  # positions multiplied at a time


@dataclass(frozen=True)
class Gram:
    """Centred moments over ``count`` positions, per group g of G, with R rows and K inputs each.

    ``inputs`` = X'X / N (G, K, K), ``cross`` = Y'X / N (G, R, K), ``mean_x`` (G, K), ``mean_y`` and
    ``var_y`` (G, R).
    """

    count: int
    inputs: Array
    cross: Array
    mean_x: Array
    mean_y: Array
    var_y: Array

    def output_variance(self, rows: Array) -> Array:
        """Variance (G, R) of ``rows`` (G, R, K) times the patches."""
        return np.asarray(np.maximum(np.vecdot(rows @ self.inputs, rows), 0.0))

    def error(self, rows: Array) -> Array:
        """Mean squared error (G, R) of ``rows`` against the targets, both centred."""
        fitted = np.vecdot(rows @ self.inputs, rows) - 2 * np.vecdot(rows, self.cross)
        return np.asarray(np.maximum(self.var_y + fitted, 0.0))


class GramSums:
    """Running sums of patches and targets; ``update`` per block, ``result`` at the end.

    ``inputs`` = X'X / N, centred, of the very same patches saves summing it again when only the
    targets have changed.
    """

    def __init__(self, inputs: Array | None = None) -> None:
        self._inputs = inputs
        self._count = 0
        self._pilot: tuple[Rows, Rows] | None = None

    def update(self, columns: Rows, targets: Rows) -> None:
        """Add patches (G, P, K) with targets (P, C)."""
        groups, _, k = columns.shape
        y = targets.reshape(len(targets), groups, -1)
        if self._pilot is None:
            self._pilot = (columns.mean(axis=1, keepdims=True), y.mean(axis=0, keepdims=True))
            r = y.shape[2]
            self._x, self._y = np.zeros((groups, k)), np.zeros((groups, r))
            self._yy, self._yx = np.zeros((groups, r)), np.zeros((groups, r, k))
            self._xx = None if self._inputs is not None else np.zeros((groups, k, k))
        for start in range(0, len(y), _SLICE):
            rows = slice(start, start + _SLICE)
            for g in range(groups):
                self._add(
                    g, columns[g, rows] - self._pilot[0][g], y[rows, g] - self._pilot[1][0, g]
                )
        self._count += len(y)

    def _add(self, g: int, x: Rows, y: Rows) -> None:
        """A slice that fits a core's cache: float32 products, float64 sums."""
        ones = np.ones(len(x), np.float32)
        self._x[g] += ones @ x
        self._y[g] += ones @ y
        self._yy[g] += ones @ np.square(y)
        self._yx[g] += y.T @ x
        if self._xx is not None:
            self._xx[g] += x.T @ x  # one operand: BLAS computes half and mirrors it

    def result(self) -> Gram:
        """The moments so far; raises ``ValueError`` before the first block."""
        if self._pilot is None:
            raise ValueError("no batch was added")
        n = self._count
        x, y = self._x / n, self._y / n
        inputs = self._inputs
        if self._xx is not None:
            inputs = self._xx / n - x[:, :, None] * x[:, None, :]
        assert inputs is not None
        return Gram(
            count=n,
            inputs=inputs,
            cross=self._yx / n - y[:, :, None] * x[:, None, :],
            mean_x=self._pilot[0][:, 0].astype(np.float64) + x,
            mean_y=self._pilot[1][0].astype(np.float64) + y,
            var_y=np.maximum(self._yy / n - y * y, 0.0),
        )
