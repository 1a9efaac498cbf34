"""What is known of a graph's channels while its nodes are gone through: labels, ties, cuts."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx

from asr_onnx.arrays import AnyArray, IntArray
from asr_onnx.graph.atoms import Atoms
from asr_onnx.graph.constants import Constants
from asr_onnx.graph.inputs import Shape
from asr_onnx.graph.labels import Labels
from asr_onnx.graph.shape_chains import ShapeChains
from asr_onnx.graph.shapes import Shapes
from asr_onnx.graph.wiring import Topology


@dataclass(frozen=True)
class Cut:
    """A constant gets narrower with ``ids`` (n,), along ``axis``, where a node reads it.

    The node is that with the first output ``node``, ``input`` the position among what it reads.
    """

    node: str
    input: int
    axis: int
    ids: IntArray


class Walk:
    """Labels by tensor, products by output: ``inputs`` and ``outputs`` of those that mix channels.

    ``depthwise`` are the outputs of convolutions that keep them apart.
    """

    def __init__(self, model: onnx.ModelProto, shapes: Shapes) -> None:
        self.topology = Topology(model.graph)
        self.constants = Constants(model, self.topology)
        self.opsets = {
            o.domain if o.domain != "ai.onnx" else "": o.version for o in model.opset_import
        }
        self.atoms = Atoms()
        self.labels: dict[str, Labels] = {}
        self.cuts: list[Cut] = []
        self.inputs: dict[str, IntArray] = {}
        self.outputs: dict[str, IntArray] = {}
        self.depthwise: dict[str, IntArray] = {}
        self.chains = ShapeChains(self.opsets, self.constants.value)
        self.shapes = shapes

    @property
    def opset(self) -> int:
        """The version of the standard's operators."""
        return self.opsets.get("", 1)

    def shape(self, tensor: str) -> Shape | None:
        """A tensor's shape, ``None`` where not even its rank is told."""
        if tensor not in self.shapes.shapes and self.is_constant(tensor):
            return held.shape if (held := self.constants.held(tensor)) is not None else None
        return self.shapes.shapes.get(tensor)

    def is_constant(self, tensor: str) -> bool:
        """Whether a tensor is the same for all data, type and shape of these aside."""
        return self.topology.is_constant(tensor) or self.constants.held(tensor) is not None

    def value(self, tensor: str) -> AnyArray | None:
        """What a tensor holds that depends on no data but its shape; ``None`` if it does."""
        if self.is_constant(tensor):
            return self.constants.value(tensor)
        chain = self.chains.found.get(tensor)
        return chain.now if chain else None

    def parameter(self, node: onnx.NodeProto, index: int, name: str) -> list[int] | None:
        """Integers a node is given as input ``index``, or in older versions as an attribute.

        ``None`` where it is not given; raises ``LookupError`` when it depends on the data.
        """
        given = attributes(node).get(name)
        if given is not None:
            return [int(v) for v in np.atleast_1d(given)]
        if index >= len(node.input) or not node.input[index]:
            return None
        value = self.value(node.input[index])
        if value is None:
            raise LookupError(node.input[index])
        return [int(v) for v in value.ravel()]

    def put(self, tensor: str, labels: Labels) -> None:
        """Give a tensor its labels; channels of a shape that is not told stay whole."""
        shape = self.shape(tensor)
        if shape is None or len(shape) <= labels.axis:
            self.atoms.close(labels.ids, f"the shape of '{tensor}' is not told")
        elif shape[labels.axis] not in (None, labels.ids.size):
            self.atoms.close(labels.ids, f"'{tensor}' is not as wide as they are")
        elif labels.ids.size > 1:
            self.labels[tensor] = labels
        else:
            self.atoms.close(labels.ids, f"'{tensor}' has no other")

    def cut(self, node: onnx.NodeProto, index: int, axis: int, ids: IntArray) -> None:
        """Let a constant be cut with labels; one that cannot be, closes them."""
        tensor = node.input[index]
        shape = self.shape(tensor)
        if not self.is_constant(tensor):
            self.atoms.close(ids, f"{label(node)} reads '{tensor}', which is computed at run time")
        elif tensor in self.topology.sparse:
            self.atoms.close(ids, f"'{tensor}' is stored sparse")
        elif shape is None or shape[axis] != ids.size:
            self.atoms.close(ids, f"'{tensor}' is not as wide as they are")
        elif "DequantizeLinear" in self._makers(tensor):
            self.atoms.close(ids, f"'{tensor}' is quantised")
        else:
            self.cuts.append(Cut(node.output[0], index, axis, ids))

    def whence(self, tensor: str) -> str:
        """Why the channels of a tensor without labels stay whole."""
        while tensor not in self.topology.inputs:
            if self.is_constant(tensor) or tensor not in self.topology.producer:
                return f"'{tensor}' is a constant"
            node = self.topology.nodes[self.topology.producer[tensor]]
            tensor = next((t for t in node.input if t and not self.is_constant(t)), "")
            if not tensor or tensor in self.labels:
                return f"they come from {label(node)}"
        return f"'{tensor}' is an input of the model"

    def _makers(self, tensor: str) -> set[str]:
        nodes = self.topology.ancestors([tensor], set())
        return {self.topology.nodes[i].op_type for i in nodes}

    def close(self, tensors: Iterable[str], reason: str) -> None:
        """Let the channels of tensors stay whole."""
        for tensor in tensors:
            if tensor in self.labels:
                self.atoms.close(self.labels[tensor].ids, reason)

    def close_origins(self, tensors: Iterable[str], reason: str) -> None:
        """Let channels stay whole whose number the tensors depend on."""
        for tensor in tensors:
            chain = self.chains.found.get(tensor)
            if chain and chain.depends:
                self.close(chain.origins, reason)


def attributes(node: onnx.NodeProto) -> dict[str, Any]:
    """A node's attributes by name."""
    return {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}


def label(node: onnx.NodeProto) -> str:
    """What to call a node when talking to people."""
    return f"{node.op_type} '{node.name or next(iter(node.output), '')}'"
