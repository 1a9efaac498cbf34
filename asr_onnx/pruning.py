"""Choose and apply masks: the pruning half of the tool, usable without calibration data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx

from asr_onnx import model as models
from asr_onnx.masks import Array, Mask, global_masks, row_norms
from asr_onnx.options import PruneOptions
from asr_onnx.sites import find_sites, select
from asr_onnx.types import AnyArray, Patch, Site


def prune(proto: onnx.ModelProto, options: PruneOptions | None = None) -> onnx.ModelProto:
    """A copy of the model with the smallest weights zeroed and nothing else changed.

    Raises ``ModelError`` when there is nothing to prune, ``UsageError`` for bad options.
    """
    models.check_in_memory(proto)
    sites = find_sites(proto).sites
    masks = choose_masks(sites, options or PruneOptions())
    return models.apply(proto, mask_patch(sites, masks))


def choose_masks(sites: Sequence[Site], options: PruneOptions) -> dict[str, Mask]:
    """Global magnitude masks by site name, all True for sites the options exclude."""
    chosen = select(tuple(sites), options.include, options.exclude)
    normalize = (
        rows_are_rescaled(sites) if options.row_scale == "auto" else options.row_scale != "keep"
    )
    masks = global_masks({s.name: magnitude(s, normalize) for s in chosen}, options.sparsity)
    return {s.name: masks.get(s.name, np.ones(s.weight.value.shape, bool)) for s in sites}


def rows_are_rescaled(sites: Sequence[Site]) -> bool:
    """Whether BatchNormalization was folded into the weights at export: most sites have none.

    Folding multiplies each output channel by ``scale / sqrt(var + eps)``, so plain magnitudes no
    longer compare weights as they were trained.
    """
    return sum(s.norm is not None for s in sites) * 2 < len(sites)


def magnitude(site: Site, normalize: bool) -> Array:
    """``|w|``, or ``|w| / ||w_row||``, which rescaling an output channel does not change."""
    size = np.abs(np.asarray(site.weight.value, np.float64))
    return size / row_norms(size) if normalize else size


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
