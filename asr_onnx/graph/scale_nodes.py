"""Scale a live tensor when it is read next, instead of running its site anew."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray

from asr_onnx.arrays import AnyArray
from asr_onnx.graph.records import Norm
from asr_onnx.graph.rows import per_channel

UNSCALED = "//unscaled"  # behind the name of a fed tensor that is scaled before anything reads it

Nodes = list[onnx.NodeProto]
Constants = dict[str, AnyArray]


@dataclass(frozen=True)
class Scale:
    """``gamma * y + shift``, both (C,), along ``axis`` of a tensor.

    ``norm`` is a BatchNormalization of the tensor that can take the scaling in.
    """

    axis: int
    gamma: NDArray[np.floating]
    shift: NDArray[np.floating]
    norm: Norm | None = None

    def __call__(self, y: AnyArray) -> AnyArray:
        """The scaled array, of the same dtype."""
        factor, offset = self.shaped(y)
        scaled = y * factor
        scaled += offset
        return scaled.astype(y.dtype, copy=False)

    def shaped(self, y: AnyArray) -> tuple[AnyArray, AnyArray]:
        """Factor and offset in float32, or float64 as ``y``, shaped to go with it."""
        dtype = np.promote_types(y.dtype, np.float32)
        factor, offset = (
            per_channel(v, y.ndim, self.axis).astype(dtype) for v in (self.gamma, self.shift)
        )
        return factor, offset

    def put_before(
        self, nodes: Nodes, name: str, y: AnyArray, outputs: Sequence[str]
    ) -> tuple[Nodes, Constants]:
        """``nodes`` fed ``name + UNSCALED``, like ``y``, for ``name``, and new constants they read.

        ``outputs`` are the tensors that have to be made.
        """
        norm = self.norm
        if norm and name not in outputs and any(norm.output in n.output for n in nodes):
            rest = [n for n in nodes if norm.output not in n.output]
            node, constants = _batch_norm(name, norm.output, *_into(norm, self), y)
            return [node, *rest], constants
        if self.axis == 1 and y.ndim > 1:  # one pass instead of two
            node, constants = _batch_norm(name, name, self.gamma, self.shift, y)
            return [node, *nodes], constants
        factor, offset = (v.astype(y.dtype) for v in self.shaped(y))
        constants = {f"{name}//factor": factor, f"{name}//offset": offset}
        product = f"{name}//product"
        multiply = onnx.helper.make_node("Mul", [name + UNSCALED, f"{name}//factor"], [product])
        add = onnx.helper.make_node("Add", [product, f"{name}//offset"], [name])
        return [multiply, add, *nodes], constants


def _into(norm: Norm, scale: Scale) -> tuple[AnyArray, AnyArray]:
    """Factor and offset (C,) of a BatchNormalization behind a scaling, in one."""
    mean, bias = (np.asarray(p.value, np.float64) for p in (norm.mean, norm.bias))
    return norm.gain * scale.gamma, bias + norm.gain * (scale.shift - mean)


def _batch_norm(
    name: str,
    output: str,
    gamma: NDArray[np.floating],
    shift: NDArray[np.floating],
    y: AnyArray,
) -> tuple[onnx.NodeProto, Constants]:
    """A node that scales what is fed for ``name`` in one pass, and its constants."""
    factor, offset = (v.astype(y.dtype) for v in (gamma, shift))
    values = (factor, offset, np.zeros_like(factor), np.ones_like(factor))
    parts = ("scale", "shift", "mean", "var")
    named = {f"{name}//{part}": value for part, value in zip(parts, values, strict=True)}
    inputs = [name + UNSCALED, *named]
    return onnx.helper.make_node("BatchNormalization", inputs, [output], epsilon=0.0), named
