"""Weights behind a DequantizeLinear as float again, so that they can be looked at as any others."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import numpy_helper

from asr_onnx.graph.constants import Constants
from asr_onnx.graph.model_file import fresh
from asr_onnx.graph.operators import OPERATORS
from asr_onnx.graph.qdq import in_float, stored_integers
from asr_onnx.graph.wiring import Topology

_ADDED = "_quantized"  # by ONNX Runtime's quantizer to the name of the weight


def with_float_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with each weight of a product that DequantizeLinear makes of integers as float.

    It is called as it was before ONNX Runtime's quantizer.  A weight that is its zero point is zero
    exactly.  A model without such weights is given back as it is.
    """
    topology = Topology(model.graph)
    stored = stored_integers(model)
    read = (
        n.input[1] for n in topology.nodes if n.op_type in OPERATORS and len(n.input) > 1
    )  # their weights
    made = dict.fromkeys(t for t in read if t in stored)
    if not made:
        return model
    constants = Constants(model, topology)
    taken = {t.name for t in model.graph.initializer} | set(topology.producer)
    weights = {}
    for tensor in made:
        value = constants.value(tensor)
        if value is not None:
            name = fresh(stored[tensor].integers.removesuffix(_ADDED), taken)
            weights[tensor] = numpy_helper.from_array(np.asarray(value), name)
    return in_float(model, weights)
