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


class CrossSums:
    """The targets' half of a ``Gram``, for targets that change while the patches stay."""

    def __init__(self) -> None:
        self.count = 0
        self._pilot: tuple[Rows, Rows] | None = None

    def update(self, columns: Rows, targets: Rows) -> tuple[Rows, Rows]:
        """Add patches (G, P, K) with targets (P, C); returns both, centred on the pilot means."""
        groups = len(columns)
        y = np.moveaxis(targets.reshape(len(targets), groups, -1), 1, 0)  # (G, P, R)
        if self._pilot is None:
            self._pilot = (columns.mean(axis=1, keepdims=True), y.mean(axis=1, keepdims=True))
            k, r = columns.shape[2], y.shape[2]
            self._x, self._y, self._yy = (
                np.zeros((groups, k)),
                np.zeros((groups, r)),
                np.zeros((groups, r)),
            )
            self._yx = np.zeros((groups, r, k))
        x, y = columns - self._pilot[0], y - self._pilot[1]
        self._x += x.sum(axis=1, dtype=np.float64)
        self._y += y.sum(axis=1, dtype=np.float64)
        self._yy += np.square(y, dtype=np.float64).sum(axis=1)
        self._yx += y.transpose(0, 2, 1) @ x
        self.count += len(targets)
        return x, y

    @property
    def offset(self) -> Array:
        """Mean of the patches (G, K) from the pilot mean."""
        return self._x / self.count

    def result(self, inputs: Array) -> Gram:
        """The moments so far, with ``inputs`` = X'X / N, centred, of the same patches."""
        if self._pilot is None:
            raise ValueError("no batch was added")
        n = self.count
        x, y = self._x / n, self._y / n
        pilot_x, pilot_y = (p[:, 0].astype(np.float64) for p in self._pilot)
        return Gram(
            count=n,
            inputs=inputs,
            cross=self._yx / n - y[:, :, None] * x[:, None, :],
            mean_x=pilot_x + x,
            mean_y=pilot_y + y,
            var_y=np.maximum(self._yy / n - y * y, 0.0),
        )


class GramSums:
    """Running sums of patches and targets; ``update`` per block, ``result`` at the end."""

    def __init__(self) -> None:
        self._cross = CrossSums()
        self._xx: Array | None = None

    def update(self, columns: Rows, targets: Rows) -> None:
        """Add patches (G, P, K) with targets (P, C)."""
        x, _ = self._cross.update(columns, targets)
        if self._xx is None:
            self._xx = np.zeros((len(x), x.shape[2], x.shape[2]))
        for total, block in zip(self._xx, x, strict=True):
            total += block.T @ block  # one operand: BLAS computes half and mirrors it

    def result(self) -> Gram:
        """The moments so far; raises ``ValueError`` before the first block."""
        if self._xx is None:
            raise ValueError("no batch was added")
        mean = self._cross.offset
        centred = self._xx / self._cross.count - mean[:, :, None] * mean[:, None, :]
        return self._cross.result(centred)
