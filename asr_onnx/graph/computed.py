"""What nodes would compute from constants alone, told without computing it.

A node of a few bytes can ask for gigabytes (``ConstantOfShape``, ``Expand``, ``Tile``, ``Range``);
ONNX Runtime obliges when it opens a model.
"""

from __future__ import annotations

import math
from collections import ChainMap
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, TypeProto, numpy_helper
from onnx.reference import ReferenceEvaluator

from asr_onnx.arrays import AnyArray
from asr_onnx.graph.stored import KINDS, nbytes, problem
from asr_onnx.graph.wiring import subgraphs
from asr_onnx.limits import TENSOR, most_unpacked, size_text

_SMALL = 1 << 12  # elements; shapes, repeats, pads and sizes have fewer
# What ONNX raises of operators and values it does not know, or that do not go together.
_UNTOLD = (
    onnx.defs.SchemaError, onnx.shape_inference.InferenceError, onnx.checker.ValidationError,
    NotImplementedError, RuntimeError, TypeError, ValueError, KeyError, IndexError, AttributeError,
    ImportError, ArithmeticError, AssertionError,
)  # fmt: skip
_FREE = ("Constant", "Identity")  # they take no more than is stored


def output_types(
    node: onnx.NodeProto,
    opsets: Mapping[str, int],
    types: Mapping[str, TypeProto],
    values: Mapping[str, AnyArray],
) -> dict[str, TypeProto]:
    """Types of a node's outputs with their shapes, as far as ONNX tells them.

    ``types`` are those of its inputs, ``values`` what is known of these.
    """
    domain = "" if node.domain == "ai.onnx" else node.domain
    if node.op_type == "Identity" and not domain:
        return {node.output[0]: types[node.input[0]]} if node.input[0] in types else {}
    data = {
        n: numpy_helper.from_array(values[n], n)
        for n in node.input
        if n in values and values[n].size <= _SMALL
    }
    try:
        schema = onnx.defs.get_schema(node.op_type, opsets.get(domain, 1), domain)
        imports = [onnx.helper.make_opsetid(d, v) for d, v in opsets.items()]
        return dict(
            onnx.shape_inference.infer_node_outputs(
                schema, node, {n: types[n] for n in node.input if n}, data, opset_imports=imports
            )
        )
    except _UNTOLD:
        return {}


def type_size(kind: TypeProto) -> int | None:
    """What a tensor of that type takes in bytes; ``None`` where its shape is not known."""
    tensor = kind.tensor_type
    dims = tensor.shape.dim
    if not tensor.HasField("shape") or not all(d.HasField("dim_value") for d in dims):
        return None
    like = TensorProto(data_type=tensor.elem_type, dims=[d.dim_value for d in dims])
    return nbytes(like) if like.data_type in KINDS and min(like.dims, default=0) >= 0 else None


def type_of(value: AnyArray) -> TypeProto:
    """The type of an array."""
    kind = onnx.helper.np_dtype_to_tensor_dtype(value.dtype)
    return onnx.helper.make_tensor_type_proto(kind, value.shape)


def evaluate(
    node: onnx.NodeProto, opsets: Mapping[str, int], feeds: Mapping[str, AnyArray]
) -> dict[str, AnyArray]:
    """A node's outputs by name, as far as they can be told; its optional inputs may be blank."""
    if node.op_type == "Identity" and len(node.input) == len(node.output) == 1:
        return {node.output[0]: feeds[node.input[0]]}  # chains of thousands have been seen
    # Given a node alone, the evaluator takes it to be of the newest opset; of an old one it may not
    # know the node.
    for proto, versions in ((_alone(node), dict(opsets)), (node, None)):
        try:
            with np.errstate(all="ignore"):
                found = ReferenceEvaluator(proto, opsets=versions).run(None, dict(feeds))
        except _UNTOLD:
            continue
        outputs = (
            [o.name for o in proto.output] if isinstance(proto, onnx.GraphProto) else proto.output
        )
        return {n: np.asarray(v) for n, v in zip(outputs, found, strict=False)}
    return {}


def _alone(node: onnx.NodeProto) -> onnx.GraphProto:
    """A graph of one node."""
    empty = onnx.helper.make_empty_tensor_value_info
    reads = [empty(t) for t in dict.fromkeys(node.input) if t]
    return onnx.helper.make_graph([node], "alone", reads, [empty(t) for t in node.output if t])


