"""Records passed between the stages; each is checked where it is made and never changed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from asr_onnx.arrays import AnyArray, FloatArray
from asr_onnx.errors import ModelError
from asr_onnx.graph.activations import Activation
from asr_onnx.graph.constants import Storage
from asr_onnx.graph.tensor_values import Held, opened


@dataclass(frozen=True)
class Parameter:
    """A constant input of a node: its name there, its value, and where it can be rewritten.

    ``storage`` is ``None`` for a constant that may be read but not written.
    """

    name: str
    held: Held
    storage: Storage | None

    @property
    def value(self) -> AnyArray:
        """The array; one that lies in a file is opened anew each time."""
        return opened(self.held)


@dataclass(frozen=True)
class Norm:
    """An inference-mode BatchNormalization of constants, each (C,).

    Raises ``ModelError`` naming a constant with which its output cannot be finite.
    """

    node: str
    output: str
    scale: Parameter
    bias: Parameter
    mean: Parameter
    var: Parameter
    epsilon: float

    def __post_init__(self) -> None:
        for parameter in (self.scale, self.bias, self.mean, self.var):
            value, shape = np.asarray(parameter.value, np.float64), list(self.scale.value.shape)
            wrong = ""
            if list(value.shape) != shape:
                wrong = f"has the shape {list(value.shape)}, its scale {shape}"
            elif not np.isfinite(value).all():
                wrong = "holds NaN or infinity"
            elif parameter is self.var and not (value + self.epsilon > 0).all():
                wrong = "holds a variance that is not positive"
            if wrong:
                label = self.node or self.output
                raise ModelError(
                    f"'{parameter.name}' of BatchNormalization '{label}' {wrong}: export the model "
                    "again"
                )

    @property
    def gain(self) -> FloatArray:
        """``scale / sqrt(var + epsilon)`` (C,): what the normalisation multiplies a channel by."""
        scale, var = (np.asarray(p.value, np.float64) for p in (self.scale, self.var))
        return np.asarray(scale / np.sqrt(var + self.epsilon))


@dataclass(frozen=True)
class Site:
    """A node with a constant weight that is pruned and repaired; keyed by ``name``, the weight's.

    ``index`` is the node's position in its ``Topology``, ``input`` and ``output`` its data tensors,
    ``channels`` the number of output channels C, ``axis`` where they lie in the output.
    ``carrier`` is where a change of the bias can be written besides ``norm`` (``None``: a new bias,
    which ``MatMul`` cannot have).  ``transposed``: a matrix weight is stored (C, Cin).
    ``activation`` is what the output, normalised and added to its shortcut, goes through, if it
    goes nowhere else.  ``shortcut`` is the tensor the output (or its BatchNormalization's) is added
    to, if nothing else reads it on the way.
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
    activation: Activation | None = None
    carrier: Parameter | None = None

    def __post_init__(self) -> None:
        if self.weight.storage is None:
            raise ValueError(f"site '{self.name}' needs a weight that can be written")

    @property
    def behind(self) -> tuple[FloatArray, FloatArray]:
        """Factor and offset (C,) from the output to what a shortcut is added to."""
        if self.norm is None:
            offset = np.zeros(self.channels)
            if self.carrier and self.bias is None:  # a MatMul's Add, behind its output
                offset += np.asarray(self.carrier.value, np.float64).reshape(-1)
            return np.ones(self.channels), offset
        gain = self.norm.gain
        bias, mean = (np.asarray(p.value, np.float64) for p in (self.norm.bias, self.norm.mean))
        return gain, bias - gain * mean

    @property
    def bias_value(self) -> FloatArray:
        """The bias (C,), zeros where there is none."""
        if self.bias is None:
            return np.zeros(self.channels)
        return np.asarray(self.bias.value, np.float64).reshape(-1)

    @property
    def zeros(self) -> int:
        """Number of weights that are zero in the file."""
        return int(self.weight.value.size - np.count_nonzero(self.weight.value))

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

    values: Mapping[str, Held] = field(default_factory=dict)
    biases: Mapping[str, AnyArray] = field(default_factory=dict)

    def __or__(self, other: Patch) -> Patch:
        return Patch({**self.values, **other.values}, {**self.biases, **other.biases})
