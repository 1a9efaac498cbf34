"""Shapes of the tensors of a graph, and what its products cost."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import onnx

from asr_onnx.arrays import AnyArray
from asr_onnx.graph.computed import tell, type_size
from asr_onnx.graph.inputs import Shape, model_inputs


@dataclass(frozen=True)
class Shapes:
    """``shapes`` by tensor, ``None`` for a dimension that is not told; ``values`` of small ones.

    ``values`` are those of tensors that depend on no data, shapes above all.  ``nbytes`` is what
    tensors take, ``None`` where it is not told.
    """

    shapes: Mapping[str, Shape]
    values: Mapping[str, AnyArray]
    nbytes: Mapping[str, int | None] = field(default_factory=dict)

    @classmethod
    def of(
        cls, model: onnx.ModelProto, sizes: Mapping[str, Sequence[int | None]] | None = None
    ) -> Shapes:
        """For inputs of the ``sizes`` given by name; else as the model says, with a batch of one.

        Dimensions that nobody says stay open, with all that follows from them.
        """
        types = {}
        for i in model_inputs(model):
            dims = list((sizes or {}).get(i.name, i.shape))
            if i.batch_axis is not None and dims[i.batch_axis] is None:
                dims[i.batch_axis] = 1
            kind = onnx.helper.np_dtype_to_tensor_dtype(i.dtype)
            types[i.name] = onnx.helper.make_tensor_type_proto(kind, dims)
        for tensor in model.graph.sparse_initializer:
            values = tensor.values
            types[values.name] = onnx.helper.make_tensor_type_proto(values.data_type, tensor.dims)
        known = tell(model, types)
        shapes = {name: _dims(kind) for name, kind in types.items() if _is_ranked(kind)}
        return cls(shapes, known, {name: type_size(kind) for name, kind in types.items()})

    def size(self, tensor: str) -> int | None:
        """The number of elements; ``None`` if it is not told."""
        shape = self.shapes.get(tensor, (None,))
        return None if None in shape else math.prod(d for d in shape if d is not None)


def _is_ranked(kind: onnx.TypeProto) -> bool:
    return kind.HasField("tensor_type") and kind.tensor_type.HasField("shape")


def _dims(kind: onnx.TypeProto) -> Shape:
    dims = kind.tensor_type.shape.dim
    return tuple(d.dim_value if d.HasField("dim_value") else None for d in dims)


def macs(model: onnx.ModelProto, shapes: Shapes) -> dict[str, int | None]:
    """Multiply-accumulates of each convolution and matrix product of the graph, by its output.

    For inputs of the sizes that ``shapes`` are for; ``None`` where these do not tell.  What lies in
    bodies and functions does not count.
    """
    found = ((n, factors(n)) for n in model.graph.node)
    return {n.output[0]: _macs(n, both, shapes) for n, both in found if both}


# Operators that multiply, and where their two factors are among their inputs.
_PRODUCTS = {
    "Conv": (0, 1),
    "ConvTranspose": (0, 1),
    "ConvInteger": (0, 1),
    "QLinearConv": (0, 3),
    "Gemm": (0, 1),
    "MatMul": (0, 1),
    "MatMulInteger": (0, 1),
    "QLinearMatMul": (0, 3),
}


def factors(node: onnx.NodeProto) -> tuple[str, ...]:
    """The two tensors that a node multiplies; empty for one that does not.

    What others call by the name of a standard operator is not that.
    """
    if node.domain not in ("", "ai.onnx"):
        return ()
    return tuple(node.input[n] for n in _PRODUCTS.get(node.op_type, ()))


def _macs(node: onnx.NodeProto, both: tuple[str, ...], shapes: Shapes) -> int | None:
    data, weight = (shapes.shapes.get(t) or (None,) for t in both)
    spread = node.op_type == "ConvTranspose"  # each input element is multiplied, not each output
    elements = shapes.size(node.input[0] if spread else node.output[0])
    if "Conv" in node.op_type:
        each = weight[1:]
    else:
        transposed = any(a.name == "transA" and a.i for a in node.attribute)
        each = data[:1] if transposed else data[-1:]
    if elements is None or None in each:
        return None
    return elements * math.prod(d for d in each if d is not None)
