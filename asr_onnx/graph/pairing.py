"""Match a model pruned elsewhere with the dense model it came from."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import numpy_helper

from asr_onnx.errors import ModelError

_BIASED = ("Conv", "ConvTranspose", "Gemm")  # operators whose third input is one


def rename_like(dense: onnx.ModelProto, pruned: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of ``dense`` whose tensors bear the names they have in ``pruned``.

    Both must be the same graph, node for node; names may differ, values may differ, shapes may not.

    Raises ``ModelError`` naming the first node that differs.
    """
    result = onnx.ModelProto()
    result.CopyFrom(dense)
    names: dict[str, str] = {}
    origins: dict[str, str] = {}

    def bind(old: str, new: str, where: str) -> None:
        same = names.setdefault(old, new) == new and origins.setdefault(new, old) == old
        if not same or bool(old) != bool(new):
            raise ModelError(f"the dense and the pruned model are wired differently at {where}")

    ours, theirs = result.graph, pruned.graph
    if len(ours.node) != len(theirs.node):
        raise ModelError(
            f"the dense model has {len(ours.node)} nodes, the pruned one {len(theirs.node)}: give "
            "the dense model that was pruned, exported the same way"
        )
    for mine, other in zip(_inputs(ours), _inputs(theirs), strict=False):
        bind(mine, other, f"input '{other}'")
    _add_biases(ours, theirs)
    for a, b in zip(ours.node, theirs.node, strict=True):
        where = f"{b.op_type} '{b.name or b.output[0]}'"
        if (a.op_type, a.domain) != (b.op_type, b.domain) or _settings(a) != _settings(b):
            raise ModelError(f"the dense and the pruned model differ at {where}")
        if len(a.input) != len(b.input) or len(a.output) != len(b.output):
            raise ModelError(f"the dense and the pruned model differ at {where}")
        for old, new in [
            *zip(a.input, b.input, strict=True),
            *zip(a.output, b.output, strict=True),
        ]:
            bind(old, new, where)
    _rename(ours, names)
    _check_ends(ours, theirs)
    return result


def _add_biases(ours: onnx.GraphProto, theirs: onnx.GraphProto) -> None:
    """Give our nodes a bias of zeros where theirs have one more: a repair has added it."""
    stored = {t.name: t for t in theirs.initializer}
    for a, b in zip(ours.node, theirs.node, strict=True):
        if a.op_type not in _BIASED or a.op_type != b.op_type or len(b.input) != 3:
            continue
        bias = stored.get(b.input[2])
        if bias is None or any(a.input[2:]):
            continue
        zeros = np.zeros(list(bias.dims), onnx.helper.tensor_dtype_to_np_dtype(bias.data_type))
        name = f"{a.output[0]}//bias"
        ours.initializer.append(numpy_helper.from_array(zeros, name))
        a.input[:] = [*a.input[:2], name]


def _check_ends(ours: onnx.GraphProto, theirs: onnx.GraphProto) -> None:
    if {o.name for o in ours.output} != {o.name for o in theirs.output}:
        raise ModelError("the dense and the pruned model have different outputs")
    stored = {t.name: t for t in ours.initializer}
    for other in theirs.initializer:
        mine = stored.get(other.name)
        if mine and _kind(mine) != _kind(other):
            raise ModelError(
                f"tensor '{other.name}' is {_kind(mine)} in the dense model, {_kind(other)} in the "
                "pruned one: only pruning that keeps shapes can be repaired"
            )


def _kind(tensor: onnx.TensorProto) -> str:
    return f"{onnx.TensorProto.DataType.Name(tensor.data_type).lower()}{list(tensor.dims)}"


def _inputs(graph: onnx.GraphProto) -> list[str]:
    stored = {t.name for t in graph.initializer} | {t.values.name for t in graph.sparse_initializer}
    return [i.name for i in graph.input if i.name not in stored]


def _settings(node: onnx.NodeProto) -> list[bytes]:
    """Attributes, tensors without values: a ``Constant`` weight may differ, a stride may not."""
    kind = onnx.AttributeProto.TENSOR
    tensors = [f"{a.name} {_kind(a.t)}".encode() for a in node.attribute if a.type == kind]
    return sorted(tensors + [a.SerializeToString() for a in node.attribute if a.type != kind])


def _rename(graph: onnx.GraphProto, names: dict[str, str]) -> None:
    for node in graph.node:
        for field in (node.input, node.output):
            field[:] = [names.get(t, t) for t in field]
    for value in [*graph.input, *graph.output, *graph.value_info]:
        value.name = names.get(value.name, value.name)
    for tensor in [*graph.initializer, *(t.values for t in graph.sparse_initializer)]:
        tensor.name = names.get(tensor.name, tensor.name)
