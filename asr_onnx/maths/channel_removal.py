"""Which input channels go, and what that costs: optimal brain surgeon over blocks of weights.

Removing a channel zeroes all that a layer's weights have for it: each position of the kernel in
each row.  With the others of a row making up for it as well as they can, a set ``S`` of positions
costs ``tr(W_S [(H^-1)_SS]^-1 W_S')`` (Hassibi & Stork 1992 for one weight; OBC, Frantar & Alistarh
2022, arXiv 2208.11580, section 4, for blocks).  What stands or falls together is an *atom*.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from asr_onnx.arrays import FloatArray, IntArray
from asr_onnx.maths.least_squares import ridge
from asr_onnx.maths.second_moments import Gram

_LOST = 1 - 1e-6  # the error from which on nothing is left
_STEPS = 64  # in which all of a group are removed: the atoms of a step go together


@dataclass(frozen=True)
class Removal:
    """The order in which atoms go (A,), and the ``errors`` (A + 1, readers) with 0, 1, ... gone.

    An error is a reader's squared error over the variance of what it passes on.
    """

    order: IntArray
    errors: FloatArray

    @property
    def costs(self) -> FloatArray:
        """What it costs (A + 1,) that so many are gone: ``-log(1 - error)``, summed over readers.

        Of the signal a share ``1 - error`` goes on, and what goes on in a chain of layers is their
        product: a layer that lets nothing through is not made up for by others that lose nothing.
        """
        return np.asarray(-np.log1p(-np.minimum(self.errors, _LOST)).sum(axis=1))

    def sparing(self, sets: Sequence[IntArray]) -> Removal:
        """The removal with the last atom of each of ``sets`` left out: it does not go."""
        place = np.argsort(self.order)
        goes = np.ones(self.order.size, bool)
        goes[[int(place[s].max()) for s in sets]] = False
        return Removal(self.order[goes], self.errors[np.append(True, goes)])


@dataclass(frozen=True)
class Reader:
    """What a layer reads of a group's atoms, at ``S`` of the K positions of its patches.

    ``inverse`` (G, S, K): the positions' part of ``H^-1``; ``at`` (S,) are the positions, and
    ``places`` has for each atom its own among them.  ``rows`` (G, R, S): the dense ones there;
    ``importance`` (G, R) weighs each row's error.  ``total``: the variance of what the layer passes
    on.
    """

    inverse: FloatArray
    rows: FloatArray
    importance: FloatArray
    at: IntArray
    places: Sequence[IntArray]
    total: float

    def change(self, atoms: IntArray) -> FloatArray:
        """What makes up for ``atoms`` that go, added to the rows (G, R, K): there they are zero."""
        gone = np.concatenate([self.places[a] for a in atoms])
        part = self.inverse[:, gone]
        found = self.rows[:, :, gone] @ np.linalg.solve(part[:, :, self.at[gone]], part)
        found[:, :, self.at[gone]] = self.rows[:, :, gone]
        return np.asarray(-found, np.float64)


def readers(
    gram: Gram,
    rows: FloatArray,
    importance: FloatArray,
    places: Sequence[Sequence[IntArray]],
    total: float,
) -> list[Reader]:
    """A layer of ``rows`` (G, R, K) as the reader of groups of atoms, by one inverse.

    ``places`` has for each group, for each of its atoms, where it lies among K; ``importance``
    (G, R) weighs each row's error; ``total``: see ``Reader``.
    """
    h = gram.inputs.copy()
    diagonal = np.arange(h.shape[1])
    h[:, diagonal, diagonal] += ridge(gram)[:, 0].astype(h.dtype)
    inverse = np.asarray(np.linalg.inv(h), h.dtype)
    found = []
    for group in places:
        every = np.concatenate(group)
        starts = np.cumsum([0, *map(len, group)])
        inner = [np.arange(a, b) for a, b in pairwise(starts)]
        part: FloatArray = np.asarray(rows[:, :, every], h.dtype)
        found.append(Reader(inverse[:, every], part, importance, every, inner, total))
    return found


def measured(removal: Removal, gone: Sequence[int], errors: Sequence[float]) -> Removal:
    """The removal, costing what was measured with so many atoms ``gone``, ascending.

    Between these it is interpolated; with all of them gone nothing is left.
    """
    atoms = removal.order.size
    rising = np.maximum.accumulate([0.0, *np.minimum(errors, 1.0), 1.0])
    found = np.interp(np.arange(atoms + 1), [0, *gone, atoms], rising)
    return Removal(removal.order, found[:, None])


def eliminate(readers: Sequence[Reader]) -> Removal:
    """Remove all of a group's atoms, those first that cost all ``readers`` together least.

    A removal changes what others cost, by the Schur complement of ``H^-1``, which needs no more
    than the group's own part of it.
    """
    working = [_Elimination(r) for r in readers]
    left = np.arange(len(readers[0].places))
    step = max(1, left.size // _STEPS)
    order: list[int] = []
    errors = [np.zeros(len(readers))]
    while left.size:
        each = np.sum([w.costs(left) for w in working], axis=0)
        chosen = left[np.argsort(each, kind="stable")[:step]]
        lost = np.array([w.remove(chosen) for w in working])
        errors += [errors[-1] + lost * n / chosen.size for n in range(1, chosen.size + 1)]
        order += chosen.tolist()
        left = left[~np.isin(left, chosen)]
    return Removal(np.array(order, np.int64), np.array(errors))


class _Elimination:
    """A reader while its atoms go."""

    def __init__(self, reader: Reader) -> None:
        self._inverse = reader.inverse[:, :, reader.at]
        self._rows = reader.rows * reader.importance[:, :, None].astype(reader.rows.dtype)
        self._places = reader.places
        self._scale = 1.0 / reader.total if reader.total > 0 else 0.0  # a constant loses nothing

    def costs(self, atoms: IntArray) -> FloatArray:
        """What each atom costs if it goes next."""
        found = np.zeros(atoms.size)
        sizes = np.array([len(self._places[a]) for a in atoms])
        for size in np.unique(sizes):
            same = np.flatnonzero(sizes == size)
            at = np.stack([self._places[a] for a in atoms[same]])  # (n, s)
            blocks = self._inverse[:, at[:, :, None], at[:, None, :]]  # (G, n, s, s)
            w = np.moveaxis(self._rows[:, :, at], 1, -1)  # (G, n, s, R)
            found[same] = (w * np.linalg.solve(blocks, w)).sum(axis=(0, 2, 3))
        return found * self._scale

    def remove(self, atoms: IntArray) -> float:
        """Let atoms go, the others making up for them; what that costs."""
        at = np.concatenate([self._places[a] for a in atoms])
        w, part = self._rows[:, :, at], self._inverse[:, at]  # (G, R, s), (G, s, S)
        block = part[:, :, at]
        cost = (w.transpose(0, 2, 1) * np.linalg.solve(block, w.transpose(0, 2, 1))).sum()
        gains = np.linalg.solve(block, part)
        self._rows -= w @ gains
        self._inverse -= part.transpose(0, 2, 1) @ gains
        return float(cost) * self._scale


def by_scores(scores: Sequence[FloatArray]) -> Removal:
    """The removal by scores alone: atoms go in their order, the error is their share of all.

    ``scores`` (A + 1,) of each reader are those of the atoms and, last, of all else it reads.
    """
    shares = np.stack([s / (s.sum() or 1.0) for s in scores], axis=1)[:-1]
    order = np.argsort(shares.sum(axis=1), kind="stable")
    gone = np.cumsum(shares[order], axis=0)
    return Removal(order, np.concatenate([np.zeros((1, len(scores))), gone]))
