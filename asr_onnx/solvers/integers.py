"""Round a layer that is solved, so that its output changes least."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from asr_onnx.maths import rounding
from asr_onnx.maths.second_moments import Gram
from asr_onnx.solvers.correction import Correction


@dataclass(frozen=True)
class Integers:
    """What weights become: integers up to ``limit`` times a scale for each row.

    ``shared``: the groups of a layer have one scale for their first rows, one for their second, ...
    """

    limit: int
    shared: bool = False


def rounded(correction: Correction, gram: Gram, integers: Integers) -> Correction:
    """The correction with its rows rounded; the bias makes up for what that does to means."""
    rows, limit = correction.rows, integers.limit
    power = np.diagonal(gram.inputs, axis1=1, axis2=2) + np.square(gram.mean_x)
    scales = rounding.scales(rows, power, limit, integers.shared)
    found = rounding.rounded(rows, correction.mask, gram.shrunk(rows).inputs, scales, limit)
    change = np.vecdot(rows - found, gram.mean_x[:, None, :]).reshape(-1)
    return replace(
        correction, rows=found, bias_change=correction.bias_change + change, scales=scales
    )
