"""A pattern in as few layers as a sparsity needs: those it costs most for what it saves stay dense.

An N:M pattern takes the same share of every layer, so how many weights go is settled by how many
layers get it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from asr_onnx.arrays import FloatArray, Mask
from asr_onnx.errors import UsageError
from asr_onnx.graph.records import Site
from asr_onnx.graph.rows import to_rows
from asr_onnx.maths.masks import check_sparsity
from asr_onnx.maths.removal import GRID
from asr_onnx.pruning.choose import normalizes, site_scores
from asr_onnx.pruning.criteria import Score
from asr_onnx.pruning.patterns import Pattern, checked

SLACK = 1e-9  # of a share: 1 - 4/5 is a little less than 0.2


@dataclass(frozen=True)
class Sparing:
    """A pattern for all sites but those named in ``spared``, which stay dense."""

    pattern: Pattern
    spared: frozenset[str]

    def __str__(self) -> str:
        return str(self.pattern)

    @property
    def density(self) -> float | None:
        return self.pattern.density

    def feasible(self, site: Site) -> str | None:
        why = self.pattern.feasible(site)
        if why is None and site.name in self.spared:
            return "costs most for what it saves: stays dense, as the sparsity allows"
        return why

    def mask(self, scores: FloatArray, keep: int) -> Mask:
        return self.pattern.mask(scores, keep)


def check_share(pattern: Pattern, sparsity: float) -> None:
    """Raise ``UsageError`` for a sparsity outside [0, 1), or that the pattern cannot give."""
    check_sparsity(sparsity)
    if pattern.density is None:
        return
    if sparsity > most_zeros(pattern) + SLACK:
        raise UsageError(
            f"pattern {pattern} leaves at most {100 * most_zeros(pattern):g} % zeros: ask for "
            "less, or leave the sparsity out"
        )
    if not sparsity > 0:
        raise UsageError(
            f"pattern {pattern} with a sparsity of 0 prunes nothing: ask for more, or leave the "
            "sparsity out"
        )


def most_zeros(pattern: Pattern) -> float:
    """The share of zeros where all layers have the pattern; 1 where it leaves that open."""
    return 1.0 if pattern.density is None else 1 - pattern.density


def sparing(
    sites: Sequence[Site],
    pattern: Pattern,
    sparsity: float | None,
    costs: Callable[[], Mapping[str, float]],
) -> tuple[Pattern, tuple[Site, ...]]:
    """The pattern for as many of ``sites`` as it takes, and these; the others are spared.

    It takes as many as zero ``sparsity`` of all their weights together.  ``costs`` is called for
    what the pattern costs each, by name; see ``enough``.  Without a sparsity, and where the pattern
    leaves the density of a layer open, none is spared.
    """
    if sparsity is None or pattern.density is None:
        return pattern, tuple(sites)
    sizes = {s.name: s.weight.value.size for s in sites}
    saved = {name: size - round(pattern.density * size) for name, size in sizes.items()}
    wanted = max(1, round(sparsity * sum(sizes.values())))
    taken = enough(costs(), saved, wanted)
    chosen = tuple(s for s in sites if s.name in taken)
    return Sparing(pattern, frozenset(saved) - taken), chosen


def enough(costs: Mapping[str, float], saved: Mapping[str, int], wanted: int) -> frozenset[str]:
    """Names that together save ``wanted`` weights, at little cost; all that save any if need be.

    Those are taken first that cost least for each weight they save; the last is the cheapest that
    is enough, however much it saves.  Then those are given back that it is enough without, the most
    costly first: none of what is left could be spared.  Ties go by the order of ``saved``.

    >>> sorted(enough({"a": 1, "b": 3, "c": 9}, {"a": 10, "b": 20, "c": 40}, wanted=45))
    ['a', 'c']
    """
    order = sorted((n for n in saved if saved[n] > 0), key=lambda n: costs[n] / saved[n])
    taken, missing = [], wanted
    while missing > 0 and order:
        name = order[0]
        if saved[name] >= missing:
            name = min((n for n in order if saved[n] >= missing), key=costs.__getitem__)
        order.remove(name)
        taken.append(name)
        missing -= saved[name]
    for name in sorted(taken, key=costs.__getitem__, reverse=True):
        if missing + saved[name] <= 0:
            taken.remove(name)
            missing += saved[name]
    return frozenset(taken)


def predicted(errors: Mapping[str, FloatArray], pattern: Pattern) -> dict[str, float]:
    """What a site loses at the pattern's density, by name; its output's error over the variance.

    ``errors`` are those of ``removal.removal_errors``, of masks that are free within a layer: a
    pattern's are larger, in all layers.
    """
    return {name: float(np.interp(pattern.density or 0, GRID, e)) for name, e in errors.items()}


def energy_lost(
    sites: Sequence[Site], pattern: Pattern, score: Score, row_scale: str = "auto"
) -> dict[str, float]:
    """The share of a site's squared scores that the pattern drops, by name.

    Scores are those a threshold would compare: ``row_scale`` is that of ``masks_by_score``.
    """
    normalize = normalizes(sites, row_scale)
    found = {}
    for site in sites:
        rows = np.asarray(to_rows(site, site_scores(site, score, normalize)), np.float64)
        lost = float((rows[~checked(pattern, site, rows, 0)] ** 2).sum())
        total = float((rows**2).sum())
        found[site.name] = lost / total if total > 0 and math.isfinite(lost) else float(lost > 0)
    return found
