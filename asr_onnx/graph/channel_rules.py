"""How each operator hands on the labels of channels: a table of rules.

A rule notes labels and ties on the ``Walk`` and returns why the channels that its node reads stay
whole, as the end of a sentence that begins with the node; empty where they need not.
"""

from __future__ import annotations

from collections.abc import Callable

import onnx

from asr_onnx.graph.channel_moves import MOVES, follows
from asr_onnx.graph.channel_products import convolution, gemm, matmul
from asr_onnx.graph.channel_walk import Walk, attributes, label
from asr_onnx.graph.labels import Labels

Rule = Callable[[Walk, onnx.NodeProto], str]

_NEW_SOFTMAX = 13  # the opset from which on Softmax is along one axis, by default the last one
_ACROSS = "works across them"


def elementwise(walk: Walk, node: onnx.NodeProto) -> str:
    """Tie what meets position by position, as NumPy broadcasts; constants are cut with it."""
    read = [(i, t) for i, t in enumerate(node.input) if t]
    shapes = {t: walk.shape(t) for _, t in read}
    known = [t for _, t in read if t in walk.labels]
    if not known:
        return ""
    if any(s is None for s in shapes.values()):
        return "reads what has no known shape"
    rank = max(len(s or ()) for s in shapes.values())
    axes = {walk.labels[t].axis + rank - len(shapes[t] or ()) for t in known}
    if len(axes) > 1:
        return "combines them along two axes"
    axis, ids = axes.pop(), walk.labels[known[0]].ids
    if any(walk.labels[t].ids.size != ids.size for t in known):
        return "combines different numbers of them"
    for t in known[1:]:
        walk.atoms.tie(ids, walk.labels[t].ids)
    for index, t in read:
        shape = shapes[t] or ()
        at = axis - (rank - len(shape))
        if t in known or at < 0 or shape[at] == 1:
            continue
        if walk.is_constant(t):
            walk.cut(node, index, at, ids)
        else:
            walk.atoms.close(ids, f"{label(node)} joins them to '{t}': {walk.whence(t)}")
    for t in filter(None, node.output):
        walk.put(t, Labels(axis, ids))
    return ""


def _like(walk: Walk, node: onnx.NodeProto) -> str:
    """CastLike, whose second input only has a type; Dropout, whose others are scalars."""
    if found := walk.labels.get(node.input[0]):
        for t in filter(None, node.output):
            walk.put(t, found)
    return ""


def _norm(walk: Walk, node: onnx.NodeProto) -> str:
    found = walk.labels.get(node.input[0])
    if attributes(node).get("training_mode") or any(node.output[1:]):
        return "is in training mode"
    if found is None:
        return ""
    if found.axis == 1:
        for index in range(1, len(node.input)):
            walk.cut(node, index, 0, found.ids)
    elif node.op_type == "InstanceNormalization":
        return _ACROSS
    walk.put(node.output[0], found)
    return ""


def _pool(walk: Walk, node: onnx.NodeProto) -> str:
    found = walk.labels.get(node.input[0])
    if any(node.output[1:]):
        return "tells where in all channels its values were"
    if found and found.axis > 1:
        return _ACROSS
    return _like(walk, node)


def _reduce(walk: Walk, node: onnx.NodeProto) -> str:
    found, shape = walk.labels.get(node.input[0]), walk.shape(node.input[0])
    if found is None or shape is None:
        return ""
    given = attributes(node)
    try:
        axes = walk.parameter(node, 1, "axes")
    except LookupError as tensor:
        return f"takes '{tensor}' from the data"
    if node.op_type.startswith("Arg"):
        axes = [given.get("axis", 0)]
    if not axes:
        axes = [] if given.get("noop_with_empty_axes") else list(range(len(shape)))
    axes = [a % len(shape) for a in axes]
    if found.axis in axes:
        return _ACROSS
    before = 0 if given.get("keepdims", 1) else sum(a < found.axis for a in axes)
    walk.put(node.output[0], Labels(found.axis - before, found.ids))
    return ""


