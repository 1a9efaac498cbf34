"""Samples in two halves that are alike: what is chosen on one is judged on the other."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]


def halves(labels: NDArray[np.int64], seed: int) -> tuple[Indices, Indices]:
    """Positions (ceil N/2,) and (floor N/2,) of samples with these ``labels`` (N,), in order.

    The draw follows from ``seed``.  Of each label both halves have as many, but for one; N > 1.
    """
    shuffled = np.random.default_rng(seed).permutation(len(labels))
    grouped = shuffled[np.argsort(labels[shuffled], kind="stable")]
    return np.sort(grouped[::2]), np.sort(grouped[1::2])
