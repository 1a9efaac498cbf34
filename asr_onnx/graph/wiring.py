"""The wiring of a graph by tensor name: who makes a tensor, who reads it.

Node names may be blank or repeated; tensor names are unique by the ONNX specification.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from graphlib import CycleError, TopologicalSorter

import onnx

# Operators whose outputs differ from run to run, whatever they read.
RANDOM = frozenset(
    {
        "Bernoulli",
        "Multinomial",
        "RandomNormal",
        "RandomNormalLike",
        "RandomUniform",
        "RandomUniformLike",
    }
)


class Topology:
    """An index over the nodes of a ``GraphProto`` (which is not changed), each behind its inputs'.

    Positions of nodes are those in ``nodes``, which may be others than in the graph.
    """

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.nodes = in_order(graph.node)
        self.initializers: dict[str, onnx.TensorProto] = {t.name: t for t in graph.initializer}
        self.sparse: dict[str, onnx.SparseTensorProto] = {
            t.values.name: t for t in graph.sparse_initializer
        }
        stored = self.initializers.keys() | self.sparse.keys()
        self.inputs: list[str] = [i.name for i in graph.input if i.name not in stored]
        self.outputs: list[str] = [o.name for o in graph.output]
        self.producer: dict[str, int] = {}
        self.consumers: dict[str, list[int]] = {}
        self._reads: list[list[str]] = []
        for index, node in enumerate(self.nodes):
            self._reads.append(reads(node))
            for tensor in self._reads[-1]:
                self.consumers.setdefault(tensor, []).append(index)
            self.producer.update({t: index for t in node.output if t})
        self.constant_nodes: set[int] = set()
        for index, node in enumerate(self.nodes):
            if node.op_type not in RANDOM and all(map(self.is_constant, self._reads[index])):
                self.constant_nodes.add(index)

    def reads(self, index: int) -> list[str]:
        """Tensors node ``index`` reads, those its ``If``/``Loop`` bodies capture included."""
        return self._reads[index]

    def is_constant(self, tensor: str) -> bool:
        """Whether the tensor is an initializer or computed from constants alone."""
        stored = tensor in self.initializers or tensor in self.sparse
        return stored or self.producer.get(tensor, -1) in self.constant_nodes

    def holds_tensor(self, index: int) -> bool:
        """Whether the node is a ``Constant`` that stores a tensor, not a list or a scalar."""
        node = self.nodes[index]
        return node.op_type == "Constant" and any(a.name == "value" for a in node.attribute)

    def has_subgraph(self, index: int) -> bool:
        return any(True for _ in subgraphs(self.nodes[index]))

    def ancestors(self, tensors: Iterable[str], done: set[str]) -> list[int]:
        """Nodes needed to compute ``tensors`` from those in ``done``, in execution order.

        Nodes computed from constants alone come along: they are cheaper to run again than to keep.
        """
        found: set[int] = set()
        todo = list(tensors)
        while todo:
            tensor = todo.pop()
            index = self.producer.get(tensor)
            if index is None or index in found or tensor in done:
                continue
            found.add(index)
            todo += self._reads[index]
        return sorted(found)


def in_order(nodes: Sequence[onnx.NodeProto]) -> list[onnx.NodeProto]:
    """The nodes, each behind those whose outputs it reads; as they are if they go in a circle.

    ONNX wants files to have them so.  ONNX Runtime does not, and not all who edit graphs sort them.
    """
    makers = {t: index for index, node in enumerate(nodes) for t in node.output if t}
    sources = {i: [makers[t] for t in reads(n) if t in makers] for i, n in enumerate(nodes)}
    if all(source < index for index, found in sources.items() for source in found):
        return list(nodes)
    try:
        return [nodes[index] for index in TopologicalSorter(sources).static_order()]
    except CycleError:
        return list(nodes)


def reads(node: onnx.NodeProto) -> list[str]:
    """Tensors the node reads, those its bodies capture included."""
    return list(dict.fromkeys([*filter(None, node.input), *_captured(node)]))


def subgraphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """The bodies a control-flow node carries."""
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.GRAPH:
            yield attribute.g
        elif attribute.type == onnx.AttributeProto.GRAPHS:
            yield from attribute.graphs


def _captured(node: onnx.NodeProto) -> Iterator[str]:
    """Outer tensors read by the node's bodies."""
    for graph in subgraphs(node):
        known = {i.name for i in graph.input} | {t.name for t in graph.initializer}
        for inner in graph.node:
            for tensor in [*inner.input, *_captured(inner)]:
                if tensor and tensor not in known:
                    yield tensor
            known.update(inner.output)
        for output in graph.output:
            if output.name not in known:
                yield output.name
