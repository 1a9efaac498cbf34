"""Tensors as they are stored: where they all are, what they take, and whether they are whole."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

import onnx
from onnx import TensorProto

from asr_onnx.graph.wiring import subgraphs
from asr_onnx.limits import TENSOR, size_text

_PACKED = {"INT4": 2, "UINT4": 2, "FLOAT4E2M1": 2, "INT2": 4, "UINT2": 4}  # elements per byte
KINDS = frozenset(TensorProto.DataType.values()) - {TensorProto.UNDEFINED}
_COMPLEX = (TensorProto.COMPLEX64, TensorProto.COMPLEX128)


def tensors(proto: onnx.ModelProto) -> list[TensorProto]:
    """Initializers and attribute tensors of the graph, the bodies in it and the local functions."""
    functions = (t for f in proto.functions for t in _attribute_tensors(f.node))
    return [*_graph_tensors(proto.graph), *functions]


def _graph_tensors(graph: onnx.GraphProto) -> Iterator[TensorProto]:
    yield from graph.initializer
    yield from _attribute_tensors(graph.node)


def _attribute_tensors(nodes: Iterable[onnx.NodeProto]) -> Iterator[TensorProto]:
    for node in nodes:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
        for body in subgraphs(node):
            yield from _graph_tensors(body)


def nbytes(tensor: TensorProto) -> int:
    """What its values take, of a tensor of known kind."""
    size = math.prod(tensor.dims)
    if per_byte := _PACKED.get(TensorProto.DataType.Name(tensor.data_type)):
        return -(-size // per_byte)
    return size * int(onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize)


def problem(tensor: TensorProto) -> str:
    """Why a tensor cannot be read, as a phrase; empty if it can, or if its data lie elsewhere."""
    if tensor.data_type not in KINDS:
        return f"has the unknown data type {tensor.data_type}"
    if any(d < 0 for d in tensor.dims):
        return f"has a negative dimension, {list(tensor.dims)}"
    wanted, shape = nbytes(tensor), list(tensor.dims)
    if wanted > TENSOR:
        return f"claims the shape {shape}, {size_text(wanted)} of at most {size_text(TENSOR)}"
    if tensor.HasField("segment"):
        return "is stored in segments, which nothing reads"
    if tensor.data_location == TensorProto.EXTERNAL:
        return ""
    if tensor.HasField("raw_data") and tensor.data_type != TensorProto.STRING:
        have = len(tensor.raw_data)
        fits = have == wanted
        return "" if fits else f"has {have} bytes of data, but its shape {shape} takes {wanted}"
    have = len(getattr(tensor, onnx.helper.tensor_dtype_to_field(tensor.data_type)))
    size = math.prod(tensor.dims)
    packed = _PACKED.get(TensorProto.DataType.Name(tensor.data_type))
    wanted = 2 * size if tensor.data_type in _COMPLEX else -(-size // packed) if packed else size
    return "" if have == wanted else f"has {have} values, but its shape {shape} takes {wanted}"
