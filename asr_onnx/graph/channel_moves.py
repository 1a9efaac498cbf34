"""Operators that merely move elements: run on an array of labels, they say where channels go."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx

from asr_onnx.arrays import AnyArray, IntArray
from asr_onnx.graph.channel_walk import Walk, attributes, label
from asr_onnx.graph.computed import evaluate
from asr_onnx.graph.labels import Labels, settle, spread


def moved(walk: Walk, node: onnx.NodeProto) -> str:
    """Slice, Gather, Reshape and their like: the first input moves, others say how."""
    found, shape = walk.labels.get(node.input[0]), walk.shape(node.input[0])
    if found is None or shape is None:
        return ""
    feeds: dict[str, AnyArray] = {}
    for tensor in filter(None, node.input[1:]):
        value = walk.value(tensor)
        if value is None:
            return f"takes '{tensor}' from the data"
        feeds[tensor] = value
    array = spread(found, walk.atoms, shape)
    if array is None:
        return "is too large to be looked at"
    return _run(walk, node, {node.input[0]: array, **feeds})


def concat(walk: Walk, node: onnx.NodeProto) -> str:
    """Labels side by side; what has none gets new ones."""
    known = [walk.labels[t] for t in node.input if t in walk.labels]
    if not known:
        return ""
    arrays: dict[str, AnyArray] = {}
    for number, tensor in enumerate(node.input):
        shape, found = walk.shape(tensor), walk.labels.get(tensor)
        if shape is None or (wide := shape[known[0].axis]) is None:
            return f"reads '{tensor}', whose shape is not told"
        if found is None and walk.is_constant(tensor):
            found = Labels(known[0].axis, walk.atoms.fresh(wide))
            if wide > 1:
                walk.cut(node, number, known[0].axis, found.ids)
        elif found is None:
            found = Labels(known[0].axis, walk.atoms.fresh(wide, walk.whence(tensor)))
        array = spread(found, walk.atoms, shape)
        if array is None:
            return "is too large to be looked at"
        arrays[tensor] = array
    return _run(walk, node, arrays)


def reshape(walk: Walk, node: onnx.NodeProto) -> str:
    """Reshape and Expand: the shape they are given has to follow when channels go."""
    if attributes(node).get("allowzero") and not all(walk.parameter(node, 1, "shape") or ()):
        return "has allowzero, and a zero"
    if refused := moved(walk, node):
        return refused
    made = walk.labels.get(node.output[0])
    if made is None or len(node.input) < 2:
        return ""
    position = made.axis
    if node.op_type == "Expand":  # its shape may have fewer axes
        value = walk.value(node.input[1])
        position -= len(walk.shape(node.output[0]) or ()) - (0 if value is None else value.size)
    return follows(walk, node, 1, position)


def follows(walk: Walk, node: onnx.NodeProto, index: int, position: int) -> str:
    """Why a shape that a node is given does not follow when channels go; empty if it does."""
    tensor = node.input[index]
    if position < 0 or walk.is_constant(tensor):
        return ""  # a constant is rewritten
    chain = walk.chains.found.get(tensor)
    if chain and chain.follows(position):
        return ""
    return f"is given '{tensor}', which is computed and would not follow"


def sliced(walk: Walk, node: onnx.NodeProto) -> str:
    """Slice; along channels in steps, those that a step passes over go with the one it takes."""
    found, shape = walk.labels.get(node.input[0]), walk.shape(node.input[0])
    if found is None or shape is None:
        return ""
    try:
        given = [walk.parameter(node, i, n) for i, n in enumerate(("starts", "ends", "axes"), 1)]
        steps = walk.parameter(node, 4, "steps")
    except LookupError as tensor:
        return f"takes '{tensor}' from the data"
    starts, ends, axes = given
    if starts is None or ends is None:
        return "takes its bounds from the data"
    axes = [a % len(shape) for a in (range(len(starts)) if axes is None else axes)]
    if found.axis in axes:
        number = axes.index(found.axis)
        if not all(_is_constant(walk, node, i) for i in range(1, len(node.input))):
            return "takes bounds of channels from the data"
        if abs(step := steps[number] if steps else 1) > 1:
            taken = range(found.ids.size)[slice(starts[number], ends[number], step)]
            for position in taken:
                block = found.ids[max(0, min(position, position + step + 1)) :][: abs(step)]
                walk.atoms.tie(block, block[:1])
    return moved(walk, node)


def padded(walk: Walk, node: onnx.NodeProto) -> str:
    """Pad; channels that are added, all of them the same, are labels of their own."""
    found, shape = walk.labels.get(node.input[0]), walk.shape(node.input[0])
    if found is None or shape is None:
        return ""
    try:
        pads = walk.parameter(node, 1, "pads") or []
        axes = walk.parameter(node, 3, "axes")
    except LookupError as tensor:
        return f"takes '{tensor}' from the data"
    axes = [a % len(shape) for a in (range(len(shape)) if axes is None else axes)]
    ids = found.ids
    if found.axis in axes:
        before, after = (pads[axes.index(found.axis) + i] for i in (0, len(axes)))
        if (before or after) and attributes(node).get("mode", b"constant") != b"constant":
            return "mirrors channels"
        if (before or after) and not _is_constant(walk, node, 1):
            return "takes pads of channels from the data"
        ids = ids[max(0, -before) : ids.size - max(0, -after)]
        fresh = (walk.atoms.fresh(max(0, n)) for n in (before, after))
        ids = np.concatenate([next(fresh), ids, next(fresh)])
    walk.put(node.output[0], Labels(found.axis, ids))
    return ""


def _is_constant(walk: Walk, node: onnx.NodeProto, index: int) -> bool:
    given = index < len(node.input) and node.input[index]
    return not given or walk.is_constant(node.input[index])


def picked(walk: Walk, node: onnx.NodeProto) -> str:
    """Gather and Split, with indices and sizes that are constants."""
    given = _is_constant(walk, node, 1)
    return moved(walk, node) if given else f"takes '{node.input[1]}' from the data"


def blocks(walk: Walk, node: onnx.NodeProto) -> str:
    """DepthToSpace and SpaceToDepth: channels that only tell positions apart stay whole."""
    refused = moved(walk, node)
    made = walk.labels.get(node.output[0])
    return refused or ("makes positions of them" if made and made.axis != 1 else "")


def _run(walk: Walk, node: onnx.NodeProto, feeds: dict[str, AnyArray]) -> str:
    """Label the outputs of a node that is run on labels; what it drops stays whole."""
    outputs = evaluate(node, walk.opsets, feeds)
    lost: list[IntArray] = []
    for tensor in filter(None, node.output):
        array, shape = outputs.get(tensor), walk.shape(tensor)
        if array is None or shape is None or array.ndim != len(shape):
            return "cannot be followed: its shape is not told"
        made = settle(array, walk.atoms)
        if made is None:
            lost.append(np.unique(array) - 1)
        elif shape[made.axis] is None and not _told(walk, node):
            return "cannot be followed: its shape is not told"
        else:
            walk.put(tensor, made)
    for ids in lost:
        walk.atoms.close(ids.tolist(), f"{label(node)} takes one alone")
    return ""


def _told(walk: Walk, node: onnx.NodeProto) -> bool:
    return all(None not in (walk.shape(t) or (None,)) for t in node.input if t)


MOVES: dict[str, Callable[[Walk, onnx.NodeProto], str]] = {
    "Concat": concat,
    "DepthToSpace": blocks,
    "Expand": reshape,
    "Flatten": moved,
    "Gather": picked,
    "Pad": padded,
    "Reshape": reshape,
    "Slice": sliced,
    "SpaceToDepth": blocks,
    "Split": picked,
    "Squeeze": moved,
    "Tile": moved,
    "Transpose": moved,
    "Unsqueeze": moved,
}
