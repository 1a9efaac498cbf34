"""What float16 can hold, and how far rounding to it may take a network's outputs.

IEEE 754 binary16: 11 significant bits, the largest number is 65504, the smallest normal one 2**-14
and the smallest at all 2**-24.
"""

from __future__ import annotations

import math

import numpy as np

from asr_onnx.arrays import AnyArray

LARGEST = 65504.0
# Other data may reach further than that of the calibration, and sums on the way to a result
# further than the result: two bits are left for them.
LIMIT = LARGEST / 4
SMALLEST_NORMAL = 2.0**-14  # below it digits are lost: no divisor, no argument of a logarithm
SMALLEST = 2.0**-24
ROUNDING = 2.0**-11  # the largest relative error of rounding a normal number
_AMPLIFIED = 4.0  # what a network may make of its roundings; those measured make 0.1 to 1 of them


def tolerance(nodes: int) -> float:
    """How far outputs may be off, relative to their spread, when so many nodes round theirs.

    Roundings are independent of each other, so they add up by their squares (Higham and Mary, SIAM
    J. Sci. Comput. 41(5), 2019: ``sqrt(n) u`` instead of ``n u``).
    """
    return _AMPLIFIED * ROUNDING * math.sqrt(max(nodes, 1))


def largest(values: AnyArray) -> float:
    """The largest magnitude; infinity, which float16 has, and NaN do not count."""
    found = max(float(values.max(initial=0.0)), -float(values.min(initial=0.0)))
    if math.isfinite(found):
        return found
    magnitude = np.abs(values)
    return float(magnitude.max(initial=0.0, where=np.isfinite(magnitude)))


def smallest(values: AnyArray) -> float:
    """The smallest magnitude that is not zero; infinity where there is none."""
    magnitude = np.abs(values)
    return float(magnitude.min(initial=np.inf, where=magnitude > 0))


def lost(weights: AnyArray) -> float:
    """The error of rounding weights, over their size."""
    exact = np.asarray(weights, np.float64)
    with np.errstate(over="ignore"):
        rounded = exact.astype(np.float16).astype(np.float64)
    size = float(np.linalg.norm(exact))
    return float(np.linalg.norm(exact - rounded)) / size if size else 0.0
