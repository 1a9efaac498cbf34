"""The last check before a model is handed out: it does what it should."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from asr_onnx.arrays import Outputs
from asr_onnx.errors import ModelError

# Relative error allowed, by the itemsize of the outputs: streams round otherwise than whole models.
STREAMS = {2: 5e-2, 4: 1e-2, 8: 1e-6}
SAME = {2: 1e-2, 4: 1e-4, 8: 1e-9}


def require_same(
    expected: Outputs,
    final: Outputs,
    of: str = "the streams that made it",
    slack: Mapping[int, float] = STREAMS,
) -> None:
    """Raise ``ModelError`` when a model's ``final`` outputs differ by more than rounding.

    A difference is this tool's fault.  ``of``: whose outputs were expected; ``slack``: what is
    allowed.
    """
    for name, value in final.items():
        kind = np.asarray(value).dtype
        if kind.kind != "f" or np.shape(value) != np.shape(expected[name]):
            continue
        a, b = np.asarray(value, np.float64), np.asarray(expected[name], np.float64)
        differ = (a != b) & ~(np.isnan(a) & np.isnan(b))
        size = float(np.linalg.norm(a[np.isfinite(a)]))
        off = float(np.linalg.norm(a[differ] - b[differ]))
        if not off <= slack.get(kind.itemsize, 0.0) * size:  # NaN against a number, too
            raise ModelError(
                f"output '{name}' of the model is off by {off / (size or 1):.1g} from {of}: "
                "nothing is written; please report this model"
            )
