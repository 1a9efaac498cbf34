"""The array types that signatures name; shapes stand beside them, in comments and docstrings."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

AnyArray = NDArray[Any]  # of whatever element type the model has
FloatArray = NDArray[np.float64]  # statistics
Float32Array = NDArray[np.float32]  # activations on their way into statistics
IntArray = NDArray[np.int64]  # positions, counts, labels
Mask = NDArray[np.bool_]  # True: the weight stays

Feeds = Mapping[str, AnyArray]  # by input name
Outputs = Mapping[str, AnyArray]  # by output name


class Computed(Mapping[str, AnyArray]):
    """Arrays by name that are made each time they are read: not all are in memory at once."""

    def __init__(self, names: Iterable[str], make: Callable[[str], AnyArray]) -> None:
        self._names, self._make = dict.fromkeys(names), make

    def __getitem__(self, name: str) -> AnyArray:
        if name not in self._names:
            raise KeyError(name)
        return self._make(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)
