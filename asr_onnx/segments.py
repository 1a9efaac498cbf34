"""Cut a graph at its sites, so that one walk runs every node once.

A *step* is a site with the not yet executed nodes its input needs; the last step has no site and
leads to the graph's outputs.  Between steps only *live* tensors exist: computed, and still needed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from asr_onnx.layout import per_channel
from asr_onnx.topology import Topology
from asr_onnx.types import AnyArray, Feeds, Site

UNSCALED = "//unscaled"  # behind the name of a fed tensor that the segment scales first
_METADATA = ("Shape", "Size")


@dataclass(frozen=True)
class Step:
    """Nodes to run, tensors read from and left to other steps, tensors not needed after."""

    site: Site | None
    nodes: tuple[int, ...]
    feeds: tuple[str, ...]
    keeps: tuple[str, ...]
    drops: tuple[str, ...]


def plan(topology: Topology, sites: Sequence[Site]) -> list[Step]:
    """The steps from the graph's inputs to its outputs, one per site and one for the rest."""
    done = set(topology.inputs)
    outputs_of_sites = {s.output for s in sites}
    groups: list[tuple[Site | None, list[int], set[str]]] = []
    for site in [*sorted(sites, key=lambda s: s.index), None]:
        nodes = topology.ancestors([site.input] if site else topology.outputs, done)
        if site and site.shortcut:
            early = topology.ancestors([site.input, site.shortcut], done)
            if not outputs_of_sites & {t for i in early for t in topology.nodes[i].output}:
                nodes = early  # the shortcut needs no unexecuted site: have it at hand
        made = {t for i in nodes for t in topology.nodes[i].output if t}
        # Reading a shape now is free; later it would keep a whole activation alive.
        for index, node in enumerate(topology.nodes):
            ready = node.op_type in _METADATA and index not in nodes and node.output[0] not in done
            if ready and (node.input[0] in made or node.input[0] in done) and site:
                nodes.append(index)
                made.update(node.output)
        nodes.sort()
        done |= {t for t in made if not topology.is_constant(t)}
        read = {t for i in nodes for t in topology.reads(i)}
        if site:
            read.add(site.input)
            done.add(site.output)
            made.add(site.output)
        groups.append((site, nodes, read))
    return _with_lifetimes(topology, groups)


def _with_lifetimes(
    topology: Topology, groups: list[tuple[Site | None, list[int], set[str]]]
) -> list[Step]:
    last_read: dict[str, int] = {}
    for number, (_, _, read) in enumerate(groups):
        last_read.update(dict.fromkeys(read, number))
    last_read.update(dict.fromkeys(topology.outputs, len(groups)))
    live = set(topology.inputs)
    steps = []
    for number, (site, nodes, read) in enumerate(groups):
        made = {
            t for i in nodes for t in topology.nodes[i].output if t and not topology.is_constant(t)
        }
        feeds = read & live - made
        keeps = {t for t in made if site and last_read.get(t, -1) > number}
        live |= keeps | ({site.input, site.output} if site else set())
        drops = {t for t in live if last_read.get(t, -1) <= number}
        live -= drops
        steps.append(Step(site, tuple(nodes), *(tuple(sorted(s)) for s in (feeds, keeps, drops))))
    return steps


