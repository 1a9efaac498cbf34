"""Records passed between the stages; each is checked where it is made and never changed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asr_onnx.constants import Storage

AnyArray = NDArray[Any]  # of whatever element type the model has
Feeds = Mapping[str, AnyArray]


@dataclass(frozen=True)
class Parameter:
    """A constant input of a node: its name there, its value, and where it can be rewritten.

    ``storage`` is ``None`` for a constant that may be read but not written.
    """

    name: str
    value: AnyArray
    storage: Storage | None


@dataclass(frozen=True)
class Norm:
    """An inference-mode BatchNormalization of constants, each (C,)."""

    node: str
    output: str
    scale: Parameter
    bias: Parameter
    mean: Parameter
    var: Parameter
    epsilon: float

    @property
    def gain(self) -> NDArray[np.float64]:
        """``scale / sqrt(var + epsilon)`` (C,): what the normalisation multiplies a channel by."""
        scale, var = (np.asarray(p.value, np.float64) for p in (self.scale, self.var))
        return np.asarray(scale / np.sqrt(var + self.epsilon))


@dataclass(frozen=True)
class Site:
    """A node with a constant weight that is pruned and repaired; keyed by ``name``, the weight's.

    ``index`` is the node's position in the graph, ``input`` and ``output`` its data tensors,
    ``channels`` the number of output channels C, ``axis`` where they lie in the output.
    ``transposed``: a matrix weight is stored (C, Cin).  ``rectified``: a Relu alone reads the output
    (behind BatchNormalization and shortcut).  ``shortcut`` is the tensor the output (or its BatchNormalization's) is added to, if nothing else
    reads it on the way.
    """

    name: str
    node: str
    op: str
    index: int
    input: str
    output: str
    weight: Parameter
    bias: Parameter | None
    norm: Norm | None
    groups: int
    channels: int
    axis: int = 1
    shortcut: str | None = None
    transposed: bool = False
    rectified: bool = False

    def __post_init__(self) -> None:
        if self.weight.storage is None:
            raise ValueError(f"site '{self.name}' needs a weight that can be written")

    @property
    def zeros(self) -> int:
        """Number of weights that are zero in the file."""
        return int(self.weight.value.size - np.count_nonzero(self.weight.value))

    @property
    def from_sum(self) -> NDArray[np.float64]:
        """Factor (C,) from the units behind the BatchNormalization to the output's own.

        0 where the normalisation has (almost) switched the channel off.
        """
        if self.norm is None:
            return np.ones(self.channels)
        gain = self.norm.gain
        alive = np.abs(gain) > 1e-3 * np.abs(gain).max()
        return np.divide(1.0, gain, out=np.zeros_like(gain), where=alive)

    @property
    def label(self) -> str:
        """What to call the site when talking to people."""
        return self.node or self.name


@dataclass(frozen=True)
class Skipped:
    """A node that looks like a site and is left alone."""

    name: str
    op: str
    reason: str


@dataclass(frozen=True)
class Patch:
    """What changes in a model: stored values by storage name, new biases by node output name."""

    values: Mapping[str, AnyArray] = field(default_factory=dict)
    biases: Mapping[str, AnyArray] = field(default_factory=dict)

    def __or__(self, other: Patch) -> Patch:
        return Patch({**self.values, **other.values}, {**self.biases, **other.biases})
