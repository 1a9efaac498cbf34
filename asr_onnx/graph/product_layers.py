"""Products with a constant weight as an engine meets them: how wide, which zeros, what is integer.

Unlike sites they need no place to write: weights behind a DequantizeLinear, in half precision or
shared by several nodes are told of, too.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx

from asr_onnx.arrays import AnyArray
from asr_onnx.graph.activations import activation_behind
from asr_onnx.graph.constants import Constants
from asr_onnx.graph.operators import OPERATORS, Layout
from asr_onnx.graph.qdq import DEQUANTIZE, QUANTIZE
from asr_onnx.graph.wiring import Topology

FOUR, TWO = 4, 2  # of four neighbours along the input channels two may stay

# Operators on integers: what they compute, and which inputs are their weight and its zero point.
_ON_INTEGERS = {
    "QLinearConv": ("Conv", 3, 5),
    "ConvInteger": ("Conv", 1, 3),
    "QLinearMatMul": ("MatMul", 3, 5),
    "MatMulInteger": ("MatMul", 1, 3),
}
_MOVES = frozenset({"Cast", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"})
_MOST = 8  # nodes between a product and the QuantizeLinear of what it makes


@dataclass(frozen=True)
class ProductLayer:
    """A product; ``inputs`` are the input channels of a group, ``positions`` the kernel's.

    ``weight`` is the name of the tensor that is stored, ``stored`` its element type.  ``reads`` and
    ``makes`` are the integers its input comes from and its output, with its bias, normalisation and
    activation, goes into next; empty where that is no integer, with "zero point" behind where one
    is not zero.  ``crowded``: how many of the ``fours``, groups of four along the input channels,
    have more than two weights that are not zero; there are none where channels are no multiple.
    """

    node: str
    op: str
    output: str
    weight: str
    shape: tuple[int, ...]
    groups: int
    channels: int
    inputs: int
    positions: int
    stored: str
    reads: str
    makes: str
    size: int
    zeros: int
    fours: int
    crowded: int

    @property
    def quantised(self) -> bool:
        """Whether its weight is stored as integers."""
        return self.op in _ON_INTEGERS or self.stored.lstrip("u").startswith("int")

    @property
    def holds(self) -> bool:
        """Whether its weight is 2:4 along the input channels."""
        return self.fours > 0 and self.crowded == 0


def product_layers(model: onnx.ModelProto) -> tuple[ProductLayer, ...]:
    """The products of the graph, bodies and functions left out, in execution order."""
    return tuple(_Finder(model).layers())


def has_integers(model: onnx.ModelProto) -> bool:
    """Whether there may be products of integers."""
    return any(n.op_type in (DEQUANTIZE, *_ON_INTEGERS) for n in model.graph.node)


class _Finder:
    def __init__(self, model: onnx.ModelProto) -> None:
        self._top = Topology(model.graph)
        self._constants = Constants(model, self._top)

    def layers(self) -> Iterator[ProductLayer]:
        for index, node in enumerate(self._top.nodes):
            if node.domain not in ("", "ai.onnx"):
                continue
            op, place, _ = _ON_INTEGERS.get(node.op_type, (node.op_type, 1, 0))
            if op in OPERATORS and self._top.is_constant(node.input[place]):
                found = self._layer(index)
                if found is not None:
                    yield found

    def _layer(self, index: int) -> ProductLayer | None:
        node = self._top.nodes[index]
        op, place, _ = _ON_INTEGERS.get(node.op_type, (node.op_type, 1, 0))
        value = self._constants.value(node.input[place])
        if value is None or value.ndim < 2 or self._top.is_constant(node.input[0]):
            return None
        weight, stored = self._stored(node.input[place], value)
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        operator = OPERATORS[op]
        groups = 1 if operator.linear else int(attributes.get("group", 1))
        matrices = operator.linear and value.ndim > 2  # a stack of them
        shape = value.shape[-2:] if matrices else value.shape
        layout = Layout(shape, groups, bool(attributes.get("transB", 0)))
        kept = self._kept(node, value)
        parts = kept.reshape(-1, *shape) if matrices else [kept]
        rows = np.concatenate([operator.to_rows(layout, part) for part in parts])
        positions = 1 if operator.linear else math.prod(value.shape[2:])
        inputs = rows.shape[-1] // positions
        fours, crowded = 0, 0
        if inputs and inputs % FOUR == 0:
            counts = rows.reshape(-1, FOUR).sum(axis=1)
            fours, crowded = len(counts), int((counts > TWO).sum())
        return ProductLayer(
            node=node.name or node.output[0],
            op=node.op_type,
            output=node.output[0],
            weight=weight,
            shape=value.shape,
            groups=groups,
            channels=operator.channels(layout),
            inputs=inputs,
            positions=positions,
            stored=stored,
            reads=self._reads(node.input[0]),
            makes=self._makes(node.output[0], 0 if operator.linear else value.ndim - 2),
            size=value.size,
            zeros=value.size - int(kept.sum()),
            fours=fours,
            crowded=crowded,
        )

    def _kept(self, node: onnx.NodeProto, value: AnyArray) -> AnyArray:
        """Where the weight is not zero; of an operator on integers: not its zero point."""
        _, _, place = _ON_INTEGERS.get(node.op_type, ("", 0, 0))
        zero: AnyArray | None = None
        if place and len(node.input) > place and node.input[place]:
            zero = self._constants.value(node.input[place])
        if zero is None or not zero.any():
            return np.asarray(value != 0)
        along = value.ndim - 1 if "MatMul" in node.op_type else 0
        shape = [-1 if axis == along and zero.size > 1 else 1 for axis in range(value.ndim)]
        return np.asarray(value != zero.reshape(shape))

    def _stored(self, tensor: str, value: AnyArray) -> tuple[str, str]:
        """Name and element type of what a weight is made of, seen through Q, DQ and moves."""
        found = tensor
        kind = str(value.dtype)
        while found in self._top.producer:
            node = self._top.nodes[self._top.producer[found]]
            if node.op_type == DEQUANTIZE:
                kind = self._integers(node).split()[0] or kind
            elif node.op_type not in _MOVES | {QUANTIZE}:
                break
            found = node.input[0]
        return found, kind

    def _integers(self, node: onnx.NodeProto) -> str:
        """The integers of a QuantizeLinear's output or a DequantizeLinear's input."""
        if len(node.input) > 2 and node.input[2]:
            zero = self._constants.value(node.input[2])
            if zero is None:
                return "unknown"
            moved = " zero point" if np.asarray(zero, np.float32).any() else ""
            return f"{zero.dtype}{moved}"
        if node.op_type == DEQUANTIZE:
            made = self._top.producer.get(node.input[0])
            if made is not None and self._top.nodes[made].op_type == QUANTIZE:
                return self._integers(self._top.nodes[made])
            held = self._constants.value(node.input[0])
            return "unknown" if held is None else str(held.dtype)
        kind = next((a.i for a in node.attribute if a.name == "output_dtype"), 0)
        kind = kind or onnx.TensorProto.UINT8
        return str(np.dtype(onnx.helper.tensor_dtype_to_np_dtype(kind)))

    def _reads(self, tensor: str) -> str:
        made = self._top.producer.get(tensor)
        node = None if made is None else self._top.nodes[made]
        return self._integers(node) if node is not None and node.op_type == DEQUANTIZE else ""

    def _makes(self, tensor: str, trailing: int) -> str:
        """The integers a product's output goes into, with all that is fused behind it."""
        for _ in range(_MOST):
            readers = self._top.consumers.get(tensor, [])
            nodes = [self._top.nodes[i] for i in readers]
            if tensor in self._top.outputs or not nodes:
                return ""
            if all(n.op_type == QUANTIZE and n.input[0] == tensor for n in nodes):
                return self._integers(nodes[0])
            behind = self._behind(tensor, nodes, trailing)
            if not behind:
                return ""
            tensor = behind
        return ""

    def _behind(self, tensor: str, readers: list[onnx.NodeProto], trailing: int) -> str:
        """What is next of a product's bias, normalisation, shortcut and activation; or nothing.

        A shortcut is added in the product's kernel where it is integers.
        """
        if found := activation_behind(self._top, tensor, trailing, self._constants.value):
            return found.output
        if len(readers) != 1:
            return ""
        (node,) = readers
        others = [t for t in node.input if t and t != tensor]
        if node.op_type == "BatchNormalization" and node.input[0] == tensor:
            return str(node.output[0])
        if node.op_type not in ("Add", "Mul", "Sub", "Div") or len(others) != 1:
            return ""
        shortcut = node.op_type == "Add" and bool(self._reads(others[0]))
        return str(node.output[0]) if shortcut or self._top.is_constant(others[0]) else ""
