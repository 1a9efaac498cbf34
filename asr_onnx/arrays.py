"""The array types that signatures name; shapes stand beside them, in comments and docstrings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

AnyArray = NDArray[Any]  # of whatever element type the model has
FloatArray = NDArray[np.float64]  # statistics
Float32Array = NDArray[np.float32]  # activations on their way into statistics
Mask = NDArray[np.bool_]  # True: the weight stays

Feeds = Mapping[str, AnyArray]  # by input name
Outputs = Mapping[str, AnyArray]  # by output name
