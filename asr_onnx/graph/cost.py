"""What a model costs before it runs: multiply-accumulates, parameters, memory for activations."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto

from asr_onnx.arrays import AnyArray
from asr_onnx.graph.constants import Constants
from asr_onnx.graph.inputs import samples_in
from asr_onnx.graph.shapes import Shapes, factors, macs
from asr_onnx.graph.stored import tensors
from asr_onnx.graph.wiring import Topology

# Types of shapes, axes, indices and switches, which are no weights.
_NO_WEIGHTS = (
    TensorProto.INT32, TensorProto.INT64, TensorProto.UINT32, TensorProto.UINT64,
    TensorProto.BOOL, TensorProto.STRING,
)  # fmt: skip


@dataclass(frozen=True)
class Cost:
    """What a model costs, for one sample; ``None`` where the model's shapes do not tell.

    ``parameters``: elements of all stored tensors, zeros and BatchNormalization's statistics
    included, integers of 32 bits or more and switches left out.

    ``macs``: multiply-accumulates of convolutions and matrix products in the graph, see
    ``shapes.macs``; those of recurrent and other operators, bodies and functions do not count.
    ``effective_macs``: those with weights that are not zero.  Only an engine with sparse kernels
    saves the others.

    ``activation_bytes``: the largest sum of live tensors, when nodes run one by one in the graph's
    order.  A tensor lives from the node that makes it (a graph input: from the start) to the last
    that reads it (a graph output: to the end); weights and what is computed from them alone do not
    count.  Engines need less: they fuse nodes, work in place and reorder.
    """

    parameters: int
    macs: int | None
    effective_macs: int | None
    activation_bytes: int | None


def cost_of(
    model: onnx.ModelProto, sizes: Mapping[str, Sequence[int | None]] | None = None
) -> Cost:
    """For inputs of the ``sizes`` given by name, as in ``Shapes.of``; samples share evenly.

    Raises ``ModelError`` for inputs that cannot be fed.
    """
    return cost(model, Shapes.of(model, sizes), samples_in(model, sizes))


def cost(model: onnx.ModelProto, shapes: Shapes, samples: int = 1) -> Cost:
    """The cost per sample, from ``shapes`` that are for so many ``samples``."""
    topology = Topology(model.graph)
    products = macs(model, shapes)
    dense, effective = None, None
    counts = [n for n in products.values() if n is not None]
    if len(counts) == len(products):
        densities = _densities(model, topology)
        dense = round(sum(counts) / samples)
        effective = round(
            math.fsum(n * densities[t] for t, n in zip(products, counts, strict=True)) / samples
        )
    peak = _peak(topology, shapes)
    return Cost(
        parameters=_parameters(model),
        macs=dense,
        effective_macs=effective,
        activation_bytes=None if peak is None else -(-peak // samples),
    )


def _parameters(model: onnx.ModelProto) -> int:
    stored = [(t.dims, t.data_type) for t in tensors(model)]
    stored += [(t.dims, t.values.data_type) for t in model.graph.sparse_initializer]
    return sum(math.prod(dims) for dims, kind in stored if kind not in _NO_WEIGHTS)


def _densities(model: onnx.ModelProto, topology: Topology) -> dict[str, float]:
    """Share of each product's multiplications whose weight is not zero, by its output.

    All elements of a weight are used equally often (padding counts).
    """
    constants = Constants(model, topology)
    found = {}
    for node in topology.nodes:
        if both := factors(node):
            weights = (constants.value(t) for t in reversed(both) if topology.is_constant(t))
            found[node.output[0]] = _density(next(weights, None))
    return found


def _density(weight: AnyArray | None) -> float:
    """Share of what is not zero; 1 for quantised weights, whose zero may be another number."""
    if weight is None or not weight.size or weight.dtype.kind in "iu":
        return 1.0
    return int(np.count_nonzero(weight)) / weight.size


def _peak(topology: Topology, shapes: Shapes) -> int | None:
    """The largest sum of live tensors in bytes; ``None`` if one of them has no known size."""
    keep = set(topology.outputs)
    last = {t: readers[-1] for t, readers in topology.consumers.items()}
    live = {t: shapes.nbytes.get(t) for t in topology.inputs if t in last}
    peak = 0
    for index, node in enumerate(topology.nodes):
        if index in topology.constant_nodes:
            continue
        made = [t for t in node.output if t]
        live |= {t: shapes.nbytes.get(t) for t in made}
        sizes = [size for size in live.values() if size is not None]
        if len(sizes) < len(live):
            return None
        peak = max(peak, sum(sizes))
        for tensor in (*topology.reads(index), *made):
            if last.get(tensor, -1) <= index and tensor not in keep:
                live.pop(tensor, None)
    return peak
