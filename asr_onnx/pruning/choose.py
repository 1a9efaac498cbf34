"""Which sites are pruned, and the masks they get."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import closing
from functools import partial

import numpy as np

from asr_onnx.arrays import AnyArray, Computed, FloatArray, Mask
from asr_onnx.errors import UsageError
from asr_onnx.graph.operators import OPERATORS
from asr_onnx.graph.records import Patch, Site, Skipped
from asr_onnx.graph.rows import channels_first, from_rows, to_rows
from asr_onnx.graph.tensor_values import Held, InFile, Scratch, opened
from asr_onnx.maths.densities import Density, allocate
from asr_onnx.maths.fixed_filters import fixed_filter
from asr_onnx.maths.masks import global_masks, row_norms
from asr_onnx.pruning.criteria import Choose, Criterion, Score
from asr_onnx.pruning.patterns import Pattern, Unstructured, checked

ROW_SCALES = ("auto", "keep", "normalize")

Choice = Mask | Choose  # in the weight's shape, or what finds it (G, R, K) in the layer's data


def prunable(
    sites: Sequence[Site],
    ops: Sequence[str],
    pattern: Pattern,
    include: str | None = None,
    exclude: str | None = None,
) -> tuple[Site, ...]:
    """The sites of the operators ``ops`` that can have the pattern, in the model's order.

    Their weight or node name is found by the regular expression ``include`` and not by ``exclude``.
    Without ``include`` fixed filters are left out.
    Raises ``UsageError`` for a broken expression or when nothing is left.
    """
    chosen = [s for s in sites if s.op in ops and named("include", include, s)]
    chosen = [s for s in chosen if not excluded(s, exclude)]
    if not chosen:
        raise UsageError("include and exclude leave nothing to prune")
    if include is None:
        chosen = [s for s in chosen if not fixed(s)]
        if not chosen:
            raise UsageError("all that could be pruned are fixed filters: name some by --include")
    found = tuple(s for s in chosen if pattern.feasible(s) is None)
    if not found:
        why = f"{chosen[0].label}: {pattern.feasible(chosen[0])}"
        raise UsageError(f"no site can hold the pattern {pattern} ({why})")
    return found


def named(option: str, expression: str | None, site: Site) -> bool:
    """Whether the expression finds the site's weight or its node; without one it finds all."""
    found = compiled(option, expression)
    return any(found.search(n) for n in (site.name, site.node))


def excluded(site: Site, exclude: str | None) -> bool:
    """Whether a site is to stay as it is, linear heads included; see ``prunable``."""
    return bool(exclude) and named("exclude", exclude, site)


def compiled(name: str, expression: str | None) -> re.Pattern[str]:
    """A regular expression; without one, what finds everything; ``UsageError`` if broken."""
    try:
        return re.compile(expression or "")
    except re.error as error:
        raise UsageError(f"{name} '{expression}' is not a regular expression: {error}") from None


def fixed(site: Site) -> str:
    """Why a site's weight looks written down rather than learned; empty if it does not."""
    if OPERATORS[site.op].linear:
        return ""
    return fixed_filter(channels_first(site))


def left_dense(
    sites: Sequence[Site], pattern: Pattern, include: str | None = None
) -> tuple[Skipped, ...]:
    """Sites that cannot have the pattern or, without ``include``, are fixed; with the reason."""
    reasons = ((s, (not include and fixed(s)) or pattern.feasible(s)) for s in sites)
    return tuple(Skipped(s.label, s.op, why) for s, why in reasons if why)


def nonzero(site: Site) -> Mask:
    """The mask of the zeros that a site's weight has already."""
    return np.asarray(site.weight.value != 0)


def choose(
    sites: Sequence[Site],
    criterion: Criterion,
    pattern: Pattern,
    sparsity: float | None,
    density: str | Density = "mixed",
    row_scale: str = "auto",
) -> Mapping[str, Choice]:
    """A mask for each site by its name, or what finds one, where the criterion is a search.

    ``sparsity`` is the share of all weights to zero, for patterns that leave it open; ``density``
    shares it out among the sites of a search.
    """
    if criterion.score is not None:
        return masks_by_score(sites, criterion.score, pattern, sparsity, row_scale)
    keep = {s.name: 0 for s in sites}
    if pattern.density is None:
        by_name = {s.name: s for s in sites}
        weights = Computed(by_name, lambda name: channels_first(by_name[name]))
        keep = allocate(weights, _given(sparsity, pattern), density)
    return {s.name: criterion.within(partial(_project, pattern, s, keep[s.name])) for s in sites}