def problem_of(model: onnx.ModelProto, stored: Mapping[str, TensorProto]) -> str:
    """Which tensor of a model would take too much, as a sentence; empty if they are fine.

    ``stored`` are the model's constants by name, those among them that its graph leaves out, too.
    What is computed from constants may take ``limits.most_unpacked`` of them, all together.  Told,
    too, is a convolution whose weight does not go with the channels of its input.
    """
    opsets = {o.domain if o.domain != "ai.onnx" else "": o.version for o in model.opset_import}
    types = {v.name: v.type for v in model.graph.input}
    types |= {n: onnx.helper.make_tensor_type_proto(t.data_type, t.dims) for n, t in stored.items()}
    walk = _Walk(opsets, most_unpacked(sum(map(nbytes, stored.values()))))
    return walk.over(model.graph, types, {}, set(stored))


def tell(model: onnx.ModelProto, types: MutableMapping[str, TypeProto]) -> dict[str, AnyArray]:
    """Add the types of all tensors of the graph to those of its inputs, as far as they are told.

    Returns the values of the small ones, shapes above all, that do not depend on the data.
    """
    opsets = {o.domain if o.domain != "ai.onnx" else "": o.version for o in model.opset_import}
    values: dict[str, AnyArray] = {}
    _Walk(opsets, left=1 << 62).over(model.graph, types, values, set())
    return values


@dataclass
class _Walk:
    """``left``: the bytes that may yet be computed."""

    opsets: Mapping[str, int]
    left: int

    def __post_init__(self) -> None:
        self.most = self.left

    def over(
        self,
        graph: onnx.GraphProto,
        types: MutableMapping[str, TypeProto],
        values: MutableMapping[str, AnyArray],
        fixed: set[str],
    ) -> str:
        """Follow a graph, adding to ``types``, ``values`` and the tensors that are ``fixed``."""
        for tensor in graph.initializer:
            types[tensor.name] = onnx.helper.make_tensor_type_proto(tensor.data_type, tensor.dims)
            fixed.add(tensor.name)
            here = tensor.data_location != TensorProto.EXTERNAL
            if here and math.prod(tensor.dims) <= _SMALL and not problem(tensor):
                values[tensor.name] = numpy_helper.to_array(tensor)
        for node in graph.node:
            for body in subgraphs(node):
                if found := self.over(body, ChainMap({}, types), ChainMap({}, values), {*fixed}):
                    return found
            told = output_types(node, self.opsets, types, values)
            types.update(told)
            sizes = {name: type_size(kind) for name, kind in told.items()}
            reads = [t for t in node.input if t]
            if all(t in fixed for t in reads) or self._is_shape(node, types):
                fixed.update(node.output)
                if node.op_type not in _FREE:
                    self.left -= sum(s or 0 for s in sizes.values())
            if found := self._problem(node, types, sizes):
                return found
            if not all(s is not None and s <= _SMALL for s in sizes.values()):
                continue
            if self._is_shape(node, types):  # that of an activation, which is not there
                dims = [d.dim_value for d in types[node.input[0]].tensor_type.shape.dim]
                feeds: dict[str, AnyArray] = {node.input[0]: np.broadcast_to(np.int8(0), dims)}
                values.update(evaluate(node, self.opsets, feeds))
            elif told and all(t in values for t in reads):
                values.update(evaluate(node, self.opsets, {t: values[t] for t in reads}))
        return ""

    def _is_shape(self, node: onnx.NodeProto, types: Mapping[str, TypeProto]) -> bool:
        return (
            node.op_type == "Shape" and type_size(types.get(node.input[0], TypeProto())) is not None
        )

    def _problem(
        self, node: onnx.NodeProto, types: Mapping[str, TypeProto], sizes: Mapping[str, int | None]
    ) -> str:
        name, size = max(
            ((n, s or 0) for n, s in sizes.items()), key=lambda i: i[1], default=("", 0)
        )
        if self.left < 0:
            return (
                f"{node.op_type} makes a constant '{name}' of {size_text(size)}: all constants "
                f"together may take {size_text(self.most)}"
            )
        if size > TENSOR:
            return (
                f"{node.op_type} makes '{name}' of {size_text(size)}, more than {size_text(TENSOR)}"
            )
        return _channel_problem(node, types) if node.op_type == "Conv" else ""


def _channel_problem(node: onnx.NodeProto, types: Mapping[str, TypeProto]) -> str:
    shapes = [types[t].tensor_type.shape.dim for t in node.input[:2] if t in types]
    if len(shapes) < 2 or min(map(len, shapes)) < 2:
        return ""
    have, each = (shape[1].dim_value for shape in shapes)
    groups = next((a.i for a in node.attribute if a.name == "group"), 1)
    if have < 1 or each < 1 or have == each * groups:
        return ""
    label = node.name or node.output[0]
    return f"Conv '{label}' takes {each * groups} channels, but its input has {have}"
