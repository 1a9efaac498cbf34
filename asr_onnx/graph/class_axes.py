"""Where the classes lie in a graph's outputs, as far as the last nodes say."""

from __future__ import annotations

import onnx

from asr_onnx.graph.wiring import Topology

_PASSES = ("Identity", "Cast")
_NORMALISES = ("Softmax", "LogSoftmax", "Hardmax")
_LINEAR = ("Gemm", "MatMul")
_NEW_SOFTMAX = 13  # the opset from which on Softmax is along one axis, by default the last one


def class_axes(model: onnx.ModelProto) -> dict[str, int]:
    """The class axis of each output that is made by a Softmax or ends in a linear layer, by name.

    Negative ones count from the end.  Other outputs are not named, nor is axis 0, the batch's.
    """
    topology = Topology(model.graph)
    opset = next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 1)
    ranks = output_ranks(model)
    found = {name: _axis(topology, name, ranks[name], opset) for name in topology.outputs}
    return {name: axis for name, axis in found.items() if axis}


def output_ranks(model: onnx.ModelProto) -> dict[str, int | None]:
    """Number of axes of each output by name, ``None`` where the model does not say."""
    shapes = {o.name: o.type.tensor_type for o in model.graph.output}
    return {n: len(t.shape.dim) if t.HasField("shape") else None for n, t in shapes.items()}


def _axis(topology: Topology, tensor: str, rank: int | None, opset: int) -> int | None:
    node = _maker(topology, tensor)
    while node is not None and node.op_type in _PASSES:
        node = _maker(topology, node.input[0])
    if node is None:
        return None
    if node.op_type in _NORMALISES:
        return _normalised(node, rank, opset)
    if node.op_type == "Add":  # the bias of a MatMul
        others = [t for t in node.input if not topology.is_constant(t)]
        node = _maker(topology, others[0]) if len(others) == 1 else None
    return -1 if node is not None and node.op_type in _LINEAR else None


def _normalised(node: onnx.NodeProto, rank: int | None, opset: int) -> int | None:
    """The axis along which a Softmax is; that of old opsets is over it and all behind it."""
    given = {a.name: int(a.i) for a in node.attribute}
    axis = given.get("axis", -1 if opset >= _NEW_SOFTMAX else 1)
    old = opset < _NEW_SOFTMAX and axis != -1
    return None if old and axis + 1 != rank else axis


def _maker(topology: Topology, tensor: str) -> onnx.NodeProto | None:
    index = topology.producer.get(tensor)
    return None if index is None else topology.nodes[index]
