"""The last check before a model is handed out: it does what it should."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from asr_onnx.arrays import Outputs
from asr_onnx.errors import ModelError

# Relative error allowed, by the itemsize of the outputs: streams round otherwise than whole models.
STREAMS = {2: 5e-2, 4: 1e-2, 8: 1e-6}
SAME = {2: 1e-2, 4: 1e-4, 8: 1e-9}
# Where activations are rounded, a difference in the seventh digit may turn one to the next integer,
# and what follows with it: noise of 1e-6 on the input of a ResNet-20 comes out as 1e-2.
INTEGERS = {4: 1e-1}
_TURNED = 0.01  # of an output's integers


def require_same(
    expected: Outputs,
    final: Outputs,
    of: str = "the streams that made it",
    slack: Mapping[int, float] = STREAMS,
    alike: bool = False,
) -> None:
    """Raise ``ModelError`` when a model's ``final`` outputs differ by more than rounding.

    A difference is this tool's fault.  ``of``: whose outputs were expected; ``slack``: what is
    allowed.  With ``alike`` shapes and what is no number with a fraction have to agree, too, but
    for one in a hundred: an arg-max turns over by rounding.
    """
    for name, value in final.items():
        kind = np.asarray(value).dtype
        if kind.kind != "f" or np.shape(value) != np.shape(expected[name]):
            if alike:
                _require_equal(name, expected[name], value, of)
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


def _require_equal(name: str, expected: object, value: object, of: str) -> None:
    a, b = np.asarray(expected), np.asarray(value)
    if a.shape != b.shape or (a.size and np.mean(a != b) > _TURNED):
        raise ModelError(
            f"output '{name}' of the model is not {of}: nothing is written; please report this "
            "model"
        )