def _project(pattern: Pattern, site: Site, keep: int, scores: FloatArray) -> Mask:
    return checked(pattern, site, scores, keep)


def masks_by_score(
    sites: Sequence[Site],
    score: Score,
    pattern: Pattern,
    sparsity: float | None,
    row_scale: str = "auto",
) -> dict[str, Mask]:
    """Keep the weights with the highest scores, over all sites together where the pattern allows.

    How many stay at each site is settled by one threshold on all scores; ties are broken by the
    position in the file.  ``row_scale`` "normalize" divides scores by their output channel's norm,
    "auto" does so where ``rows_are_rescaled``; within a row it is no matter.
    """
    normalize = pattern.density is None and normalizes(sites, row_scale)
    with closing(Scratch()) as scratch:
        held = {}
        for s in sites:
            found = site_scores(s, score, normalize)
            held[s.name] = scratch.put(found) if isinstance(s.weight.held, InFile) else found
        scores = Computed(held, lambda name: opened(held[name]))
        return _masks(sites, scores, pattern, sparsity)


def _masks(
    sites: Sequence[Site], scores: Mapping[str, AnyArray], pattern: Pattern, sparsity: float | None
) -> dict[str, Mask]:
    keep = dict.fromkeys(scores, 0)
    if pattern.density is None:
        masks = global_masks(scores, _given(sparsity, pattern))
        if isinstance(pattern, Unstructured):
            return masks  # already
        keep = {name: int(np.count_nonzero(mask)) for name, mask in masks.items()}
    return {
        s.name: from_rows(s, checked(pattern, s, to_rows(s, scores[s.name]), keep[s.name]))
        for s in sites
    }


def normalizes(sites: Sequence[Site], row_scale: str) -> bool:
    """Whether ``row_scale`` asks for scores to be divided by their output channel's norm."""
    return rows_are_rescaled(sites) if row_scale == "auto" else row_scale == "normalize"


def rows_are_rescaled(sites: Sequence[Site]) -> bool:
    """Whether BatchNormalization was folded into the weights at export: most sites have none.

    Folding multiplies each output channel by ``scale / sqrt(var + eps)``, so plain magnitudes no
    longer compare weights as they were trained.
    """
    return sum(s.norm is not None for s in sites) * 2 < len(sites)


def site_scores(site: Site, score: Score, normalize: bool) -> AnyArray:
    """Scores in the weight's shape; dividing them by their row's norm undoes a channel's scale.

    Raises ``UsageError`` for scores of another shape, and for NaN.
    """
    weight = np.asarray(to_rows(site, site.weight.value), np.float32)
    rows: AnyArray = np.asarray(score(weight))
    if rows.shape != weight.shape or rows.dtype.kind not in "fiub" or np.isnan(rows).any():
        what = "NaN" if rows.shape == weight.shape else f"shape {list(rows.shape)}"
        raise UsageError(
            f"the criterion's scores of '{site.label}' have {what}: give a number for each of "
            f"{list(weight.shape)}"
        )
    rows = rows.astype(np.float32)
    if normalize:
        flat = rows.reshape(site.channels, -1)
        rows = (flat / row_norms(flat)).astype(np.float32).reshape(rows.shape)
    return from_rows(site, rows)


def _given(sparsity: float | None, pattern: Pattern) -> float:
    if sparsity is None:
        raise UsageError(f"pattern {pattern} says nothing of how many weights go: give a sparsity")
    return sparsity


def masked(site: Site, mask: Mask) -> AnyArray:
    """The site's weight with what the mask, of its shape, drops set to zero."""
    value = site.weight.value
    return np.where(mask, value, np.zeros((), value.dtype))


def mask_patch(sites: Sequence[Site], masks: Mapping[str, Mask]) -> Patch:
    """The patch that zeroes what the masks drop; sites without one stay as they are."""
    values: dict[str, Held] = {}
    for site in sites:
        storage = site.weight.storage
        assert storage is not None
        if site.name in masks:
            values[storage.name] = storage.pack(masked(site, masks[site.name]))
    return Patch(values)
