"""Models in which no weight reads some channels, to compare narrower ones with."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import onnx

from asr_onnx.graph.channels import Channels
from asr_onnx.graph.constants import Constants
from asr_onnx.graph.model_file import apply
from asr_onnx.graph.records import Patch
from asr_onnx.graph.wiring import Topology


def unread(model: onnx.ModelProto, channels: Channels, gone: Collection[int]) -> onnx.ModelProto:
    """The model with zero for each weight that reads one of the atoms."""
    topology = Topology(model.graph)
    constants = Constants(model, topology)
    values = {}
    for output, ids in channels.inputs.items():
        lost = np.isin(ids, sorted(gone))
        if not lost.any():
            continue
        index = topology.producer[output]
        node = topology.nodes[index]
        weight = np.array(constants.value(node.input[1]))
        axis = int(node.op_type == "Conv")
        if node.op_type == "Gemm":
            axis = int(any(a.name == "transB" and a.i for a in node.attribute))
        wide = weight.shape[axis]
        weight[(slice(None),) * axis + (lost[:wide],)] = 0
        storage = constants.storage(node.input[1], index)
        assert not isinstance(storage, str), storage
        values[storage.name] = storage.pack(weight)
    return apply(model, Patch(values))
