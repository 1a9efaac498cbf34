"""Solve one site: its statistics in, its new weight and change of bias out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from asr_onnx.errors import CalibrationError
from asr_onnx.execution.lockstep import Walk
from asr_onnx.execution.plan import Step
from asr_onnx.graph.records import AnyArray, Site
from asr_onnx.graph.rows import from_rows, to_rows
from asr_onnx.maths.masks import Mask
from asr_onnx.maths.moments import PairedMoments, pooled
from asr_onnx.maths.scale_rules import scale
from asr_onnx.options import RepairOptions

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Solution:
    """``weight`` in the site's shape and dtype, ``bias_change`` (C,) to add to its bias, ``mask``
    of what survives, ``gamma`` and ``reliability`` (C,) for the report.

    ``shift`` (C,): the repaired output is ``gamma * y + shift`` of the pruned output ``y`` that is
    live in the repaired stream, and ``checked`` the moments of dense and pruned output on the
    images checked on.  ``None``, both: the site's input is live, and the site has to run.
    """

    weight: AnyArray
    bias_change: Array
    mask: Mask
    gamma: Array
    reliability: Array
    shift: Array | None = None
    checked: PairedMoments | None = None


def solve_scale(walk: Walk, step: Step, site: Site, mask: Mask, options: RepairOptions) -> Solution:
    """Scale each output channel and set its mean: arXiv 2605.21426, section 3, dense-referenced.

    Leaves the pruned output live in the repaired stream.
    """
    pruned = masked(site, mask)
    parts = walk.repaired.run(step, [(site, pruned)], use=walk.against_dense(site))
    moments = pooled(m for batch, m in parts if batch in walk.solved_on)
    require_finite(site, output=(moments.dense.var, moments.pruned.var))
    found = scale(moments, options.method, options.prior)
    # y' = mu_d + gamma (y_p - mu_p), and y_p has the bias in it.
    shift = moments.dense.mean - found.gamma * moments.pruned.mean
    if options.method == "none":
        shift = np.zeros(site.channels)
    change = shift + (found.gamma - 1) * bias_of(site)
    rows = to_rows(site, pruned)
    weight = from_rows(site, rows * found.gamma.reshape(*rows.shape[:2], 1)).astype(pruned.dtype)
    return Solution(
        weight, change, pruned, found.gamma, found.reliability, shift, walk.checked(parts)
    )


def require_finite(site: Site, **statistics: Sequence[Array]) -> None:
    """Raise ``CalibrationError`` when activations are infinite or NaN; their statistics tell.

    ``statistics`` go by what they are of: the site's ``input``, its ``output``.
    """
    for what, arrays in statistics.items():
        if not all(np.isfinite(a).all() for a in arrays):
            raise CalibrationError(
                f"the {what} of '{site.label}' is not finite on the calibration data: check the "
                "preprocessing, or export the model in float32"
            )


def masked(site: Site, mask: Mask) -> AnyArray:
    """The site's weight with what the mask drops set to zero."""
    value = site.weight.value
    return np.where(mask, value, np.zeros((), value.dtype))


def bias_of(site: Site) -> Array:
    """The site's bias (C,), zeros when it has none."""
    if site.bias is None:
        return np.zeros(site.channels)
    return np.asarray(site.bias.value, np.float64).reshape(-1)
