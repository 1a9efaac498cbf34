"""A layer made of arrays, for solvers: no graph and no runtime."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from asr_onnx.maths.moments import paired_moments
from asr_onnx.maths.second_moments import GramSums


@dataclass
class ArrayLayer:
    """``rows`` (G, R, K) and ``bias`` (C,) map ``x`` (G, P, K) to outputs (P, C).

    The dense output is that of ``dense_x``, by default ``x``; every second position is held out.
    """

    x: np.ndarray
    rows: np.ndarray
    bias: np.ndarray
    dense_x: np.ndarray | None = None
    label: str = "layer"
    activation: object = None
    linear: bool = False
    last: bool = False
    workers: int = 1
    goals: list = field(default_factory=list)  # asked for so far

    def __post_init__(self):
        self.gain = np.ones(self.rows.shape[:2])
        seen = self.x if self.dense_x is None else self.dense_x
        self.dense = self.output(self.rows, self.bias, seen)

    def output(self, rows, bias, x=None):
        """(P, C)"""
        x = self.x if x is None else x
        return np.moveaxis(x @ rows.transpose(0, 2, 1), 0, 1).reshape(x.shape[1], -1) + bias

    def moments(self, rows):
        """On the positions solved on."""
        found = self.output(rows, self.bias)
        return paired_moments(self.dense[::2], found[::2], axis=1)

    def gram(self, goal=None, rows=None, bias=None):
        """On the positions solved on."""
        self.goals.append(goal)
        wanted = self.dense if goal is None else goal(self.dense, self.output(rows, bias))
        sums = GramSums()
        sums.update(self.x[:, ::2].astype(np.float32), wanted[::2].astype(np.float32))
        return sums.result()

    def error(self, rows, bias):
        """On those held out."""
        a, b = self.dense, self.output(rows, bias)
        if self.activation:
            a, b = self.activation(a), self.activation(b)
        return float(np.square(a - b)[1::2].sum())

    def spread(self):
        """Of the positions solved on."""
        y = self.activation(self.dense) if self.activation else self.dense
        return float(y[::2].var(axis=0).sum())


def array_layer(rng, groups=2, rows=3, k=12, positions=2000, noise=0.0, **more) -> ArrayLayer:
    """Correlated inputs with a mean; the dense network's differ by ``noise``."""
    x = rng.normal(size=(groups, positions, k)) @ rng.normal(size=(groups, k, k)) / np.sqrt(k)
    x += rng.normal(size=(groups, 1, k))
    return ArrayLayer(
        x,
        rng.normal(size=(groups, rows, k)),
        rng.normal(size=groups * rows),
        dense_x=x + noise * rng.normal(size=x.shape),
        **more,
    )