@dataclass(frozen=True)
class Scale:
    """``gamma * y + shift``, both (C,), along ``axis`` of a tensor."""

    axis: int
    gamma: NDArray[np.floating]
    shift: NDArray[np.floating]

    def __call__(self, y: AnyArray) -> AnyArray:
        """The scaled array, of the same dtype."""
        factor, offset = self.shaped(y)
        scaled = y * factor
        scaled += offset
        return scaled.astype(y.dtype, copy=False)

    def shaped(self, y: AnyArray) -> tuple[AnyArray, AnyArray]:
        """Factor and offset in float32, shaped to go with ``y``."""
        factor, offset = (
            per_channel(v, y.ndim, self.axis).astype(np.float32) for v in (self.gamma, self.shift)
        )
        return factor, offset


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
        step: Step,
        feeds: Feeds,
        weights: Mapping[str, AnyArray] | None = None,
        with_input: bool = False,
        scales: Mapping[str, Scale] | None = None,
    ) -> onnx.ModelProto | None:
        """The step's nodes as a model; with ``weights``, the site's constants, its site as well.

        ``feeds`` are live tensors: their types become the types of the inputs.  Outputs are the
        step's ``keeps``, the site's output, and ``with_input`` the site's input if it is made here.
        ``None`` when there is nothing to run.  Feeds in ``scales`` are scaled first; they go by
        ``name + UNSCALED``.
        """
        weights = weights or {}
        nodes = [self.topology.nodes[i] for i in step.nodes]
        nodes = [n for n in nodes if not weights.keys() & set(n.output)]
        made = {t for n in nodes for t in n.output} | self.topology.initializers.keys()
        outputs = list(step.keeps)
        if step.site:
            if with_input and step.site.input in made and step.site.input not in outputs:
                outputs.append(step.site.input)
            if weights:
                nodes.append(self.topology.nodes[step.site.index])
                outputs.append(step.site.output)
        else:
            outputs += [t for t in self.topology.outputs if t in made and t not in outputs]
        if not outputs:
            return None
        reads = {t for i in step.nodes for t in self.topology.reads(i)} | set(outputs)
        names = sorted(reads & self.topology.initializers.keys() - weights.keys())
        stored = [self.topology.initializers[t] for t in names]
        inputs, weights = dict(feeds), dict(weights)
        for name, scale in (scales or {}).items():
            inputs[name + UNSCALED] = y = inputs.pop(name)
            scaling, constants = _scaling(name, y, scale)
            nodes = scaling + nodes
            weights |= constants
        return self._model(nodes, inputs, outputs, stored, weights)

    def site(self, site: Site, data: AnyArray, weight: AnyArray, bias: AnyArray) -> onnx.ModelProto:
        """The site alone as a model, with another weight and a bias (C,)."""
        node = onnx.NodeProto()
        node.CopyFrom(self.topology.nodes[site.index])
        names = site.weight.name, f"{site.output}//bias"
        node.input[:] = [site.input, *names]
        weights = dict(zip(names, (weight, bias.astype(weight.dtype)), strict=True))
        nodes = [node]
        if site.op == "MatMul":
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
    ) -> onnx.ModelProto:
        graph = onnx.helper.make_graph(
            nodes,
            "segment",
            [_typed(name, array) for name, array in sorted(feeds.items())],
            [onnx.ValueInfoProto(name=t) for t in outputs],
            [*stored, *(numpy_helper.from_array(a, name) for name, a in weights.items())],
        )
        model = onnx.ModelProto(ir_version=self.model.ir_version, graph=graph)
        model.opset_import.extend(self.model.opset_import)
        model.functions.extend(self.model.functions)
        return model


def _scaling(
    name: str, y: AnyArray, scale: Scale
) -> tuple[list[onnx.NodeProto], dict[str, AnyArray]]:
    """Nodes that make tensor ``name`` from what is fed, and their constants."""
    raw = name + UNSCALED
    gamma, shift = (v.astype(y.dtype) for v in (scale.gamma, scale.shift))
    if scale.axis == 1 and y.ndim > 1:  # one pass instead of two
        values = (gamma, shift, np.zeros_like(gamma), np.ones_like(gamma))
        parts = ("scale", "shift", "mean", "var")
        named = {f"{name}//{part}": value for part, value in zip(parts, values, strict=True)}
        node = onnx.helper.make_node("BatchNormalization", [raw, *named], [name], epsilon=0.0)
        return [node], named
    factor, offset = (v.astype(y.dtype) for v in scale.shaped(y))
    named = {f"{name}//factor": factor, f"{name}//offset": offset}
    product = f"{name}//product"
    return [
        onnx.helper.make_node("Mul", [raw, f"{name}//factor"], [product]),
        onnx.helper.make_node("Add", [product, f"{name}//offset"], [name]),
    ], named


def _typed(name: str, array: AnyArray) -> onnx.ValueInfoProto:
    return onnx.helper.make_tensor_value_info(
        name, onnx.helper.np_dtype_to_tensor_dtype(array.dtype), [None] * array.ndim
    )
