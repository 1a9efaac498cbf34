"""How many weights each site keeps, for a given total."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from asr_onnx.arrays import Computed, FloatArray
from asr_onnx.errors import UsageError
from asr_onnx.maths.masks import Array, global_masks, row_norms
from asr_onnx.maths.removal import GRID

_POWER = 1.5  # of the errors whose sum is least
_LEAST = 0.2  # times the density of all: no layer gets less

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

    def relative(name: str) -> FloatArray:
        sizes = np.abs(np.asarray(weights[name], np.float64))
        return np.asarray(sizes / row_norms(sizes))

    masks = global_masks(Computed(weights, relative), sparsity)
    return np.array([m.mean() for m in masks.values()])


def erdos_renyi(weights: Mapping[str, Array], sparsity: float) -> FloatArray:
    """Erdos-Renyi-kernel: the sum of the weight's dimensions over its size.

    Evci et al. 2020, arXiv 1911.11134, appendix.
    """
    return np.array([sum(w.shape) / w.size for w in weights.values()])


def mixed(weights: Mapping[str, Array], sparsity: float) -> FloatArray:
    """The geometric mean of ``uniform`` and ``by_threshold``."""
    return np.asarray(np.sqrt(by_threshold(weights, sparsity)))


def by_error(errors: Mapping[str, FloatArray]) -> Density:
    """The densities whose layers' predicted errors, together, are least.

    ``errors`` of each site are those of ``removal.removal_errors``.  Least is the sum of their
    powers of 1.5, which was as good as any from 1 to 2 (docs/measurements.md).  Solved by one price
    for a weight, the same in all sites (Shoham & Gersho 1988), so that whole curves count and not
    their slopes at one place.
    """

    def densities(weights: Mapping[str, Array], sparsity: float) -> FloatArray:
        sizes = np.array([w.size for w in weights.values()], np.float64)
        costs = np.stack([errors[name] for name in weights]) ** _POWER
        least = _LEAST * (1 - sparsity) <= GRID
        return _at_one_price(costs[:, least], GRID[least], sizes, 1 - sparsity)

    return densities


def _at_one_price(
    costs: FloatArray, grid: FloatArray, sizes: FloatArray, density: float
) -> FloatArray:
    """The densities, of ``grid``, that keep a share ``density`` of the weights in all."""
    weights = np.outer(sizes / sizes.sum(), grid)
    low, high = -30.0, 30.0  # exponents of e: the price
    for _ in range(60):
        price = (low + high) / 2
        chosen = (costs + np.exp(price) * weights).argmin(axis=1)
        kept = float(weights[np.arange(len(sizes)), chosen].sum())
        low, high = (price, high) if kept > density else (low, price)
    return np.asarray(grid[chosen])


def _unpredicted(weights: Mapping[str, Array], sparsity: float) -> FloatArray:
    raise UsageError("allocation 'error' needs a pass of the dense network: see by_error")


def _searched(weights: Mapping[str, Array], sparsity: float) -> FloatArray:
    raise UsageError("allocation 'search' needs repairs: see repairing.allocation_search")


BY_ERROR, SEARCH = "error", "search"
SEARCHED = (BY_ERROR, "mixed", "uniform")  # that a search of the best tries
DENSITIES: dict[str, Density] = {
    BY_ERROR: _unpredicted,  # ``by_error`` takes its place once errors are known
    SEARCH: _searched,
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
