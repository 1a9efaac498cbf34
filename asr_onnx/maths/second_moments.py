"""Second moments of a site's patches and targets: all that reconstruction knows of the data.

Sums run around the first batch's means, products in float32 over a bounded block, blocks in
float64: large means lose no digits and no activation is kept.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from asr_onnx.arrays import Float32Array, FloatArray
from asr_onnx.parallel import wide

_SLICE = 4096  # positions multiplied at a time


@dataclass(frozen=True)
class Gram:
    """Centred moments over ``count`` positions, per group g of G, with R rows and K inputs each.

    ``inputs`` = X'X / N (G, K, K), ``cross`` = Y'X / N (G, R, K), ``mean_x`` (G, K), ``mean_y`` and
    ``var_y`` (G, R).  Wide ``inputs`` are float32: they are large, and a ridge is far above that.
    """

    count: int
    inputs: FloatArray
    cross: FloatArray
    mean_x: FloatArray
    mean_y: FloatArray
    var_y: FloatArray

    def output_variance(self, rows: FloatArray) -> FloatArray:
        """Variance (G, R) of ``rows`` (G, R, K) times the patches."""
        return np.asarray(np.maximum(np.vecdot(self._times(rows), rows), 0.0))

    def error(self, rows: FloatArray) -> FloatArray:
        """Mean squared error (G, R) of ``rows`` against the targets, both centred."""
        fitted = np.vecdot(self._times(rows), rows) - 2 * np.vecdot(rows, self.cross)
        return np.asarray(np.maximum(self.var_y + fitted, 0.0))

    def _times(self, rows: FloatArray) -> FloatArray:
        """``rows H`` (G, R, K), in the precision of ``H``."""
        return rows.astype(self.inputs.dtype, copy=False) @ self.inputs

    def shrunk(self, rows: FloatArray) -> Gram:
        """The moments with what few positions say of how inputs go together taken back.

        ``H' = (1 - a) H + a diag(H)`` with ``a = K^2 / (K^2 + N^2)`` (shrinkage towards
        uncorrelated inputs, Ledoit & Wolf 2004, by a rule instead of an estimate: positions of one
        image are no independent samples); the target's share of it is what ``rows`` give of such
        inputs.
        """
        k = rows.shape[2]
        a = k**2 / (k**2 + self.count**2)
        diagonal = np.diagonal(self.inputs, axis1=1, axis2=2)
        inputs = (1 - a) * self.inputs
        inputs[:, np.arange(k), np.arange(k)] = diagonal
        own = rows * diagonal[:, None, :]
        return replace(
            self,
            inputs=inputs,
            cross=(1 - a) * self.cross + a * own,
            var_y=(1 - a) * self.var_y + a * np.vecdot(own, rows),
        )


class GramSums:
    """Running sums of patches and targets; ``update`` per block, ``result`` at the end.

    ``inputs`` = X'X / N, centred, of the very same patches saves summing it again when only the
    targets have changed.  Sums that share a ``pilot`` can be added.  With an ``offset`` (G, 1, K)
    patches come without it: they need no centring here.
    """

    def __init__(
        self,
        inputs: FloatArray | None = None,
        pilot: tuple[Float32Array, Float32Array] | None = None,
        offset: Float32Array | None = None,
    ) -> None:
        self._inputs, self._offset = inputs, offset
        self._count = 0
        self.pilot = pilot
        self._sums: dict[str, FloatArray] = {}

    def update(self, columns: Float32Array, targets: Float32Array) -> None:
        """Add patches (G, P, K) with targets (P, C)."""
        groups, _, k = columns.shape
        y = targets.reshape(len(targets), groups, -1)
        if self.pilot is None:
            offset = columns.mean(axis=1, keepdims=True) if self._offset is None else self._offset
            self.pilot = (offset, y.mean(axis=0, keepdims=True))
        if not self._sums:
            r = y.shape[2]
            shapes = {"x": (groups, k), "y": (groups, r), "yy": (groups, r), "yx": (groups, r, k)}
            if self._inputs is None:
                shapes["xx"] = (groups, k, k)
            self._sums = {name: np.zeros(shape) for name, shape in shapes.items()}
            if self._inputs is None and wide(k):
                self._sums["xx"] = self._sums["xx"].astype(np.float32)
        with np.errstate(over="ignore", invalid="ignore"):  # infinity shows in the moments
            for start in range(0, len(y), _SLICE):
                rows = slice(start, start + _SLICE)
                wanted = np.moveaxis(y[rows] - self.pilot[1], 1, 0)
                x = columns[:, rows]
                x = x - self.pilot[0] if self._offset is None else x
                self._add(x, np.ascontiguousarray(wanted))
        self._count += len(y)

    def _add(self, x: Float32Array, y: Float32Array) -> None:
        """A slice that fits a core's cache: float32 products (BLAS), float64 sums."""
        ones, sums = np.ones(x.shape[1], np.float32), self._sums
        sums["x"] += ones @ x
        sums["y"] += ones @ y
        sums["yy"] += ones @ np.square(y)
        sums["yx"] += y.transpose(0, 2, 1) @ x
        if self._inputs is None:
            sums["xx"] += x.transpose(0, 2, 1) @ x  # one operand: BLAS computes half and mirrors it

    def add(self, other: GramSums) -> None:
        """Take in what another, around the same pilot, has summed."""
        self._count += other._count
        for name, total in other._sums.items():
            self._sums[name] += total

    def result(self) -> Gram:
        """The moments, once; raises ``ValueError`` before the first block."""
        if self.pilot is None:
            raise ValueError("no batch was added")
        n = self._count
        sums = self._sums
        x, y = sums["x"] / n, sums["y"] / n
        inputs = self._inputs
        with np.errstate(over="ignore", invalid="ignore"):  # see update
            if inputs is None:
                inputs = sums["xx"]  # in place: it may be large
                inputs /= n
                mean = x.astype(inputs.dtype, copy=False)
                inputs -= mean[:, :, None] * mean[:, None, :]
            return Gram(
                count=n,
                inputs=inputs,
                cross=sums["yx"] / n - y[:, :, None] * x[:, None, :],
                mean_x=self.pilot[0][:, 0].astype(np.float64) + x,
                mean_y=self.pilot[1][0].astype(np.float64) + y,
                var_y=np.maximum(sums["yy"] / n - y * y, 0.0),
            )
