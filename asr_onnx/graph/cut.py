"""Parts of a network as models of their own, with other weights where wanted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import onnx

from asr_onnx.arrays import AnyArray, Feeds
from asr_onnx.graph.operators import OPERATORS
from asr_onnx.graph.records import Site
from asr_onnx.graph.scale_nodes import UNSCALED, Scale
from asr_onnx.graph.tensor_values import InFile, held, is_large, refer
from asr_onnx.graph.wiring import Topology, reads

_UNLISTED = 4  # the IR version from which on initializers need not be listed as inputs


@dataclass(frozen=True)
class Segment:
    """A model whose large initializers are not in it: they are not copied.

    They are in ``weights``, or in files whose locations begin at ``tensor_values.ROOT``.
    """

    model: onnx.ModelProto
    weights: Mapping[str, AnyArray]

    @classmethod
    def whole(cls, model: onnx.ModelProto) -> Segment:
        """All of a model, with its large weights where they lie."""
        graph = model.graph
        if not any(map(is_large, graph.initializer)):
            return cls(model, {})
        return _segment(
            model, graph.node, graph.input, graph.output, graph.initializer, {},
            graph.sparse_initializer, graph.value_info,
        )  # fmt: skip


@dataclass(frozen=True)
class Network:
    """One network's graph: its wiring, and the header and constants its segments are built from."""

    model: onnx.ModelProto
    topology: Topology

    @classmethod
    def of(cls, model: onnx.ModelProto) -> Network:
        return cls(model, Topology(model.graph))

    def segment(
        self,
        nodes: Iterable[int],
        wanted: Iterable[str],
        feeds: Feeds,
        weights: Mapping[str, AnyArray] | None = None,
        scales: Mapping[str, Scale] | None = None,
    ) -> Segment | None:
        """Some nodes as a model, with other constants where ``weights`` has them.

        ``feeds`` are live tensors: their types become the types of the inputs.  Outputs are the
        tensors in ``wanted`` that the nodes make, or that are initializers; ``None`` when there are
        none.  Feeds in ``scales`` are scaled first; they go by ``name + UNSCALED``.
        """
        indices = sorted(nodes)
        inputs, weights = dict(feeds), dict(weights or {})
        chosen = [self.topology.nodes[i] for i in indices]
        chosen = [n for n in chosen if not weights.keys() & set(n.output)]
        top = self.topology
        made = {t for n in chosen for t in n.output} | top.initializers.keys() | top.sparse.keys()
        outputs = [t for t in dict.fromkeys(wanted) if t in made]
        if not outputs:
            return None
        read = {t for i in indices for t in top.reads(i)} | set(outputs)
        names = sorted(read & top.initializers.keys() - weights.keys())
        stored = [top.initializers[t] for t in names]
        sparse = [top.sparse[t] for t in sorted(read & top.sparse.keys())]
        for name, scale in (scales or {}).items():
            inputs[name + UNSCALED] = y = inputs.pop(name)
            chosen, constants = scale.put_before(chosen, name, y, outputs)
            weights |= constants
        return self._model(chosen, inputs, outputs, stored, weights, sparse)

    def site(self, site: Site, data: AnyArray, weight: AnyArray, bias: AnyArray) -> Segment:
        """The site alone as a model, with another weight and a bias (C,)."""
        node = onnx.NodeProto()
        node.CopyFrom(self.topology.nodes[site.index])
        names = site.weight.name, f"{site.output}//bias"
        node.input[:] = [site.input, *names]
        weights = dict(zip(names, (weight, bias.astype(weight.dtype)), strict=True))
        nodes = [node]
        if OPERATORS[site.op].bias_behind:
            product = f"{site.output}//product"
            node.input[:], node.output[:] = [site.input, names[0]], [product]
            nodes.append(onnx.helper.make_node("Add", [product, names[1]], [site.output]))
        return self._model(nodes, {site.input: data}, [site.output], [], weights)

    def _model(
        self,
        nodes: Sequence[onnx.NodeProto],
        feeds: Feeds,
        outputs: Sequence[str],
        stored: Sequence[onnx.TensorProto],
        weights: Mapping[str, AnyArray],
        sparse: Sequence[onnx.SparseTensorProto] = (),
    ) -> Segment:
        inputs = [_like(name, array) for name, array in sorted(feeds.items())]
        made = [onnx.ValueInfoProto(name=t) for t in outputs]
        return _segment(self.model, nodes, inputs, made, stored, weights, sparse)


def _segment(
    model: onnx.ModelProto,
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[onnx.ValueInfoProto],
    outputs: Sequence[onnx.ValueInfoProto],
    stored: Iterable[onnx.TensorProto],
    weights: Mapping[str, AnyArray],
    sparse: Sequence[onnx.SparseTensorProto] = (),
    types: Sequence[onnx.ValueInfoProto] = (),
) -> Segment:
    """A graph with a model's header; what is large of ``stored`` joins the ``weights``.

    ONNX Runtime takes no weights that nothing reads.
    """
    kept: list[onnx.TensorProto] = []
    placed = dict(weights)
    read = {t for n in nodes for t in reads(n)} | {v.name for v in outputs}
    for tensor in stored:
        if tensor.name not in read:
            continue
        if not is_large(tensor):
            kept.append(tensor)
        elif not isinstance(value := held(tensor), InFile):
            placed[tensor.name] = value
        elif location := value.below_root:
            found = onnx.TensorProto(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims)
            refer(found, location, value.offset)
            kept.append(found)
        else:
            placed[tensor.name] = value.open()
    graph = onnx.helper.make_graph(
        nodes, "segment", inputs, outputs,
        [*kept, *(_elsewhere(name, a) for name, a in placed.items())],
        value_info=types, sparse_initializer=sparse,
    )  # fmt: skip
    version = max(model.ir_version, _UNLISTED)
    result = onnx.ModelProto(ir_version=version, graph=graph)
    result.opset_import.extend(model.opset_import)
    result.functions.extend(model.functions)
    return Segment(result, placed)


def _like(name: str, array: AnyArray) -> onnx.ValueInfoProto:
    """An input of the array's type and rank, of any size."""
    kind = onnx.helper.np_dtype_to_tensor_dtype(array.dtype)
    return onnx.helper.make_tensor_value_info(name, kind, [None] * array.ndim)


def _elsewhere(name: str, array: AnyArray) -> onnx.TensorProto:
    """An initializer that says only what it is like."""
    tensor = onnx.TensorProto(
        name=name,
        data_type=onnx.helper.np_dtype_to_tensor_dtype(array.dtype),
        dims=array.shape,
    )
    refer(tensor, "memory", 0)
    return tensor
