"""How many weights each site keeps, for a given total."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from asr_onnx.arrays import FloatArray
from asr_onnx.errors import UsageError
from asr_onnx.maths.masks import Array, global_masks, row_norms

# Weights by site name, output channels first (C, ...), and the sparsity of all of them -> a number
# for each site that its density is proportional to.
Density = Callable[[Mapping[str, Array], float], FloatArray]


def uniform(weights: Mapping[str, Array], sparsity: float) -> FloatArray:
    """The same density everywhere."""
    return np.ones(len(weights))


def by_threshold(weights: Mapping[str, Array], sparsity: float) -> FloatArray:
    """The densities that one threshold on ``|w| / ||w_row||`` gives.

    They do not change when output channels are rescaled, as folding BatchNormalization does.
    """
    sizes = {name: np.abs(np.asarray(w, np.float64)) for name, w in weights.items()}
    masks = global_masks({name: s / row_norms(s) for name, s in sizes.items()}, sparsity)
    return np.array([m.mean() for m in masks.values()])


def erdos_renyi(weights: Mapping[str, Array], sparsity: float) -> FloatArray:
    """Erdos-Renyi-kernel: the sum of the weight's dimensions over its size.

    Evci et al. 2020, arXiv 1911.11134, appendix.
    """
    return np.array([sum(w.shape) / w.size for w in weights.values()])


def mixed(weights: Mapping[str, Array], sparsity: float) -> FloatArray:
    """The geometric mean of ``uniform`` and ``by_threshold``."""
    return np.asarray(np.sqrt(by_threshold(weights, sparsity)))


DENSITIES: dict[str, Density] = {
    "mixed": mixed,
    "global": by_threshold,
    "uniform": uniform,
    "erk": erdos_renyi,
}


def allocate(
    weights: Mapping[str, Array], sparsity: float, how: str | Density = "mixed"
) -> dict[str, int]:
    """Weights to keep per site; together exactly ``total - round(sparsity * total)``.

    ``how`` is one of ``DENSITIES``, or a function like them; ``weights`` are (C, ...).
    """
    sizes = np.array([w.size for w in weights.values()], np.float64)
    total = round(float(sizes.sum()))
    budget = total - round(sparsity * total)
    shares = np.asarray((how if callable(how) else DENSITIES[how])(weights, sparsity), np.float64)
    if shares.shape != sizes.shape or not (np.isfinite(shares) & (shares >= 0)).all():
        count = len(sizes)
        raise UsageError(f"the allocation gives {shares}, not {count} numbers of at least 0")
    counts = _exact(_scaled(shares, sizes, budget) * sizes, sizes, budget)
    return dict(zip(weights, (int(c) for c in counts), strict=True))


def _scaled(shares: FloatArray, sizes: FloatArray, budget: int) -> FloatArray:
    """Densities ``min(1, c * share)`` with ``c`` such that they use up the budget."""
    if not shares.any():
        shares = np.ones_like(shares)
    order = np.argsort(-shares, kind="stable")
    full = 0.0
    for position, i in enumerate(order):  # sites that are full leave their excess to the others
        rest = order[position:]
        c = (budget - full) / float((sizes[rest] * shares[rest]).sum() or 1.0)
        if c * shares[i] <= 1:
            break
        full += sizes[i]
    else:
        return np.ones_like(shares)
    return np.minimum(1.0, c * shares)


def _exact(wanted: FloatArray, sizes: FloatArray, budget: int) -> NDArray[np.int64]:
    """Whole numbers near ``wanted`` that sum up to ``budget``: largest remainders first."""
    counts = np.minimum(np.floor(wanted), sizes).astype(np.int64)
    while missing := budget - int(counts.sum()):
        room = counts < sizes if missing > 0 else counts > 0
        order = np.argsort(-np.where(room, wanted - counts, -np.inf), kind="stable")
        order = order if missing > 0 else order[::-1][: int(room.sum())]
        take = order[: min(abs(missing), int(room.sum()))]
        counts[take] += 1 if missing > 0 else -1
    return counts
