"""How many channels each group keeps, for a given cost of all products."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

import numpy as np

from asr_onnx.arrays import FloatArray, IntArray
from asr_onnx.errors import OutOfReachError

_SLACK = 1e-9  # relative, of a cost
_LEAST = 0.5  # times the share of the cost that stays: no group keeps a smaller share of its atoms


@dataclass(frozen=True)
class Costs:
    """What P products cost by how many atoms of each of G groups stay.

    A product costs ``unit`` (P,) for each pair of a channel it reads and one it makes.  ``reads``
    and ``makes`` (P, G + 1) are their numbers for each atom of a group and, last, those that stay
    whatever goes.
    """

    unit: FloatArray
    reads: FloatArray
    makes: FloatArray

    def __call__(self, kept: IntArray) -> float:
        """The cost of all products with ``kept`` (G,) atoms of each group."""
        every = np.append(kept, 1)
        return float(self.unit @ ((self.reads @ every) * (self.makes @ every)))

    def saved(self, kept: IntArray, group: int, fewer: IntArray) -> FloatArray:
        """What is saved if a group keeps ``fewer`` (n,) atoms, and the others what they have."""
        every = np.append(kept, 1)
        reads, makes = self.reads @ every, self.makes @ every
        r, m = self.reads[:, group], self.makes[:, group]
        less = kept[group] - fewer
        linear, square = self.unit @ (reads * m + makes * r), self.unit @ (r * m)
        return np.asarray(less * (linear - less * square))


def allocate(
    losses: Sequence[FloatArray], costs: Costs, budget: float, steps: Sequence[int]
) -> IntArray:
    """Atoms (G,) each group keeps, so that all products cost ``budget`` at most.

    ``losses[g]`` (A + 1,): what is lost with so many of a group's atoms gone, infinite if so many
    cannot go.  A group keeps all of
    its atoms or a multiple of its entry in ``steps``, and no small part of them: errors say little
    of a layer that passes on a few directions only (docs/measurements.md).  Greedy: again and again
    the removal, of any size, that loses least for what it saves, which takes each group along the
    convex hull of its losses; at the end what fits is given back.
    Raises ``OutOfReachError`` when the budget cannot be met.
    """
    whole = costs(np.array([len(lost) - 1 for lost in losses]))
    floor = _LEAST * budget / (whole or 1.0)
    both = zip(losses, steps, strict=True)
    allowed = [_allowed(lost, step, floor) for lost, step in both]
    least = np.array([a[0] for a in allowed], np.int64)
    kept = np.array([a[-1] for a in allowed], np.int64)
    if costs(least) > budget * (1 + _SLACK):
        share = costs(least) / (costs(kept) or 1.0)
        raise OutOfReachError(
            f"no more than {100 * (1 - share):.1f} % can go by removing channels: ask for less, or "
            "for a smaller channel multiple"
        )
    while (excess := costs(kept) - budget) > _SLACK * budget:
        group, to = _next(losses, costs, allowed, kept, excess)
        kept[group] = to
    while found := _given_back(losses, costs, allowed, kept, budget):
        kept[found[0]] = found[1]
    return kept


def _allowed(lost: FloatArray, step: int, floor: float) -> IntArray:
    """Numbers of atoms a group may keep, ascending."""
    atoms = len(lost) - 1
    least = max(1, ceil(floor * atoms / step)) * step
    kept = np.unique([*range(min(least, atoms), atoms, step), atoms])
    return np.asarray(kept[np.isfinite(lost[atoms - kept])])


def _next(
    losses: Sequence[FloatArray],
    costs: Costs,
    allowed: Sequence[IntArray],
    kept: IntArray,
    excess: float,
) -> tuple[int, int]:
    """The group that loses least for what it saves, and what it keeps.

    What would save more than the ``excess`` counts as saving that much.
    """
    best: tuple[float, float, int, int] | None = None
    for group, lost in enumerate(losses):
        fewer = allowed[group][allowed[group] < kept[group]]
        if not fewer.size:
            continue
        atoms = len(lost) - 1
        more = lost[atoms - fewer] - lost[atoms - kept[group]]
        saved = costs.saved(kept, group, fewer)
        price = more / np.maximum(np.minimum(saved, excess), 1e-300)
        at = int(np.lexsort((-saved, price))[0])
        entry = (float(price[at]), -float(saved[at]), group, int(fewer[at]))
        best = entry if best is None else min(best, entry)
    assert best, "the least that may be kept meets the budget"
    return best[2], best[3]


def _given_back(
    losses: Sequence[FloatArray],
    costs: Costs,
    allowed: Sequence[IntArray],
    kept: IntArray,
    budget: float,
) -> tuple[int, int] | None:
    """The group that gains most by what the budget still allows, and what it keeps then."""
    best: tuple[float, int, int] | None = None
    room = budget - costs(kept)
    for group, lost in enumerate(losses):
        more = allowed[group][allowed[group] > kept[group]]
        fits = more[-costs.saved(kept, group, more) <= room]
        if not fits.size:
            continue
        atoms = len(lost) - 1
        gain = float(lost[atoms - kept[group]] - lost[atoms - fits[-1]])
        if best is None or gain > best[0]:
            best = gain, group, int(fits[-1])
    return best[1:] if best else None
