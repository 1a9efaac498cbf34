"""Fold BatchNormalization into the convolution in front, as engines do before they quantise."""

from __future__ import annotations

import numpy as np
import onnx

from asr_onnx.graph.idle_nodes import replace, tensors_read, without_idle
from asr_onnx.graph.model_file import apply
from asr_onnx.graph.operators import OPERATORS
from asr_onnx.graph.records import Patch, Site
from asr_onnx.graph.rows import from_rows, to_rows
from asr_onnx.graph.sites import survey_of

CONVOLUTIONS = tuple(name for name, operator in OPERATORS.items() if not operator.linear)


def fold_norms(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of the model in which each convolution does what the normalisation behind it did.

    ``BN(W x + b) = g W x + g (b - mean) + shift`` with ``g = scale / sqrt(var + eps)``.  The
    convolution makes the normalisation's output then.  Zeros stay zeros.  Normalisations whose
    input is not a convolution's with a weight of its own stay.
    """
    sites = [s for s in survey_of(model, CONVOLUTIONS).sites if s.norm]
    if not sites:
        return model
    patch, outputs = Patch(), {}
    for site in sites:
        patch |= _folded(site)
        assert site.norm
        outputs[site.output] = site.norm.output
    result = apply(model, patch)
    graph = result.graph
    gone = set(outputs.values())
    kept = [
        n for n in graph.node if not (n.op_type == "BatchNormalization" and n.output[0] in gone)
    ]
    for node in kept:
        if node.output and node.output[0] in outputs:
            node.output[0] = outputs[node.output[0]]
    replace(graph.node, kept)
    replace(graph.value_info, [v for v in graph.value_info if v.name not in outputs])
    without_idle(graph, tensors_read(model.graph))
    return result


def _folded(site: Site) -> Patch:
    assert site.norm and site.weight.storage
    gain, offset = site.behind
    rows = to_rows(site, np.asarray(site.weight.value, np.float64))
    weight = from_rows(site, rows * gain.reshape(*rows.shape[:2], 1))
    bias = gain * site.bias_value + offset
    values = {site.weight.storage.name: site.weight.storage.pack(weight)}
    if site.carrier and (place := site.carrier.storage):
        return Patch(values | {place.name: place.pack(bias)})
    return Patch(values, {site.output: bias.astype(site.weight.value.dtype)})
