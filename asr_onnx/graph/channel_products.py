"""Products mix the channels they read and make new ones; a depthwise convolution keeps them."""

from __future__ import annotations

import numpy as np
import onnx

from asr_onnx.arrays import IntArray
from asr_onnx.graph.channel_walk import Walk, attributes, label
from asr_onnx.graph.labels import Labels


def convolution(walk: Walk, node: onnx.NodeProto) -> str:
    """Conv and ConvTranspose, whose weights are (C, Cin / G, ...) and (Cin, C / G, ...)."""
    shape, groups = walk.shape(node.input[1]), attributes(node).get("group", 1)
    if shape is None or len(shape) < 3 or not walk.is_constant(node.input[1]):
        return "has a weight that is computed at run time"
    first, second = shape[0] or 0, shape[1] or 0
    spread = node.op_type == "ConvTranspose"
    channels, wide = (second * groups, first) if spread else (first, second * groups)
    read = _read(walk, node, 1, wide)
    if depthwise := 1 < groups == wide:
        made = np.repeat(read, channels // groups)
    else:
        made = walk.atoms.fresh(channels)
        for ids in (read, made) if groups > 1 else ():  # every group stays as wide as the others
            walk.atoms.tie(ids.reshape(groups, -1), ids[: ids.size // groups])
    walk.cut(node, 1, 0, read if spread else made)
    if not depthwise:
        inner = made if spread else read
        walk.cut(node, 1, 1, inner[: inner.size // groups])
    _make(walk, node, Labels(1, made), None if depthwise else read)
    return ""


def gemm(walk: Walk, node: onnx.NodeProto) -> str:
    """A matrix product with a bias that may be broadcast."""
    if not walk.is_constant(node.input[1]):
        return "multiplies two activations"
    found, shape = attributes(node), walk.shape(node.input[1])
    if shape is None or len(shape) != 2:
        return "has a weight that is no matrix"
    turned = bool(found.get("transB", 0))
    wide, channels = (d or 0 for d in (shape[::-1] if turned else shape))
    read = _read(walk, node, 0 if found.get("transA", 0) else 1, wide)
    made = walk.atoms.fresh(channels)
    walk.cut(node, 1, int(turned), read)
    walk.cut(node, 1, 1 - int(turned), made)
    _make(walk, node, Labels(1, made), read)
    return ""


def matmul(walk: Walk, node: onnx.NodeProto) -> str:
    """A product with a constant matrix; labels on axes that are not summed over pass through."""
    constant = [walk.is_constant(t) for t in node.input]
    data = walk.shape(node.input[constant.index(False)])
    matrix = walk.shape(node.input[1 - constant.index(False)])
    if all(constant) or not any(constant):
        return "multiplies two activations"
    if matrix is None or len(matrix) != 2 or data is None or len(data) < 2:
        return "has a weight that is no matrix"
    last = len(data) - 1
    found = walk.labels.get(node.input[int(constant[0])])
    if constant[0]:
        if found and found.axis == last - 1:
            return "has its weight on the left"
    elif not found or found.axis == last:
        read = _read(walk, node, last, matrix[0] or 0)
        made = walk.atoms.fresh(matrix[1] or 0)
        walk.cut(node, 1, 0, read)
        walk.cut(node, 1, 1, made)
        _make(walk, node, Labels(last, made), read)
        return ""
    if found:
        walk.put(node.output[0], found)
    return ""


def _read(walk: Walk, node: onnx.NodeProto, axis: int, wide: int) -> IntArray:
    """Labels of the channels a product reads; new ones that stay where there are none."""
    tensor = node.input[0]
    found = walk.labels.get(tensor)
    if found and found.axis == axis and found.ids.size == wide:
        return found.ids
    walk.close([tensor], f"{label(node)} reads them along another axis")
    return walk.atoms.fresh(wide, walk.whence(tensor))


def _make(walk: Walk, node: onnx.NodeProto, made: Labels, read: IntArray | None) -> None:
    """Note a product's labels, with those of its bias, and whether its weight can be written."""
    output = node.output[0]
    if len(node.input) > 2 and node.input[2]:
        shape = walk.shape(node.input[2])
        if shape is None:
            shape = (None,)
        if shape and shape[-1] != 1:
            walk.cut(node, 2, len(shape) - 1, made.ids)
    storage = walk.constants.storage(node.input[1], walk.topology.producer[output])
    if isinstance(storage, str):
        both = made.ids if read is None else np.concatenate([made.ids, read])
        walk.atoms.close(both, f"weight '{node.input[1]}' {storage}")
    if read is None:
        walk.depthwise[output] = made.ids
    else:
        walk.inputs[output], walk.outputs[output] = read, made.ids
    walk.put(output, made)
