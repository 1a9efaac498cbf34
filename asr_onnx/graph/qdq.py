"""Pairs of QuantizeLinear and DequantizeLinear: seen through, taken off weights, left undone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import onnx

from asr_onnx.graph.idle_nodes import tensors_read, without_idle
from asr_onnx.graph.wiring import Topology

QUANTIZE, DEQUANTIZE = "QuantizeLinear", "DequantizeLinear"


@dataclass(frozen=True)
class StoredIntegers:
    """Where a weight lies that a DequantizeLinear makes: its integers and its scale.

    ``axis``: of the weight, along which scales differ.
    """

    integers: str
    scale: str
    axis: int


def behind_pair(topology: Topology, tensor: str) -> str:
    """What comes out of the pair that alone reads ``tensor``; the tensor itself without one."""
    found = tensor
    for op in (QUANTIZE, DEQUANTIZE):
        readers = topology.consumers.get(found, [])
        if len(readers) != 1 or found in topology.outputs:
            return tensor
        node = topology.nodes[readers[0]]
        if node.op_type != op or node.input[0] != found:
            return tensor
        found = node.output[0]
    return found


def stored_integers(model: onnx.ModelProto) -> dict[str, StoredIntegers]:
    """Initializers that are integers with scales, by the tensor that DequantizeLinear makes."""
    initializers = {t.name for t in model.graph.initializer}
    found = {}
    for node in model.graph.node:
        if node.op_type == DEQUANTIZE and node.input[0] in initializers:
            axis = next((a.i for a in node.attribute if a.name == "axis"), 1)
            found[node.output[0]] = StoredIntegers(node.input[0], node.input[1], axis)
    return found


def in_float(model: onnx.ModelProto, weights: Mapping[str, onnx.TensorProto]) -> onnx.ModelProto:
    """A copy in which tensors that DequantizeLinear makes of initializers are float again.

    ``weights`` by the name of that tensor: the initializers that take its place.
    """
    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph = result.graph
    gone = [n for n in graph.node if n.op_type == DEQUANTIZE and n.output[0] in weights]
    for node in gone:
        graph.node.remove(node)
    for node in graph.node:
        node.input[:] = [weights[t].name if t in weights else t for t in node.input]
    graph.initializer.extend({w.name: w for w in weights.values()}.values())
    without_idle(graph, tensors_read(model.graph))
    return result


def left_undone(model: onnx.ModelProto, weights: Mapping[str, onnx.TensorProto]) -> onnx.ModelProto:
    """A copy, node for node, in which no pair does anything.

    ``weights`` by the tensor that DequantizeLinear makes: what it hands on instead.
    """
    result = onnx.ModelProto()
    result.CopyFrom(model)
    stored = {t.name for t in model.graph.initializer}
    for node in result.graph.node:
        if node.op_type not in (QUANTIZE, DEQUANTIZE):
            continue
        if node.input[0] in stored:
            node.input[0] = weights[node.output[0]].name
        node.op_type = "Identity"
        del node.input[1:]
        del node.attribute[:]
    result.graph.initializer.extend({w.name: w for w in weights.values()}.values())
    without_idle(result.graph, tensors_read(model.graph))
    return result