def _softmax(walk: Walk, node: onnx.NodeProto) -> str:
    found, shape = walk.labels.get(node.input[0]), walk.shape(node.input[0])
    if found is None or shape is None:
        return ""
    one = walk.opset >= _NEW_SOFTMAX or node.op_type == "LpNormalization"
    axis = attributes(node).get("axis", -1 if one else 1) % len(shape)
    if found.axis == axis or (found.axis > axis and not one):
        return _ACROSS
    return _like(walk, node)


def _layer_norm(walk: Walk, node: onnx.NodeProto) -> str:
    found, shape = walk.labels.get(node.input[0]), walk.shape(node.input[0])
    if found is None or shape is None:
        return ""
    if any(node.output[1:]) or found.axis >= attributes(node).get("axis", -1) % len(shape):
        return _ACROSS
    return _like(walk, node)


def _response_norm(walk: Walk, node: onnx.NodeProto) -> str:
    found = walk.labels.get(node.input[0])
    axes = attributes(node).get("axes", [0, 2, 3]) if node.op_type != "LRN" else [1]
    return _ACROSS if found and found.axis in axes else _like(walk, node)


def _resize(walk: Walk, node: onnx.NodeProto) -> str:
    found = walk.labels.get(node.input[0])
    if found is None:
        return ""
    made = walk.shape(node.output[0])
    if made is None or made[found.axis] != found.ids.size:
        return "scales them, or its shape is not told"
    axes = attributes(node).get("axes") or list(range(len(made)))
    axes = [a % len(made) for a in axes]
    given = node.op_type == "Resize" and len(node.input) > 3 and found.axis in axes
    if given and (refused := follows(walk, node, 3, axes.index(found.axis))):
        return refused
    return _like(walk, node)


def unknown(walk: Walk, node: onnx.NodeProto) -> str:
    """For everything that is not in the table."""
    return "is not known to keep channels apart"


_ELEMENTWISE = (
    "Abs", "Acos", "Acosh", "Add", "And", "Asin", "Asinh", "Atan", "Atanh", "Cast", "Ceil", "Celu",
    "Clip", "Cos", "Cosh", "Div", "Elu", "Equal", "Erf", "Exp", "Floor", "Gelu", "Greater",
    "GreaterOrEqual", "HardSigmoid", "HardSwish", "Identity", "IsInf", "IsNaN", "LeakyRelu",
    "Less", "LessOrEqual", "Log", "Max", "Mean", "Min", "Mish", "Mod", "Mul", "Neg", "Not", "Or",
    "PRelu", "Pow", "Reciprocal", "Relu", "Round", "Selu", "Shrink", "Sigmoid", "Sign", "Sin",
    "Sinh", "Softplus", "Softsign", "Sqrt", "Sub", "Sum", "Swish", "Tan", "Tanh",
    "ThresholdedRelu", "Where", "Xor",
)  # fmt: skip
_REDUCE = ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "Sum", "SumSquare")

# Which input is a shape that the rule has checked to follow when channels go.
FOLLOWS = {"Reshape": 1, "Expand": 1, "Resize": 3}
# Operators whose inputs are all data that their rule has looked at.
JOINS = frozenset(_ELEMENTWISE) | {"Concat", "MatMul"}
RULES: dict[str, Rule] = {
    **MOVES,
    **dict.fromkeys(_ELEMENTWISE, elementwise),
    **dict.fromkeys([f"Reduce{name}" for name in _REDUCE], _reduce),
    **dict.fromkeys(("ArgMax", "ArgMin"), _reduce),
    **dict.fromkeys(("CastLike", "Dropout"), _like),
    **dict.fromkeys(("Conv", "ConvTranspose"), convolution),
    **dict.fromkeys(("AveragePool", "MaxPool", "LpPool"), _pool),
    **dict.fromkeys(("GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool"), _pool),
    **dict.fromkeys(("BatchNormalization", "InstanceNormalization"), _norm),
    **dict.fromkeys(("Softmax", "LogSoftmax", "Hardmax", "LpNormalization"), _softmax),
    **dict.fromkeys(("LRN", "MeanVarianceNormalization"), _response_norm),
    **dict.fromkeys(("Resize", "Upsample"), _resize),
    "Gemm": gemm,
    "LayerNormalization": _layer_norm,
    "MatMul": matmul,
}
