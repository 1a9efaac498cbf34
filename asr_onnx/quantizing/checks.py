"""What a quantized model has to be, looked up in the model that was made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import numpy_helper

from asr_onnx.errors import ModelError
from asr_onnx.evaluation.match import OutputMatch
from asr_onnx.graph.qdq import DEQUANTIZE, QUANTIZE
from asr_onnx.quantizing.quantized import Quantized


@dataclass(frozen=True)
class InIntegers:
    """What of a model is integers: products, those repaired while they were rounded, activations.

    ``fused``: how its outputs match the dense network's when ONNX Runtime computes in integers on
    this machine, and not as the pairs are written.
    """

    engine: str
    products: int
    repaired: int
    activations: int
    fused: Mapping[str, OutputMatch]


def check_pairs(model: onnx.ModelProto, quantized: Quantized) -> None:
    """Raise ``ModelError`` for a pair that is not where it was promised; that is this tool's fault.

    And for a zero point that is not zero, where the engine refuses it.
    """
    readers: dict[str, list[str]] = {}
    makers: dict[str, onnx.NodeProto] = {}
    for node in model.graph.node:
        makers |= dict.fromkeys(node.output, node)
        for tensor in node.input:
            readers.setdefault(tensor, []).append(node.op_type)
    for tensor in quantized.activations:
        if set(readers.get(tensor, ())) != {QUANTIZE}:
            raise _fault(f"activation '{tensor}' does not go through a pair")
    for output in quantized.products:
        for tensor in makers[output].input[:2]:
            if tensor not in makers or makers[tensor].op_type != DEQUANTIZE:
                raise _fault(f"'{tensor}', which makes '{output}', is not made of integers")
    if quantized.target.activations.symmetric:
        _check_zero_points(model)


def _check_zero_points(model: onnx.ModelProto) -> None:
    stored = {t.name: t for t in model.graph.initializer}
    for node in model.graph.node:
        zero = node.input[2] if node.op_type in (QUANTIZE, DEQUANTIZE) else ""
        if zero and np.any(numpy_helper.to_array(stored[zero])):
            raise _fault(f"'{node.input[0]}' has a zero point that is not zero")


def _fault(what: str) -> ModelError:
    return ModelError(f"{what}: nothing is written; please report this model")
