"""Choose and apply masks: the pruning half of the tool, usable without calibration data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
import onnx

from asr_onnx.arrays import AnyArray, Mask
from asr_onnx.errors import UsageError
from asr_onnx.graph import model_file as models
from asr_onnx.graph.records import Patch, Site, Skipped
from asr_onnx.graph.rows import from_rows, kernel_size, to_rows
from asr_onnx.graph.sites import find_sites, select
from asr_onnx.maths.densities import allocate
from asr_onnx.maths.mask_search import Project
from asr_onnx.maths.masks import (
    Array,
    global_masks,
    largest_mask,
    parse_pattern,
    pattern_mask,
    row_norms,
)
from asr_onnx.options import PruneOptions, RepairOptions

Choice = Mask | Project


def prune(proto: onnx.ModelProto, options: PruneOptions | None = None) -> onnx.ModelProto:
    """A copy of the model with the smallest weights zeroed and nothing else changed.

    Raises ``ModelError`` when there is nothing to prune, ``UsageError`` for bad options.
    """
    models.check_in_memory(proto)
    options = options or PruneOptions()
    sites = find_sites(proto, options.ops).sites
    return models.apply(proto, mask_patch(sites, magnitude_masks(sites, options)))


def prunable(sites: Sequence[Site], options: PruneOptions) -> tuple[Site, ...]:
    """The sites the options mean, in the model's order.

    Raises ``UsageError`` when there are none.
    """
    wanted = tuple(s for s in sites if s.op in options.ops)
    chosen = select(wanted, options.include, options.exclude)
    if options.pattern:
        chosen = tuple(s for s in chosen if holds_pattern(s, options.pattern))
        if not chosen:
            raise UsageError(f"no site can hold the pattern {options.pattern}")
    return chosen


def left_dense(sites: Sequence[Site], options: PruneOptions) -> tuple[Skipped, ...]:
    """The sites that cannot hold the options' pattern, with the reason."""
    if not options.pattern:
        return ()
    group = parse_pattern(options.pattern)[1]
    reason = f"input channels per group are no multiple of {group}: stays dense"
    return tuple(
        Skipped(s.label, s.op, reason) for s in sites if not holds_pattern(s, options.pattern)
    )


def holds_pattern(site: Site, pattern: str) -> bool:
    """Whether groups along the site's input channels can have the N:M ``pattern``."""
    inputs = site.weight.value.size // site.channels // kernel_size(site)
    return inputs % parse_pattern(pattern)[1] == 0


def magnitude_masks(sites: Sequence[Site], options: PruneOptions) -> dict[str, Mask]:
    """Global magnitude or N:M masks by site name, what is not zero for sites left out."""
    chosen = prunable(sites, options)
    masks = {s.name: s.weight.value != 0 for s in sites}
    if options.pattern:
        kept, group = parse_pattern(options.pattern)
        for site in chosen:
            rows = pattern_mask(np.abs(to_rows(site, site.weight.value)), kept, group)
            masks[site.name] = from_rows(site, rows)
        return masks
    rescaled = rows_are_rescaled(chosen)
    normalize = rescaled if options.row_scale == "auto" else options.row_scale == "normalize"
    scores = {s.name: magnitude(s, normalize) for s in chosen}
    assert options.sparsity is not None, "a pattern or a sparsity is there"
    return masks | global_masks(scores, options.sparsity)


def choose(sites: Sequence[Site], options: RepairOptions) -> dict[str, Choice]:
    """A mask by site name, or with criterion ``obs`` what a mask may be, for ``selection.select``.

    Sites the options leave out keep all that is not zero already.
    """
    if not options.chooses_mask:
        return {s.name: s.weight.value != 0 for s in sites}
    if options.criterion == "magnitude":
        return dict(magnitude_masks(sites, options))
    chosen = prunable(sites, options)
    choices: dict[str, Choice] = {s.name: s.weight.value != 0 for s in sites}
    if options.pattern:
        kept, group = parse_pattern(options.pattern)
        return choices | {s.name: partial(pattern_mask, kept=kept, group=group) for s in chosen}
    weights = {s.name: _channels_first(s) for s in chosen}
    assert options.sparsity is not None, "a pattern or a sparsity is there"
    counts = allocate(weights, options.sparsity, options.allocation)
    return choices | {name: partial(largest_mask, count=n) for name, n in counts.items()}


def rows_are_rescaled(sites: Sequence[Site]) -> bool:
    """Whether BatchNormalization was folded into the weights at export: most sites have none.

    Folding multiplies each output channel by ``scale / sqrt(var + eps)``, so plain magnitudes no
    longer compare weights as they were trained.
    """
    return sum(s.norm is not None for s in sites) * 2 < len(sites)


def magnitude(site: Site, normalize: bool) -> Array:
    """``|w|``, or ``|w| / ||w_row||``, which rescaling an output channel does not change."""
    rows = np.abs(np.asarray(to_rows(site, site.weight.value), np.float32))
    flat = rows.reshape(site.channels, -1)
    return from_rows(
        site, (flat / row_norms(flat)).astype(np.float32).reshape(rows.shape) if normalize else rows
    )


def _channels_first(site: Site) -> AnyArray:
    """The site's weight as (C, *kernel, Cin / groups), whatever its layout."""
    value = site.weight.value
    kernel = value.shape[2:]
    return to_rows(site, value).reshape(site.channels, *kernel, -1)


def mask_patch(sites: Sequence[Site], masks: Mapping[str, Mask]) -> Patch:
    """The patch that zeroes what the masks drop."""
    values: dict[str, AnyArray] = {}
    for site in sites:
        storage = site.weight.storage
        assert storage is not None
        masked = np.where(
            masks[site.name], site.weight.value, np.zeros((), site.weight.value.dtype)
        )
        values[storage.name] = storage.pack(masked)
    return Patch(values)
