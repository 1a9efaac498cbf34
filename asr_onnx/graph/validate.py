"""Is a model what the ONNX specification says?  Damage is told before anything is computed.

``onnx.checker`` knows most of it: wiring, operators, attributes.  It is shown the graph without the
large tensors, which also lets it look at models of any size; what it does not look into is here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import onnx
from onnx import TensorProto, inliner

from asr_onnx.errors import ModelError
from asr_onnx.graph.computed import problem_of
from asr_onnx.graph.stored import problem, tensors
from asr_onnx.graph.tensor_values import is_in_file
from asr_onnx.graph.wiring import in_order, subgraphs
from asr_onnx.limits import NODES, TENSOR, check_file, size_text

_SMALL = 1 << 12  # bytes of tensors that are shown to the checker
_PER_AXIS = {"kernel_shape": 1, "strides": 1, "dilations": 1, "pads": 2, "output_padding": 1}
_CURE = "export the model again"


def check_names(proto: onnx.ModelProto, path: Path) -> None:
    """Refuse names that are no UTF-8: protobuf gives bytes for them, or fails when one is read."""
    try:
        damaged = any(isinstance(name, bytes) for name in _names(proto))
    except UnicodeDecodeError:
        damaged = True
    if damaged:
        raise ModelError(f"model '{path}' is damaged: a name in it is no text: {_CURE}")


def check_stored(proto: onnx.ModelProto, path: Path) -> None:
    """Refuse tensors whose shape, kind and data do not go together, and data that are no file.

    Looks at no external data.  Raises ``ModelError`` naming the model and the tensor.
    """
    for tensor in tensors(proto):
        _check(tensor.name, problem(tensor), path)
        if tensor.data_location == TensorProto.EXTERNAL:
            _check_place(tensor, path)
    for sparse in proto.graph.sparse_initializer:
        size = 8
        for dim in sparse.dims:
            size *= max(dim, 1)
        name = sparse.values.name
        _check(name, problem(sparse.values) or problem(sparse.indices), path)
        _check(name, f"would take {size_text(size)}" if size > TENSOR else "", path)


def check_graph(proto: onnx.ModelProto, path: Path) -> None:
    """Refuse a graph that is not sound, whose windows are impossible, or that asks for too much.

    Operators of domains that ONNX does not know are taken as they are.  Raises ``ModelError``
    naming the model and what is wrong.
    """
    what = f"model '{path}' is damaged or unsound"
    if _expanded(proto) > NODES:
        raise ModelError(f"{what}: its functions call each other without an end, or nearly")
    for node in _nodes(proto.graph.node):
        if found := _window_problem(node):
            raise ModelError(f"{what}: {_label(node)} has {found}: {_CURE}")
    skeleton = _skeleton(proto)
    if found := _checked(skeleton):
        raise ModelError(f"{what}: {' '.join(found.split())}: {_CURE}")
    shapes = {t.name: list(t.dims) for t in proto.graph.initializer}
    for node in proto.graph.node:
        if found := _weight_problem(node, shapes):
            raise ModelError(f"{what}: {_label(node)} has {found}: {_CURE}")
    if proto.functions:
        skeleton = inliner.inline_local_functions(skeleton)
    stored = {t.name: t for t in proto.graph.initializer} | {
        n.output[0]: a.t
        for n in proto.graph.node
        if n.op_type == "Constant"
        for a in n.attribute
        if a.name == "value"
    }
    if found := problem_of(skeleton, stored):
        raise ModelError(f"{what}: {found}")


def _check(name: str, found: str, path: Path) -> None:
    if found:
        raise ModelError(f"model '{path}' is damaged: tensor '{name}' {found}: {_CURE}")


def _check_place(tensor: TensorProto, path: Path) -> None:
    for entry in tensor.external_data:
        if entry.key == "location":
            what = f"external data {entry.value!r} of model '{path}'"
            check_file(path.parent / entry.value.replace("\\", "/"), what, ModelError)


def _names(proto: onnx.ModelProto) -> Iterator[object]:
    graph = proto.graph
    for node in [*_nodes(graph.node), *_nodes(n for f in proto.functions for n in f.node)]:
        yield from (node.name, node.op_type, node.domain, *node.input, *node.output)
        yield from (a.name for a in node.attribute)
    for tensor in tensors(proto):
        yield tensor.name
        yield from (text for e in tensor.external_data for text in (e.key, e.value))
    for value in [*graph.input, *graph.output, *graph.value_info]:
        yield value.name
        yield from (d.dim_param for d in value.type.tensor_type.shape.dim)
    yield from (graph.name, *(o.domain for o in proto.opset_import))
    yield from (text for f in proto.functions for text in (f.name, f.domain, *f.input, *f.output))


def _nodes(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    """The nodes and those of the bodies in them."""
    for node in nodes:
        yield node
        for body in subgraphs(node):
            yield from _nodes(body.node)


def _label(node: onnx.NodeProto) -> str:
    return f"{node.op_type} '{node.name or next(iter(node.output), '')}'"


def _expanded(proto: onnx.ModelProto) -> int:
    """The number of nodes once functions are written out; not counted beyond ``NODES + 1``."""
    functions = {(f.domain, f.name): list(_nodes(f.node)) for f in proto.functions}
    sizes: dict[tuple[str, str], int] = {}

    def size(nodes: Iterable[onnx.NodeProto]) -> int | None:
        """``None`` while a function that is called is not known."""
        total = 0
        for node in nodes:
            key = (node.domain, node.op_type)
            if key in functions and key not in sizes:
                return None
            total += sizes.get(key, 1)
        return min(total, NODES + 1)

    while len(sizes) < len(functions):
        told = {k: n for k, f in functions.items() if k not in sizes and (n := size(f)) is not None}
        if not told:  # they call each other
            return NODES + 1
        sizes |= told
    return size(_nodes(proto.graph.node)) or 0


def _checked(skeleton: onnx.ModelProto) -> str:
    """What the checker says against a model; empty where it has nothing to say."""
    try:
        onnx.checker.check_model(skeleton)
    except onnx.checker.ValidationError as error:
        return str(error)
    except UnicodeDecodeError as error:  # a name in what it says is no UTF-8
        return bytes(error.object).decode(errors="replace")
    return ""


def _window_problem(node: onnx.NodeProto) -> str:
    """What is impossible about how a node slides over its input, as a phrase."""
    found = {a.name: list(a.ints) for a in node.attribute if a.type == a.INTS}
    if node.domain not in ("", "ai.onnx"):
        return ""
    for name in ("kernel_shape", "strides", "dilations"):
        if any(v < 1 or v > 2**31 for v in found.get(name, ())):
            return f"{name} {found[name]}, which have to be positive"
    return ""


def _weight_problem(node: onnx.NodeProto, shapes: Mapping[str, list[int]]) -> str:
    """What does not go with the weight of a convolution, as a phrase."""
    if node.op_type not in ("Conv", "ConvTranspose") or node.domain not in ("", "ai.onnx"):
        return ""
    dims = shapes.get(node.input[1])
    if dims is None:
        return ""
    ints = {a.name: list(a.ints) for a in node.attribute if a.type == a.INTS}
    axes = len(dims) - 2
    if axes < 1 or min(dims) < 1:
        return f"a weight of shape {dims}, which slides over nothing"
    for name, times in _PER_AXIS.items():
        if name in ints and len(ints[name]) != times * axes:
            return f"{name} {ints[name]} with a weight of shape {dims}"
    if ints.get("kernel_shape", dims[2:]) != dims[2:]:
        return f"kernel_shape {ints['kernel_shape']} with a weight of shape {dims}"
    if min(ints.get("pads", [0])) < 0:
        return f"the negative pads {ints['pads']}"
    group = next((a.i for a in node.attribute if a.name == "group"), 1)
    if group < 1 or dims[0] % group:
        return f"group {group} with a weight of shape {dims}"
    return ""


def _skeleton(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The model for the checker: large tensors are inputs, and what runs all the same is mended."""
    result = onnx.ModelProto(ir_version=min(max(proto.ir_version, 4), onnx.IR_VERSION))
    result.functions.extend(proto.functions)
    result.opset_import.extend(proto.opset_import)
    versions = {o.domain: o.version for o in proto.opset_import}
    standard = versions.get("", versions.get("ai.onnx", 1))
    for domain in {"", *(n.domain for n in _nodes(proto.graph.node))} - versions.keys():
        version = standard if domain in ("", "ai.onnx") else 1
        result.opset_import.add(domain=domain, version=version)
    graph = result.graph
    graph.name = proto.graph.name or "graph"
    graph.input.extend(proto.graph.input)
    graph.output.extend(v for v in proto.graph.output if v.HasField("type"))
    graph.sparse_initializer.extend(proto.graph.sparse_initializer)
    listed = {v.name for v in proto.graph.input}
    for tensor in proto.graph.initializer:
        if tensor.ByteSize() <= _SMALL and not is_in_file(tensor):
            graph.initializer.append(tensor)
        elif tensor.name not in listed:
            graph.input.append(_like(tensor, tensor.name))
    for node in in_order(proto.graph.node):
        large = [a.t for a in node.attribute if a.HasField("t") and a.t.ByteSize() > _SMALL]
        if node.op_type == "Constant" and large and len(node.output) == 1:
            graph.input.append(_like(large[0], node.output[0]))
        else:
            graph.node.append(node)
            if node.domain == "ai.onnx":  # another name of the standard's
                graph.node[-1].domain = ""
    return result


def _like(tensor: TensorProto, name: str) -> onnx.ValueInfoProto:
    return onnx.helper.make_tensor_value_info(name, tensor.data_type, list(tensor.dims))
