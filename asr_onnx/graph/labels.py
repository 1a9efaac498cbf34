"""Labels of the channels of a tensor, and where they come to lie when its elements are moved."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from asr_onnx.arrays import IntArray
from asr_onnx.graph.atoms import Atoms
from asr_onnx.graph.inputs import Shape

STAND_IN = 16  # for a dimension that is not told: long enough for what is sliced off
_MOST = 1 << 26  # elements of an array of labels


@dataclass(frozen=True)
class Labels:
    """``ids`` (n,), one for each position along ``axis`` of a tensor."""

    axis: int
    ids: IntArray

    def __post_init__(self) -> None:
        if self.axis < 0 or self.ids.ndim != 1:
            raise ValueError(f"labels of shape {self.ids.shape} along axis {self.axis}")


def spread(labels: Labels, atoms: Atoms, shape: Shape) -> IntArray | None:
    """An array of a tensor's ``shape`` with the atom, counted from one, of each element.

    ``None`` if that is too large to look at.
    """
    sizes = [STAND_IN if d is None else d for d in shape]
    sizes[labels.axis] = labels.ids.size
    if np.prod(sizes, dtype=float) > _MOST:
        return None
    ones = [1] * len(sizes)
    ones[labels.axis] = labels.ids.size
    return np.broadcast_to((atoms.roots(labels.ids) + 1).reshape(ones), sizes)


def settle(array: IntArray, atoms: Atoms) -> Labels | None:
    """Labels for the elements of an array as ``spread`` makes it, moved about since.

    Where they vary along several axes they are tied until they vary along one, that which keeps
    most apart.  ``None`` when they vary along none.
    """
    for axis in range(array.ndim):  # one element for all where they do not vary
        if array.shape[axis] and (array == array.take([0], axis)).all():
            array = array.take([0], axis)
    axes = [axis for axis, size in enumerate(array.shape) if size > 1]
    if not axes or not array.size:
        return None
    ties = {axis: _tied(array, axis) for axis in axes}
    axis = max(axes, key=lambda a: len({*ties[a].values()}))
    for label, other in ties[axis].items():
        atoms.tie(np.array(label - 1), np.array(other - 1))
    ids = np.moveaxis(array, axis, 0).reshape(array.shape[axis], -1)[:, 0] - 1
    return Labels(axis, atoms.roots(ids))


def _tied(array: IntArray, axis: int) -> dict[int, int]:
    """By label the one it is tied to, if those at one position along ``axis`` are."""
    atom = {int(label): int(label) for label in np.unique(array)}

    def root(label: int) -> int:
        while atom[label] != label:
            label = atom[label]
        return label

    for slab in np.moveaxis(array, axis, 0):
        first, *others = np.unique(slab).tolist()
        for other in others:
            low, high = sorted((root(first), root(other)))
            atom[high] = low
    return {label: root(label) for label in atom}
