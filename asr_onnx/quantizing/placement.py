"""Where integers stand for activations: which tensors get a pair of Q and DQ.

Engines compute in int8 what lies between a DequantizeLinear and the next QuantizeLinear, with the
activation in between fused.  So the inputs of each product are integers and its output is, behind
its activation, where what reads it can take integers; both inputs of an Add that joins branches are
(TensorRT's "Q/DQ layer-placement recommendations").  What leads to the network's outputs alone
stays in float32.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import onnx

from asr_onnx.graph.activations import activation_behind
from asr_onnx.graph.constants import Constants
from asr_onnx.graph.operators import OPERATORS
from asr_onnx.graph.wiring import Topology

# They hand on what they read, so integers may go through them.
_HANDS_ON = frozenset(
    {
        "AveragePool", "Concat", "DepthToSpace", "Dropout", "Flatten", "GlobalAveragePool",
        "GlobalMaxPool", "Identity", "MaxPool", "Pad", "Reshape", "Resize", "Slice",
        "SpaceToDepth", "Split", "Squeeze", "Transpose", "Unsqueeze", "Upsample",
    }
)  # fmt: skip


@dataclass(frozen=True)
class Product:
    """A node with a constant float32 weight that is to be computed in integers."""

    index: int
    input: str
    weight: str
    axis: int  # of the weight: its output channels


@dataclass(frozen=True)
class Placement:
    """The products in integers, and the activations, in the graph's order."""

    products: tuple[Product, ...]
    tensors: tuple[str, ...]


def place(model: onnx.ModelProto, exclude: str | None = None) -> Placement:
    """Where pairs go; what the regular expression ``exclude`` finds is left in float32."""
    topology = Topology(model.graph)
    constants = Constants(model, topology)
    products = tuple(_products(topology, constants, exclude))
    reading = {p.index for p in products}
    ends = {p.index: _behind(topology, constants, p.index) for p in products}
    made = {t for chain in ends.values() for t in chain}
    joins: set[int] = set()
    for index, node in enumerate(topology.nodes):
        if _joins(topology, node, made):
            joins.add(index)
            ends[index] = _behind(topology, constants, index)
            made.update(ends[index])
    chosen = {p.input for p in products} | {t for i in joins for t in topology.nodes[i].input}
    for chain in ends.values():
        readers = topology.consumers.get(chain[-1], [])
        fit = all(i in reading | joins or _hands_on(topology, i) for i in readers)
        if readers and fit and not _is_told(topology, chain[-1]):
            chosen.add(chain[-1])
    # A pair would round what the network tells, too.
    chosen -= set(topology.outputs)
    products = tuple(p for p in products if p.input in chosen)
    order = {t: n for n, t in enumerate(topology.inputs)}
    order |= {t: i + len(order) for t, i in topology.producer.items()}
    return Placement(products, tuple(sorted(chosen, key=lambda t: (order[t], t))))


def _products(topology: Topology, constants: Constants, exclude: str | None) -> Iterator[Product]:
    for index, node in enumerate(topology.nodes):
        operator = OPERATORS.get(node.op_type)
        if operator is None or node.domain not in ("", "ai.onnx"):
            continue
        data, weight = node.input[:2]
        if not topology.is_constant(weight) or topology.is_constant(data):
            continue
        value = constants.value(weight)
        if value is None or value.dtype != "float32" or (operator.linear and value.ndim != 2):
            continue
        if exclude and any(re.search(exclude, name) for name in (node.name, weight)):
            continue
        flipped = any(a.name == "transB" and a.i for a in node.attribute)
        yield Product(index, data, weight, 0 if node.op_type == "Conv" or flipped else 1)


def _behind(topology: Topology, constants: Constants, index: int) -> list[str]:
    """What a node makes, with the bias behind it, and last with its activation."""
    node = topology.nodes[index]
    chain = [node.output[0]]
    operator = OPERATORS.get(node.op_type)
    readers = topology.consumers.get(chain[0], [])
    if len(readers) == 1 and topology.nodes[readers[0]].op_type == "Add":
        add = topology.nodes[readers[0]]
        if any(topology.is_constant(t) for t in add.input):
            chain.append(add.output[0])
    weight = constants.value(node.input[1]) if operator else None
    trailing = 0 if weight is None else weight.ndim - 2
    found = activation_behind(topology, chain[-1], trailing, constants.value)
    return [*chain, found.output] if found else chain


def _joins(topology: Topology, node: onnx.NodeProto, made: set[str]) -> bool:
    """Whether a node adds a branch that ends with a product to another one."""
    if node.op_type != "Add" or any(topology.is_constant(t) for t in node.input):
        return False
    return len(set(node.input)) == 2 and any(t in made for t in node.input)


def _hands_on(topology: Topology, index: int) -> bool:
    return topology.nodes[index].op_type in _HANDS_ON


def _is_told(topology: Topology, tensor: str) -> bool:
    """Whether a tensor becomes an output of the network as it is, moved about at most."""
    todo, seen = [tensor], set()
    while todo:
        found = todo.pop()
        if found in topology.outputs:
            return True
        if found in seen:
            continue
        seen.add(found)
        for index in topology.consumers.get(found, ()):
            if _hands_on(topology, index):
                todo += topology.nodes[index].output
    return False
